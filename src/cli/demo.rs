//! `diem demo`: real images with three quarters of their pixels deleted, restored in a minute, without arguments.

use super::device::{About, Job};
use super::harmonic;
use super::options::{DeviceOptions, count};
use super::progress::{Progress, duration};
use super::{Outcome, say};
use crate::backend::Shape;
use crate::data::picture::{self, Tile};
use crate::data::{Array, Checkpoint, Measured, Observations, Samples, atomic, corruption, images, npy};
use crate::diffusion::samplers::Sampler;
use crate::diffusion::{Model, Schedule, Tabulated};
use crate::metrics::psnr;
use crate::ops::Ops;
use crate::ops::noise::{Purpose, Stream};
use crate::posterior::Settings;
use crate::run::moments::Moments;
use crate::run::{PosteriorOf, Sampling};
use crate::{Error, Result};
use serde_json::json;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Instant;

/// Options of `diem demo`.
#[derive(clap::Args, Debug)]
pub struct Args {
    /// Folder for the results; those of an earlier demo are replaced
    #[arg(long, value_name = "DIR", default_value = "diem-demo")]
    out: PathBuf,
    /// Images to restore, at most 32
    #[arg(long, value_name = "N", default_value_t = 16, value_parser = image_count)]
    images: usize,
    /// Posterior samples of each image
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = count)]
    draws: usize,
    /// Seed of deletions, noise and samples
    #[arg(long, default_value_t = 0)]
    seed: u64,
    #[command(flatten)]
    device: DeviceOptions,
}

fn image_count(text: &str) -> std::result::Result<usize, String> {
    count(text).ok().filter(|&n| n <= 32).ok_or_else(|| "a whole number from 1 to 32".to_owned())
}

/// The first test images of Fashion-MNIST (assets/README.md).
const IMAGES: &[u8] = include_bytes!("../../assets/fashion-test.npy");
/// A U-Net learned from training images of which 75% of the pixels are deleted (assets/README.md).
const MODEL: &[u8] = include_bytes!("../../assets/fashion-75.safetensors");

/// Share of the pixels that are kept.
const KEEP: f64 = 0.25;
/// σ_y.
const NOISE: f64 = 1e-3;
/// Of 2M-SDE.
const STEPS: usize = 32;
/// Of CG.
const ITERATIONS: usize = 2;
/// What marks a folder as a demo's.
const MARK: &str = "demo.json";
/// Samples per image in the picture.
const SHOWN: usize = 4;

impl Args {
    /// Deletes pixels, draws posterior samples, compares, and writes the picture.
    ///
    /// # Errors
    /// In one line: a device that is not there or has failed, a folder that is not a demo's or cannot be written.
    pub fn run(&self, out: &mut dyn Write) -> Result<Outcome> {
        self.device.run(Demo { args: self, out })
    }

    fn run_on<B: Ops>(&self, backend: &B, device: &About, out: &mut dyn Write) -> Result<Outcome> {
        self.claim()?;
        let path = |name: &str| self.out.join(name);
        atomic::write_bytes(&path("model.safetensors"), MODEL)?;
        atomic::write_bytes(&path("truth.npy"), IMAGES)?;
        let truth = images::read(&path("truth.npy"), images::Selection { count: Some(self.images), size: None })?;
        let image = truth.shape.with_n(1);
        let mask = corruption::random_mask(truth.shape, KEEP, self.seed);
        let observations =
            corruption::observe(&path("observations.npz"), &truth, Measured::Mask(mask.clone()), NOISE, self.seed)?;
        observations.write()?;
        let checkpoint = Checkpoint::open(&path("model.safetensors"))?;
        let model = Model::load(backend, &checkpoint, image, true)?;
        say(out, format_args!("device: {}", device.description))?;
        say(
            out,
            "model: a small U-Net that diem fit learned from 4,096 other images with 75% of their pixels deleted",
        )?;
        say(out, format_args!("{} test images, {:.0}% of the pixels deleted", self.images, 100.0 * (1.0 - KEEP)))?;

        let metadata = model.metadata();
        let plan = Sampler::TwoMSde.plan(Schedule::new(metadata.sigma_min, metadata.sigma_max)?, STEPS)?;
        let settings = Settings { iterations: ITERATIONS, ..Settings::default() };
        let posterior = PosteriorOf { observations: &observations, draws: self.draws, settings, prior: None };
        let stream = Stream::new(self.seed, Purpose::Start);
        let model = Tabulated::new(backend, &model, &plan);
        let posterior = Some(posterior);
        let sampling = Sampling { backend, model: &model, plan: &plan, stream, image, posterior, operator: None };
        let start = Instant::now();
        let (samples, breakdowns) = self.draw(&sampling)?;
        let time = start.elapsed();
        let rate = samples.shape.n as f64 / time.as_secs_f64();
        let settings = format!("MMPS, CG {ITERATIONS}, 2M-SDE, {STEPS} steps");
        say(out, format_args!("{} samples in {}, {rate:.2} images/s ({settings})", samples.shape.n, duration(time)))?;
        say(out, format_args!("{breakdowns} of {} solves ended in a breakdown", samples.shape.n * plan.calls()))?;

        let restored = Restored::new(&truth, &observations, &mask, &samples, self.draws);
        restored.tell(out)?;
        npy_write(&path("samples.npy"), &samples)?;
        npy_write(&path("mean.npy"), &restored.mean)?;
        npy_write(&path("std.npy"), &restored.std)?;
        restored.draw(&path("demo.png"))?;
        let [posterior, interpolation] = restored.psnr();
        let report = json!({
            "command": "demo", "images": self.images, "draws": self.draws, "seed": self.seed, "images_per_second": rate,
            "psnr_posterior_mean": posterior, "psnr_interpolation": interpolation, "coverage": restored.coverage(),
            "coverage_if_calibrated": restored.calibrated(), "breakdowns": breakdowns,
        });
        atomic::write(&path(MARK), |w| writeln!(w, "{report:#}"))?;
        say(out, format_args!("picture: {}", path("demo.png").display()))?;
        let failed = samples.data.chunks(image.row()).any(|x| !x.iter().all(|x| x.is_finite()));
        Ok(if failed { Outcome::NonFinite } else { Outcome::Done })
    }

    /// Takes a folder that is new, empty, or an earlier demo's.
    fn claim(&self) -> Result<()> {
        let occupied = std::fs::read_dir(&self.out).is_ok_and(|mut entries| entries.next().is_some());
        if occupied && !self.out.join(MARK).exists() {
            let place = format!("--out {}", self.out.display());
            return Err(Error::mismatch(place, "a new or empty folder, or one of an earlier demo", "another"));
        }
        std::fs::create_dir_all(&self.out).map_err(|e| Error::io(&self.out, "create", e))?;
        atomic::write(&self.out.join(MARK), |w| writeln!(w, "{}", json!({"command": "demo"})))
    }

    /// All samples, a few at a time, and the number of solves that broke down.
    fn draw<B: Ops>(&self, sampling: &Sampling<'_, B>) -> Result<(Samples<f32>, u64)> {
        let (total, batch) = (self.images * self.draws, sampling.backend.capacity().samples);
        let mut progress = Progress::new(total, 0);
        let (mut x, mut breakdowns) = (Vec::new(), 0);
        for first in (0..total).step_by(batch) {
            let range = first..(first + batch).min(total);
            let len = range.len() as f64;
            let drawn = sampling.draw(range, &mut |share| progress.update(first as f64 + len * share))?;
            x.extend(drawn.x);
            breakdowns += drawn.batch.breakdowns;
        }
        progress.finish();
        Ok((Samples::new(sampling.image.with_n(total), x), breakdowns))
    }
}

struct Demo<'a> {
    args: &'a Args,
    out: &'a mut dyn Write,
}

impl Job for Demo<'_> {
    fn run<B: Ops>(self, backend: &B, device: &About) -> Result<Outcome> {
        self.args.run_on(backend, device, self.out)
    }
}

fn npy_write(path: &Path, x: &Samples<f32>) -> Result<()> {
    let Shape { n, h, w, c } = x.shape;
    npy::write(path, &Array::f32(&[n, h, w, c], x.data.clone()))
}

/// The truth, what was seen of it, and what was made of that.
struct Restored<'a> {
    truth: &'a Samples<f32>,
    observations: &'a Observations,
    mask: &'a Samples<u8>,
    samples: &'a Samples<f32>,
    draws: usize,
    interpolated: Samples<f32>,
    mean: Samples<f32>,
    std: Samples<f32>,
}

impl<'a> Restored<'a> {
    fn new(
        truth: &'a Samples<f32>,
        observations: &'a Observations,
        mask: &'a Samples<u8>,
        samples: &'a Samples<f32>,
        draws: usize,
    ) -> Self {
        let shape = truth.shape;
        let each = |f: &dyn Fn(usize) -> Vec<f32>| Samples::new(shape, (0..shape.n).flat_map(f).collect());
        let moments: Vec<Moments> = (0..shape.n)
            .map(|i| {
                let mut moments = Moments::new(shape.row());
                (0..draws).for_each(|k| moments.add(samples.row(i * draws + k)));
                moments
            })
            .collect();
        let interpolated = each(&|i| harmonic::interpolate(shape, observations.y().row(i), mask.row(i)));
        let mean = each(&|i| moments[i].mean().map(|m| m as f32).collect());
        let std = each(&|i| moments[i].std().map(|s| s as f32).collect());
        Self { truth, observations, mask, samples, draws, interpolated, mean, std }
    }

    /// Mean PSNR over the images, in dB, of the posterior mean and of the interpolation.
    fn psnr(&self) -> [f64; 2] {
        [&self.mean, &self.interpolated].map(|restored| {
            let n = self.truth.shape.n;
            (0..n).map(|i| psnr(restored.row(i), self.truth.row(i))).sum::<f64>() / n as f64
        })
    }

    /// Share of the deleted pixels whose truth lies within the range of the draws, (K - 1)/(K + 1) for K calibrated draws. Two
    /// thirds of the pixels are black in the truth, where the draws scatter by less than a gray level around black; so both are
    /// compared as the bytes that the images are made of, and of equal bytes either may be the larger.
    fn coverage(&self) -> f64 {
        let Shape { n, c, .. } = self.truth.shape;
        let (mut inside, mut count) = (0.0, 0);
        for i in 0..n {
            for e in (0..self.truth.shape.row()).filter(|e| self.mask.row(i)[e / c] == 0) {
                let truth = images::to_byte(self.truth.row(i)[e]);
                let draws = (0..self.draws).map(|k| images::to_byte(self.samples.row(i * self.draws + k)[e]));
                let (below, equal) = draws.fold((0, 0), |(below, equal), x| {
                    (below + usize::from(x < truth), equal + usize::from(x == truth))
                });
                // the truth's rank among the draws is any of below ..= below + equal, each as likely
                let ranks = (below.max(1)..self.draws.min(below + equal + 1)).len();
                inside += ranks as f64 / (equal + 1) as f64;
                count += 1;
            }
        }
        inside / f64::from(count)
    }
    /// What [`Restored::coverage`] is for calibrated draws.
    fn calibrated(&self) -> f64 {
        (self.draws as f64 - 1.0) / (self.draws as f64 + 1.0)
    }

    fn tell(&self, out: &mut dyn Write) -> Result<()> {
        let [posterior, interpolation] = self.psnr();
        say(out, format_args!("PSNR of the posterior mean      {posterior:.2} dB"))?;
        say(out, format_args!("PSNR of harmonic interpolation  {interpolation:.2} dB"))?;
        let [covered, calibrated] = [self.coverage(), self.calibrated()].map(|share| 100.0 * share);
        say(out, format_args!("truth within the draws' range   {covered:.1}% (calibrated draws: {calibrated:.1}%)"))
    }

    /// Truth, observation, interpolation, some samples, mean and std of every image.
    fn draw(&self, path: &Path) -> Result<()> {
        let scale = self.std.data.iter().copied().filter(|s| s.is_finite()).fold(f32::MIN_POSITIVE, f32::max);
        let row = |i: usize| {
            let samples = (0..self.draws.min(SHOWN)).map(|k| Tile::Image(self.samples.row(i * self.draws + k)));
            let first = [
                Tile::Image(self.truth.row(i)),
                Tile::Observed(self.observations.y().row(i), self.mask.row(i)),
                Tile::Image(self.interpolated.row(i)),
            ];
            let last = [Tile::Image(self.mean.row(i)), Tile::Magnitude(self.std.row(i), scale)];
            first.into_iter().chain(samples).chain(last).collect()
        };
        let rows: Vec<_> = (0..self.truth.shape.n).map(row).collect();
        picture::write(path, &picture::grid(self.truth.shape, &rows))
    }
}
