//! How long work takes on the CPU, and how fast it is at best.

use super::{Cpu, peak};
use crate::Result;
use crate::backend::Backend;
use crate::backend::host::Buffer;
use crate::backend::timed::{BUDGET, Roofline, Timed, Timing};
use rayon::prelude::*;
use std::time::Instant;

/// Repetitions that only fill caches and the pool.
const WARM_UP: usize = 2;

impl Timed for Cpu {
    fn time(&self, repeat: usize, work: &mut dyn FnMut()) -> Result<Timing> {
        (0..WARM_UP).for_each(|_| work());
        let fresh = self.memory().fresh;
        let (begin, mut seconds) = (Instant::now(), Vec::new());
        while seconds.len() < repeat.max(1) || begin.elapsed() < BUDGET {
            let start = Instant::now();
            work();
            seconds.push(start.elapsed().as_secs_f64());
        }
        Ok(Timing::new(seconds, self.memory().fresh - fresh))
    }

    fn roofline(&self) -> Result<Roofline> {
        let by = "multiply-adds in registers".to_owned();
        Ok(Roofline { flops: Some(peak::flops(self)), by, copy: copy_bandwidth(self)?, cache: 0, stage: None })
    }
}

/// Bytes of each of two arrays, more than caches hold.
const COPIED: usize = 256 << 20;

/// Bytes per second that all workers read and write together.
fn copy_bandwidth(cpu: &Cpu) -> Result<f64> {
    const PART: usize = 1 << 18;
    let len = COPIED / size_of::<f32>();
    let (x, mut y) = (Buffer::<f32>::zeros(len), Buffer::<f32>::zeros(len));
    let mut copy = || {
        cpu.install(|| y.par_chunks_mut(PART).zip(x.par_chunks(PART)).for_each(|(y, x)| y.copy_from_slice(x)));
    };
    Ok(2.0 * COPIED as f64 / cpu.time(5, &mut copy)?.fastest)
}
