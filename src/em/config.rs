//! What `diem fit` reads: one TOML file, whose keys have the names of the command line's options.

mod network;
mod sample;
mod sections;

pub use network::{Network, NetworkKind};
pub use sample::Sample;
pub use sections::{HeldOut, Laps, Metrics, Source};

use super::keys;
use crate::diffusion::Schedule;
use crate::diffusion::samplers::Plan;
use crate::{Error, Result, prior, train};
use serde::{Deserialize, Serialize};
use std::path::Path;

/// A run of expectation maximization. Paths are relative to the working directory.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Key of all random numbers.
    #[serde(default)]
    pub seed: u64,
    /// What the prior is learned from.
    pub observations: Source,
    /// Observations that nothing is learned from.
    #[serde(default)]
    pub heldout: HeldOut,
    /// The denoiser.
    #[serde(default)]
    pub model: Network,
    /// The Gaussian prior that the first draws are of, and the rank of those fitted to the draws of every lap.
    #[serde(default)]
    pub gaussian: prior::Settings,
    /// The M step.
    #[serde(default)]
    pub train: train::Settings,
    /// The E step.
    #[serde(default)]
    pub sample: Sample,
    /// How many laps, and when to stop.
    #[serde(default)]
    pub laps: Laps,
    /// What is measured after every lap.
    #[serde(default)]
    pub metrics: Metrics,
}

impl Config {
    /// Reads a file, and fills in every default.
    ///
    /// # Errors
    /// In one line: an unknown key, with the closest that there is; a value of another type or out of its range; options that do
    /// not go together.
    pub fn read(path: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(path).map_err(|e| Error::io(path, "read", e))?;
        Self::parse(&text, &path.display().to_string())
    }

    /// As [`Config::read`], of a text that is in `place`.
    ///
    /// # Errors
    /// As [`Config::read`].
    pub fn parse(text: &str, place: &str) -> Result<Self> {
        let mut config: Self = toml::from_str(text).map_err(|e| keys::explain(text, place, &e))?;
        config.fill_in().map_err(|e| e.within(place))?;
        Ok(config)
    }

    /// The file with every default.
    pub fn text(&self) -> String {
        toml::to_string(self).expect("numbers, strings and lists")
    }

    fn fill_in(&mut self) -> Result<()> {
        self.model.fill_in().map_err(|e| e.within("[model]"))?;
        self.sample.fill_in().map_err(|e| e.within("[sample]"))?;
        self.laps.fill_in().map_err(|e| e.within("[laps]"))?;
        let largest = i64::MAX as u64; // TOML's integers have a sign
        check("seed", self.seed <= largest, &format!("at most {largest}"), self.seed)?;
        check("observations.count", self.observations.count.is_none_or(|n| n > 0), "at least 1", 0)?;
        let HeldOut { fraction, file, truth } = &self.heldout;
        check("heldout.fraction", (0.0..1.0).contains(fraction), "0 or more and below 1", fraction)?;
        check("heldout.truth", file.is_some() || truth.is_none(), "heldout.file with it", "none")?;
        check("metrics.samples", self.metrics.samples > 1, "at least 2", self.metrics.samples)?;
        check("metrics.projections", self.metrics.projections > 0, "at least 1", 0)?;
        self.plan()?;
        Ok(())
    }

    /// The reverse process.
    ///
    /// # Errors
    /// As [`crate::diffusion::samplers::Sampler::plan`].
    pub fn plan(&self) -> Result<Plan> {
        let schedule = Schedule::new(self.model.sigma_min, self.model.sigma_max).map_err(|e| e.within("[model]"))?;
        self.sample.sampler()?.plan(schedule, self.sample.steps).map_err(|e| e.within("[sample]"))
    }
}

/// Refuses what is not `valid`.
fn check(key: &str, valid: bool, expected: &str, found: impl std::fmt::Display) -> Result<()> {
    if valid { Ok(()) } else { Err(Error::mismatch(key, expected, found)) }
}
