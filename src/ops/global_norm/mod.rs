//! The norm of all gradients together, which clipping needs.

mod cuda;
mod host;

use crate::backend::Backend;

/// √(Σ_k |x_k|²) over arrays of any shapes, accumulated in f64.
///
/// The result stays on the device, for [`crate::ops::Adam`]; the order of the sum depends on the lengths alone.
pub trait GlobalNorm: Backend {
    /// (1, 1, 1, 1).
    fn global_norm(&self, x: &[&Self::Tensor]) -> Self::Tensor;
}
