//! `[model]`.

use super::check;
use crate::backend::Shape;
use crate::data::checkpoint::{Kind, Metadata};
use crate::nn::{MlpConfig, UNetConfig};
use crate::{Error, Result};
use serde::{Deserialize, Serialize};

/// `[model]`: the metadata of a checkpoint, less what the observations say.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Network {
    /// unet or mlp.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kind: Option<NetworkKind>,
    /// A U-Net by its name: cifar, mri or small; instead of the extents.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub preset: Option<String>,
    /// Channels of each level of a U-Net.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub channels: Option<Vec<usize>>,
    /// Residual blocks of each level.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub blocks: Option<Vec<usize>>,
    /// Attention heads of each level; 0 is no attention.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub heads: Option<Vec<usize>>,
    /// Pixels folded into channels, per side.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub patch: Option<usize>,
    /// Widths of the hidden layers of an MLP.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hidden: Option<Vec<usize>>,
    /// Features of the noise embedding.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub emb: Option<usize>,
    /// [height, width, channels] of an image, where the observations do not say it (matrices, with a U-Net).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub size: Option<[usize; 3]>,
    /// The smallest noise level.
    pub sigma_min: f64,
    /// The largest noise level.
    pub sigma_max: f64,
}

/// `model.kind`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum NetworkKind {
    /// For images.
    UNet,
    /// For vectors.
    Mlp,
}

impl Default for Network {
    fn default() -> Self {
        let (sigma_min, sigma_max) = (1e-3, 1e2);
        Self {
            kind: None,
            preset: None,
            channels: None,
            blocks: None,
            heads: None,
            patch: None,
            hidden: None,
            emb: None,
            size: None,
            sigma_min,
            sigma_max,
        }
    }
}

impl Network {
    /// A preset in full, and the defaults of what is not given.
    pub(super) fn fill_in(&mut self) -> Result<()> {
        if let Some(name) = self.preset.take() {
            let given = self.channels.is_some() || self.blocks.is_some() || self.hidden.is_some();
            check("preset", !given, "alone", "channels, blocks or hidden with it")?;
            let preset = UNetConfig::preset(&name);
            let preset = preset.ok_or_else(|| Error::mismatch("preset", UNetConfig::PRESETS.join(", "), &name))?;
            self.kind = self.kind.or(Some(NetworkKind::UNet));
            self.channels = Some(preset.channels);
            self.blocks = Some(preset.blocks);
            self.heads = self.heads.take().or(Some(preset.heads));
            self.emb = self.emb.or(Some(preset.emb));
            self.patch = self.patch.or(Some(preset.patch));
        }
        let foreign = match self.kind {
            None => return Err(Error::mismatch("kind", "unet or mlp (or a preset)", "neither")),
            Some(NetworkKind::UNet) => {
                check("channels", self.channels.is_some(), "those of each level (or a preset)", "none")?;
                check("blocks", self.blocks.is_some(), "those of each level", "none")?;
                self.heads.get_or_insert_default();
                self.patch.get_or_insert(1);
                self.emb.get_or_insert(256);
                self.hidden.is_some().then_some("hidden")
            }
            Some(NetworkKind::Mlp) => {
                self.hidden.get_or_insert_with(|| vec![256; 3]);
                self.emb.get_or_insert(64);
                let images = self.channels.is_some() || self.blocks.is_some() || self.heads.is_some();
                (images || self.patch.is_some()).then_some("channels, blocks, heads and patch")
            }
        };
        foreign.map_or(Ok(()), |key| Err(Error::mismatch(key, "none with this kind", "one")))
    }

    /// What its checkpoints say, for samples of the extents `image`.
    ///
    /// # Errors
    /// When there is no such network, or it does not take such samples.
    pub fn metadata(&self, image: Shape) -> Result<Metadata> {
        let given = |list: &Option<Vec<usize>>| list.clone().unwrap_or_default();
        let (emb, c) = (self.emb.unwrap_or_default(), image.c);
        let kind = match self.kind {
            Some(NetworkKind::Mlp) => Kind::Mlp(MlpConfig { features: image.row(), hidden: given(&self.hidden), emb }),
            _ => Kind::UNet(UNetConfig {
                in_channels: c,
                out_channels: c,
                channels: given(&self.channels),
                blocks: given(&self.blocks),
                heads: given(&self.heads),
                emb,
                patch: self.patch.unwrap_or(1),
            }),
        };
        let (sigma_min, sigma_max) = (self.sigma_min, self.sigma_max);
        let metadata = Metadata { sigma_min, sigma_max, ..Metadata::new(kind) };
        metadata.validate()?;
        metadata.check_image(image)?;
        Ok(metadata)
    }
}
