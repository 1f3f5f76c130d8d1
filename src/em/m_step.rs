//! The M step: the Gaussian of the draws, and the network trained on them.

use super::state::{Phase, Training};
use super::watch::Task;
use super::{Draws, Run};
use crate::data::Checkpoint;
use crate::ops::TrainingOps;
use crate::ops::noise::Stream;
use crate::prior::{self, ppca};
use crate::train::{self, EpochMeans, Initial, StepReport, Trainer};
use crate::{Error, Result};
use serde_json::json;
use std::time::Instant;

/// So many steps in a row are no accident: see [`Run::stop_if_diverged`].
const PATIENCE: usize = 16;

impl<B: TrainingOps> Run<'_, B> {
    /// Learns from the draws of the lap before.
    pub(super) fn m_step(&mut self) -> Result<()> {
        let lap = self.state.lap;
        let draws = self.draws(lap - 1)?;
        let stream = self.stream(lap);
        let prior::Settings { rank, floor, .. } = self.config.gaussian;
        // the draws that sample.bound has dropped may leave fewer than these
        let left = draws.training.len().saturating_sub(1).max(1);
        let gaussian = ppca(&mut &draws.training, rank.min(left), floor, stream)?;
        let backend = self.backend;
        let checkpoint = self.first_weights(lap)?;
        let initial = checkpoint.as_ref().map_or(Initial::Seed(self.config.seed), Initial::Checkpoint);
        let total = self.steps(&draws);
        backend.release()?; // what sampling has held
        let settings = train::Settings { batch: self.batch(&draws), ..self.config.train.clone() };
        let mut trainer = Trainer::new(backend, &self.metadata, self.problem.image, settings, initial, total as u64)?;
        drop(checkpoint);
        let mut training = self.state.training.take().unwrap_or_default();
        if training.step > 0 {
            trainer.load(&self.directory.trainer(training.step))?;
        }
        let result = self.train(&mut trainer, &draws, stream, &mut training, total);
        self.watch.end();
        result?;
        trainer.write_checkpoint(&self.lap()?.model(), Some(&gaussian))?;
        self.advance(lap, Phase::Sample)
    }

    /// What a lap's weights are at first: the average of the lap before, the warm start's if it is of this network, or the
    /// initialisation (`None`).
    fn first_weights(&self, lap: usize) -> Result<Option<Checkpoint>> {
        let path = self.directory.lap(lap - 1)?.model();
        if !path.exists() {
            return match lap {
                1 => Ok(None),
                _ => Err(Error::mismatch(path.display(), "the model of this lap", "no file")),
            };
        }
        let checkpoint = Checkpoint::open(&path)?;
        let same = checkpoint.metadata().kind == self.metadata.kind;
        Ok((lap > 1 || same).then_some(checkpoint))
    }

    /// Draws of a training step.
    fn batch(&self, draws: &Draws) -> usize {
        self.config.train.batch.min(draws.training.len()).max(1)
    }

    /// Training steps of this lap.
    fn steps(&self, draws: &Draws) -> usize {
        let per_epoch = draws.training.len() / self.batch(draws);
        self.config.laps.steps.or(self.config.laps.epochs.map(|epochs| epochs * per_epoch)).unwrap_or(per_epoch).max(1)
    }

    /// The steps that are left, with a line of metrics every few epochs, and the trainer saved every now and then.
    fn train(
        &mut self,
        trainer: &mut Trainer<'_, B>,
        draws: &Draws,
        stream: Stream,
        training: &mut Training,
        total: usize,
    ) -> Result<()> {
        let lap = self.state.lap;
        let per_epoch = trainer.steps_per_epoch(&draws.training)? as usize;
        // of the last step a line is written anyway
        let every = total.div_ceil(per_epoch).div_ceil(self.config.laps.lines) * per_epoch;
        self.watch.begin(lap, Task::Train, total, training.step);
        let mut saved = Instant::now();
        while training.step < total {
            let start = Instant::now();
            let report = trainer.step(&draws.training, stream).map_err(Error::diverged)?;
            training.step += 1;
            self.stop_if_diverged(training, &report, total)?;
            let last = training.step == total;
            let heldout = match training.step.is_multiple_of(every) || last {
                true if !draws.heldout.is_empty() => {
                    Some(trainer.held_out_loss(&draws.heldout, stream).map_err(Error::diverged)?)
                }
                _ => None,
            };
            training.seconds += start.elapsed().as_secs_f64();
            if training.step.is_multiple_of(every) || last {
                self.note_losses(training, trainer.epoch_means(), report.lr, heldout)?;
            }
            self.watch.update(training.step as f64);
            if saved.elapsed().as_secs_f64() >= self.config.laps.save_seconds && !last {
                trainer.save(&self.directory.trainer(training.step))?;
                self.state.training = Some(training.clone());
                self.directory.commit(&mut self.state)?;
                self.directory.remove_trainers(Some(training.step))?;
                saved = Instant::now();
            }
        }
        Ok(())
    }

    /// Stops where the median of a batch's losses has been too large for some steps in a row. A network that has diverged is
    /// wrong about most samples, and stays so; a mean says less, as one draw far out (its target is x itself where σ is large)
    /// raises it without limit, and would stop a run that the others are enough for. At the end of a lap one step is enough: no other
    /// will tell.
    fn stop_if_diverged(&self, training: &mut Training, report: &StepReport, total: usize) -> Result<()> {
        let limit = self.config.laps.max_loss;
        training.too_large = if report.median_loss > limit { training.too_large + 1 } else { 0 };
        let patience = if training.step == total { 1 } else { PATIENCE };
        if training.too_large < patience {
            return Ok(());
        }
        let (lap, steps) = (self.state.lap, training.too_large);
        Err(Error::Diverged(format!(
            "lap {lap}: after step {} the median loss of a batch is {:.3}, and was above laps.max_loss = {limit} for {steps} \
             steps in a row: a learning rate too large, or most draws far out (sample.bound drops them)",
            training.step, report.median_loss
        )))
    }

    /// A line of the epoch that ends here, or of as much of it as a lap has.
    fn note_losses(&mut self, training: &mut Training, means: EpochMeans, lr: f64, heldout: Option<f64>) -> Result<()> {
        let EpochMeans { epoch, loss, gradient_norm, .. } = means;
        let mut numbers = json!({
            "phase": "train", "lap": self.state.lap, "epoch": epoch + 1, "step": training.step, "loss": loss,
            "gradient_norm": gradient_norm, "lr": lr, "seconds": training.seconds,
        });
        if let Some(heldout) = heldout {
            numbers["held_out_loss"] = heldout.into();
        }
        self.directory.note(&numbers)?;
        self.state.seconds += training.seconds;
        training.seconds = 0.0;
        Ok(())
    }
}
