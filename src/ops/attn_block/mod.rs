//! The attention block of the U-Net (coarse op): norm and modulation, attention, projection, gated residual.

mod cpu;
mod cuda;
mod reference;

use super::channel_norm::Modulation;
use super::{Attention, ChannelNorm, GatedResidual, Linear, Vector};
use crate::backend::Keep;

/// The linear layers of a block.
pub struct AttnBlockWeights<'a, B: Linear> {
    /// C to 3 C with bias: queries, keys, values, stacked from the three layers of the checkpoint.
    pub qkv: &'a B::Linear,
    /// C to C without bias.
    pub out: &'a B::Linear,
    /// Heads; they divide C.
    pub heads: usize,
}

/// What the VJPs need.
pub struct AttnBlockSaved<B: Attention> {
    /// (N, H, W, C): the normalised input.
    pub y: B::Tensor,
    /// (N, H, W, 1).
    pub rstd: B::Tensor,
    /// The attention's own.
    pub attention: B::AttentionSaved,
    /// (N, H, W, C): the attention's output, and the branch's, for the parameters.
    pub params: Option<(B::Tensor, B::Tensor)>,
}

/// Accumulators of the parameter gradients, and the block's input, which they need.
pub struct AttnBlockGrads<'a, B: Linear> {
    /// (N, H, W, C): the block's input.
    pub x: &'a B::Tensor,
    /// (3 C, C) flat.
    pub dw_qkv: &'a mut B::Tensor,
    /// (3 C) flat.
    pub db_qkv: &'a mut B::Tensor,
    /// (C, C) flat.
    pub dw_out: &'a mut B::Tensor,
    /// (R, 1, 1, 3 C).
    pub dabc: &'a mut B::Tensor,
}

/// y = norm(x; a, b); o = attention(qkv(y)); out = (x + c proj(o)) r.
pub trait AttnBlock: Attention + Linear + ChannelNorm + GatedResidual + Vector {
    /// The block's output, (N, H, W, C), and what was kept.
    fn attn_block_forward(
        &self,
        k: &AttnBlockWeights<'_, Self>,
        m: &Modulation<Self>,
        x: &Self::Tensor,
        keep: Keep,
    ) -> (Self::Tensor, Option<AttnBlockSaved<Self>>) {
        let (y, rstd) = self.channel_norm_forward(x, Some(m));
        let (o, attention) = self.attention_forward(self.linear_forward(k.qkv, &y), k.heads, keep);
        let branch = self.linear_forward(k.out, &o);
        let out = self.gated_residual_forward(x, &branch, m);
        let saved = attention.map(|attention| AttnBlockSaved {
            y,
            rstd,
            attention,
            params: (keep == Keep::All).then_some((o, branch)),
        });
        (out, saved)
    }

    /// dx; with `grads` also the parameter gradients (after a forward that kept all).
    fn attn_block_vjp(
        &self,
        k: &AttnBlockWeights<'_, Self>,
        m: &Modulation<Self>,
        saved: &AttnBlockSaved<Self>,
        dout: &Self::Tensor,
        grads: Option<AttnBlockGrads<'_, Self>>,
    ) -> Self::Tensor {
        let (mut dx, dbranch) = self.gated_residual_vjp(m, dout);
        let dqkv = self.attention_vjp(&saved.attention, &self.linear_vjp(k.out, &dbranch));
        let dy = self.linear_vjp(k.qkv, &dqkv);
        if let Some(g) = grads {
            self.attn_block_vjp_params(k, m, saved, dout, [&dbranch, &dqkv, &dy], g);
        }
        self.add_assign(&mut dx, &self.channel_norm_vjp(&saved.y, &saved.rstd, Some(m), &dy));
        dx
    }

    /// Adds the parameter gradients, given those of the branch's output, of the queries, keys and values, and of the norm's
    /// output: what every form of the VJP computes on its way.
    fn attn_block_vjp_params(
        &self,
        k: &AttnBlockWeights<'_, Self>,
        m: &Modulation<Self>,
        saved: &AttnBlockSaved<Self>,
        dout: &Self::Tensor,
        [dbranch, dqkv, dy]: [&Self::Tensor; 3],
        g: AttnBlockGrads<'_, Self>,
    ) {
        let (o, branch) = saved.params.as_ref().expect("the forward kept all");
        self.gated_residual_vjp_params(g.x, branch, m, dout, g.dabc);
        self.linear_vjp_params(k.out, o, dbranch, g.dw_out, None);
        self.linear_vjp_params(k.qkv, &saved.y, dqkv, g.dw_qkv, Some(g.db_qkv));
        self.channel_norm_vjp_params(g.x, &saved.y, &saved.rstd, dy, g.dabc);
    }
}
