//! The noise-conditional multilayer perceptron (coarse op): all of its layers on a batch of vectors.

mod cpu;
mod cuda;
mod reference;

use super::{ChannelNorm, Concat, Linear, Silu, Vector};
use crate::backend::{Array, Backend, Keep};
use std::sync::Arc;

/// The linear layers.
pub struct MlpWeights<'a, B: Linear> {
    /// D + E to the width of the first hidden layer, then from one hidden layer to the next; with bias.
    pub hidden: Vec<&'a B::Linear>,
    /// From the last hidden layer to D; with bias.
    pub last: &'a B::Linear,
}

/// What the VJPs need.
pub struct MlpSaved<B: Backend> {
    /// One for each hidden layer.
    pub hidden: Vec<HiddenSaved<B>>,
    /// (N, 1, 1, D + E): the first layer's input, for the parameters.
    pub input: Option<Arc<B::Tensor>>,
}

/// Of a hidden layer.
pub struct HiddenSaved<B: Backend> {
    /// (N, 1, 1, width): SiLU's derivative.
    pub derivative: B::Tensor,
    /// (N, 1, 1, width): the norm's output, the next layer's input.
    pub y: Arc<B::Tensor>,
    /// (N, 1, 1, 1).
    pub rstd: B::Tensor,
}

/// h_0 = (x, embedding); h_(i+1) = norm(silu(w_i h_i + b_i)); the last layer is linear.
///
/// # Shapes
/// `x`, the value and its gradients (N, 1, 1, D); `embedding` (R, 1, 1, E), R = 1 or N.
pub trait Mlp: Linear + Silu + ChannelNorm + Concat + Vector {
    /// The value, and what was kept.
    fn mlp_forward(
        &self,
        k: &MlpWeights<'_, Self>,
        x: &Self::Tensor,
        embedding: &Self::Tensor,
        keep: Keep,
    ) -> (Self::Tensor, Option<MlpSaved<Self>>) {
        forward_by_layers(self, k, x, embedding, keep, |_, _| ())
    }
    /// dx.
    fn mlp_vjp(&self, k: &MlpWeights<'_, Self>, saved: &MlpSaved<Self>, dy: &Self::Tensor) -> Self::Tensor {
        vjp_by_layers(self, k, saved, dy, None)
    }
}

/// The forward as a composition; `after` sees every layer's output, in order.
pub fn forward_by_layers<B: Mlp>(
    backend: &B,
    k: &MlpWeights<'_, B>,
    x: &B::Tensor,
    embedding: &B::Tensor,
    keep: Keep,
    mut after: impl FnMut(usize, &B::Tensor),
) -> (B::Tensor, Option<MlpSaved<B>>) {
    let mut x = Arc::new(concat(backend, x, embedding));
    let input = (keep == Keep::All).then(|| x.clone());
    let mut hidden = Vec::with_capacity(k.hidden.len());
    for (i, layer) in k.hidden.iter().enumerate() {
        let (z, derivative) = backend.silu_forward(&backend.linear_forward(layer, &x), keep);
        let (y, rstd) = backend.channel_norm_forward(&z, None);
        after(i, &y);
        x = Arc::new(y);
        hidden.extend(derivative.map(|derivative| HiddenSaved { derivative, y: x.clone(), rstd }));
    }
    let y = backend.linear_forward(k.last, &x);
    after(k.hidden.len(), &y);
    (y, (keep != Keep::Nothing).then_some(MlpSaved { hidden, input }))
}

/// Takes the number of a layer, its input, and the gradient of its output.
pub type LayerVisitor<'a, B> = &'a mut dyn FnMut(usize, &<B as Backend>::Tensor, &<B as Backend>::Tensor);

/// The VJP as a composition; `params` gets the input of every layer and the gradient of its output, the last layer's
/// first (after a forward that kept all).
pub fn vjp_by_layers<B: Mlp>(
    backend: &B,
    k: &MlpWeights<'_, B>,
    saved: &MlpSaved<B>,
    dy: &B::Tensor,
    mut params: Option<LayerVisitor<'_, B>>,
) -> B::Tensor {
    let mut backward = |layer: &B::Linear, i: usize, dy: &B::Tensor| {
        if let Some(params) = &mut params {
            let first = || saved.input.as_ref().expect("the forward kept all");
            params(i, if i == 0 { first() } else { &saved.hidden[i - 1].y }, dy);
        }
        backend.linear_vjp(layer, dy)
    };
    let mut dx = backward(k.last, k.hidden.len(), dy);
    for (i, (layer, saved)) in k.hidden.iter().zip(&saved.hidden).enumerate().rev() {
        let dz = backend.channel_norm_vjp(&saved.y, &saved.rstd, None, &dx);
        dx = backward(layer, i, &backend.silu_vjp(&saved.derivative, &dz));
    }
    backend.concat_vjp(&dx, dy.shape().c).0
}

/// (x, embedding), (N, 1, 1, D + E).
fn concat<B: Mlp>(backend: &B, x: &B::Tensor, embedding: &B::Tensor) -> B::Tensor {
    let n = x.shape().n;
    if embedding.shape().n == n {
        backend.concat_forward(x, embedding)
    } else {
        backend.concat_forward(x, &backend.gather_rows(embedding, &vec![0; n]))
    }
}
