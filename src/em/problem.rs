//! What a run learns from: its observations, those that are held out, and the truth where it is known.

use super::Config;
use super::config::NetworkKind;
use crate::backend::Shape;
use crate::data::images::{self, Selection};
use crate::data::{Measured, Observations, Samples};
use crate::{Error, Result};
use std::path::Path;

/// All observations, and what is known beside them.
pub struct Problem {
    /// Those that are learned from, then those that are held out.
    pub observations: Observations,
    /// How many are learned from.
    pub training: usize,
    /// Extents of a sample (1, H, W, C).
    pub image: Shape,
    /// Samples of the true prior.
    pub truth: Option<Samples<f32>>,
    /// The images that the held-out observations are of, in their order.
    pub heldout_truth: Option<Samples<f32>>,
}

impl Problem {
    /// Reads the files of `config`.
    ///
    /// # Errors
    /// When a file is damaged, is not of the operator, or does not fit the others or the model.
    pub fn read(config: &Config) -> Result<Self> {
        let source = &config.observations;
        let mut first = Observations::read(&source.file, source.operator)?;
        let there = first.len();
        if let Some(count) = source.count {
            if count > there {
                let place = format!("observations.count, of {}", source.file.display());
                return Err(Error::mismatch(place, format_args!("at most {there}"), count));
            }
            first = first.rows(0..count);
        }
        let count = first.len();
        let (observations, training) = match &config.heldout.file {
            Some(file) => (first.join(&Observations::read(file, source.operator)?)?, count),
            None => (first, count - (config.heldout.fraction * count as f64).round() as usize),
        };
        if training < 2 {
            let expected = "at least 2 observations to learn from";
            return Err(Error::mismatch(source.file.display(), expected, training));
        }
        let image = image_of(config, &observations)?;
        observations.check_image(image)?;
        let read = |path: &Path| {
            let truth = images::read(path, Selection::default())?;
            let extents = |shape: Shape| format!("samples of {} x {} x {}", shape.h, shape.w, shape.c);
            match truth.shape.with_n(1) == image {
                true => Ok(truth),
                false => Err(Error::mismatch(path.display(), extents(image), extents(truth.shape))),
            }
        };
        let truth = config.metrics.truth.as_deref().map(read).transpose()?;
        let heldout = training..observations.len();
        let heldout_truth = match (&config.heldout.truth, &truth) {
            (Some(path), _) => Some(read(path)?),
            (None, Some(truth)) if config.heldout.file.is_none() && truth.shape.n == there => {
                Some(truth.gather(&heldout.clone().collect::<Vec<_>>()))
            }
            _ => None,
        };
        if let (Some(truth), Some(path)) = (&heldout_truth, &config.heldout.truth)
            && truth.shape.n != heldout.len()
        {
            let expected = format!("{} images, as there are held-out observations", heldout.len());
            return Err(Error::mismatch(path.display(), expected, truth.shape.n));
        }
        Ok(Self { observations, training, image, truth, heldout_truth })
    }

    /// The number of observations that are held out.
    pub fn heldout(&self) -> usize {
        self.observations.len() - self.training
    }
    /// The observations that are held out; `None` where there are none.
    pub fn heldout_observations(&self) -> Option<Observations> {
        (self.heldout() > 0).then(|| self.observations.rows(self.training..self.observations.len()))
    }
}

/// The extents of a sample (1, H, W, C): what the observations say, or the configuration.
fn image_of(config: &Config, observations: &Observations) -> Result<Shape> {
    let asked = config.model.size.map(|[h, w, c]| Shape::new(1, h, w, c));
    match (observations.image(), asked, observations.measured()) {
        (Some(told), Some(asked), _) if told != asked => {
            let extents = |shape: Shape| format!("[{}, {}, {}]", shape.h, shape.w, shape.c);
            Err(Error::mismatch("[model]: size", format!("{}, as the observations say", extents(told)), extents(asked)))
        }
        (Some(image), ..) | (None, Some(image), _) => Ok(image),
        (None, None, Measured::Dense(a)) if config.model.kind == Some(NetworkKind::Mlp) => {
            Ok(Shape::rows(1, a.shape.c))
        }
        (None, None, _) => Err(Error::mismatch("[model]: size", "[height, width, channels], for a U-Net", "none")),
    }
}
