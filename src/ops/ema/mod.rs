//! Exponential moving average of parameters.

mod cuda;
mod host;

use crate::backend::Backend;

/// e ← e + (1 - decay) (p - e).
///
/// In this form an average that has arrived stays where it is; decay e + (1 - decay) p, with both factors rounded to f32,
/// would settle 2e-4 beside p at a decay of 0.9999.
pub trait Ema: Backend {
    /// Moves `e` towards `p`, of the same shape.
    fn ema_update(&self, e: &mut Self::Tensor, p: &Self::Tensor, decay: f64);
}
