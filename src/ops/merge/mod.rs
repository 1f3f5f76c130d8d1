//! Where the decoder takes in the encoder's features (coarse op): upsampling, concatenation, convolution.

mod cpu;
mod cuda;
mod reference;

use super::conv2d::Conv2dSpec;
use super::{Concat, Conv2d, Upsample};
use crate::backend::{Array, Backend, Shape};

/// y = conv(concat(upsample(x), skip)).
///
/// # Shapes
/// `x` (N, H, W, C1), `skip` (N, 2 H, 2 W, C2), `y` (N, 2 H, 2 W, c_out); the convolution has c_in = C1 + C2, stride 1.
pub trait Merge: Backend + Conv2d + Upsample + Concat {
    /// Packs the weights, as [`Conv2d::conv2d`] does, for a merge with `c1` channels of `x`: a backend may pack them for
    /// that alone. `input` gives the usual extents of concat(upsample(x), skip).
    fn merge(
        &self,
        spec: Conv2dSpec,
        c1: usize,
        w: &Self::Tensor,
        b: &Self::Tensor,
        input: Shape,
        vjp: bool,
    ) -> Self::Conv2d {
        assert!(c1 < spec.c_in, "merge of {c1} channels by {spec:?}");
        self.conv2d(spec, w, b, input, vjp)
    }
    /// y.
    fn merge_forward(&self, k: &Self::Conv2d, x: &Self::Tensor, skip: &Self::Tensor) -> Self::Tensor {
        self.conv2d_forward(k, &self.concat_forward(&self.upsample_forward(x), skip))
    }
    /// (dx, dskip), with `c1` the channels of `x` and `c2` those of `skip`.
    fn merge_vjp(&self, k: &Self::Conv2d, c1: usize, c2: usize, dy: &Self::Tensor) -> (Self::Tensor, Self::Tensor) {
        let input = self.conv2d_vjp(k, dy.shape().with_c(c1 + c2), dy);
        let (dup, dskip) = self.concat_vjp(&input, c1);
        (self.upsample_vjp(&dup), dskip)
    }
    /// Adds the convolution's parameter gradients to `dw`, `db`.
    fn merge_vjp_params(
        &self,
        k: &Self::Conv2d,
        x: &Self::Tensor,
        skip: &Self::Tensor,
        dy: &Self::Tensor,
        dw: &mut Self::Tensor,
        db: &mut Self::Tensor,
    ) {
        self.conv2d_vjp_params(k, &self.concat_forward(&self.upsample_forward(x), skip), dy, dw, db);
    }
}
