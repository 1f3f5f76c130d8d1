//! The time of a whole posterior step, and the memory that it takes.

use crate::Result;
use crate::backend::Shape;
use crate::check::case::{Input, draw, upload};
use crate::diffusion::{Denoiser, Estimator, Prior};
use crate::nn::Flops;
use crate::operators::{Measurement, PixelMask};
use crate::ops::Ops;
use crate::posterior::solvers::{Krylov, Solver};
use crate::posterior::{Covariance, Mmps};
use std::time::Instant;

/// What is timed: a masked image with 25% of its pixels known, σ_y = 1e-3, σ = 1, the middle of the reverse process.
#[derive(Clone, Copy, Debug)]
pub struct StepSettings {
    /// (N, H, W, C) of the batch.
    pub image: Shape,
    /// k of MMPS(k): iterations of its solve.
    pub iterations: usize,
    /// Timed repetitions, after two that are not.
    pub repeat: usize,
    /// Of the random image, mask and measurement.
    pub seed: u64,
}

/// How long one step of a batch took.
#[derive(Clone, Debug)]
pub struct StepRow {
    /// "forward", or "mmps(1) step".
    pub what: String,
    /// Samples of the batch.
    pub batch: usize,
    /// Seconds, the median of the repetitions.
    pub seconds: f64,
    /// Seconds, the fastest.
    pub fastest: f64,
    /// Floating point operations of the network for the batch, convolutions in their direct form, where they are known.
    pub flops: Option<f64>,
    /// Arrays that the timed repetitions found no memory for in the pool: none is wanted.
    pub fresh: usize,
}

impl StepRow {
    /// Seconds per image, by the median.
    pub fn seconds_per_image(&self) -> f64 {
        self.seconds / self.batch as f64
    }
    /// 10⁹ floating point operations per second, by the median.
    pub fn gflops(&self) -> Option<f64> {
        self.flops.map(|flops| flops / self.seconds / 1e9)
    }
    /// The head of a table of [`StepRow::line`]s.
    pub fn head() -> String {
        format!(
            "{:<14} {:>9} {:>12} {:>12} {:>8} {:>8}",
            "step", "s/image", "fastest", "GFLOP/image", "GFLOP/s", "of peak"
        )
    }
    /// The row as a line of a table; `peak` is the device's, in operations per second.
    pub fn line(&self, peak: f64) -> String {
        let (seconds, fastest) = (self.seconds_per_image(), self.fastest / self.batch as f64);
        let known = |value: Option<String>| value.unwrap_or_else(|| "-".to_owned());
        let work = known(self.flops.map(|flops| format!("{:.1}", flops / self.batch as f64 / 1e9)));
        let speed = known(self.gflops().map(|gflops| format!("{gflops:.0}")));
        let of_peak = known(self.gflops().map(|gflops| format!("{:.0}%", 100.0 * gflops * 1e9 / peak)));
        format!("{:<14} {seconds:>9.5} {fastest:>12.5} {work:>12} {speed:>8} {of_peak:>8}", self.what)
    }
}

/// Times the denoiser's forward and one MMPS step; `flops` is the network's work for one image.
///
/// # Errors
/// When the device has failed.
pub fn run<B: Ops, D: Denoiser<B>>(
    backend: &B,
    denoiser: &D,
    flops: Option<Flops>,
    settings: StepSettings,
    mut row: impl FnMut(StepRow),
) -> Result<()> {
    let StepSettings { image, iterations, repeat, seed } = settings;
    let inputs = [Input::normal("x_t", image), Input::normal("y", image), Input::mask("mask", image.with_c(1), 0.25)];
    let [x_t, y, mask] = &upload(backend, &inputs, &draw(&inputs, seed))[..] else { unreachable!("three inputs") };
    let measurement = Measurement::new(backend, y, &[1e-3], Box::new(PixelMask::new(backend.copy(mask), image)?))?;
    let work = |vjps: usize| flops.map(|f| image.n as f64 * (f.forward + vjps as f64 * f.vjp));

    let mut time = |what: String, flops, estimator: &mut dyn Estimator<B>| -> Result<()> {
        let mut seconds = Vec::with_capacity(repeat + WARM_UP);
        let mut fresh = 0;
        for i in 0..repeat.max(1) + WARM_UP {
            if i == WARM_UP {
                fresh = backend.memory().fresh;
            }
            let start = Instant::now();
            backend.within(|| estimator.estimate(backend, x_t, &[1.0]))?;
            backend.finish()?;
            seconds.push(start.elapsed().as_secs_f64());
        }
        let timed = &mut seconds[WARM_UP..];
        timed.sort_by(f64::total_cmp);
        let (seconds, fastest) = (timed[timed.len() / 2], timed[0]);
        let fresh = backend.memory().fresh - fresh;
        row(StepRow { what, batch: image.n, seconds, fastest, flops, fresh });
        Ok(())
    };
    time("forward".to_owned(), work(0), &mut Prior(denoiser))?;
    let solver = Solver { krylov: Krylov::Cg, iterations, rtol: 1e-3 };
    let mut mmps = Mmps::new(backend, denoiser, &measurement, solver, Covariance::Tweedie);
    time(format!("mmps({iterations}) step"), work(iterations), &mut mmps)
}

/// Repetitions that only fill caches and the pool.
const WARM_UP: usize = 2;

/// The most physical memory that this process has had, in bytes, where the system tells.
pub fn peak_resident() -> Option<usize> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let kib = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?.trim().strip_suffix("kB")?;
    Some(kib.trim().parse::<usize>().ok()? << 10)
}
