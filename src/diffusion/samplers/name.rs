//! Samplers by their names, on the command line and in configurations.

use super::Sampler;
use crate::{Error, Result};
use clap::ValueEnum;
use serde::{Deserialize, Serialize};

/// `--sampler`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SamplerName {
    /// DDPM, stochastic
    Ddpm,
    /// DDIM, deterministic unless --eta is above 0
    Ddim,
    /// DDIM with Langevin corrections
    Pc,
    /// DPM-Solver++ (2M), deterministic
    #[value(name = "2m")]
    #[serde(rename = "2m")]
    TwoM,
    /// SDE-DPM-Solver++ (2M), stochastic
    #[value(name = "2m-sde")]
    #[serde(rename = "2m-sde")]
    TwoMSde,
}

impl SamplerName {
    /// The sampler with its own options, or their defaults.
    ///
    /// # Errors
    /// When an option is for another sampler.
    pub fn with(self, eta: Option<f64>, corrections: Option<usize>, delta: Option<f64>) -> Result<Sampler> {
        let sampler = match self {
            Self::Ddpm => Sampler::Ddpm,
            Self::Ddim => Sampler::Ddim { eta: eta.unwrap_or(0.0) },
            Self::Pc => Sampler::Pc { corrections: corrections.unwrap_or(1), delta: delta.unwrap_or(0.1) },
            Self::TwoM => Sampler::TwoM,
            Self::TwoMSde => Sampler::TwoMSde,
        };
        let misplaced = |option: &str, of| Err(Error::mismatch(option, of, format!("--sampler {}", sampler.name())));
        match sampler {
            Sampler::Ddim { .. } => {}
            _ if eta.is_some() => return misplaced("--eta", "--sampler ddim"),
            _ => {}
        }
        match sampler {
            Sampler::Pc { .. } => {}
            _ if corrections.is_some() => return misplaced("--corrections", "--sampler pc"),
            _ if delta.is_some() => return misplaced("--delta", "--sampler pc"),
            _ => {}
        }
        Ok(sampler)
    }
}
