//! `[observations]`, `[heldout]`, `[laps]` and `[metrics]`.

use super::check;
use crate::Result;
use crate::data::OperatorKind;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// `[observations]`.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Source {
    /// The observation file.
    pub file: PathBuf,
    /// What was measured.
    pub operator: OperatorKind,
    /// At most so many, from the first; all where it is not given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub count: Option<usize>,
}

/// `[heldout]`.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct HeldOut {
    /// Share of the observations, the last ones, that is held out where there is no `file`.
    pub fraction: f64,
    /// A second observation file.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub file: Option<PathBuf>,
    /// The images that `file` was observed of, in its order, for the PSNR.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub truth: Option<PathBuf>,
}

impl Default for HeldOut {
    fn default() -> Self {
        Self { fraction: 1.0 / 16.0, file: None, truth: None }
    }
}

/// `[laps]`.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Laps {
    /// Laps: an M step and an E step each. A finished run goes on with more; with 0 only what the laps would begin with is measured.
    pub count: usize,
    /// Training steps per lap.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub steps: Option<usize>,
    /// Passes over the draws per lap, instead of `steps`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub epochs: Option<usize>,
    /// Lines of the M step's losses per lap, at most one per epoch.
    pub lines: usize,
    /// Stop when more than this share of a lap's draws is not finite or out of bounds.
    pub max_dropped: f64,
    /// Stop when more than this share of a lap's solves breaks down.
    pub max_breakdowns: f64,
    /// Stop when the median of a batch's losses stays above this: that of a network that gives 0 is about 1.
    pub max_loss: f64,
    /// Of how many laps the samples stay on disk, from the last; all where it is not given. Others can be drawn again.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub keep: Option<usize>,
    /// Seconds of training that an interruption may cost.
    pub save_seconds: f64,
}

impl Default for Laps {
    fn default() -> Self {
        Self {
            count: 16,
            steps: None,
            epochs: None,
            lines: 64,
            max_dropped: 0.1,
            max_breakdowns: 0.5,
            max_loss: 100.0,
            keep: None,
            save_seconds: 60.0,
        }
    }
}

impl Laps {
    /// The default length of a lap; refuses what makes no sense.
    pub(super) fn fill_in(&mut self) -> Result<()> {
        if self.steps.is_none() && self.epochs.is_none() {
            self.epochs = Some(64);
        }
        check("steps", self.steps.is_none() || self.epochs.is_none(), "steps or epochs", "both")?;
        check("steps", self.steps != Some(0), "at least 1", 0)?;
        check("epochs", self.epochs != Some(0), "at least 1", 0)?;
        check("count", (0..1 << 12).contains(&self.count), "0 to 4095", self.count)?;
        check("lines", self.lines > 0, "at least 1", 0)?;
        check("keep", self.keep != Some(0), "at least 1", 0)?;
        let shares = [("max_dropped", self.max_dropped), ("max_breakdowns", self.max_breakdowns)];
        shares.into_iter().try_for_each(|(key, x)| check(key, (0.0..=1.0).contains(&x), "0 to 1", x))?;
        check("max_loss", self.max_loss > 0.0, "a number above 0", self.max_loss)?;
        check("save_seconds", self.save_seconds >= 0.0, "0 or more", self.save_seconds)
    }
}

/// `[metrics]`.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Metrics {
    /// Samples of the prior after every lap, at least: two for each held-out observation are drawn anyway.
    pub samples: usize,
    /// Projections of the sliced Wasserstein distance.
    pub projections: usize,
    /// Images or vectors as they truly are, to compare the prior with. Where they are as many as the observations in their file,
    /// and in that order, those of the held-out ones give the PSNR.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub truth: Option<PathBuf>,
}

impl Default for Metrics {
    fn default() -> Self {
        Self { samples: 256, projections: 256, truth: None }
    }
}
