//! How many samples at a time: as many as help, within the memory that is there.

use crate::backend::{Backend, MemoryStats};
use crate::{Error, Result};

/// A batch size, and the memory that it will take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Prediction {
    /// Samples at a time.
    pub size: usize,
    /// Bytes at the peak, weights included.
    pub bytes: usize,
    /// Bytes that each sample adds.
    pub sample: usize,
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
    Ok(need.prediction(size))
}

/// Checks that a device takes a batch of `size` samples, and that they fit its own memory where it has one; the rest as for
/// [`automatic`]. Nothing is predicted for one sample, and for a device without its own memory.
///
/// # Errors
/// When it does not fit: what it needs, and what would fit. Those of `probe`.
pub fn check<B: Backend>(
    backend: &B,
    size: usize,
    elements: usize,
    probe: impl FnOnce() -> Result<()>,
) -> Result<Option<Prediction>> {
    let most = backend.limits().elements / elements;
    if size > most {
        let expected = format!("at most {most}, for arrays of {} elements on this device", backend.limits().elements);
        return Err(Error::mismatch("--batch", expected, size));
    }
    let capacity = backend.capacity();
    if !capacity.own || size == 1 {
        return Ok(None);
    }
    let need = Need::of(backend, probe)?;
    let fitting = need.fitting(capacity.bytes);
    if size <= fitting {
        return Ok(Some(need.prediction(size)));
    }
    let (needed, free) = (memory(size * need.sample), memory(capacity.bytes));
    Err(Error::mismatch("--batch", format!("at most {fitting}, for {free}"), format!("{size}, which needs {needed}")))
}

/// The error of a run; where memory has run out, also what was predicted, and what would fit now.
pub fn explain<B: Backend>(backend: &B, predicted: Option<Prediction>, error: Error) -> Error {
    let Error::OutOfMemory(what) = error else { return error };
    let MemoryStats { live, held, peak, .. } = backend.memory();
    let free = backend.capacity().bytes + (held - live);
    Error::OutOfMemory(match predicted {
        Some(Prediction { size, bytes, sample }) if size > 1 && sample <= free => {
            let fitting = (free / sample).min(size - 1);
            format!("{what}; {size} samples at a time need {}, --batch {fitting} would fit", memory(bytes))
        }
        _ => format!("{what}; the model with one sample needs more than {}", memory(peak)),
    })
}

/// Bytes for people.
fn memory(bytes: usize) -> String {
    let (unit, shift) = if bytes >= 1 << 30 { ("GiB", 30) } else { ("MiB", 20) };
    format!("{:.1} {unit}", bytes as f64 / f64::from(1u32 << shift))
}

/// What a run takes, as one step with one sample shows.
struct Need {
    probed: usize, // bytes of the weights and of one sample
    sample: usize, // bytes of one sample: activations and vectors
}

impl Need {
    fn of<B: Backend>(backend: &B, probe: impl FnOnce() -> Result<()>) -> Result<Self> {
        let weights = backend.memory().live;
        probe().map_err(|error| explain(backend, None, error))?;
        let probed = backend.memory().peak;
        Ok(Self { probed, sample: probed.saturating_sub(weights).max(1) })
    }
    fn fitting(&self, bytes: usize) -> usize {
        bytes / self.sample
    }
    /// At the peak of a batch, beside what the probe has left in the pool.
    fn prediction(&self, size: usize) -> Prediction {
        let more = if size > 1 { size * self.sample } else { 0 };
        Prediction { size, bytes: self.probed + more, sample: self.sample }
    }
}
