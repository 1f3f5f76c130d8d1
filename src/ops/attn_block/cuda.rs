//! The attention block on the GPU: the gated residual is the epilogue of the last linear layer, and its VJP the end of
//! the norm's.

use super::{AttnBlock, AttnBlockGrads, AttnBlockSaved, AttnBlockWeights};
use crate::backend::cuda::{Cuda, CudaTensor};
use crate::backend::{Array, Keep};
use crate::ops::channel_norm::Modulation;
use crate::ops::conv2d::cuda::epilogue::Epilogue;
use crate::ops::{Attention, ChannelNorm, Linear};

impl AttnBlock for Cuda {
    fn attn_block_forward(
        &self,
        k: &AttnBlockWeights<'_, Self>,
        m: &Modulation<Self>,
        x: &CudaTensor,
        keep: Keep,
    ) -> (CudaTensor, Option<AttnBlockSaved<Self>>) {
        let (y, rstd) = self.channel_norm_forward(x, Some(m));
        let (o, attention) = self.attention_forward(self.linear_forward(k.qkv, &y), k.heads, keep);
        let branch = (keep == Keep::All).then(|| self.alloc_like(x));
        let residual = Epilogue::Residual { bias: k.out.bias(), x, gates: &m.gates, branch: branch.as_ref() };
        let out = self.linear_fused(k.out, &o, &residual);
        let params = branch.map(|branch| (o, branch));
        (out, attention.map(|attention| AttnBlockSaved { y, rstd, attention, params }))
    }

    fn attn_block_vjp(
        &self,
        k: &AttnBlockWeights<'_, Self>,
        m: &Modulation<Self>,
        saved: &AttnBlockSaved<Self>,
        dout: &CudaTensor,
        grads: Option<AttnBlockGrads<'_, Self>>,
    ) -> CudaTensor {
        // c r dout: written only for the parameters, or where each sample has its own gates; else they scale the weights.
        let shared = m.gates.shape().n == 1;
        let dbranch = (grads.is_some() || !shared).then(|| self.gated_residual_vjp_branch(m, dout));
        let d_o = match &dbranch {
            Some(dbranch) => self.linear_vjp(k.out, dbranch),
            None => self.linear_vjp_scaled(k.out, &m.gates, dout.shape().c, dout),
        };
        let dqkv = self.attention_vjp(&saved.attention, &d_o);
        let dy = self.linear_vjp(k.qkv, &dqkv);
        if let (Some(g), Some(dbranch)) = (grads, &dbranch) {
            self.attn_block_vjp_params(k, m, saved, dout, [dbranch, &dqkv, &dy], g);
        }
        self.channel_norm_vjp_add(&saved.y, &saved.rstd, m, &dy, dout)
    }
}
