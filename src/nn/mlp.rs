//! The noise-conditional multilayer perceptron for vectors.

use super::config::MlpConfig;
use super::layers::{Builder, LinearLayer};
use super::params::{Grads, ParamId};
use super::{Network, NonFinite, first_nonfinite};
use crate::Result;
use crate::backend::{Array, Keep, Shape};
use crate::ops::Ops;
use crate::ops::dropout::Masks;
use crate::ops::mlp::{MlpSaved, MlpWeights, forward_by_layers, vjp_by_layers};
use std::borrow::Borrow;

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

    fn weights(&self) -> MlpWeights<'_, B> {
        MlpWeights { hidden: self.hidden.iter().map(|layer| &layer.k).collect(), last: &self.last.k }
    }
    fn layer(&self, i: usize) -> &LinearLayer<B> {
        self.hidden.get(i).unwrap_or(&self.last)
    }
    fn assert_features(&self, x: &B::Tensor) {
        assert_eq!(x.shape(), Shape::rows(x.shape().n, self.config.features), "vectors for a network of features");
    }
}

impl<B: Ops> Network<B> for Mlp<B> {
    /// (R, 1, 1, E): the noise embedding.
    type Condition = B::Tensor;
    type Saved = MlpSaved<B>;

    fn condition(&self, backend: &B, log_sigma: &[f64], _keep: Keep) -> Self::Condition {
        backend.noise_embedding_forward(log_sigma, self.config.emb)
    }
    fn condition_len(&self) -> usize {
        self.config.emb
    }
    fn pick_condition(&self, backend: &B, all: &Self::Condition, i: usize) -> Self::Condition {
        backend.gather_rows(all, &[i])
    }
    fn forward_dropout(
        &self,
        backend: &B,
        x: &B::Tensor,
        condition: &Self::Condition,
        keep: Keep,
        _dropout: Option<Masks<'_>>,
    ) -> (B::Tensor, Option<Self::Saved>) {
        self.assert_features(x);
        backend.mlp_forward(&self.weights(), x, condition, keep)
    }
    fn vjp(&self, backend: &B, _condition: &Self::Condition, saved: &Self::Saved, dy: &B::Tensor) -> B::Tensor {
        backend.mlp_vjp(&self.weights(), saved, dy)
    }
    fn vjp_params(
        &self,
        backend: &B,
        _condition: &Self::Condition,
        saved: &Self::Saved,
        dy: &B::Tensor,
        grads: &mut Grads<B>,
    ) -> B::Tensor {
        let mut params = |i: usize, x: &B::Tensor, dy: &B::Tensor| self.layer(i).vjp_params(backend, x, dy, grads);
        vjp_by_layers(backend, &self.weights(), saved, dy, Some(&mut params))
    }
    fn locate_nonfinite(&self, backend: &B, x: &B::Tensor, condition: &Self::Condition) -> Result<Option<NonFinite>> {
        first_nonfinite(backend, x, |probe| {
            let after = |i: usize, y: &B::Tensor| probe(&self.layer(i).name, y);
            forward_by_layers(backend, &self.weights(), x, condition, Keep::Nothing, after);
        })
    }
}
