//! What a checkpoint says about itself: the JSON object under the metadata key `diem`.

use crate::backend::{Limits, Shape};
use crate::nn::{Layout, MlpConfig, UNetConfig};
use crate::{Error, Result};
use serde::{Deserialize, Serialize};

/// The kind of model, and the noise levels that it was made for.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Metadata {
    /// The model and its extents.
    #[serde(flatten)]
    pub kind: Kind,
    /// The smallest noise level, that at t = 0.
    #[serde(default = "Metadata::default_sigma_min")]
    pub sigma_min: f64,
    /// The largest noise level, that at t = 1.
    #[serde(default = "Metadata::default_sigma_max")]
    pub sigma_max: f64,
    /// Rows of the images, where the model is for one size; a Gaussian always is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub height: Option<usize>,
    /// Columns of the images, likewise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub width: Option<usize>,
}

/// What a checkpoint holds.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub enum Kind {
    /// A denoiser for images.
    UNet(UNetConfig),
    /// A denoiser for vectors.
    Mlp(MlpConfig),
    /// A Gaussian prior: its tensors are `mean` (D), `diag` (D) and `factor` (D, R).
    Gaussian {
        /// Channels of the images.
        channels: usize,
    },
}

/// No image may have more elements than this, which keeps every product of extents in range.
const MAX_ELEMENTS: usize = 1 << 32;

impl Metadata {
    fn default_sigma_min() -> f64 {
        1e-3
    }
    fn default_sigma_max() -> f64 {
        1e2
    }

    /// Metadata of `kind` with the paper's noise levels, for images of any size.
    pub fn new(kind: Kind) -> Self {
        let (sigma_min, sigma_max) = (Self::default_sigma_min(), Self::default_sigma_max());
        Self { kind, sigma_min, sigma_max, height: None, width: None }
    }

    /// Whether such a model exists.
    ///
    /// # Errors
    /// Names the entry, what it may be and what it is.
    pub fn validate(&self) -> Result<()> {
        match &self.kind {
            Kind::UNet(config) => config.validate()?,
            Kind::Mlp(config) => config.validate()?,
            Kind::Gaussian { .. } if self.height.is_none() => {
                return Err(Error::mismatch("height and width", "those of the images", "none"));
            }
            Kind::Gaussian { .. } => {}
        }
        if !(self.sigma_min > 0.0 && self.sigma_min < self.sigma_max && self.sigma_max.is_finite()) {
            let found = format!("{} and {}", self.sigma_min, self.sigma_max);
            return Err(Error::mismatch("sigma_min and sigma_max", "0 < sigma_min < sigma_max", found));
        }
        match (self.height, self.width) {
            (Some(h), Some(w)) => self.check_image(Shape::new(1, h, w, self.channels())),
            (None, None) => Ok(()),
            _ => Err(Error::mismatch("height and width", "both or neither", "one")),
        }
    }

    /// The network's parameters; none for a Gaussian.
    pub fn layout(&self) -> Layout {
        match &self.kind {
            Kind::UNet(config) => config.layout(),
            Kind::Mlp(config) => config.layout(),
            Kind::Gaussian { .. } => Layout::default(),
        }
    }
    /// Channels of the images; of a vector all its elements.
    pub fn channels(&self) -> usize {
        match &self.kind {
            Kind::UNet(config) => config.in_channels,
            Kind::Mlp(config) => config.features,
            Kind::Gaussian { channels } => *channels,
        }
    }
    /// Height and width of an image must be multiples of this.
    pub fn divisor(&self) -> usize {
        if let Kind::UNet(config) = &self.kind { config.divisor() } else { 1 }
    }
    /// The extents of one sample (1, H, W, C), where the model has but one.
    pub fn image(&self) -> Option<Shape> {
        match (&self.kind, self.height, self.width) {
            (Kind::Mlp(config), ..) => Some(Shape::rows(1, config.features)),
            (_, Some(h), Some(w)) => Some(Shape::new(1, h, w, self.channels())),
            _ => None,
        }
    }

    /// Elements of the largest array that the model computes for a sample of the extents of `x`.
    pub fn largest_array(&self, x: Shape) -> usize {
        let network = match &self.kind {
            Kind::UNet(config) => config.largest_activation(x.h, x.w),
            Kind::Mlp(config) => config.widths().map(|(inputs, outputs)| inputs.max(outputs)).max().unwrap_or(0),
            Kind::Gaussian { .. } => 0,
        };
        network.max(x.row())
    }

    /// Whether a device with these limits computes the model for a sample of the extents of `x`.
    ///
    /// # Errors
    /// Names the entry, the tensor or the image that is too large, and the limit.
    pub fn check_limits(&self, limits: Limits, x: Shape) -> Result<()> {
        if let Kind::UNet(config) = &self.kind {
            for (i, &c) in config.channels.iter().enumerate().filter(|&(i, _)| config.heads(i) > 0) {
                let (least, heads) = (c.div_ceil(limits.head), config.heads(i));
                if heads < least {
                    let expected = format_args!(
                        "at least {least} at {c} channels (this device's kernels hold {} of a head)",
                        limits.head
                    );
                    return Err(Error::mismatch("heads", expected, heads));
                }
            }
        }
        // packed, a layer may take almost twice its parameters: a merge has 16 taps for 9
        let layout = self.layout();
        if let Some(spec) = layout.specs().iter().find(|spec| spec.len() > limits.elements / 2) {
            let expected = format_args!("at most {} parameters on this device", limits.elements / 2);
            return Err(Error::mismatch(format_args!("tensor net.{}", spec.name), expected, spec.len()));
        }
        let largest = self.largest_array(x);
        if largest > limits.elements {
            let expected = format_args!("at most {} elements in an array on this device", limits.elements);
            let found = format_args!("{} x {}, {largest} elements in a layer", x.h, x.w);
            return Err(Error::mismatch("image for this model", expected, found));
        }
        Ok(())
    }

    /// Whether the model takes samples of the extents of `x`, whatever their number.
    ///
    /// # Errors
    /// Says which extent does not fit.
    pub fn check_image(&self, x: Shape) -> Result<()> {
        let (divisor, channels) = (self.divisor(), self.channels());
        let place = "image for this model";
        if x.c != channels {
            return Err(Error::mismatch(place, format_args!("{channels} channels"), x.c));
        }
        let found = format!("{} x {}", x.h, x.w);
        if let Some(image) = self.image()
            && (x.h, x.w) != (image.h, image.w)
        {
            return Err(Error::mismatch(place, format_args!("{} x {} pixels", image.h, image.w), found));
        }
        if x.h == 0 || x.w == 0 || !x.h.is_multiple_of(divisor) || !x.w.is_multiple_of(divisor) {
            let expected = format_args!("height and width that are multiples of {divisor}");
            return Err(Error::mismatch(place, expected, found));
        }
        let elements = x.h.checked_mul(x.w).and_then(|pixels| pixels.checked_mul(channels));
        match elements {
            Some(elements) if elements <= MAX_ELEMENTS => Ok(()),
            _ => Err(Error::mismatch(place, format_args!("at most {MAX_ELEMENTS} elements"), found)),
        }
    }
}
