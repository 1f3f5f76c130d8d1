//! `diem calibrate`: whether the posteriors of a model are calibrated, on truths that it knows nothing of.

use super::corruption::{CorruptionOptions, JUDGED_NOISE};
use super::device::{About, Job};
use super::load::Loaded;
use super::options::{
    DeviceOptions, MethodOptions, ModelOptions, PosteriorOptions, SamplerOptions, count, sampler_settings, unit,
};
use super::progress::Progress;
use super::{Outcome, chart_beside, refuse_existing, say};
use crate::data::{Observations, Samples, atomic, corruption, images, picture};
use crate::diffusion::samplers::Plan;
use crate::diffusion::{Model, Tabulated};
use crate::metrics::Calibration;
use crate::metrics::calibration::FEWEST_RANKS;
use crate::ops::Ops;
use crate::ops::noise::{Purpose, Stream};
use crate::plot;
use crate::run::Sampling;
use crate::run::batch_size;
use crate::run::sampling::PosteriorOf;
use crate::{Error, Result};
use serde_json::json;
use std::io::Write;
use std::path::PathBuf;

/// Options of `diem calibrate`.
#[derive(clap::Args, Debug)]
#[command(allow_negative_numbers = true)] // so that they are refused as values, not as options
pub struct Args {
    #[command(flatten)]
    model: ModelOptions,
    /// Truths (.npy), draws of the prior that the model stands for [default: samples of the model itself]
    #[arg(long, value_name = "TRUTH.npy")]
    truth: Option<PathBuf>,
    /// Truths, at most: each is observed once
    #[arg(long, value_name = "N", default_value_t = 256, value_parser = truths)]
    count: usize,
    /// Samples of the posterior of each observation
    #[arg(long, value_name = "N", default_value_t = 31, value_parser = draws)]
    draws: usize,
    /// The posteriors are rejected where calibrated ones would look as bad with less than this probability
    #[arg(long, value_name = "P", default_value_t = 0.01, value_parser = unit)]
    significance: f64,
    #[command(flatten)]
    corruption: CorruptionOptions,
    #[command(flatten)]
    method: MethodOptions,
    #[command(flatten)]
    sampler: SamplerOptions,
    /// Seed of truths, operators, noise and samples
    #[arg(long, default_value_t = 0)]
    seed: u64,
    #[command(flatten)]
    device: DeviceOptions,
    /// File to write; a chart is written beside it, .png
    #[arg(long, value_name = "CALIBRATION.json", default_value = "calibration.json")]
    out: PathBuf,
    /// Writes over files that are there
    #[arg(long)]
    force: bool,
}

/// With fewer the histograms of ranks have one bin, and their tests cannot fail.
fn truths(text: &str) -> std::result::Result<usize, String> {
    count(text).ok().filter(|&n| n >= FEWEST_RANKS).ok_or_else(|| format!("a whole number from {FEWEST_RANKS} on"))
}

fn draws(text: &str) -> std::result::Result<usize, String> {
    count(text).ok().filter(|&n| n >= 2).ok_or_else(|| "a whole number from 2 on".to_owned())
}

struct Calibrate<'a> {
    args: &'a Args,
    out: &'a mut dyn Write,
}

impl Job for Calibrate<'_> {
    fn run<B: Ops>(self, backend: &B, device: &About) -> Result<Outcome> {
        self.args.run_on(backend, device, self.out)
    }
}

/// The noise of a measurement, as a multiple of σ_min, below which the sampler's last step and not the posterior decides how
/// much the draws scatter in what was measured.
const RESOLVED: f64 = 10.0;

impl Args {
    /// Draws truths and their posteriors, and tests them.
    ///
    /// # Errors
    /// In one line: options or files that do not fit, a device that failed.
    pub fn run(&self, out: &mut dyn Write) -> Result<Outcome> {
        let chart = chart_beside(&self.out)?;
        if !self.force {
            [&self.out, &chart].into_iter().try_for_each(|path| refuse_existing(path))?;
        }
        self.device.run(Calibrate { args: self, out })
    }

    fn run_on<B: Ops>(&self, backend: &B, device: &About, out: &mut dyn Write) -> Result<Outcome> {
        let (sampler, settings) = (self.sampler.sampler()?, self.method.settings()?);
        settings.check_sampler(sampler)?;
        let selection = images::Selection { count: Some(self.count), size: None };
        let truth = self.truth.as_deref().map(|path| images::read(path, selection)).transpose()?;
        if let (Some(truth), Some(path)) = (&truth, &self.truth)
            && truth.shape.n < FEWEST_RANKS
        {
            return Err(Error::mismatch(path.display(), format_args!("at least {FEWEST_RANKS} truths"), truth.shape.n));
        }
        let posterior = PosteriorOptions { observations: None, operator: None, method: self.method.clone() };
        let loaded = Loaded::open(backend, &self.model, &posterior, truth.as_ref().map(|x| x.shape), true)?;
        let plan = loaded.plan(sampler, self.sampler.steps)?;
        let noise = self.corruption.noise(JUDGED_NOISE);
        if noise < RESOLVED * plan.sigma_end {
            let expected = format!("at least {RESOLVED} times the model's sigma_min, {}", plan.sigma_end);
            return Err(Error::mismatch("--noise", expected, noise));
        }
        say(out, format_args!("device: {}", device.description))?;
        let model = Tabulated::new(backend, &loaded.model, &plan);
        let draws = Draws { args: self, backend, loaded: &loaded, model: &model, plan: &plan };
        let truth = match truth {
            Some(truth) => truth,
            None => draws.of_prior()?,
        };
        let measured = self.corruption.measured(truth.shape, self.seed)?;
        let observations = corruption::observe(&self.out, &truth, measured, noise, self.seed)?;
        let prior = loaded.prior.as_ref().map(|(gaussian, _)| gaussian).or(loaded.model.prior());
        let samples =
            draws.of(Some(PosteriorOf { observations: &observations, draws: self.draws, settings, prior }))?;
        self.judge(
            &truth,
            &observations,
            &samples,
            json!({
                "command": "calibrate", "device": device.description, "model": loaded.digest, "seed": self.seed,
                "sampler": sampler_settings(sampler, self.sampler.steps), "posterior": settings, "noise": noise,
                "significance": self.significance,
            }),
            out,
        )
    }

    /// Prints the tests, writes them, and says whether they pass.
    fn judge(
        &self,
        truth: &Samples<f32>,
        observations: &Observations,
        samples: &Samples<f32>,
        mut report: serde_json::Value,
        out: &mut dyn Write,
    ) -> Result<Outcome> {
        let rows = samples.data.chunks_exact(samples.shape.row());
        let failed = rows.filter(|x| !x.iter().all(|x| x.is_finite())).count();
        if failed > 0 {
            say(out, format_args!("{failed} of {} samples are not finite: nothing is tested", samples.shape.n))?;
            return Ok(Outcome::NonFinite);
        }
        let stream = Stream::new(self.seed, Purpose::Projection);
        let calibration = Calibration::new(truth, samples, Some(observations), stream)?;
        let calibrated = calibration.p_value() >= self.significance;
        tell(&calibration, out)?;
        report["calibration"] = json!(calibration);
        report["p_value"] = calibration.p_value().into();
        report["calibrated"] = calibrated.into();
        picture::write(&chart_beside(&self.out)?, &plot::calibration::draw(&calibration)?)?;
        atomic::write(&self.out, |w| writeln!(w, "{report:#}"))?;
        let verdict = if calibrated { "calibrated" } else { "NOT calibrated" };
        let (p, tests) = (calibration.p_value(), calibration.ranks.len() + 1);
        say(
            out,
            format_args!(
                "{verdict}: p = {p:.2e} for the worst of {tests} tests (Bonferroni), threshold {}",
                self.significance
            ),
        )?;
        Ok(if calibrated { Outcome::Done } else { Outcome::Faulty })
    }
}

/// What samples are drawn with.
struct Draws<'a, B: Ops> {
    args: &'a Args,
    backend: &'a B,
    loaded: &'a Loaded<B>,
    model: &'a Tabulated<'a, B, Model<B>>,
    plan: &'a Plan,
}

impl<B: Ops> Draws<'_, B> {
    /// Truths, from the prior.
    fn of_prior(&self) -> Result<Samples<f32>> {
        let truth = self.of(None)?;
        let bad = truth.data.iter().position(|x| !x.is_finite());
        bad.map_or(Ok(truth.clone()), |at| {
            Err(Error::NonFinite {
                place: format!("{}: sample {}", self.args.model.model.display(), at / truth.shape.row()),
            })
        })
    }

    /// All samples of the prior or of the posteriors. Their noise is of different laps, so that a truth and its draws do not share
    /// the start of the process.
    fn of(&self, posterior: Option<PosteriorOf<'_>>) -> Result<Samples<f32>> {
        let Self { args, backend, loaded, model, plan } = *self;
        let total = posterior.map_or(args.count, |posterior| posterior.observations.len() * posterior.draws);
        let stream = Stream { iteration: u32::from(posterior.is_none()), ..Stream::new(args.seed, Purpose::Start) };
        let sampling = Sampling { backend, model, plan, stream, image: loaded.image, posterior, operator: None };
        let size = batch_size::automatic(backend, total, loaded.largest_array(), || sampling.probe())?.size;
        let (mut progress, mut x) = (Progress::new(total, 0), Vec::new());
        for first in (0..total).step_by(size) {
            let range = first..(first + size).min(total);
            let len = range.len() as f64;
            x.extend(sampling.draw(range, &mut |share| progress.update(first as f64 + len * share))?.x);
        }
        progress.finish();
        Ok(Samples::new(loaded.image.with_n(total), x))
    }
}

fn tell(calibration: &Calibration, out: &mut dyn Write) -> Result<()> {
    say(out, format_args!("{} observations, {} draws of each", calibration.observations, calibration.draws))?;
    say(out, format_args!("{:<14} {:>9} {:>9} {:>9}", "coverage", "nominal", "found", "3 errors"))?;
    for level in &calibration.coverage {
        let errors = 3.0 * level.error;
        say(
            out,
            format_args!(
                "{:<14} {:>8.1}% {:>8.1}% {:>8.1}%",
                "",
                100.0 * level.nominal,
                100.0 * level.found,
                100.0 * errors
            ),
        )?;
    }
    say(out, format_args!("{:<14} {:>9} {:>9}", "ranks", "chi2", "p"))?;
    for ranks in &calibration.ranks {
        say(out, format_args!("{:<14} {:>9.2} {:>9.1e}", ranks.quantity, ranks.test.statistic, ranks.test.p_value))?;
    }
    let test = calibration.tarp.test;
    say(out, format_args!("{:<14} {:>9} {:>9}", "TARP", "distance", "p"))?;
    say(out, format_args!("{:<14} {:>9.3} {:>9.1e}", "", test.statistic, test.p_value))
}
