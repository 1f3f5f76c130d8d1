//! What is known of a lap: `metrics.jsonl`'s line of phase "lap".

use super::config::Sample;
use super::draws::{bounded, finite};
use super::state::Phase;
use super::unobserved::{Directions, total_variance};
use super::{Config, Problem, Run};
use crate::backend::Shape;
use crate::data::{NpyReader, Observations, Samples};
use crate::metrics::features::{FD_GARMENTS, Garments};
use crate::metrics::{
    FeatureMoments, PredictiveDistance, SinkhornSettings, observation_residual, predictive_score, restoration,
    sinkhorn_authors, sliced_wasserstein_observations,
};
use crate::ops::TrainingOps;
use crate::{Error, Result};
use serde_json::{Map, Value, json};
use std::path::Path;
use std::time::Instant;

/// Points of each sample that a Sinkhorn distance compares at most: 4 N² bytes.
const SINKHORN_POINTS: usize = 4096;

/// Observations in memory at a time.
const CHUNK: usize = 256;

impl<B: TrainingOps> Run<'_, B> {
    /// Samples the prior, measures, and ends the lap. That of lap 0 is the Gaussian, or the warm start's: what the laps begin with.
    ///
    /// | number | of |
    /// |---|---|
    /// | `crps` | what the prior predicts of held-out (y, A), scored: lower is better, as of KL(p(y) ‖ q(y)) |
    /// | `sliced_wasserstein` | between held-out (y, A) and (A x + noise, A), x from the prior |
    /// | `sliced_wasserstein_floor` | what that would be, on average, where the prior is right |
    /// | `held_out_loss` | the denoising loss on the draws of held-out observations, at the M step's end; not of lap 0 |
    /// | `chi2` | ‖y - A x‖²/(M σ_y²) of those draws: 1 on average for exact ones |
    /// | `variance`, `variance_unobserved` | of the prior, in all elements and along [`Directions`] |
    /// | `sinkhorn` | the authors' figure for the prior, with λ = 1e-3, where `metrics.truth` has vectors |
    /// | `frechet` | between the prior and the images of `metrics.truth`, in the features that `frechet_features` names |
    /// | `psnr` | of the mean of the draws of each held-out observation, in dB; the mean over observations |
    pub(super) fn measure(&mut self) -> Result<()> {
        let (start, lap) = (Instant::now(), self.state.lap);
        if !self.lap()?.samples().exists() {
            self.draw(lap)?;
        }
        let count = prior_samples(&self.config, &self.problem);
        let failures = self.draw_prior(lap, count)?.failures.len();
        let prior = read(&self.lap()?.prior(), self.problem.image)?;
        let mut numbers = Numbers::default();
        let prior = finite_rows(&prior);
        if prior.shape.n < 2 {
            let reason = format!("lap {lap}: {failures} of {count} samples of the prior are not finite");
            return Err(Error::Diverged(reason));
        }
        self.measure_heldout(&prior, &mut numbers)?;
        self.measure_prior(&prior, &mut numbers)?;
        self.write_prior_pictures(&prior)?;
        let mut line = json!({"phase": "lap", "lap": lap, "prior_failures": failures});
        line["seconds"] = json!(self.state.seconds + start.elapsed().as_secs_f64());
        line.as_object_mut().expect("written as one").extend(numbers.0);
        self.directory.note(&line)?;
        if failures > 0 {
            self.watch.say(&format!("lap {lap}: {failures} of {count} samples of the prior are not finite"))?;
        }
        self.watch.say(&summary(&line))?;
        self.advance(lap + 1, Phase::Train)
    }

    /// What held-out observations say of the prior and of their draws.
    fn measure_heldout(&self, prior: &Samples<f32>, numbers: &mut Numbers) -> Result<()> {
        let Some(observations) = self.problem.heldout_observations() else { return Ok(()) };
        let (lap, projections) = (self.state.lap, self.config.metrics.projections);
        let stream = self.stream(0); // all laps are asked the same
        numbers.put("crps", predictive_score(&observations, prior, stream)?);
        let PredictiveDistance { distance, floor } =
            sliced_wasserstein_observations(&observations, prior, projections, stream)?;
        numbers.put("sliced_wasserstein", distance);
        numbers.put("sliced_wasserstein_floor", floor);
        let (path, first, sample) = (self.lap()?.samples(), self.problem.training, &self.config.sample);
        numbers.put("chi2", chi_square(&observations, &path, first, sample)?);
        if let Some(loss) = self.last_held_out_loss(lap)? {
            numbers.put("held_out_loss", loss);
        }
        if let Some(truth) = &self.problem.heldout_truth {
            numbers.put("psnr", psnr(truth, &path, first, sample)?);
        }
        Ok(())
    }

    /// The prior's variances, and its distance to the truth where that is known.
    fn measure_prior(&mut self, prior: &Samples<f32>, numbers: &mut Numbers) -> Result<()> {
        numbers.put("variance", total_variance(prior));
        if let Some(directions) = Directions::least_observed(&self.problem.observations) {
            numbers.put("variance_unobserved", directions.variance(prior));
        }
        let Some(truth) = &self.problem.truth else { return Ok(()) };
        if truth.shape.pixels() == 1 {
            numbers.put("sinkhorn", sinkhorn(truth, prior)?);
        }
        if Garments::<B>::takes(truth.shape) {
            let garments = Garments::new(self.backend);
            let of = |x| FeatureMoments::of(&garments.features(x)?);
            let of_truth = match self.truth_features.take() {
                Some(known) => known,
                None => of(truth)?,
            };
            numbers.put("frechet", of(prior)?.frechet(&of_truth)?);
            numbers.0.insert("frechet_features".to_owned(), json!(FD_GARMENTS));
            self.truth_features = Some(of_truth);
        }
        Ok(())
    }

    /// That of the last line of the lap's M step.
    fn last_held_out_loss(&self, lap: usize) -> Result<Option<f64>> {
        let lines = self.directory.lines()?;
        let mut of_lap = lines.iter().rev().filter(|line| line["phase"] == "train" && line["lap"] == lap);
        Ok(of_lap.find_map(|line| line["held_out_loss"].as_f64()))
    }
}

/// Samples of the prior that a lap is measured by: two for each held-out observation, or more.
pub(super) fn prior_samples(config: &Config, problem: &Problem) -> usize {
    config.metrics.samples.max(2 * problem.heldout())
}

/// Named numbers; one that is not finite is null.
#[derive(Default)]
struct Numbers(Map<String, Value>);

impl Numbers {
    fn put(&mut self, name: &str, value: f64) {
        self.0.insert(name.to_owned(), json!(value));
    }
}

/// A lap's numbers, for people.
fn summary(line: &Value) -> String {
    let numbers = ["crps", "frechet", "sinkhorn", "held_out_loss", "chi2", "psnr", "variance_unobserved"];
    let numbers = numbers.iter().filter_map(|name| Some(format!("{name} {:.4}", line[*name].as_f64()?)));
    let all: Vec<String> = std::iter::once(format!("lap {}", line["lap"])).chain(numbers).collect();
    format!("{}, {:.0} s", all.join(", "), line["seconds"].as_f64().unwrap_or(f64::NAN))
}

/// The mean of ‖y - A x‖²/(M σ_y²) over the draws in a file that are not dropped: those of each of `observations`, of which the
/// first is number `first` in the file.
pub(super) fn chi_square(observations: &Observations, path: &Path, first: usize, sample: &Sample) -> Result<f64> {
    let Sample { draws, bound, .. } = *sample;
    let mut file = NpyReader::open(path)?;
    let row = file.row();
    let (mut sum, mut count) = (0.0, 0usize);
    for start in (0..observations.len()).step_by(CHUNK) {
        let part = observations.rows(start..(start + CHUNK).min(observations.len()));
        let shape = part.image().unwrap_or(Shape::rows(1, row)).with_n(part.len() * draws);
        let mut x = Samples::new(shape, vec![0.0; shape.len()]);
        file.read((first + start) * draws, &mut x.data)?;
        for (chi2, x) in observation_residual(&part, &x, draws)?.into_iter().zip(x.data.chunks_exact(row)) {
            if finite(x) && bounded(x, bound) {
                sum += chi2;
                count += 1;
            }
        }
    }
    Ok(sum / count as f64)
}

/// [`restoration`]'s PSNR by the draws of each image, which begin at number `first` of observations in the file; those out of
/// bounds count no more than those that are not finite.
fn psnr(truth: &Samples<f32>, path: &Path, first: usize, sample: &Sample) -> Result<f64> {
    let Sample { draws, bound, .. } = *sample;
    let mut file = NpyReader::open(path)?;
    let mut x = Samples::new(truth.shape.with_n(truth.shape.n * draws), vec![0.0; truth.data.len() * draws]);
    file.read(first * draws, &mut x.data)?;
    x.data.chunks_exact_mut(truth.shape.row()).filter(|x| !bounded(x, bound)).for_each(|x| x.fill(f32::NAN));
    match restoration(&x, truth) {
        Ok(restoration) => Ok(restoration.psnr),
        Err(Error::NonFinite { .. }) => Ok(f64::NAN), // of no image a draw
        Err(e) => Err(e),
    }
}

/// The authors' figure of the prior `x` against two halves of the truth.
fn sinkhorn(truth: &Samples<f32>, x: &Samples<f32>) -> Result<f64> {
    let n = (truth.shape.n / 2).min(x.shape.n).min(SINKHORN_POINTS);
    let rows = |samples: &Samples<f32>, first: usize| samples.gather(&(first..first + n).collect::<Vec<_>>());
    let figure = sinkhorn_authors(&rows(truth, 0), &rows(truth, n), &rows(x, 0), SinkhornSettings::default())?;
    Ok(figure.value)
}

/// All samples of a file.
fn read(path: &Path, image: Shape) -> Result<Samples<f32>> {
    let mut file = NpyReader::open(path)?;
    let shape = image.with_n(file.rows());
    let mut x = vec![0.0; shape.len()];
    file.read(0, &mut x)?;
    Ok(Samples::new(shape, x))
}

/// The rows that are finite.
fn finite_rows(x: &Samples<f32>) -> Samples<f32> {
    let good: Vec<usize> = (0..x.shape.n).filter(|&n| finite(x.row(n))).collect();
    x.gather(&good)
}
