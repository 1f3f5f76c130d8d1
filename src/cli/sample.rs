//! `diem sample`: many samples of a prior or of posteriors, into a folder.

use super::device::{About, Job};
use super::load::Loaded;
use super::options::{
    BatchSize, DeviceOptions, ModelOptions, PosteriorOptions, SamplerOptions, batch, count, sampler_settings,
};
use super::progress::{Progress, duration};
use super::{Outcome, say};
use crate::backend::Shape;
use crate::diffusion::Tabulated;
use crate::diffusion::samplers::Sampler;
use crate::ops::Ops;
use crate::ops::noise::{Purpose, Stream};
use crate::report::quoted_word;
use crate::run::batch_size::{self, Prediction};
use crate::run::{Claim, Folder, Sampling, Summary, results};
use crate::{Error, Result};
use serde_json::{Map, Value, json};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Options of `diem sample`.
#[derive(clap::Args, Debug)]
pub struct Args {
    #[command(flatten)]
    model: ModelOptions,
    #[command(flatten)]
    posterior: PosteriorOptions,
    #[command(flatten)]
    sampler: SamplerOptions,
    /// Samples of the prior [default: 16]
    #[arg(long, value_name = "N", value_parser = count, conflicts_with = "observations")]
    count: Option<usize>,
    /// Samples of the posterior of each observation [default: 1]
    #[arg(long, value_name = "N", value_parser = count)]
    draws: Option<usize>,
    /// Samples at a time: auto, or a number; the samples do not depend on it
    #[arg(long, default_value = "auto", value_parser = batch)]
    batch: BatchSize,
    /// Seed of all random numbers
    #[arg(long, default_value_t = 0)]
    seed: u64,
    #[command(flatten)]
    device: DeviceOptions,
    /// Folder to write; an interrupted run there is continued
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
}

struct Sample<'a> {
    args: &'a Args,
    out: &'a mut dyn Write,
}

impl Job for Sample<'_> {
    fn run<B: Ops>(self, backend: &B, device: &About) -> Result<Outcome> {
        self.args.run_on(backend, device, self.out)
    }
}

impl Args {
    /// Draws what is missing of the run, and writes its results.
    ///
    /// # Errors
    /// In one line: options, files or folders that do not fit, a device that failed, a full disk.
    pub fn run(&self, out: &mut dyn Write) -> Result<Outcome> {
        self.device.run(Sample { args: self, out })
    }

    fn run_on<B: Ops>(&self, backend: &B, device: &About, out: &mut dyn Write) -> Result<Outcome> {
        let sampler = self.sampler.sampler()?;
        let settings = self.posterior.method.settings()?;
        settings.check_sampler(sampler)?;
        let loaded = Loaded::open(backend, &self.model, &self.posterior, None, false)?;
        let plan = loaded.plan(sampler, self.sampler.steps)?;
        let draws = self.draws.unwrap_or(1);
        let posterior = loaded.posterior(settings, draws)?;
        let shape = loaded.image.with_n(self.total(&loaded, draws)?);

        let mut folder = match Folder::claim(&self.out, self.identity(&loaded, device, sampler, shape)?, shape)? {
            Claim::Open(folder) => folder,
            Claim::Finished(report) => {
                say(out, format_args!("{}: this run is complete, nothing to do", self.out.display()))?;
                return Ok(outcome(report["failures"].as_array().map_or(0, Vec::len)));
            }
        };
        say(out, format_args!("device: {}", device.description))?;
        let model = Tabulated::new(backend, &loaded.model, &plan);
        let sampling = Sampling {
            backend,
            model: &model,
            plan: &plan,
            stream: Stream::new(self.seed, Purpose::Start),
            image: loaded.image,
            posterior,
            operator: loaded.operator.as_ref(),
        };
        self.draw(&sampling, &mut folder, shape, loaded.largest_array(), out)?;

        if draws > 1 {
            results::write_moments(&folder, shape, draws)?;
        }
        results::write_pictures(&folder, shape, loaded.observations.as_ref(), draws)?;
        let summary = Summary::of(folder.batches());
        let report = json!({
            "command_line": command_line(),
            "device": device.description,
            "threads": device.threads,
            "batches": folder.batches().iter().map(|b| b.samples).collect::<Vec<_>>(),
            "seconds": summary.seconds,
            "images_per_second": summary.rate(),
            "breakdowns": summary.breakdowns,
            "failures": summary.failures,
            "peak_bytes": backend.memory().peak,
        });
        folder.finish(report.as_object().expect("written as one").clone())?;
        tell(&summary, &self.out, out)?;
        Ok(outcome(summary.failures.len()))
    }

    fn draw<B: Ops>(
        &self,
        sampling: &Sampling<'_, B>,
        folder: &mut Folder,
        shape: Shape,
        elements: usize,
        out: &mut dyn Write,
    ) -> Result<()> {
        let (total, done) = (shape.n, folder.done());
        if done > 0 {
            say(out, format_args!("continuing: {done} of {total} samples are done"))?;
        }
        let (size, predicted) = match self.batch {
            _ if done == total => return Ok(()),
            BatchSize::Of(size) => {
                let size = size.min(total - done);
                (size, batch_size::check(sampling.backend, size, elements, || sampling.probe())?)
            }
            BatchSize::Auto => {
                let predicted = batch_size::automatic(sampling.backend, total - done, elements, || sampling.probe())?;
                let Prediction { size, bytes, .. } = predicted;
                say(out, format_args!("batch: {size} samples at a time, {:.2} GiB", bytes as f64 / GIB))?;
                (size, Some(predicted))
            }
        };
        let mut progress = Progress::new(total, done);
        let result = sampling.run(folder, total, size, &mut |done| progress.update(done));
        progress.finish();
        result.map_err(|error| batch_size::explain(sampling.backend, predicted, error))
    }

    /// The number of samples.
    fn total<B: Ops>(&self, loaded: &Loaded<B>, draws: usize) -> Result<usize> {
        let total = match &loaded.observations {
            Some(observations) => observations.len().checked_mul(draws),
            None => Some(self.count.unwrap_or(16)),
        };
        let option = if loaded.observations.is_some() { "--draws" } else { "--count" };
        let found = || self.count.or(self.draws).unwrap_or(1);
        total
            .filter(|&total| u32::try_from(total).is_ok())
            .ok_or_else(|| Error::mismatch(option, "fewer than 2^32 samples in all", found()))
    }

    /// All that the samples depend on.
    fn identity<B: Ops>(
        &self,
        loaded: &Loaded<B>,
        device: &About,
        sampler: Sampler,
        shape: Shape,
    ) -> Result<Map<String, Value>> {
        let mut identity = json!({
            "command": "sample",
            "version": env!("CARGO_PKG_VERSION"),
            "arithmetic": device.arithmetic,
            "model": loaded.digest,
            "shape": [shape.n, shape.h, shape.w, shape.c],
            "seed": self.seed,
            "sampler": sampler_settings(sampler, self.sampler.steps),
        });
        if let Some(observations) = &loaded.observations {
            identity["observations"] = observations.digest().into();
            identity["draws"] = self.draws.unwrap_or(1).into();
            identity["posterior"] = json!(self.posterior.method.settings()?);
            identity["operator"] = observations.measured().kind().name().into();
            identity["prior_model"] = loaded.prior.as_ref().map(|(_, digest)| digest.clone()).into();
        }
        Ok(identity.as_object().expect("written as one").clone())
    }
}

const GIB: f64 = (1u64 << 30) as f64;

fn outcome(failed: usize) -> Outcome {
    if failed == 0 { Outcome::Done } else { Outcome::NonFinite }
}

/// The run in a few lines.
fn tell(summary: &Summary, folder: &Path, out: &mut dyn Write) -> Result<()> {
    let time = duration(Duration::from_secs_f64(summary.seconds));
    let rate = summary.rate();
    say(out, format_args!("{}: {} samples in {time}, {rate:.2} images/s", folder.display(), summary.samples))?;
    if summary.breakdowns > 0 {
        say(out, format_args!("{} solves ended in a breakdown", summary.breakdowns))?;
    }
    if let Some(first) = summary.failures.first() {
        let count = summary.failures.len();
        say(out, format_args!("{count} samples are not finite; the first: {first}"))?;
    }
    Ok(())
}

/// The command as a shell takes it: what a report says of how to run it again.
fn command_line() -> String {
    let words = std::env::args_os().skip(1).map(|word| quoted_word(&word.to_string_lossy()));
    std::iter::once("diem".to_owned()).chain(words).collect::<Vec<_>>().join(" ")
}
