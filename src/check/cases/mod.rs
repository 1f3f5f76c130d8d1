//! The cases: every op at several sizes, odd ones among them.

mod attention;
mod blocks;
mod convolution;
mod embedding;
mod maps;
mod networks;
mod norm;
mod pointwise;
mod training;
mod vectors;

pub(super) use blocks::{AttnBlock, Merge, ResBlock};
pub(super) use convolution::{Conv2d, Linear, linears};
pub(super) use norm::ChannelNorm;

use super::Visitor;
use super::case::Work;
use crate::Result;
use crate::backend::{Array, Shape};

/// Shows `to` every op at small sizes, odd in every extent, for correctness; and two networks.
///
/// # Errors
/// As the visitor.
pub fn small(to: &mut impl Visitor) -> Result<()> {
    convolution::small(to)?;
    norm::small(to)?;
    pointwise::small(to)?;
    attention::small(to)?;
    blocks::small(to)?;
    embedding::small(to)?;
    maps::small(to)?;
    vectors::small(to)?;
    training::small(to)?;
    networks::small(to)?;
    Ok(())
}

/// Shows `to` the ops at the sizes of the CIFAR-10 U-Net with a batch of `n`, for timing.
///
/// # Errors
/// As the visitor.
pub fn large(to: &mut impl Visitor, n: usize) -> Result<()> {
    convolution::large(to, n)?;
    norm::large(to, n)?;
    pointwise::large(to, n)?;
    attention::large(to, n)?;
    blocks::large(to, n)?;
    maps::large(to, n)?;
    vectors::large(to, n)?;
    training::large(to, n)?;
    networks::large(to, n)?;
    Ok(())
}

/// The work of the gradient of the weights `w`: not these are read, but an f32 for each, and written.
fn params<T: Array>(work: Work, w: &T) -> Work {
    let len = w.shape().len();
    Work { network: work.network - len, ..work }.and_f32(2 * len)
}

/// "4x32x32x128".
fn extents(s: Shape) -> String {
    format!("{}x{}x{}x{}", s.n, s.h, s.w, s.c)
}
