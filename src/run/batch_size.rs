//! How many samples at a time: as many as help, within the memory that is there.

use super::sampling::Sampling;
use crate::ops::Ops;
use crate::{Error, Result};

/// A batch size, and the memory that it will take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Prediction {
    /// Samples at a time.
    pub size: usize,
    /// Bytes at the peak, weights included.
    pub bytes: usize,
}

/// The size of the batches in which `missing` samples are drawn, all alike as far as possible. One step with one sample is
/// tried to see what a sample takes.
///
/// # Errors
/// When the device has failed.
pub fn automatic<B: Ops>(sampling: &Sampling<'_, B>, missing: usize) -> Result<Prediction> {
    let capacity = sampling.backend.capacity();
    let need = Need::of(sampling)?;
    let largest = need.fitting(capacity.bytes).clamp(1, capacity.samples).min(missing.max(1));
    let size = missing.div_ceil(missing.div_ceil(largest).max(1)).max(1);
    Ok(Prediction { size, bytes: need.bytes(size) })
}

/// Checks that a batch of `size` samples fits a device that has its own memory.
///
/// # Errors
/// When it does not fit: what it needs, and what would fit. When the device has failed.
pub fn check<B: Ops>(sampling: &Sampling<'_, B>, size: usize) -> Result<()> {
    let capacity = sampling.backend.capacity();
    if !capacity.own || size == 1 {
        return Ok(());
    }
    let need = Need::of(sampling)?;
    let fitting = need.fitting(capacity.bytes);
    if size <= fitting {
        return Ok(());
    }
    let gib = |bytes: usize| bytes as f64 / (1u64 << 30) as f64;
    let (needed, free) = (gib(size * need.sample), gib(capacity.bytes));
    Err(Error::mismatch(
        "--batch",
        format!("at most {fitting}, for {free:.1} GiB"),
        format!("{size}, which needs {needed:.1} GiB"),
    ))
}

/// What a run takes, as one step with one sample shows.
struct Need {
    probed: usize, // bytes of the weights and of one sample
    sample: usize, // bytes of one sample: activations and vectors
}

impl Need {
    fn of<B: Ops>(sampling: &Sampling<'_, B>) -> Result<Self> {
        let weights = sampling.backend.memory().live;
        sampling.probe()?;
        let probed = sampling.backend.memory().peak;
        Ok(Self { probed, sample: probed.saturating_sub(weights).max(1) })
    }
    fn fitting(&self, bytes: usize) -> usize {
        bytes / self.sample
    }
    /// At the peak of a batch, beside what the probe has left in the pool.
    fn bytes(&self, size: usize) -> usize {
        self.probed + if size > 1 { size * self.sample } else { 0 }
    }
}
