//! Linear layer on channels: a fully connected layer on rows, a 1x1 convolution on pixels.

mod cpu;
pub(crate) mod cuda;
mod reference;

use crate::backend::Backend;

/// y\[.., o\] = b\[o\] + Σ_c w\[o, c\] x\[.., c\].
///
/// # Shapes
/// `x` (N, H, W, c_in), `y`, `dy` (N, H, W, c_out), `w`, `dw` flat (c_out, c_in), `b`, `db` flat (c_out).
pub trait Linear: Backend {
    /// The layer's weights in the forms that forward and VJP read.
    type Linear: Send + Sync;

    /// Packs the weights.
    fn linear(&self, c_in: usize, c_out: usize, w: &Self::Tensor, b: Option<&Self::Tensor>) -> Self::Linear;
    /// y.
    fn linear_forward(&self, k: &Self::Linear, x: &Self::Tensor) -> Self::Tensor;
    /// dx\[.., c\] = Σ_o w\[o, c\] dy\[.., o\].
    fn linear_vjp(&self, k: &Self::Linear, dy: &Self::Tensor) -> Self::Tensor;
    /// dw\[o, c\] += Σ dy\[.., o\] x\[.., c\]; db\[o\] += Σ dy\[.., o\].
    fn linear_vjp_params(
        &self,
        k: &Self::Linear,
        x: &Self::Tensor,
        dy: &Self::Tensor,
        dw: &mut Self::Tensor,
        db: Option<&mut Self::Tensor>,
    );
}
