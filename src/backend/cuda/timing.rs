//! How long work takes on the device, and how fast it is at best.

use super::driver::{Graph, Launch};
use super::{Cuda, CudaTensor};
use crate::Result;
use crate::backend::timed::{BUDGET, Roofline, Stage, Timed, Timing};
use crate::backend::{Backend, Shape};
use std::sync::atomic::Ordering;

/// Seconds that a timed graph takes at least, if it may be long enough: launching it then is a small part of that.
const LAP: f64 = 10e-3;
/// The most kernels of such a graph.
const LONGEST: usize = 4096;

/// How work is repeated.
pub(super) struct Plan {
    /// How often it is queued between two marks.
    pub copies: usize,
    /// Timings.
    pub count: usize,
}

impl Plan {
    /// For work of `launches` kernels that takes about `once` seconds.
    pub fn new(once: f64, launches: usize, repeat: usize) -> Self {
        let once = once.max(1e-7);
        let copies = ((LAP / once) as usize).clamp(1, (LONGEST / launches.max(1)).max(1));
        let count = (BUDGET.as_secs_f64() / (once * copies as f64)).ceil() as usize;
        Self { copies, count: count.max(repeat).max(1) }
    }
}

impl Timed for Cuda {
    fn time(&self, repeat: usize, work: &mut dyn FnMut()) -> Result<Timing> {
        let Recorded { launches, fresh, _numbers } = self.recorded(work)?;
        let laps = |graph: &dyn Graph, count: usize| {
            // SAFETY: the arrays of the launches are in the pool or with the caller; nothing is queued or freed meanwhile.
            let mut seconds = self.driver.laps(count + 1, &mut || unsafe { graph.launch() })?;
            seconds.remove(0); // it brings the graph to the device
            Ok::<_, crate::Error>(seconds)
        };
        let mut graph = self.driver.graph(&launches)?;
        let Plan { copies, count } = Plan::new(laps(&*graph, 1)?[0], launches.len(), repeat);
        if copies > 1 {
            graph = self.driver.graph(&vec![launches; copies].concat())?;
        }
        let seconds = laps(&*graph, count)?;
        Ok(Timing::new(seconds.into_iter().map(|seconds| seconds / copies as f64).collect(), fresh))
    }

    fn roofline(&self) -> Result<Roofline> {
        let properties = self.driver.properties();
        let stage = if properties.wgmma { Stage::Wgmma } else { Stage::Mma };
        let (flops, by) = match self.library_flops() {
            Ok((flops, by)) => (Some(flops), by),
            Err(why) => (None, why.to_string()),
        };
        Ok(Roofline {
            flops,
            by,
            copy: self.copy_bandwidth()?,
            cache: properties.cache,
            stage: (properties.arch == (9, 0) && self.coarse()).then_some(stage),
        })
    }

    fn library(&self) -> Option<Result<String>> {
        Some(self.driver.library())
    }
    fn library_linear(&self, x: &CudaTensor, w: &CudaTensor, c_out: usize) -> Result<(CudaTensor, Timing)> {
        self.product_by_library(x, w, c_out)
    }
}

/// What work queues.
struct Recorded {
    launches: Vec<Launch>,
    /// Arrays that it found no memory for in the pool.
    fresh: usize,
    /// The host's numbers, which the launches point at.
    _numbers: CudaTensor,
}

impl Cuda {
    /// Does `work` once, so that the pool has its memory, and records it.
    fn recorded(&self, work: &mut dyn FnMut()) -> Result<Recorded> {
        let before = self.recorder.words.load(Ordering::Relaxed);
        work();
        self.finish()?;
        let words = self.recorder.words.load(Ordering::Relaxed) - before;
        let numbers = self.alloc(Shape::flat((words + 64).next_multiple_of(4)));
        let fresh = self.memory().fresh;
        self.recorder.begin(&numbers);
        work();
        let (launches, row) = self.recorder.end();
        self.report()?;
        self.driver.upload(numbers.address(), bytemuck::cast_slice(&row))?;
        Ok(Recorded { launches, fresh: self.memory().fresh - fresh, _numbers: numbers })
    }

    /// Bytes per second that our own copy reads and writes, of arrays far larger than the cache.
    fn copy_bandwidth(&self) -> Result<f64> {
        let bytes = 8 * self.driver.properties().cache;
        let [from, to] = [self.scratch(bytes)?, self.scratch(bytes)?];
        let [mut x, mut y] = [&from, &to].map(|scratch| scratch.array(bytes / 4));
        self.fill(&mut x, 1.5);
        let timing = self.time(5, &mut || self.assign(&mut y, &x))?;
        Ok(2.0 * bytes as f64 / timing.fastest)
    }
}
