//! Draws samples batch by batch: what `diem sample` and `diem demo` run.

use super::folder::{Batch, Failure, Folder};
use crate::Result;
use crate::backend::{Keep, Shape};
use crate::data::Observations;
use crate::diffusion::samplers::{self, Plan};
use crate::diffusion::{Denoiser, Estimator, Gaussian, Model, Prior, Tabulated};
use crate::operators::Operator;
use crate::ops::Ops;
use crate::ops::noise::Stream;
use crate::posterior::Settings;
use std::ops::Range;
use std::sync::Arc;
use std::time::Instant;

/// Failed samples of a batch that are drawn again to find the layer.
const DIAGNOSED: usize = 4;

/// What determines every sample: the model, the process, the seed, and what was observed.
pub struct Sampling<'a, B: Ops> {
    /// The device.
    pub backend: &'a B,
    /// d, with its table for the noise levels of `plan`.
    pub model: &'a Tabulated<'a, B, Model<B>>,
    /// The reverse process.
    pub plan: &'a Plan,
    /// The seed, and which lap of EM this is.
    pub stream: Stream,
    /// Extents of a sample, N ignored.
    pub image: Shape,
    /// What was observed; without it the prior is sampled.
    pub posterior: Option<PosteriorOf<'a>>,
    /// [`Observations::shared_operator`].
    pub operator: Option<&'a Arc<dyn Operator<B>>>,
}

/// How observations are taken into account.
#[derive(Clone, Copy)]
pub struct PosteriorOf<'a> {
    /// What was observed.
    pub observations: &'a Observations,
    /// Samples of each: number k is draw k mod `draws` of observation k / `draws`.
    pub draws: usize,
    /// The method.
    pub settings: Settings,
    /// The Gaussian prior that some settings ask for.
    pub prior: Option<&'a Gaussian>,
}

/// A batch of samples in host memory.
pub struct Drawn {
    /// Their elements; NaN where a sample failed.
    pub x: Vec<f32>,
    /// What the journal says about them.
    pub batch: Batch,
}

impl<B: Ops> Sampling<'_, B> {
    /// Samples number `range`; `progress` is told the finished share of the batch.
    ///
    /// # Errors
    /// When the device has failed.
    pub fn draw(&self, range: Range<usize>, progress: &mut dyn FnMut(f64)) -> Result<Drawn> {
        let watch = !self.backend.records();
        let mut drawn = self.draw_batch(range, watch, progress)?;
        if !watch {
            // recorded steps cannot be looked into: a sample that failed is drawn once more, alone, to see where
            for failure in drawn.batch.failures.iter_mut().take(DIAGNOSED) {
                let alone = self.draw_batch(failure.sample..failure.sample + 1, true, &mut |_| ())?;
                failure.layer = alone.batch.failures.into_iter().find_map(|failure| failure.layer);
            }
        }
        Ok(drawn)
    }

    /// Samples number `range`; with `watch`, a failure names its layer.
    fn draw_batch(&self, range: Range<usize>, watch: bool, progress: &mut dyn FnMut(f64)) -> Result<Drawn> {
        let start = Instant::now();
        let Some(PosteriorOf { observations, draws, settings, prior }) = self.posterior else {
            let (x, failures) = self.drive(&mut Prior(self.model), range.clone(), watch, progress)?;
            return Ok(drawn(x, failures, 0, range.len(), start));
        };
        let index: Vec<usize> = range.clone().map(|k| k / draws).collect();
        let measurement = observations.bind(self.backend, &index, self.image, self.operator)?;
        let mut estimator = settings.estimator(self.backend, self.model, &measurement, prior, self.plan)?;
        let (x, failures) = self.drive(&mut *estimator, range.clone(), watch, progress)?;
        let breakdowns = estimator.counts(self.backend)?.breakdowns.iter().sum();
        Ok(drawn(x, failures, breakdowns, range.len(), start))
    }

    /// Draws what `folder` lacks of `total` samples, `size` at a time; `progress` is told how many are done, a running
    /// batch counted by its finished share.
    ///
    /// # Errors
    /// When the device has failed or the folder cannot be written; the run can be continued.
    pub fn run(&self, folder: &mut Folder, total: usize, size: usize, progress: &mut dyn FnMut(f64)) -> Result<()> {
        while folder.done() < total {
            let range = folder.done()..folder.done().saturating_add(size).min(total);
            let (first, len) = (range.start as f64, range.len() as f64);
            let drawn = self.draw(range, &mut |share| progress(first + len * share))?;
            folder.append(&drawn.x, drawn.batch)?;
        }
        Ok(())
    }

    /// One call of the denoiser for one sample, to see what memory it takes.
    ///
    /// # Errors
    /// When the device has failed.
    pub fn probe(&self) -> Result<()> {
        let plan = Plan { updates: self.plan.updates.iter().take(1).cloned().collect(), ..self.plan.clone() };
        Sampling { plan: &plan, ..*self }.draw(0..1, &mut |_| ()).map(drop)
    }

    /// Runs the sampler.
    fn drive(
        &self,
        estimator: &mut dyn Estimator<B>,
        range: Range<usize>,
        watch: bool,
        progress: &mut dyn FnMut(f64),
    ) -> Result<(Vec<f32>, Vec<Failure>)> {
        let samples: Vec<u32> = range.map(|k| k as u32).collect();
        let model = self.model.denoiser();
        let mut watched = Watched { estimator, watch, model, layers: vec![None; samples.len()] };
        let shape = self.image.with_n(samples.len());
        let mean = model.mean().map(|mean| self.backend.upload(self.image.with_n(1), mean));
        let x_1 = samplers::start(self.backend, self.plan, mean.as_ref(), shape, self.stream, &samples);
        let calls = self.plan.calls() as f64;
        let draws = samplers::sample(self.backend, &mut watched, self.plan, x_1, self.stream, &samples, &mut |done| {
            progress(done as f64 / calls)
        })?;
        let failures = draws.failures.iter().map(|failure| Failure {
            sample: failure.sample as usize,
            step: failure.step,
            layer: watched.layers[(failure.sample - samples[0]) as usize].take(),
        });
        let mut x = vec![f32::NAN; shape.len()];
        self.backend.download(&draws.x_0, &mut x)?;
        Ok((x, failures.collect()))
    }
}

fn drawn(x: Vec<f32>, failures: Vec<Failure>, breakdowns: u64, samples: usize, start: Instant) -> Drawn {
    Drawn { x, batch: Batch { samples, seconds: start.elapsed().as_secs_f64(), breakdowns, failures } }
}

/// Passes calls on, and with `watch` finds the layer in which a sample first stops being finite.
struct Watched<'a, B: Ops> {
    estimator: &'a mut dyn Estimator<B>,
    watch: bool,
    model: &'a Model<B>,
    layers: Vec<Option<String>>,
}

impl<B: Ops> Estimator<B> for Watched<'_, B> {
    fn estimate(&mut self, backend: &B, x_t: &B::Tensor, sigma: &[f64]) -> Result<B::Tensor> {
        let x_hat = self.estimator.estimate(backend, x_t, sigma)?;
        if !self.watch {
            return Ok(x_hat);
        }
        for (row, finite) in backend.rows_finite(&x_hat)?.into_iter().enumerate() {
            if !finite && self.layers[row].is_none() {
                let x = backend.gather_rows(x_t, &[row]);
                let sigma = sigma.get(row).unwrap_or(&sigma[0]);
                let condition = self.model.condition(backend, &[*sigma], Keep::Nothing);
                let found = self.model.locate_nonfinite(backend, &x, &condition)?;
                self.layers[row] = Some(found.map_or("posterior solve".to_owned(), |at| at.layer));
            }
        }
        Ok(x_hat)
    }
    fn waits(&self) -> bool {
        self.watch || self.estimator.waits()
    }
}
