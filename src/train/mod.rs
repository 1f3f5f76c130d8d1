//! Training a denoiser by denoising score matching.
//!
//! A step draws a batch of samples x, noise levels σ_t with t ~ Beta(3, 3), and z ~ N(0, I); the loss is the mean over
//! samples and elements of (1/σ² + 1) (d(x + σ z, σ) - x)². Its gradient is clipped by its global norm and goes to Adam, and
//! an exponential moving average of the weights follows: it is the model.
//!
//! Whatever is random is a function of the seed, the lap of EM, the epoch and the sample's number, never of time or of a
//! generator's state. So a run that was killed goes on bit by bit, from weights, moments and the number of steps alone.

pub mod augmentation;
pub mod data;
mod diagnosis;
pub mod draws;
mod learner;
pub mod schedule;
pub mod settings;
mod state;
mod trainer;

pub use augmentation::Augmentation;
pub use data::Data;
pub use schedule::Schedule;
pub use settings::Settings;
pub use trainer::{EpochMeans, Initial, StepReport, Trainer};
