//! Posterior denoisers, E\[x | x_t, y\]: MMPS with its solvers and covariances, and the methods that it is compared with.

mod counts;
mod covariance;
mod diffpir;
mod dps;
mod linearization;
mod mmps;
mod pgdm;
mod settings;
pub mod solvers;
mod tmpd;

pub use counts::Counts;
pub use covariance::Covariance;
pub use diffpir::Diffpir;
pub use dps::Dps;
pub use mmps::Mmps;
pub use pgdm::pgdm;
pub use settings::{CovarianceKind, Method, Settings};
pub use tmpd::Tmpd;

use crate::Result;
use crate::backend::Backend;
use crate::diffusion::Estimator;

/// A posterior denoiser, and what it has cost.
pub trait Posterior<B: Backend>: Estimator<B> {
    /// VJPs, and solves that converged or broke down, over all calls so far; waits for the device.
    ///
    /// # Errors
    /// When the device has failed.
    fn counts(&self, backend: &B) -> Result<Counts>;
}
