//! What the project wants to reach on an H100 in bf16, for comparison.

use crate::backend::timed::Stage;
use serde::Serialize;

/// A share of what the device can do at best.
#[derive(Clone, Copy, PartialEq, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Target {
    /// Of the measured matrix peak.
    OfPeak(f64),
    /// Of the measured copy bandwidth.
    OfCopy(f64),
}

impl std::fmt::Display for Target {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::OfPeak(share) => write!(f, "{:.0}% of peak", 100.0 * share),
            Self::OfCopy(share) => write!(f, "{:.0}% of copy", 100.0 * share),
        }
    }
}

/// The target for `call` of `op`: convolutions by the kernels that serve them; norm, solver and sampler by memory.
pub fn target(op: &str, call: &str, stage: Option<Stage>) -> Option<Target> {
    match (op, stage?) {
        ("conv2d", _) if call.contains("params") => None,
        ("conv2d", Stage::Mma) => Some(Target::OfPeak(0.45)),
        ("conv2d", Stage::Wgmma) => Some(Target::OfPeak(0.70)),
        ("channel_norm" | "cg" | "vector", _) => Some(Target::OfCopy(0.85)),
        _ => None,
    }
}

/// Images per second of MMPS(1) with 256 steps on the `cifar` network, at a batch of 256.
pub fn images_per_second(stage: Stage) -> f64 {
    match stage {
        Stage::Mma => 34.0,
        Stage::Wgmma => 50.0,
    }
}
