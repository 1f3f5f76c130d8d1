//! The diffusion process: noise schedule, denoisers, samplers.

pub mod denoiser;
pub mod gaussian;
pub mod samplers;
pub mod schedule;

pub use denoiser::{Denoiser, Estimator, Prior};
