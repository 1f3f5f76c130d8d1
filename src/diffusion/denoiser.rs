//! The denoiser d(x_t, σ) ≈ E\[x | x_t\], its VJP, and what a sampler asks for.

use super::table::Tabulate;
use crate::Result;
use crate::backend::{Backend, Keep};
use crate::nn::{Grads, Network, NonFinite};
use crate::ops::Precondition;
use crate::ops::dropout::Masks;

/// d(x_t, σ) and u ↦ Jᵀ u, J = ∂d/∂x_t.
///
/// σ is a slice of R values: one that all samples share, or one for each.
pub trait Denoiser<B: Backend>: Send + Sync {
    /// What depends on σ only.
    type Condition: Send + Sync;
    /// What a forward keeps for its VJPs.
    type Saved: Send + Sync;

    /// Everything that σ alone determines.
    fn condition(&self, backend: &B, sigma: &[f64], keep: Keep) -> Self::Condition;
    /// d, and what was kept (`None` for `Keep::Nothing`).
    fn forward(
        &self,
        backend: &B,
        x_t: &B::Tensor,
        condition: &Self::Condition,
        keep: Keep,
    ) -> (B::Tensor, Option<Self::Saved>);
    /// Jᵀ u.
    fn vjp(&self, backend: &B, condition: &Self::Condition, saved: &Self::Saved, u: &B::Tensor) -> B::Tensor;
    /// Where a forward first gives a value that is not finite: a diagnosis, which runs the forward once more. `None`
    /// when all is finite, and for a denoiser without layers.
    ///
    /// # Errors
    /// When the device has failed.
    fn locate_nonfinite(&self, _: &B, _: &B::Tensor, _: &Self::Condition) -> Result<Option<NonFinite>> {
        Ok(None)
    }
}

/// A network with EDM preconditioning: d = c_skip x_t + c_out net(c_in x_t, emb(ln σ)).
pub struct Preconditioned<N>(pub N);

/// σ and the network's condition.
pub struct PreconditionedCondition<C> {
    /// R values.
    pub sigma: Vec<f64>,
    /// The network's own.
    pub network: C,
}

impl<N> Preconditioned<N> {
    /// d with dropout in training, and what [`Preconditioned::vjp_params`] needs; the condition kept all.
    pub fn forward_dropout<B: Precondition>(
        &self,
        backend: &B,
        x_t: &B::Tensor,
        condition: &PreconditionedCondition<N::Condition>,
        dropout: Option<Masks<'_>>,
    ) -> (B::Tensor, N::Saved)
    where
        N: Network<B>,
    {
        let input = backend.precondition_input(x_t, &condition.sigma);
        let (f, saved) = self.0.forward_dropout(backend, &input, &condition.network, Keep::All, dropout);
        (backend.precondition_output(x_t, &f, &condition.sigma), saved.expect("all was kept"))
    }
    /// Adds the gradient of <u, d> with respect to the parameters to `grads`: only the network has any.
    pub fn vjp_params<B: Precondition>(
        &self,
        backend: &B,
        condition: &PreconditionedCondition<N::Condition>,
        saved: &N::Saved,
        u: &B::Tensor,
        grads: &mut Grads<B>,
    ) where
        N: Network<B>,
    {
        let df = backend.precondition_output_vjp(u, &condition.sigma);
        self.0.vjp_params(backend, &condition.network, saved, &df, grads);
    }
}

impl<B: Precondition, N: Network<B>> Denoiser<B> for Preconditioned<N> {
    type Condition = PreconditionedCondition<N::Condition>;
    type Saved = N::Saved;

    fn condition(&self, backend: &B, sigma: &[f64], keep: Keep) -> Self::Condition {
        let log_sigma: Vec<f64> = sigma.iter().map(|s| s.ln()).collect();
        PreconditionedCondition { sigma: sigma.to_vec(), network: self.0.condition(backend, &log_sigma, keep) }
    }
    fn forward(
        &self,
        backend: &B,
        x_t: &B::Tensor,
        condition: &Self::Condition,
        keep: Keep,
    ) -> (B::Tensor, Option<Self::Saved>) {
        let input = backend.precondition_input(x_t, &condition.sigma);
        let (f, saved) = self.0.forward(backend, &input, &condition.network, keep);
        (backend.precondition_output(x_t, &f, &condition.sigma), saved)
    }
    fn vjp(&self, backend: &B, condition: &Self::Condition, saved: &Self::Saved, u: &B::Tensor) -> B::Tensor {
        let df = backend.precondition_output_vjp(u, &condition.sigma);
        let dg = self.0.vjp(backend, &condition.network, saved, &df);
        backend.precondition_vjp(u, &dg, &condition.sigma)
    }
    fn locate_nonfinite(&self, backend: &B, x_t: &B::Tensor, condition: &Self::Condition) -> Result<Option<NonFinite>> {
        let input = backend.precondition_input(x_t, &condition.sigma);
        self.0.locate_nonfinite(backend, &input, &condition.network)
    }
}

impl<B: Precondition, N: Network<B>> Tabulate<B> for Preconditioned<N> {
    fn picked(&self) -> usize {
        self.0.condition_len()
    }
    fn pick(&self, backend: &B, all: &Self::Condition, i: usize) -> Self::Condition {
        let network = self.0.pick_condition(backend, &all.network, i);
        PreconditionedCondition { sigma: vec![all.sigma[i]], network }
    }
}

/// What a sampler calls: E\[x | x_t\] under the prior, or E\[x | x_t, y\] under a posterior.
pub trait Estimator<B: Backend>: Send {
    /// x̂ at x_t (N, H, W, C); σ has R values, one shared or one for each sample.
    ///
    /// # Errors
    /// When the device has failed.
    fn estimate(&mut self, backend: &B, x_t: &B::Tensor, sigma: &[f64]) -> Result<B::Tensor>;
    /// Whether an estimate reads the device, so that its steps cannot be recorded.
    fn waits(&self) -> bool {
        false
    }
}

/// The denoiser itself: samples of the prior.
pub struct Prior<'a, D>(pub &'a D);

impl<B: Backend, D: Denoiser<B>> Estimator<B> for Prior<'_, D> {
    fn estimate(&mut self, backend: &B, x_t: &B::Tensor, sigma: &[f64]) -> Result<B::Tensor> {
        let condition = self.0.condition(backend, sigma, Keep::Nothing);
        Ok(self.0.forward(backend, x_t, &condition, Keep::Nothing).0)
    }
}
