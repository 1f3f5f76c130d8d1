//! The E step: draws of the posterior of every observation, under the Gaussian prior or the network of a lap.

use super::Run;
use super::draws::Dropped;
use super::measure::chi_square;
use super::state::Phase;
use super::watch::Task;
use crate::data::Checkpoint;
use crate::diffusion::{Model, Tabulated};
use crate::ops::TrainingOps;
use crate::ops::noise::Stream;
use crate::run::batch_size;
use crate::run::{Batch, Claim, Folder, PosteriorOf, Sampling, Summary, digest, folder};
use crate::{Error, Result, prior};
use serde_json::json;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

/// Draws of the Gaussian prior at a time: they do not depend on it, an interruption costs so many.
const GAUSSIAN_BATCH: usize = 256;

/// What is drawn.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Of {
    /// The posterior of every observation.
    Posterior,
    /// So many samples of the prior.
    Prior(usize),
}

impl<B: TrainingOps> Run<'_, B> {
    /// Fits the Gaussian prior.
    pub(super) fn fit_gaussian(&mut self) -> Result<()> {
        let start = Instant::now();
        let settings = prior::Settings {
            observations: self.config.gaussian.observations.min(self.problem.training),
            ..self.config.gaussian
        };
        let mut lines = Vec::new();
        self.watch.begin(0, Task::Gaussian, settings.iterations, 0);
        let stream = self.stream(0);
        let fit = prior::fit(
            &self.problem.observations,
            self.problem.image,
            &settings,
            stream,
            &mut |iteration, evidence| {
                self.watch.update(iteration as f64);
                lines.push(json!({"phase": "gaussian", "lap": 0, "iteration": iteration, "log_evidence": evidence}));
            },
        );
        self.watch.end();
        let fit = fit?;
        prior::write_gaussian(&self.gaussian(), &fit.gaussian, self.problem.image)?;
        lines.iter().try_for_each(|line| self.directory.note(line))?;
        self.state.seconds += start.elapsed().as_secs_f64();
        if let (Some(first), Some(last)) = (fit.evidence.first(), fit.evidence.last()) {
            let iterations = fit.evidence.len() - 1;
            let text = format!("Gaussian prior: log-evidence {first:.3} to {last:.3} in {iterations} iterations");
            self.watch.say(&text)?;
        }
        self.advance(0, Phase::Sample)
    }

    /// Draws, counts what is no sample of anything, and stops where that is too much.
    pub(super) fn e_step(&mut self) -> Result<()> {
        let lap = self.state.lap;
        let summary = self.draw(lap)?;
        let dropped = self.draws(lap)?.dropped;
        let chi2 = chi_square(&self.problem.observations, &self.lap()?.samples(), 0, &self.config.sample)?;
        self.directory.note(&json!({
            "phase": "sample", "lap": lap, "seconds": summary.seconds, "images_per_second": summary.rate(),
            "breakdowns": summary.breakdowns, "dropped": dropped.total(), "failures": summary.failures.len(),
            "chi2": chi2,
        }))?;
        self.stop_if_broken(&summary, dropped)?;
        self.state.seconds += summary.seconds;
        self.write_previews()?;
        self.forget_samples()?;
        self.advance(lap, Phase::Lap)
    }

    fn stop_if_broken(&self, summary: &Summary, dropped: Dropped) -> Result<()> {
        let (lap, total, laps) = (self.state.lap, self.total(), &self.config.laps);
        let diverged = |reason: String| Err(Error::Diverged(format!("lap {lap}: {reason}")));
        if dropped.total() as f64 > laps.max_dropped * total as f64 {
            let first = summary.failures.first().map(|f| format!("; the first: {f}")).unwrap_or_default();
            return diverged(format!(
                "{} of {total} draws are not finite and {} out of bounds, more than laps.max_dropped = {} allows{first}",
                dropped.nonfinite, dropped.unbounded, laps.max_dropped
            ));
        }
        let solves = (total * self.plan.calls()) as f64;
        if summary.breakdowns as f64 > laps.max_breakdowns * solves {
            return diverged(format!(
                "{} of {solves} solves broke down, more than laps.max_breakdowns = {} allows",
                summary.breakdowns, laps.max_breakdowns
            ));
        }
        Ok(())
    }

    /// Removes the samples of laps that are not to be kept.
    fn forget_samples(&self) -> Result<()> {
        let keep = self.config.laps.keep.unwrap_or(usize::MAX);
        for lap in 0..(self.state.lap + 1).saturating_sub(keep) {
            let path = self.directory.lap(lap)?.samples();
            if path.exists() {
                fs::remove_file(&path).map_err(|e| Error::io(&path, "remove", e))?;
            }
        }
        Ok(())
    }

    /// The draws of a lap: a function of its prior and the seed.
    pub(super) fn draw(&mut self, lap: usize) -> Result<Summary> {
        let out = self.directory.lap(lap)?.samples();
        self.draw_under_prior_of(lap, Of::Posterior, &out)
    }

    /// Samples of a lap's prior.
    pub(super) fn draw_prior(&mut self, lap: usize, count: usize) -> Result<Summary> {
        let out = self.directory.lap(lap)?.prior();
        self.draw_under_prior_of(lap, Of::Prior(count), &out)
    }

    /// The prior of lap 0 is the Gaussian, unless a checkpoint was the warm start; that of every other lap is its network.
    fn draw_under_prior_of(&mut self, lap: usize, of: Of, out: &Path) -> Result<Summary> {
        let gaussian = lap == 0 && !self.directory.lap(0)?.model().exists();
        if gaussian && self.state.identity.warm_start.is_some() {
            return Err(Error::mismatch("--warm-start", "the checkpoint, whose copy was interrupted", "none"));
        }
        if gaussian { self.draw_from_gaussian(of, out) } else { self.draw_from_network(lap, of, out) }
    }

    /// How many samples, what the user is told, and the random numbers, which prior and posterior do not share.
    fn asked(&self, lap: usize, of: Of) -> (usize, Task, Stream) {
        match of {
            Of::Posterior => (self.total(), Task::Sample, self.stream(lap)),
            Of::Prior(count) => (count, Task::Prior, Stream { epoch: 1, ..self.stream(lap) }),
        }
    }

    fn draw_from_network(&mut self, lap: usize, of: Of, out: &Path) -> Result<Summary> {
        let (backend, image, config) = (self.backend, self.problem.image, &self.config.sample);
        let path = self.directory.lap(lap)?.model();
        let checkpoint = Checkpoint::open(&path)?;
        let (total, task, stream) = self.asked(lap, of);
        let mut folder = match claim(out, &digest(&path)?, image.with_n(total))? {
            Work::Done(summary) => return Ok(summary),
            Work::Open(folder) => folder,
        };
        backend.release()?; // what training has held
        let model = Model::load(backend, &checkpoint, image, of == Of::Posterior)?;
        let operator = match of {
            Of::Posterior => self.problem.observations.shared_operator(backend, image)?,
            Of::Prior(_) => None,
        };
        let table = Tabulated::new(backend, &model, &self.plan);
        let sampling = Sampling {
            backend,
            model: &table,
            plan: &self.plan,
            stream,
            image,
            posterior: (of == Of::Posterior).then(|| PosteriorOf {
                observations: &self.problem.observations,
                draws: config.draws,
                settings: config.settings(),
                prior: model.prior(),
            }),
            operator: operator.as_ref(),
        };
        let elements = model.metadata().largest_array(image).max(self.problem.observations.y().shape.row());
        let missing = total - folder.done();
        if missing > 0 {
            let predicted = match config.batch {
                None => Some(batch_size::automatic(backend, missing, elements, || sampling.probe())?),
                Some(size) => batch_size::check(backend, size.min(missing), elements, || sampling.probe())?,
            };
            let size = config.batch.or(predicted.map(|p| p.size)).unwrap_or(1);
            self.watch.begin(lap, task, total, folder.done());
            let result = sampling.run(&mut folder, total, size, &mut |done| self.watch.update(done));
            self.watch.end();
            result.map_err(|error| batch_size::explain(backend, predicted, error))?;
        }
        complete(folder, out)
    }

    fn draw_from_gaussian(&mut self, of: Of, out: &Path) -> Result<Summary> {
        let (path, image) = (self.gaussian(), self.problem.image);
        let (total, task, stream) = self.asked(0, of);
        let mut folder = match claim(out, &digest(&path)?, image.with_n(total))? {
            Work::Done(summary) => return Ok(summary),
            Work::Open(folder) => folder,
        };
        let model = Model::load(self.backend, &Checkpoint::open(&path)?, image, false)?;
        let gaussian = model.prior().ok_or_else(|| Error::mismatch(path.display(), "a Gaussian prior", "none"))?;
        self.watch.begin(0, task, total, folder.done());
        while folder.done() < total {
            let (start, done) = (Instant::now(), folder.done());
            let range = done..(done + GAUSSIAN_BATCH).min(total);
            let (observations, draws, samples) = (&self.problem.observations, self.config.sample.draws, range.len());
            let x = match of {
                Of::Posterior => prior::draw_posterior(gaussian, observations, image, range, draws, stream)?,
                Of::Prior(_) => prior::draw_prior(gaussian, range, stream),
            };
            let seconds = start.elapsed().as_secs_f64();
            folder.append(&x, Batch { samples, seconds, breakdowns: 0, failures: Vec::new() })?;
            self.watch.update(folder.done() as f64);
        }
        self.watch.end();
        complete(folder, out)
    }
}

/// A file of samples that is being drawn, or is there.
enum Work {
    Done(Summary),
    Open(Folder),
}

/// The folder in which the samples of `out` are drawn: `.samples` beside `samples.npy`.
fn working(out: &Path) -> PathBuf {
    let name = out.file_stem().unwrap_or_default().to_string_lossy();
    out.with_file_name(format!(".{name}"))
}

/// Claims the folder for samples of `shape` under the model of fingerprint `model`.
fn claim(out: &Path, model: &str, shape: crate::backend::Shape) -> Result<Work> {
    let identity = json!({"command": "fit", "model": model, "shape": [shape.n, shape.h, shape.w, shape.c]});
    let identity = identity.as_object().expect("written as one").clone();
    let working = working(out);
    let finished = working.join("samples.npy");
    Ok(match Folder::claim(&working, identity, shape)? {
        Claim::Open(folder) => Work::Open(folder),
        // drawn before: in its place, or on the way there
        Claim::Finished(report) if finished.exists() || out.exists() => {
            let summary = serde_json::from_value(report["summary"].clone());
            let summary = summary.map_err(|e| Error::mismatch(working.display(), "the report of a run", e))?;
            put_in_place(&finished, out)?;
            Work::Done(summary)
        }
        // removed since: drawn again
        Claim::Finished(_) => {
            folder::forget(&working)?;
            return claim(out, model, shape);
        }
    })
}

/// Ends the drawing, and puts the file in its place.
fn complete(folder: Folder, out: &Path) -> Result<Summary> {
    let (summary, finished) = (Summary::of(folder.batches()), folder.path().join("samples.npy"));
    let report = json!({"summary": summary});
    folder.finish(report.as_object().expect("written as one").clone())?;
    put_in_place(&finished, out)?;
    Ok(summary)
}

fn put_in_place(finished: &Path, out: &Path) -> Result<()> {
    if finished.exists() {
        fs::rename(finished, out)
            .and_then(|()| crate::data::atomic::sync_folder(out))
            .map_err(|e| Error::io(out, "write", e))?;
    }
    Ok(())
}
