//! Sums over the batches of a run.

use super::folder::{Batch, Failure};
use serde::{Deserialize, Serialize};

/// Sums over all batches, those of earlier processes too.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Summary {
    /// Samples drawn.
    pub samples: usize,
    /// Wall-clock time.
    pub seconds: f64,
    /// Solves that ended in a breakdown.
    pub breakdowns: u64,
    /// Samples that are not finite.
    pub failures: Vec<Failure>,
}

impl Summary {
    /// The sums.
    pub fn of(batches: &[Batch]) -> Self {
        Self {
            samples: batches.iter().map(|b| b.samples).sum(),
            seconds: batches.iter().map(|b| b.seconds).sum(),
            breakdowns: batches.iter().map(|b| b.breakdowns).sum(),
            failures: batches.iter().flat_map(|b| b.failures.iter().cloned()).collect(),
        }
    }
    /// Samples per second.
    pub fn rate(&self) -> f64 {
        self.samples as f64 / self.seconds
    }
}
