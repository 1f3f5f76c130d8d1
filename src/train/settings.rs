//! The settings of training, as they stand in a configuration file.

use super::augmentation::Augmentation;
use super::schedule::{Schedule, ema_decay, warm_up};
use crate::backend::Shape;
use crate::ops::adam::AdamStep;
use crate::{Error, Result};
use serde::{Deserialize, Serialize};

/// How a denoiser is trained; the defaults are the paper's for corrupted CIFAR-10, without augmentation.
///
/// # Reference
/// Rozet et al., NeurIPS 2024, table 2.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    /// Samples of a step.
    pub batch: usize,
    /// Images whose activations are in memory at once: a batch is done in such parts, and their gradients added. Vectors are
    /// never parted.
    pub micro_batch: usize,
    /// Learning rate, at first.
    pub lr: f64,
    /// Learning rate at the end, of a schedule that changes it.
    pub lr_end: f64,
    /// How it goes from the one to the other.
    pub schedule: Schedule,
    /// Steps until the learning rate is reached, from almost nothing.
    pub warmup: u64,
    /// Decoupled weight decay, as a rate beside the learning rate.
    pub weight_decay: f64,
    /// Largest global norm of the gradient; 0 clips nothing.
    pub clip: f64,
    /// Decay of the moving average of the weights, [`ema_decay`]; 0: the weights themselves are the model.
    pub ema: f64,
    /// Probability that an activation inside a residual block is dropped.
    pub dropout: f64,
    /// What is done to the images.
    pub augmentation: Augmentation,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            batch: 256,
            micro_batch: 32,
            lr: 2e-4,
            lr_end: 1e-6,
            schedule: Schedule::Constant,
            warmup: 0,
            weight_decay: 0.0,
            clip: 1.0,
            ema: 0.9999,
            dropout: 0.1,
            augmentation: Augmentation::default(),
        }
    }
}

impl Settings {
    /// The paper's settings of an experiment: `cifar`, `mri` or `manifold`.
    pub fn paper(experiment: &str) -> Option<Self> {
        let augmented = Augmentation { flip: true, ..Augmentation::default() };
        match experiment {
            "cifar" => {
                let augmentation = Augmentation { hue: 0.01, saturation: 0.05, ..augmented };
                Some(Self { augmentation, ..Self::default() })
            }
            "mri" => {
                let augmentation = Augmentation { shift: 4, ..augmented };
                Some(Self { lr: 1e-4, ema: 0.999, augmentation, ..Self::default() })
            }
            "manifold" => {
                let schedule = Schedule::Linear;
                Some(Self { batch: 1024, lr: 1e-3, lr_end: 1e-6, schedule, ema: 0.0, dropout: 0.0, ..Self::default() })
            }
            _ => None,
        }
    }

    /// Whether they can be followed for images (or vectors) of the extents of `image`.
    ///
    /// # Errors
    /// Names the setting, what it may be and what it is.
    pub fn validate(&self, image: Shape) -> Result<()> {
        let within = |name: &str, valid: bool, expected: &str, found: f64| {
            if valid { Ok(()) } else { Err(Error::mismatch(name, expected, found)) }
        };
        within("batch", self.batch > 0, "1 or more", self.batch as f64)?;
        within("micro_batch", self.micro_batch > 0, "1 or more", self.micro_batch as f64)?;
        for (name, rate) in [("lr", self.lr), ("lr_end", self.lr_end)] {
            within(name, rate > 0.0 && rate.is_finite(), "a finite number above 0", rate)?;
        }
        for (name, x) in [("weight_decay", self.weight_decay), ("clip", self.clip)] {
            within(name, x >= 0.0 && x.is_finite(), "a finite number of at least 0", x)?;
        }
        for (name, rate) in [("ema", self.ema), ("dropout", self.dropout)] {
            within(name, (0.0..1.0).contains(&rate), "0 or more, below 1", rate)?;
        }
        self.augmentation.validate(image)
    }

    /// Adam's step after `step` of `total` steps.
    pub fn adam(&self, step: u64, total: u64) -> AdamStep {
        let lr = self.schedule.rate((self.lr, self.lr_end), step, total) * warm_up(step, self.warmup);
        let number = u32::try_from(step + 1).unwrap_or(u32::MAX); // its bias corrections have long been 1
        let max_norm = if self.clip > 0.0 { self.clip } else { f64::INFINITY };
        AdamStep { weight_decay: self.weight_decay, max_norm, ..AdamStep::new(number, lr) }
    }

    /// The average's decay of the update after `step` steps.
    pub fn ema_decay(&self, step: u64) -> f64 {
        ema_decay(self.ema, step + 1)
    }
}
