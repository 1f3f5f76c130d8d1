//! Adam, one parameter array at a time, with the gradient clipped by the global norm.

mod cuda;
mod host;

use crate::backend::Backend;

/// The settings of one step.
#[derive(Clone, Copy, Debug)]
pub struct AdamStep {
    /// Number of the step, from 1.
    pub step: u32,
    /// Learning rate.
    pub lr: f64,
    /// Decay of the gradient's mean, then of its square's.
    pub betas: (f64, f64),
    /// ε, beside the root of the square's mean.
    pub eps: f64,
    /// Decoupled weight decay, as a rate beside the learning rate.
    pub weight_decay: f64,
    /// Largest global norm of the gradients; infinite: no clipping.
    pub max_norm: f64,
}

impl AdamStep {
    /// PyTorch's defaults without weight decay; gradients clipped at norm 1.
    pub fn new(step: u32, lr: f64) -> Self {
        Self { step, lr, betas: (0.9, 0.999), eps: 1e-8, weight_decay: 0.0, max_norm: 1.0 }
    }
    /// What m̂ and v̂ divide by: 1 - β₁^t, 1 - β₂^t.
    fn bias_corrections(&self) -> (f64, f64) {
        let correction = |beta: f64| 1.0 - beta.powf(f64::from(self.step));
        (correction(self.betas.0), correction(self.betas.1))
    }
}

/// g ← g min(1, max_norm/(norm + 1e-6)); m ← β₁ m + (1 - β₁) g; v ← β₂ v + (1 - β₂) g²;
/// p ← (1 - lr weight_decay) p - lr m̂/(√v̂ + ε), m̂ = m/(1 - β₁^t), v̂ = v/(1 - β₂^t).
///
/// Where `norm` is not finite nothing changes: one bad batch does not spoil the weights, and the host need not wait to see.
///
/// # Shapes
/// `p`, `m`, `v`, `g` of one shape; `norm` (1, 1, 1, 1), that of all gradients: [`crate::ops::GlobalNorm`].
///
/// # Reference
/// Kingma and Ba, *Adam*, ICLR 2015; Loshchilov and Hutter, *Decoupled weight decay regularization*, ICLR 2019. Clipping is
/// that of PyTorch's `clip_grad_norm_`.
pub trait Adam: Backend {
    /// One step of `p` and its moments.
    fn adam_step(
        &self,
        s: &AdamStep,
        p: &mut Self::Tensor,
        m: &mut Self::Tensor,
        v: &mut Self::Tensor,
        g: &Self::Tensor,
        norm: &Self::Tensor,
    );
}
