//! Multi-head scaled dot product self-attention (Vaswani et al., 2017) over the pixels of a sample.

mod cpu;
pub(crate) mod cuda;
mod reference;

use crate::backend::{Backend, Keep};

/// Per sample and head, with d = C / heads: p = softmax(q kᵀ / √d) over keys, o = p v.
///
/// VJP: dv = pᵀ do; dp = do vᵀ; ds = p (dp - Σ_keys p dp); dq = ds k / √d; dk = dsᵀ q / √d.
///
/// # Shapes
/// `qkv`, `dqkv` (N, H, W, 3 C): the C queries, then keys, then values; head i owns channels i d .. (i + 1) d of each.
/// `o`, `d_o` (N, H, W, C).
pub trait Attention: Backend {
    /// What the VJP needs.
    type AttentionSaved: Send + Sync;

    /// o.
    fn attention_forward(
        &self,
        qkv: Self::Tensor,
        heads: usize,
        keep: Keep,
    ) -> (Self::Tensor, Option<Self::AttentionSaved>);
    /// dqkv.
    fn attention_vjp(&self, saved: &Self::AttentionSaved, d_o: &Self::Tensor) -> Self::Tensor;
}
