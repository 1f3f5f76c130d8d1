//! Model and observations from their files, checked against each other.

use super::options::{ModelOptions, PosteriorOptions};
use crate::backend::Shape;
use crate::data::{Checkpoint, Measured, Observations};
use crate::diffusion::samplers::{Plan, Sampler};
use crate::diffusion::{Gaussian, Model, Schedule};
use crate::operators::Operator;
use crate::ops::Ops;
use crate::posterior::Settings;
use crate::run::digest;
use crate::run::sampling::PosteriorOf;
use crate::{Error, Result};
use std::path::Path;
use std::sync::Arc;

/// Side of an image, in pixels, that nothing else says.
const SIDE: usize = 32;

/// A model on its device, and what its samples are conditioned on.
pub struct Loaded<B: Ops> {
    /// d.
    pub model: Model<B>,
    /// SHA-256 of its file.
    pub digest: String,
    /// Extents of a sample (1, H, W, C).
    pub image: Shape,
    /// What was observed; nothing for the prior.
    pub observations: Option<Observations>,
    /// The operator on the device, where all observations share it.
    pub operator: Option<Arc<dyn Operator<B>>>,
    /// The Gaussian of `--prior-model`, and the SHA-256 of its file.
    pub prior: Option<(Gaussian, String)>,
}

impl<B: Ops> Loaded<B> {
    /// Reads and checks the files, then puts the model on the device; `image` is the extents of a sample where they are known,
    /// `vjp` whether more than forwards is wanted without observations.
    ///
    /// # Errors
    /// In one line: what does not fit, and in which file.
    pub fn open(
        backend: &B,
        model: &ModelOptions,
        posterior: &PosteriorOptions,
        image: Option<Shape>,
        vjp: bool,
    ) -> Result<Self> {
        let checkpoint = Checkpoint::open(&model.model)?;
        let source = posterior.observations.as_ref().zip(posterior.operator);
        let observations = source.map(|(path, kind)| Observations::read(path, kind)).transpose()?;
        let image = image_of(&checkpoint, observations.as_ref(), model, image)?;
        let operator = observations.as_ref().map(|observations| observations.shared_operator(backend, image));
        let operator = operator.transpose()?.flatten();
        let prior = posterior.method.prior_model.as_deref().map(|path| gaussian(backend, path, image)).transpose()?;
        let model = Model::load(backend, &checkpoint, image, vjp || observations.is_some())?;
        Ok(Self { model, digest: digest(checkpoint.path())?, image, observations, operator, prior })
    }

    /// The updates of a sampler over the model's noise levels.
    ///
    /// # Errors
    /// As [`Sampler::plan`].
    pub fn plan(&self, sampler: Sampler, steps: usize) -> Result<Plan> {
        let metadata = self.model.metadata();
        sampler.plan(Schedule::new(metadata.sigma_min, metadata.sigma_max)?, steps)
    }

    /// Elements of the largest array that a sample needs.
    pub fn largest_array(&self) -> usize {
        let measured = self.observations.as_ref().map_or(0, |observations| observations.y().shape.row());
        self.model.metadata().largest_array(self.image).max(measured)
    }

    /// How the observations are taken into account, `draws` samples each.
    ///
    /// # Errors
    /// When a Gaussian prior is asked for, and there is none.
    pub fn posterior(&self, settings: Settings, draws: usize) -> Result<Option<PosteriorOf<'_>>> {
        let Some(observations) = &self.observations else { return Ok(None) };
        let prior = self.prior.as_ref().map(|(gaussian, _)| gaussian).or(self.model.prior());
        settings.covariance(prior)?;
        Ok(Some(PosteriorOf { observations, draws, settings, prior }))
    }
}

/// The Gaussian in a checkpoint, and the SHA-256 of its file.
fn gaussian<B: Ops>(backend: &B, path: &Path, image: Shape) -> Result<(Gaussian, String)> {
    let model = Model::load(backend, &Checkpoint::open(path)?, image, false)?;
    let expected = "a checkpoint with tensors mean, diag and factor";
    let prior = model.prior().ok_or_else(|| Error::mismatch(path.display(), expected, "none of them"))?;
    Ok((prior.clone(), digest(path)?))
}

/// The extents of a sample (1, H, W, C): what `known` or the model says, else the observations, else `--size`.
fn image_of(
    checkpoint: &Checkpoint,
    observations: Option<&Observations>,
    options: &ModelOptions,
    known: Option<Shape>,
) -> Result<Shape> {
    let channels = checkpoint.metadata().channels();
    let told = known.or(checkpoint.metadata().image()).or_else(|| observations.and_then(Observations::image));
    let asked = options.size.map(|(h, w)| Shape::new(1, h, w, channels));
    match (told, asked) {
        (Some(told), Some(asked)) if (told.h, told.w) != (asked.h, asked.w) => {
            let found = format!("{}x{}", asked.h, asked.w);
            Err(Error::mismatch("--size", format!("{}x{}, as files say", told.h, told.w), found))
        }
        (Some(image), _) | (None, Some(image)) => Ok(image.with_n(1)),
        (None, None) => {
            let side = match observations.map(Observations::measured) {
                Some(Measured::Dense(a)) => (a.shape.c as f64 / channels as f64).sqrt() as usize,
                _ => SIDE,
            };
            Ok(Shape::new(1, side, side, channels))
        }
    }
}
