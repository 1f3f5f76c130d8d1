//! The time of a whole posterior step, and the memory that it takes.

use super::{Unit, targets};
use crate::Result;
use crate::backend::Shape;
use crate::backend::timed::{Roofline, Timed, Timing};
use crate::check::case::{Input, draw, upload};
use crate::diffusion::samplers::Sampler;
use crate::diffusion::table::{Tabulate, Tabulated};
use crate::diffusion::{Estimator, Prior, Schedule};
use crate::nn::Flops;
use crate::operators::{Measurement, PixelMask};
use crate::ops::Ops;
use crate::posterior::solvers::{Krylov, Solver};
use crate::posterior::{Covariance, Mmps};
use serde::Serialize;

/// What is timed: a masked image with 25% of its pixels known, σ_y = 1e-3, in the middle of the reverse process.
#[derive(Clone, Copy, Debug)]
pub struct StepSettings {
    /// (N, H, W, C) of the batch.
    pub image: Shape,
    /// k of MMPS(k): iterations of its solve.
    pub iterations: usize,
    /// Timed repetitions at least.
    pub repeat: usize,
    /// Of the random image, mask and measurement.
    pub seed: u64,
}

/// How long one step of a batch took.
#[derive(Clone, Debug, Serialize)]
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
    /// Images per second of a sampler of [`STEPS`] such steps and the last one at σ_min, by the median.
    pub images_per_second: Option<f64>,
}

/// Images per second that the project wants of MMPS(1) on the `cifar` network, in this precision on this device.
pub fn target(model: &str, iterations: usize, roof: &Roofline) -> Option<f64> {
    let stage = roof.stage.filter(|_| model == "cifar" && iterations == 1)?;
    Some(targets::images_per_second(stage))
}

/// Steps of the sampler whose speed is told.
pub const STEPS: usize = 256;

impl StepRow {
    /// Seconds per image, by the median.
    pub fn seconds_per_image(&self) -> f64 {
        self.seconds / self.batch as f64
    }
    /// Floating point operations per second, by the median.
    pub fn rate(&self) -> Option<f64> {
        self.flops.map(|flops| flops / self.seconds)
    }
    /// The head of a table of [`StepRow::line`]s.
    pub fn head(unit: Unit) -> String {
        let (flops, sampler) = (unit.name(), format!("images/s, {STEPS} steps"));
        format!(
            "{:<14} {:>9} {:>9} {:>12} {:>12} {flops:>8} {:>8} {sampler:>20}",
            "step", "ms", "s/image", "fastest", "GFLOP/image", "of peak"
        )
    }
    /// The row as a line of a table.
    pub fn line(&self, unit: Unit, roof: &Roofline) -> String {
        let (seconds, fastest) = (self.seconds_per_image(), self.fastest / self.batch as f64);
        let known = |value: Option<String>| value.unwrap_or_else(|| "-".to_owned());
        let work = known(self.flops.map(|flops| format!("{:.1}", flops / self.batch as f64 / 1e9)));
        let speed = known(self.rate().map(|rate| format!("{:.0}", rate / unit.scale())));
        let share = self.rate().zip(roof.flops).map(|(rate, peak)| format!("{:.0}%", 100.0 * rate / peak));
        let (of_peak, images) = (known(share), known(self.images_per_second.map(|rate| format!("{rate:.3}"))));
        let (what, ms) = (&self.what, 1e3 * self.seconds);
        format!("{what:<14} {ms:>9.2} {seconds:>9.5} {fastest:>12.5} {work:>12} {speed:>8} {of_peak:>8} {images:>20}")
    }
}

/// Times the denoiser's forward and one MMPS step; `flops` is the network's work for one image.
///
/// # Errors
/// When the device has failed.
pub fn run<B: Ops + Timed, D: Tabulate<B>>(
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
    let plan = Sampler::Ddpm.plan(Schedule::default(), STEPS)?;
    let (sigma, denoiser) = (plan.updates[STEPS / 2].sigma, &Tabulated::new(backend, denoiser, &plan));
    let work = |vjps: usize| flops.map(|f| image.n as f64 * (f.forward + vjps as f64 * f.vjp));

    let time = |estimator: &mut dyn Estimator<B>| {
        let mut failure = Ok(());
        let timing = backend.time(repeat, &mut || {
            if let Err(error) = backend.within(|| estimator.estimate(backend, x_t, &[sigma])) {
                failure = Err(error);
            }
        })?;
        failure.map(|()| timing)
    };
    let Timing { seconds, fastest, fresh } = time(&mut Prior(denoiser))?;
    let (what, batch) = ("forward".to_owned(), image.n);
    row(StepRow { what, batch, seconds, fastest, flops: work(0), fresh, images_per_second: None });

    let solver = Solver { krylov: Krylov::Cg, iterations, rtol: 1e-3 };
    let mut mmps = Mmps::new(backend, denoiser, &measurement, solver, Covariance::Tweedie);
    let Timing { seconds, fastest, fresh } = time(&mut mmps)?;
    let what = format!("mmps({iterations}) step");
    let images_per_second = Some(batch as f64 / (seconds * (STEPS + 1) as f64));
    row(StepRow { what, batch, seconds, fastest, flops: work(iterations), fresh, images_per_second });
    Ok(())
}

/// The most physical memory that this process has had, in bytes, where the system tells.
pub fn peak_resident() -> Option<usize> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let kib = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?.trim().strip_suffix("kB")?;
    Some(kib.trim().parse::<usize>().ok()? << 10)
}
