//! How far samples are from the truth, and whether a posterior is calibrated: pure functions of samples, rows of float32.
//!
//! Every number is the same for any number of threads: what is summed in parallel is summed in one order.

pub mod calibration;
pub mod features;
pub mod frechet;
pub mod psnr;
pub mod residual;
pub mod score;
pub mod sinkhorn;
pub mod sliced;

pub use calibration::Calibration;
pub use frechet::{FeatureMoments, frechet};
pub use psnr::{Restoration, psnr, restoration};
pub use residual::observation_residual;
pub use score::predictive_score;
pub use sinkhorn::{Settings as SinkhornSettings, Transport, sinkhorn_authors, sinkhorn_divergence};
pub use sliced::{PredictiveDistance, sliced_wasserstein, sliced_wasserstein_observations};
