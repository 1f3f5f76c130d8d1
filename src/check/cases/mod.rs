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

use super::Visitor;
use crate::Result;
use crate::backend::Shape;

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

/// Shows `to` the ops at the sizes of the CIFAR-10 U-Net with a batch of 4, for timing.
///
/// # Errors
/// As the visitor.
pub fn large(to: &mut impl Visitor) -> Result<()> {
    convolution::large(to)?;
    norm::large(to)?;
    pointwise::large(to)?;
    attention::large(to)?;
    blocks::large(to)?;
    maps::large(to)?;
    vectors::large(to)?;
    training::large(to)?;
    Ok(())
}

/// "4x32x32x128".
fn extents(s: Shape) -> String {
    format!("{}x{}x{}x{}", s.n, s.h, s.w, s.c)
}
