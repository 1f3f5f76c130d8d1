//! The trainer: weights, their moving average, Adam's moments, and the number of steps behind them.

use super::data::Data;
use super::draws::{self, stream};
use super::learner::{Batch, Learner};
use super::settings::Settings;
use crate::backend::{Backend, Shape};
use crate::data::Checkpoint;
use crate::data::checkpoint::Metadata;
use crate::diffusion::{Gaussian, Schedule};
use crate::nn::{self, Params};
use crate::ops::TrainingOps;
use crate::ops::dropout::Masks;
use crate::ops::noise::{Purpose, Stream};
use crate::{Error, Result};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use std::path::Path;
use std::sync::Arc;

/// What a trainer's first weights are.
#[derive(Clone, Copy)]
pub enum Initial<'a> {
    /// The paper's initialisation, of this seed.
    Seed(u64),
    /// Those of a network of the same extents.
    Checkpoint(&'a Checkpoint),
}

/// What a step found.
#[derive(Clone, Copy, PartialEq, Debug, Serialize)]
pub struct StepReport {
    /// Its number, from 0.
    pub step: u64,
    /// The epoch that it belongs to, from 0.
    pub epoch: u64,
    /// The mean of the batch's losses.
    pub loss: f64,
    /// Their median: what the loss of most samples is, however far out a few are.
    pub median_loss: f64,
    /// The gradient's global norm, before it was clipped.
    pub gradient_norm: f64,
    /// The learning rate.
    pub lr: f64,
    /// Whether it is the last of its epoch: then [`Trainer::epoch_means`] are those of all of it.
    pub ends_epoch: bool,
}

/// The means over the steps of an epoch so far, whoever did them: they are part of a saved state.
#[derive(Clone, Copy, PartialEq, Debug, Default, Serialize, Deserialize)]
pub struct EpochMeans {
    /// Its number, from 0.
    pub epoch: u64,
    /// Steps so far.
    pub steps: u64,
    /// The loss.
    pub loss: f64,
    /// The gradient's global norm.
    pub gradient_norm: f64,
}

impl EpochMeans {
    /// The means with one step more.
    fn with(self, report: &StepReport) -> Self {
        let before = if self.epoch == report.epoch { self } else { Self { epoch: report.epoch, ..Self::default() } };
        let steps = before.steps + 1;
        let mean = |mean: f64, x: f64| mean + (x - mean) / steps as f64;
        let (loss, gradient_norm) = (mean(before.loss, report.loss), mean(before.gradient_norm, report.gradient_norm));
        Self { epoch: report.epoch, steps, loss, gradient_norm }
    }
}

/// A network under training on a device.
///
/// On a device, its bits depend on the settings, the data and the stream of the run alone.
pub struct Trainer<'a, B: TrainingOps> {
    pub(super) backend: &'a B,
    pub(super) metadata: Metadata,
    noise: Schedule,
    /// (1, H, W, C)
    image: Shape,
    pub(super) settings: Settings,
    pub(super) total: u64,
    pub(super) step: u64,
    pub(super) means: EpochMeans,
    pub(super) weights: Params<B>,
    /// The moving average, unless the weights themselves are the model.
    pub(super) average: Option<Params<B>>,
    /// Adam's m and v.
    pub(super) moments: [Params<B>; 2],
    /// The order of an epoch, and what it was made for.
    order: Option<((Stream, u64, usize), Vec<u32>)>,
}

impl<'a, B: TrainingOps> Trainer<'a, B> {
    /// A trainer of the network of `metadata` on samples of the extents of `image`, for `total` steps.
    ///
    /// # Errors
    /// When there is no such network, the settings do not suit the samples, the checkpoint has another network, or the device
    /// does not compute it.
    pub fn new(
        backend: &'a B,
        metadata: &Metadata,
        image: Shape,
        settings: Settings,
        initial: Initial<'_>,
        total: u64,
    ) -> Result<Self> {
        metadata.validate()?;
        metadata.check_image(image)?;
        metadata.check_limits(backend.limits(), image)?;
        settings.validate(image)?;
        let layout = Arc::new(metadata.layout());
        if layout.specs().is_empty() {
            return Err(Error::mismatch("model to train", "a unet or an mlp", "a gaussian"));
        }
        let zeros = || Params::new(layout.clone(), |id| backend.zeros(Shape::flat(layout[id].len())));
        let weights = match initial {
            Initial::Seed(seed) => Params::new(layout.clone(), |id| {
                backend.upload(Shape::flat(layout[id].len()), &nn::initial(&layout, id, seed))
            }),
            Initial::Checkpoint(checkpoint) => {
                let found = checkpoint.metadata();
                if found.kind != metadata.kind {
                    let (expected, found) = (format!("{:?}", metadata.kind), format!("{:?}", found.kind));
                    return Err(Error::mismatch(checkpoint.path().display(), expected, found));
                }
                Params::new(layout.clone(), |id| checkpoint.parameter(backend, &layout[id]))
            }
        };
        let mut trainer = Self {
            backend,
            metadata: metadata.clone(),
            noise: Schedule::new(metadata.sigma_min, metadata.sigma_max)?,
            image: image.with_n(1),
            total,
            step: 0,
            means: EpochMeans::default(),
            average: (settings.ema > 0.0).then(zeros),
            moments: [zeros(), zeros()],
            weights,
            settings,
            order: None,
        };
        if let Some(average) = &mut trainer.average {
            copy(backend, average, &trainer.weights);
        }
        Ok(trainer)
    }

    /// Begins the next M step: from the moving average, with moments, step and schedule as at the beginning.
    pub fn restart(&mut self) {
        if let Some(average) = &self.average {
            copy(self.backend, &mut self.weights, average);
        }
        for moments in &mut self.moments {
            moments.layout().ids().for_each(|id| self.backend.fill(moments.get_mut(id), 0.0));
        }
        (self.step, self.means) = (0, EpochMeans::default());
    }

    /// Steps done since the beginning, or since [`Trainer::restart`].
    pub fn steps(&self) -> u64 {
        self.step
    }
    /// The means of the epoch under way, or just ended.
    pub fn epoch_means(&self) -> EpochMeans {
        self.means
    }
    /// The settings.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }
    /// Steps in all.
    pub fn total_steps(&self) -> u64 {
        self.total
    }
    /// Steps of an epoch: what does not fill a batch at its end is left out, other samples each time.
    ///
    /// # Errors
    /// When the samples do not fill a batch, or have other extents.
    pub fn steps_per_epoch(&self, data: &Data) -> Result<u64> {
        if data.image() != self.image {
            return Err(Error::mismatch("training data", format!("{:?}", self.image), format!("{:?}", data.image())));
        }
        let steps = data.len() / self.settings.batch;
        if steps == 0 {
            return Err(Error::mismatch(
                "batch",
                format!("at most {}, the samples that there are", data.len()),
                self.settings.batch,
            ));
        }
        Ok(steps as u64)
    }
    /// The weights of the model: the moving average, where there is one.
    pub fn model(&self) -> &Params<B> {
        self.average.as_ref().unwrap_or(&self.weights)
    }

    /// Does a step on the next batch of `data`; `run` is its seed and lap of EM.
    ///
    /// # Errors
    /// [`Error::NonFinite`] with the layer, the sample and the step: then weights and average are as before the step. When the
    /// samples do not fill a batch, or the device has failed.
    pub fn step(&mut self, data: &Data, run: Stream) -> Result<StepReport> {
        let per_epoch = self.steps_per_epoch(data)?;
        let (epoch, number, size) = (self.step / per_epoch, (self.step % per_epoch) as usize, self.settings.batch);
        let samples = self.order(run, epoch, data.len())[number * size..][..size].to_vec();

        let learner = self.learner(&self.weights, true);
        let mut grads = self.weights.zero_grads(self.backend);
        let mut losses = Vec::with_capacity(samples.len());
        for part in samples.chunks(self.part()) {
            let (batch, share) = (self.batch(data, run, epoch, part), part.len() as f64 / samples.len() as f64);
            let masks = self.masks(run, epoch, part);
            let found = self.backend.within(|| learner.gradients(self.backend, &batch, masks, share, &mut grads));
            losses.push(found);
        }
        let layout = self.weights.layout().clone();
        let norm = self.backend.global_norm(&layout.ids().map(|id| &grads[id]).collect::<Vec<_>>());
        let mut each = Vec::with_capacity(samples.len());
        for losses in losses {
            each.extend(self.backend.to_vec(&losses)?);
        }
        let gradient_norm = self.backend.to_vec(&norm)?[0];
        if !gradient_norm.is_finite() || each.iter().any(|loss| !loss.is_finite()) {
            return Err(self.diagnose(&learner, data, run, (epoch, &samples), &each));
        }
        drop(learner);

        let adam = self.settings.adam(self.step, self.total);
        let decay = self.settings.ema_decay(self.step);
        let [m, v] = &mut self.moments;
        for id in layout.ids() {
            self.backend.adam_step(&adam, self.weights.get_mut(id), m.get_mut(id), v.get_mut(id), &grads[id], &norm);
            if let Some(average) = &mut self.average {
                self.backend.ema_update(average.get_mut(id), &self.weights[id], decay);
            }
        }
        let loss = each.iter().sum::<f64>() / each.len() as f64;
        let middle = each.len() / 2;
        let median_loss = *each.select_nth_unstable_by(middle, f64::total_cmp).1;
        let ends_epoch = number as u64 + 1 == per_epoch;
        let report = StepReport { step: self.step, epoch, loss, median_loss, gradient_norm, lr: adam.lr, ends_epoch };
        (self.step, self.means) = (self.step + 1, self.means.with(&report));
        Ok(report)
    }

    /// The mean loss of the model on samples that it has not been trained on, without dropout and augmentation; the noise is
    /// the same each time.
    ///
    /// # Errors
    /// [`Error::NonFinite`] with the sample; when the samples have other extents, or the device has failed.
    pub fn held_out_loss(&self, data: &Data, run: Stream) -> Result<f64> {
        if data.image() != self.image {
            return Err(Error::mismatch("held-out data", format!("{:?}", self.image), format!("{:?}", data.image())));
        }
        let learner = self.learner(self.model(), false);
        let samples: Vec<u32> = (0..data.len() as u32).collect();
        let mut sum = 0.0;
        for part in samples.chunks(self.part()) {
            let held_out = |purpose| Stream { correction: 1, ..stream(run, purpose, 0) };
            let rows = part.iter().flat_map(|&sample| data.row(sample as usize)).copied().collect::<Vec<f32>>();
            let batch = self.noisy(&rows, [held_out(Purpose::Time), held_out(Purpose::TrainingNoise)], part);
            let losses = self.backend.within(|| learner.losses(self.backend, &batch));
            for (loss, sample) in self.backend.to_vec(&losses)?.into_iter().zip(part) {
                if !loss.is_finite() {
                    return Err(Error::NonFinite { place: format!("loss of held-out sample {sample}") });
                }
                sum += loss;
            }
        }
        Ok(sum / data.len().max(1) as f64)
    }

    /// Writes the model as an ordinary checkpoint, with the Gaussian of its data where it is known, over whatever is there.
    ///
    /// # Errors
    /// When it cannot be written, or the device has failed.
    pub fn write_checkpoint(&self, path: &Path, gaussian: Option<&Gaussian>) -> Result<()> {
        let (model, mut tensors) = (self.model(), Vec::new());
        for spec in model.layout().specs() {
            let mut values = vec![0.0f32; spec.len()];
            self.backend.download(&model[model.layout().id(&spec.name)], &mut values)?;
            tensors.push((format!("net.{}", spec.name), spec.dims.clone(), values));
        }
        if let Some(gaussian) = gaussian {
            let (d, rank) = (gaussian.factor().rows(), gaussian.factor().cols());
            let single = |x: &[f64]| x.iter().map(|x| *x as f32).collect::<Vec<f32>>();
            tensors.push(("mean".to_owned(), vec![d], single(gaussian.mean())));
            tensors.push(("diag".to_owned(), vec![d], single(gaussian.diag())));
            tensors.push(("factor".to_owned(), vec![d, rank], single(gaussian.factor().as_slice())));
        }
        let views = tensors.iter().map(|(name, dims, values)| (name.clone(), dims.clone(), &values[..]));
        Checkpoint::write(path, &self.metadata, views, true)
    }

    /// Samples that are done at a time.
    fn part(&self) -> usize {
        if self.image.pixels() == 1 { self.settings.batch } else { self.settings.micro_batch }
    }

    pub(super) fn learner(&self, weights: &Params<B>, vjp: bool) -> Learner<B> {
        self.backend.within(|| Learner::new(self.backend, &self.metadata.kind, self.image, vjp, weights))
    }

    fn order(&mut self, run: Stream, epoch: u64, count: usize) -> &[u32] {
        let key = (run, epoch, count);
        let order = self.order.take().filter(|(found, _)| *found == key);
        let order = order.unwrap_or_else(|| (key, draws::order(run, epoch, count)));
        &self.order.insert(order).1
    }

    /// What residual blocks drop of these samples.
    pub(super) fn masks<'s>(&self, run: Stream, epoch: u64, samples: &'s [u32]) -> Option<Masks<'s>> {
        let rate = self.settings.dropout;
        (rate > 0.0).then(|| Masks { rate, stream: stream(run, Purpose::Dropout, epoch), samples })
    }

    /// Some samples of an epoch, augmented, with their noise.
    pub(super) fn batch(&self, data: &Data, run: Stream, epoch: u64, samples: &[u32]) -> Batch<B> {
        let (row, augmentation) = (self.image.row(), stream(run, Purpose::Augmentation, epoch));
        let mut rows = vec![0.0; samples.len() * row];
        rows.par_chunks_mut(row).zip(samples).for_each(|(x, &sample)| {
            x.copy_from_slice(data.row(sample as usize));
            self.settings.augmentation.apply(x, self.image, augmentation, sample);
        });
        let streams = [Purpose::Time, Purpose::TrainingNoise].map(|purpose| stream(run, purpose, epoch));
        self.noisy(&rows, streams, samples)
    }

    /// x_t = x + σ_t z of samples x.
    fn noisy(&self, rows: &[f32], [time, noise]: [Stream; 2], samples: &[u32]) -> Batch<B> {
        let (b, shape) = (self.backend, self.image.with_n(samples.len()));
        let sigma: Vec<f64> = samples.iter().map(|&sample| self.noise.sigma(draws::time(time, sample))).collect();
        let x = b.upload(shape, rows);
        let scale = b.upload(Shape::rows(shape.n, 1), &sigma);
        let mut x_t = b.row_scale(&b.noise_normal(shape, noise, samples), &scale);
        b.add_assign(&mut x_t, &x);
        Batch { x, x_t, sigma }
    }
}

/// `to` ← `from`.
fn copy<B: Backend>(backend: &B, to: &mut Params<B>, from: &Params<B>) {
    from.layout().ids().for_each(|id| backend.assign(to.get_mut(id), &from[id]));
}
