//! Who is told how a run goes.

use crate::Result;

/// What takes long in a lap.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Task {
    /// Iterations of the Gaussian prior's fit.
    Gaussian,
    /// Steps of training.
    Train,
    /// Draws of the posterior.
    Sample,
    /// Samples of the prior.
    Prior,
}

/// Is told how a run goes.
pub trait Watch {
    /// A task of `total` parts begins, of which `done` were done before.
    fn begin(&mut self, lap: usize, task: Task, total: usize, done: usize);
    /// So many parts are done, with the finished share of those under way.
    fn update(&mut self, done: f64);
    /// The task has ended.
    fn end(&mut self);
    /// A line for the user.
    ///
    /// # Errors
    /// When it cannot be written.
    fn say(&mut self, line: &str) -> Result<()>;
}
