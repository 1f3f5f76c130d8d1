//! The noise-conditional multilayer perceptron for vectors.

use super::config::MlpConfig;
use super::layers::{Builder, LinearLayer};
use super::params::{Grads, ParamId};
use super::{Network, NonFinite, first_nonfinite};
use crate::Result;
use crate::backend::{Array, Keep, Shape};
use crate::ops::Ops;
use std::borrow::Borrow;
use std::sync::Arc;

/// h_0 = (x, embedding); h_(i+1) = norm(silu(fc_i h_i)); the last layer is linear.
///
/// # Shapes
/// (N, 1, 1, D) to the same.
///
/// # Reference
/// Rozet et al., NeurIPS 2024, appendix C.
pub struct Mlp<B: Ops> {
    config: MlpConfig,
    hidden: Vec<LinearLayer<B>>,
    last: LinearLayer<B>,
}

/// What the VJPs of an MLP need.
pub struct MlpSaved<B: Ops> {
    hidden: Vec<HiddenSaved<B>>,
    /// (N, 1, 1, D + E): the first layer's input, for its parameters.
    input: Option<Arc<B::Tensor>>,
}

struct HiddenSaved<B: Ops> {
    /// (N, 1, 1, width): SiLU's derivative.
    derivative: B::Tensor,
    /// (N, 1, 1, width): the norm's output, the next layer's input.
    y: Arc<B::Tensor>,
    /// (N, 1, 1, 1).
    rstd: B::Tensor,
}

impl<B: Ops> Mlp<B> {
    /// Packs the network; `values` gives each parameter of [`MlpConfig::layout`], flat.
    pub fn new<T: Borrow<B::Tensor>>(backend: &B, config: &MlpConfig, values: impl Fn(ParamId) -> T) -> Self {
        let builder = Builder { backend, layout: &config.layout(), values, vjp: true };
        let depth = config.hidden.len();
        let hidden = (0..depth).map(|i| builder.linear(format!("fc.{i}"))).collect();
        Self { config: config.clone(), hidden, last: builder.linear(format!("fc.{depth}")) }
    }

    /// What it was made from.
    pub fn config(&self) -> &MlpConfig {
        &self.config
    }

    /// A forward that shows every layer's output to `probe`.
    fn run(
        &self,
        backend: &B,
        x: &B::Tensor,
        embedding: &B::Tensor,
        keep: Keep,
        mut probe: impl FnMut(&str, &B::Tensor),
    ) -> (B::Tensor, Option<MlpSaved<B>>) {
        let n = x.shape().n;
        assert_eq!(x.shape(), Shape::rows(n, self.config.features), "vectors for a network of features");
        let input = if embedding.shape().n == n {
            backend.concat_forward(x, embedding)
        } else {
            backend.concat_forward(x, &backend.gather_rows(embedding, &vec![0; n]))
        };
        let mut x = Arc::new(input);
        let input = (keep == Keep::All).then(|| x.clone());
        let mut hidden = Vec::with_capacity(self.hidden.len());
        for layer in &self.hidden {
            let (z, derivative) = backend.silu_forward(&backend.linear_forward(&layer.k, &x), keep);
            let (y, rstd) = backend.channel_norm_forward(&z, None);
            probe(&layer.name, &y);
            x = Arc::new(y);
            hidden.extend(derivative.map(|derivative| HiddenSaved { derivative, y: x.clone(), rstd }));
        }
        let y = backend.linear_forward(&self.last.k, &x);
        probe(&self.last.name, &y);
        (y, (keep != Keep::Nothing).then_some(MlpSaved { hidden, input }))
    }

    /// dx; with `grads` also adds the parameter gradients.
    fn pull_back(
        &self,
        backend: &B,
        saved: &MlpSaved<B>,
        dy: &B::Tensor,
        mut grads: Option<&mut Grads<B>>,
    ) -> B::Tensor {
        let mut backward = |layer: &LinearLayer<B>, i: usize, dy: &B::Tensor| {
            if let Some(grads) = grads.as_deref_mut() {
                let first = || saved.input.as_ref().expect("the forward kept all");
                let x = if i == 0 { first() } else { &saved.hidden[i - 1].y };
                layer.vjp_params(backend, x, dy, grads);
            }
            backend.linear_vjp(&layer.k, dy)
        };
        let mut dx = backward(&self.last, self.hidden.len(), dy);
        for (i, (layer, saved)) in self.hidden.iter().zip(&saved.hidden).enumerate().rev() {
            let dz = backend.channel_norm_vjp(&saved.y, &saved.rstd, None, &dx);
            dx = backward(layer, i, &backend.silu_vjp(&saved.derivative, &dz));
        }
        backend.concat_vjp(&dx, self.config.features).0
    }
}

impl<B: Ops> Network<B> for Mlp<B> {
    /// (R, 1, 1, E): the noise embedding.
    type Condition = B::Tensor;
    type Saved = MlpSaved<B>;

    fn condition(&self, backend: &B, log_sigma: &[f64], _keep: Keep) -> Self::Condition {
        backend.noise_embedding_forward(log_sigma, self.config.emb)
    }
    fn forward(
        &self,
        backend: &B,
        x: &B::Tensor,
        condition: &Self::Condition,
        keep: Keep,
    ) -> (B::Tensor, Option<Self::Saved>) {
        self.run(backend, x, condition, keep, |_, _| ())
    }
    fn vjp(&self, backend: &B, _condition: &Self::Condition, saved: &Self::Saved, dy: &B::Tensor) -> B::Tensor {
        self.pull_back(backend, saved, dy, None)
    }
    fn vjp_params(
        &self,
        backend: &B,
        _condition: &Self::Condition,
        saved: &Self::Saved,
        dy: &B::Tensor,
        grads: &mut Grads<B>,
    ) -> B::Tensor {
        self.pull_back(backend, saved, dy, Some(grads))
    }
    fn locate_nonfinite(&self, backend: &B, x: &B::Tensor, condition: &Self::Condition) -> Result<Option<NonFinite>> {
        first_nonfinite(backend, x, |probe| {
            self.run(backend, x, condition, Keep::Nothing, probe);
        })
    }
}
