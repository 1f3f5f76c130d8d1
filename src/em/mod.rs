//! Expectation maximization: from corrupted observations alone to a diffusion prior.
//!
//! π_0 are draws of the posterior of every observation under a Gaussian prior, itself fitted by EM. Then every lap k
//!
//! - M step: fits μ_x, Σ_x to π_{k-1} by PPCA, and trains the denoiser on π_{k-1}, from the moving average of the lap before;
//! - E step: draws π_k, the posterior of every observation under the moving average, by moment matching posterior sampling;
//! - measures what can be known without the truth, and with it where there is one.
//!
//! A lap is a function of the [`directory`] that the lap before has left, and of the configuration: so a killed run goes on to
//! the same bits, and samples that are not there any more are drawn again.
//!
//! # Reference
//! Rozet, Andry, Lanusse and Louppe, *Learning Diffusion Priors from Observations by Expectation Maximization*, NeurIPS 2024.

pub mod config;
pub mod directory;
pub mod disk;
mod draws;
mod e_step;
pub mod keys;
mod m_step;
mod measure;
mod preview;
pub mod problem;
mod run;
pub mod state;
pub mod unobserved;
pub mod watch;

pub use config::Config;
pub use directory::Directory;
pub use draws::{Draws, Dropped};
pub use problem::Problem;
pub use run::{Run, Start};
pub use state::State;
pub use watch::{Task, Watch};
