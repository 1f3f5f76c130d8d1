//! The draws of a lap, as the next one learns from them.

use super::Problem;
use crate::Result;
use crate::prior::Rows;
use crate::train::Data;
use std::path::Path;

/// Draws of a lap, without those that are dropped.
pub struct Draws {
    /// Of the observations that are learned from.
    pub training: Data,
    /// Of those that are held out.
    pub heldout: Data,
    /// How many were left out.
    pub dropped: Dropped,
}

/// How many draws are no samples of anything.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Dropped {
    /// Draws with an element that is not finite.
    pub nonfinite: usize,
    /// Draws with an element out of bounds.
    pub unbounded: usize,
}

impl Draws {
    /// Opens a file with `draws` draws of each observation of `problem`, and drops what is not finite, or has an element of
    /// `bound` or more.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn open(path: &Path, problem: &Problem, draws: usize, bound: Option<f64>) -> Result<Self> {
        let mut training = Data::open(path)?;
        let mut heldout = training.split_off(problem.heldout() * draws);
        let nonfinite = training.retain(finite) + heldout.retain(finite);
        let within = |x: &[f32]| bounded(x, bound);
        let unbounded = training.retain(within) + heldout.retain(within);
        Ok(Self { training, heldout, dropped: Dropped { nonfinite, unbounded } })
    }
}

/// Whether every element is finite.
pub(super) fn finite(x: &[f32]) -> bool {
    x.iter().all(|x| x.is_finite())
}

/// Whether every |x_i| is below `bound`, where there is one.
pub(super) fn bounded(x: &[f32], bound: Option<f64>) -> bool {
    bound.is_none_or(|bound| x.iter().all(|x| f64::from(x.abs()) < bound))
}

impl Dropped {
    /// Both.
    pub fn total(self) -> usize {
        self.nonfinite + self.unbounded
    }
}

impl Rows for &Data {
    fn count(&self) -> usize {
        self.len()
    }
    fn width(&self) -> usize {
        self.image().row()
    }
    fn read(&mut self, first: usize, x: &mut [f32]) -> Result<()> {
        let rows = x.chunks_exact_mut(self.image().row()).enumerate();
        rows.for_each(|(i, x)| x.copy_from_slice(self.row(first + i)));
        Ok(())
    }
}
