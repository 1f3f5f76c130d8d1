//! Floating point operations of a U-Net per image, counted from its layers.

use super::config::UNetConfig;
use crate::backend::Shape;
use crate::ops::conv2d::Conv2dSpec;
use std::iter::Sum;
use std::ops::Add;

/// A multiplication and an addition are 2. Convolutions count as the direct form, and what is not a matrix product
/// (norms, activations: below 1%) does not count.
#[derive(Clone, Copy, Default, PartialEq, Debug)]
pub struct Flops {
    /// Of the forward.
    pub forward: f64,
    /// Of the VJP with respect to the input.
    pub vjp: f64,
    /// Of that with respect to the parameters besides.
    pub params: f64,
}

impl Flops {
    /// A layer whose VJPs are as much work as itself.
    fn linear(flops: f64) -> Self {
        Self { forward: flops, vjp: flops, params: flops }
    }
    /// A 3x3 convolution of `x`.
    fn convolution(x: Shape, c_out: usize, stride: usize) -> Self {
        Self::linear(Conv2dSpec { c_in: x.c, c_out, stride }.flops(x))
    }
    /// Self-attention on `x`: two products of T x T forward, while the VJP recomputes one and adds four.
    fn attention(x: Shape) -> Self {
        let product = 2.0 * (x.pixels() * x.pixels() * x.c) as f64;
        Self { forward: 2.0 * product, vjp: 5.0 * product, params: 0.0 }
    }
}

impl Add for Flops {
    type Output = Self;
    fn add(self, other: Self) -> Self {
        Self { forward: self.forward + other.forward, vjp: self.vjp + other.vjp, params: self.params + other.params }
    }
}

impl Sum for Flops {
    fn sum<I: Iterator<Item = Self>>(items: I) -> Self {
        items.fold(Self::default(), Add::add)
    }
}

impl UNetConfig {
    /// The work for one image of `h` x `w` pixels, whose modulations are already there.
    pub fn flops(&self, h: usize, w: usize) -> Flops {
        let (h, w) = (h / self.patch, w / self.patch);
        let folded = self.patch * self.patch;
        let extents = |i: usize| Shape::new(1, h >> i, w >> i, self.channels[i]);
        let stem = Flops::convolution(extents(0).with_c(self.in_channels * folded), self.channels[0], 1);
        let head = Flops::linear(2.0 * (extents(0).len() * self.out_channels * folded) as f64);
        let levels = (0..self.levels()).map(|i| {
            let x = extents(i);
            let sample = if i > 0 { Flops::convolution(extents(i - 1), x.c, 2) } else { Flops::default() };
            let merge = self.channels.get(i + 1).map(|c| Flops::convolution(x.with_c(x.c + c), x.c, 1));
            let residual = Flops::convolution(x, x.c, 1) + Flops::convolution(x, x.c, 1);
            let projections = Flops::linear(8.0 * (x.len() * x.c) as f64); // q, k, v, o
            let attention = (self.heads(i) > 0).then(|| projections + Flops::attention(x));
            let block = residual + attention.unwrap_or_default();
            sample + merge.unwrap_or_default() + (0..2 * self.blocks[i]).map(|_| block).sum()
        });
        stem + levels.sum() + head
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cifar_is_as_in_the_design() {
        let flops = UNetConfig::preset("cifar").expect("a preset").flops(32, 32);
        // the design's figures, to their last digit
        assert!((flops.forward - 19.4e9).abs() < 0.05e9, "{flops:?}");
        assert!((flops.vjp - 20.4e9).abs() < 0.05e9, "{flops:?}");
        // the forward without the products of queries, keys and values: 20 of 256² x 256 in 10 attention blocks
        assert!((flops.forward - flops.params - 40.0 * 256f64.powi(3)).abs() < 1.0, "{flops:?}");
    }
}
