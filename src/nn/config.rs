//! What a network's metadata says about it, and the parameters that follow from it.

use super::params::Layout;
use crate::{Error, Result};
use serde::{Deserialize, Serialize};

/// The U-Net of the paper's appendix C.
///
/// Level i has `channels[i]` channels at 2^-i of the resolution, with `blocks[i]` residual blocks on the way down and as
/// many on the way up, each followed by self-attention where `heads[i]` > 0.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct UNetConfig {
    /// Channels of the image.
    pub in_channels: usize,
    /// Channels of the output, those of the image.
    pub out_channels: usize,
    /// Channels of each level.
    pub channels: Vec<usize>,
    /// Residual blocks of each level, on either way.
    pub blocks: Vec<usize>,
    /// Attention heads of each level; 0 is no attention, and an empty list is none anywhere.
    #[serde(default)]
    pub heads: Vec<usize>,
    /// Features of the noise embedding.
    #[serde(default = "UNetConfig::default_emb")]
    pub emb: usize,
    /// Pixels that are folded into channels, per side.
    #[serde(default = "UNetConfig::default_patch")]
    pub patch: usize,
}

/// The multilayer perceptron of the paper's manifold experiment, for vectors.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct MlpConfig {
    /// Length D of the vectors.
    pub features: usize,
    /// Widths of the hidden layers.
    #[serde(default = "MlpConfig::default_hidden")]
    pub hidden: Vec<usize>,
    /// Features of the noise embedding.
    #[serde(default = "MlpConfig::default_emb")]
    pub emb: usize,
}

/// Bounds of what metadata may ask for: far above every network in use, low enough that no product overflows.
const MAX_WIDTH: usize = 1 << 16;
const MAX_LEVELS: usize = 16;
const MAX_BLOCKS: usize = 256;

/// `value` lies in `range`.
fn bounded(name: &str, value: usize, range: std::ops::RangeInclusive<usize>) -> Result<()> {
    if range.contains(&value) {
        return Ok(());
    }
    Err(Error::mismatch(name, format_args!("{} to {}", range.start(), range.end()), value))
}

/// An embedding has sines and cosines.
fn embedding(emb: usize) -> Result<()> {
    bounded("emb", emb, 2..=MAX_WIDTH)?;
    if emb.is_multiple_of(2) { Ok(()) } else { Err(Error::mismatch("emb", "an even number", emb)) }
}

impl UNetConfig {
    /// The names that [`UNetConfig::preset`] knows.
    pub const PRESETS: [&str; 3] = ["cifar", "mri", "small"];

    fn default_emb() -> usize {
        256
    }
    fn default_patch() -> usize {
        1
    }

    /// A network of the paper (`cifar`, `mri`), or a small one for tests (`small`).
    pub fn preset(name: &str) -> Option<Self> {
        let (image_channels, channels, blocks, heads, emb, patch) = match name {
            "cifar" => (3, vec![128, 256, 384], vec![5; 3], vec![0, 4, 0], 256, 1),
            "mri" => (1, vec![128, 256, 384, 512], vec![3; 4], vec![0, 0, 0, 4], 256, 4),
            "small" => (3, vec![32, 64], vec![2; 2], vec![0, 4], 64, 1),
            _ => return None,
        };
        Some(Self { in_channels: image_channels, out_channels: image_channels, channels, blocks, heads, emb, patch })
    }

    /// Whether such a network exists.
    ///
    /// # Errors
    /// Names the entry, what it may be and what it is.
    pub fn validate(&self) -> Result<()> {
        let levels = self.channels.len();
        bounded("number of levels (channels)", levels, 1..=MAX_LEVELS)?;
        for (name, list) in [("blocks", &self.blocks), ("heads", &self.heads)] {
            let optional = name == "heads" && list.is_empty();
            if list.len() != levels && !optional {
                return Err(Error::mismatch(name, format_args!("{levels} values, as channels"), list.len()));
            }
        }
        bounded("in_channels", self.in_channels, 1..=MAX_WIDTH)?;
        if self.out_channels != self.in_channels {
            return Err(Error::mismatch("out_channels", self.in_channels, self.out_channels));
        }
        bounded("patch", self.patch, 1..=256)?;
        embedding(self.emb)?;
        for (i, &c) in self.channels.iter().enumerate() {
            bounded("channels", c, 1..=MAX_WIDTH)?;
            bounded("blocks", self.blocks[i], 0..=MAX_BLOCKS)?;
            if self.heads(i) > 0 && c % self.heads(i) != 0 {
                return Err(Error::mismatch("heads", format_args!("a divisor of {c} channels"), self.heads(i)));
            }
        }
        Ok(())
    }

    /// The number of levels.
    pub fn levels(&self) -> usize {
        self.channels.len()
    }
    /// Attention heads of level `i`; 0 is no attention.
    pub fn heads(&self, i: usize) -> usize {
        self.heads.get(i).copied().unwrap_or(0)
    }
    /// Height and width of an image must be multiples of this: patch · 2^(levels - 1).
    pub fn divisor(&self) -> usize {
        self.patch << (self.levels() - 1)
    }

    /// Elements of the largest activation for an image of `h` x `w` pixels: those of a level, or its queries, keys and values.
    pub fn largest_activation(&self, h: usize, w: usize) -> usize {
        let (h, w) = (h / self.patch, w / self.patch);
        let level = |(i, c): (usize, &usize)| (h >> i) * (w >> i) * if self.heads(i) > 0 { 3 * c } else { *c };
        self.channels.iter().enumerate().map(level).max().unwrap_or(0)
    }

    /// Its parameters.
    pub fn layout(&self) -> Layout {
        let mut layout = Layout::default();
        let folded = self.patch * self.patch;
        layout.push_layer("stem", &[self.channels[0], self.in_channels * folded, 3, 3]);
        for way in ["down", "up"] {
            for (i, &c) in self.channels.iter().enumerate() {
                let level = format!("{way}.{i}");
                self.push_blocks(&mut layout, i, &level);
                if way == "down" && i > 0 {
                    layout.push_layer(&format!("{level}.sample"), &[c, self.channels[i - 1], 3, 3]);
                }
                if way == "up" && i + 1 < self.levels() {
                    layout.push_layer(&format!("{level}.merge"), &[c, c + self.channels[i + 1], 3, 3]);
                }
            }
        }
        layout.push_layer("head", &[self.out_channels * folded, self.channels[0], 1, 1]);
        layout
    }

    fn push_blocks(&self, layout: &mut Layout, i: usize, level: &str) {
        let c = self.channels[i];
        let modulation = |layout: &mut Layout, block: &str| {
            layout.push_layer(&format!("{block}.mod.fc1"), &[self.emb, self.emb]);
            layout.push_layer(&format!("{block}.mod.fc2"), &[3 * c, self.emb]);
        };
        for j in 0..self.blocks[i] {
            let block = format!("{level}.res.{j}");
            modulation(layout, &block);
            layout.push_layer(&format!("{block}.conv1"), &[c, c, 3, 3]);
            layout.push_layer(&format!("{block}.conv2"), &[c, c, 3, 3]);
        }
        for j in 0..if self.heads(i) > 0 { self.blocks[i] } else { 0 } {
            let block = format!("{level}.attn.{j}");
            modulation(layout, &block);
            for projection in ["q", "k", "v"] {
                layout.push_layer(&format!("{block}.{projection}"), &[c, c]);
            }
            layout.push(format!("{block}.o.weight"), &[c, c]);
        }
    }
}

impl MlpConfig {
    fn default_hidden() -> Vec<usize> {
        vec![256; 3]
    }
    fn default_emb() -> usize {
        64
    }

    /// Whether such a network exists.
    ///
    /// # Errors
    /// Names the entry, what it may be and what it is.
    pub fn validate(&self) -> Result<()> {
        bounded("features", self.features, 1..=MAX_WIDTH)?;
        bounded("number of hidden layers", self.hidden.len(), 1..=MAX_LEVELS)?;
        self.hidden.iter().try_for_each(|&width| bounded("hidden", width, 1..=MAX_WIDTH))?;
        embedding(self.emb)
    }
    /// Inputs and outputs of every layer in turn.
    pub fn widths(&self) -> impl Iterator<Item = (usize, usize)> + '_ {
        let outputs = self.hidden.iter().copied().chain([self.features]);
        let inputs = [self.features + self.emb].into_iter().chain(self.hidden.iter().copied());
        inputs.zip(outputs)
    }
    /// Its parameters.
    pub fn layout(&self) -> Layout {
        let mut layout = Layout::default();
        for (i, (c_in, c_out)) in self.widths().enumerate() {
            layout.push_layer(&format!("fc.{i}"), &[c_out, c_in]);
        }
        layout
    }
}
