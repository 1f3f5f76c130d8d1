//! Where the decoder takes in the encoder's features (coarse op): upsampling, concatenation, convolution.

mod cpu;
mod reference;

use super::{Concat, Conv2d, Upsample};
use crate::backend::{Array, Backend};

/// y = conv(concat(upsample(x), skip)).
///
/// # Shapes
/// `x` (N, H, W, C1), `skip` (N, 2 H, 2 W, C2), `y` (N, 2 H, 2 W, c_out); the convolution has c_in = C1 + C2, stride 1.
pub trait Merge: Backend + Conv2d + Upsample + Concat {
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
