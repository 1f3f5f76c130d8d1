//! 3x3 convolution, stride 1 or 2, zero padding 1, with bias.

pub(crate) mod cpu;
pub(crate) mod cuda;
pub(crate) mod direct;
pub(crate) mod epilogue;
pub(crate) mod image;
mod products;
mod reference;
mod transform;
pub(crate) mod vjp_params;
pub(crate) mod winograd;
mod winograd_params;

use crate::backend::{Backend, Shape};

/// Extents of a convolution layer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Conv2dSpec {
    /// Input channels.
    pub c_in: usize,
    /// Output channels.
    pub c_out: usize,
    /// 1, or 2: output pixel i reads input pixels 2 i - 1 .. 2 i + 1.
    pub stride: usize,
}

impl Conv2dSpec {
    /// (N, H, W, c_in) to (N, ⌈H/stride⌉, ⌈W/stride⌉, c_out).
    pub fn output(self, x: Shape) -> Shape {
        assert_eq!(x.c, self.c_in, "convolution of {x:?} by {self:?}");
        Shape::new(x.n, x.h.div_ceil(self.stride), x.w.div_ceil(self.stride), self.c_out)
    }
    /// Floating point operations of the direct form, 2 · 9 · c_in c_out per output pixel.
    pub fn flops(self, x: Shape) -> f64 {
        let y = self.output(x);
        18.0 * self.c_in as f64 * (y.len() as f64)
    }
}

/// y\[n, i, j, o\] = b\[o\] + Σ_{r, s, c} w\[o, c, r, s\] x\[n, stride i + r - 1, stride j + s - 1, c\], x = 0 outside.
///
/// # Shapes
/// `x` (N, H, W, c_in), `y`, `dy` (N, ⌈H/stride⌉, ⌈W/stride⌉, c_out), `w`, `dw` flat (c_out, c_in, 3, 3), `b`, `db` flat (c_out).
pub trait Conv2d: Backend {
    /// The layer's weights in the forms that forward and VJP read.
    type Conv2d: Send + Sync;

    /// Packs the weights. `x` gives the extents that inputs will usually have (any N): a backend may pick the algorithm by
    /// it; the layer accepts every extent. Without `vjp` the weights of the VJP are not packed, and the VJP panics.
    fn conv2d(&self, spec: Conv2dSpec, w: &Self::Tensor, b: &Self::Tensor, x: Shape, vjp: bool) -> Self::Conv2d;
    /// y.
    fn conv2d_forward(&self, k: &Self::Conv2d, x: &Self::Tensor) -> Self::Tensor;
    /// dx, of extents `x`: dx\[n, i, j, c\] = Σ w\[o, c, r, s\] dy\[n, p, q, o\] over stride p + r - 1 = i, stride q + s - 1 = j.
    fn conv2d_vjp(&self, k: &Self::Conv2d, x: Shape, dy: &Self::Tensor) -> Self::Tensor;
    /// dw\[o, c, r, s\] += Σ dy\[n, i, j, o\] x\[n, stride i + r - 1, stride j + s - 1, c\]; db\[o\] += Σ dy\[n, i, j, o\].
    fn conv2d_vjp_params(
        &self,
        k: &Self::Conv2d,
        x: &Self::Tensor,
        dy: &Self::Tensor,
        dw: &mut Self::Tensor,
        db: &mut Self::Tensor,
    );
}
