//! The diffusion process: noise schedule, denoisers, samplers.

pub mod denoiser;
pub mod gaussian;
pub mod mixture;
pub mod model;
pub mod propagate;
pub mod samplers;
pub mod schedule;
pub mod table;

pub use denoiser::{Denoiser, Estimator, Prior};
pub use gaussian::Gaussian;
pub use mixture::Mixture;
pub use model::Model;
pub use samplers::{Plan, Sampler};
pub use schedule::Schedule;
pub use table::Tabulated;
