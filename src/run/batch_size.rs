//! How many samples at a time: as many as help, within the memory that is there.

use crate::Result;
use crate::backend::Backend;

/// More samples at a time than this do not make a CPU faster, and an interruption costs a batch.
const LARGEST: usize = 16;
/// Share of the free memory that a run may take.
const SHARE: f64 = 0.5;
/// Free memory where the system does not say it.
const ASSUMED: usize = 4 << 30;

/// A batch size, and the memory that it will take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Prediction {
    /// Samples at a time.
    pub size: usize,
    /// Bytes at the peak, weights included.
    pub bytes: usize,
}

/// The size of the batches in which `missing` samples are computed, all alike as far as possible. `probe` computes one, to see
/// what memory it takes.
///
/// # Errors
/// Those of `probe`.
pub fn automatic<B: Backend>(backend: &B, missing: usize, probe: impl FnOnce() -> Result<()>) -> Result<Prediction> {
    let weights = backend.memory().live;
    probe()?;
    let probed = backend.memory().peak;
    let sample = probed.saturating_sub(weights).max(1); // activations and vectors of one sample
    let budget = (available().unwrap_or(ASSUMED) as f64 * SHARE) as usize;
    let largest = (budget / sample).clamp(1, LARGEST).min(missing.max(1));
    let size = missing.div_ceil(missing.div_ceil(largest).max(1)).max(1);
    Ok(Prediction { size, bytes: probed + if size > 1 { size * sample } else { 0 } })
}

/// Bytes that programs can still get without swapping (Linux).
pub fn available() -> Option<usize> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<usize>().ok().map(|kib| kib << 10)
}
