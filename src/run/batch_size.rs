//! How many samples at a time: as many as help, within the memory that is there.

use crate::backend::Backend;
use crate::{Error, Result};

/// A batch size, and the memory that it will take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Prediction {
    /// Samples at a time.
    pub size: usize,
    /// Bytes at the peak, weights included.
    pub bytes: usize,
}

/// The size of the batches in which `missing` samples are computed, all alike as far as possible. The largest array of a sample
/// has `elements`; `probe` computes one sample, to see what memory it takes.
///
/// # Errors
/// Those of `probe`.
pub fn automatic<B: Backend>(
    backend: &B,
    missing: usize,
    elements: usize,
    probe: impl FnOnce() -> Result<()>,
) -> Result<Prediction> {
    let capacity = backend.capacity();
    let need = Need::of(backend, probe)?;
    let most = capacity.samples.min(backend.limits().elements / elements).min(missing).max(1);
    let largest = need.fitting(capacity.bytes).clamp(1, most);
    let size = missing.div_ceil(missing.div_ceil(largest).max(1)).max(1);
    Ok(Prediction { size, bytes: need.bytes(size) })
}

/// Checks that a device takes a batch of `size` samples, and that they fit its own memory where it has one; the rest as for
/// [`automatic`].
///
/// # Errors
/// When it does not fit: what it needs, and what would fit. Those of `probe`.
pub fn check<B: Backend>(backend: &B, size: usize, elements: usize, probe: impl FnOnce() -> Result<()>) -> Result<()> {
    let most = backend.limits().elements / elements;
    if size > most {
        let expected = format!("at most {most}, for arrays of {} elements on this device", backend.limits().elements);
        return Err(Error::mismatch("--batch", expected, size));
    }
    let capacity = backend.capacity();
    if !capacity.own || size == 1 {
        return Ok(());
    }
    let need = Need::of(backend, probe)?;
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
    fn of<B: Backend>(backend: &B, probe: impl FnOnce() -> Result<()>) -> Result<Self> {
        let weights = backend.memory().live;
        probe()?;
        let probed = backend.memory().peak;
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
