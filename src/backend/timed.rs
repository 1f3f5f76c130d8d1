//! What a benchmark asks of a device: how long work takes on it, and how fast it is at best.

use super::Backend;
use crate::{Error, Result};
use std::time::Duration;

/// How long repeated work is timed at least.
pub(crate) const BUDGET: Duration = Duration::from_millis(100);

/// How long work took.
#[derive(Clone, Copy, Debug)]
pub struct Timing {
    /// Seconds, the median of the repetitions.
    pub seconds: f64,
    /// Seconds, the fastest: timings of other processes' work are many and short, it has the least of it.
    pub fastest: f64,
    /// Arrays that the timed repetitions found no memory for in the pool.
    pub fresh: usize,
}

impl Timing {
    /// Of repetitions that took these seconds each.
    pub(crate) fn new(mut seconds: Vec<f64>, fresh: usize) -> Self {
        seconds.sort_by(f64::total_cmp);
        Self { seconds: seconds[seconds.len() / 2], fastest: seconds[0], fresh }
    }
}

/// How fast a device is at best, as it has just been measured.
#[derive(Clone, Debug)]
pub struct Roofline {
    /// Floating point operations per second of products, where something could measure them.
    pub flops: Option<f64>,
    /// What measured them, or why nothing could.
    pub by: String,
    /// Bytes per second that a copy of large arrays reads and writes.
    pub copy: f64,
    /// Bytes of the cache that small arrays are found in from one repetition to the next; 0 where it is not known.
    pub cache: usize,
    /// Which convolution the project's targets are for; they are for bf16 on compute capability 9.0.
    pub stage: Option<Stage>,
}

/// Which kernels serve convolutions in bf16 on compute capability 9.0.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Stage {
    /// Stage 1, mma.sync.
    Mma,
    /// Stage 2, wgmma.
    Wgmma,
}

/// A device that can be timed.
pub trait Timed: Backend {
    /// Times `work`, which must do the same each time: at least `repeat` times, for some 100 ms at least, after repetitions
    /// that only fill caches and the pool. A device that records replays what it has recorded, so that the host's part in
    /// queueing does not count.
    ///
    /// # Errors
    /// When the device has failed.
    fn time(&self, repeat: usize, work: &mut dyn FnMut()) -> Result<Timing>;
    /// Measures what the device can do at best.
    ///
    /// # Errors
    /// When the device has failed.
    fn roofline(&self) -> Result<Roofline>;

    /// The vendor's library of matrix products, or why it is not there; `None` where none is compared with.
    fn library(&self) -> Option<Result<String>> {
        None
    }
    /// y\[.., o\] = Σ_c w\[o, c\] x\[.., c\] by that library, and how long it takes: `x` (N, H, W, C), `w` flat (c_out, C), like
    /// `x` an activation.
    ///
    /// # Errors
    /// Where there is no library, or it has failed.
    fn library_linear(&self, _x: &Self::Tensor, _w: &Self::Tensor, _c_out: usize) -> Result<(Self::Tensor, Timing)> {
        Err(Error::Unsupported(format!("{} has no library of matrix products", self.name())))
    }
}
