//! The attention block on the CPU: the gated residual is the epilogue of the last linear layer, and its VJP the end of
//! the norm's.

use super::{AttnBlock, AttnBlockGrads, AttnBlockSaved, AttnBlockWeights};
use crate::backend::cpu::{Cpu, SharedMut};
use crate::backend::{Array, Backend, Keep};
use crate::ops::channel_norm::Modulation;
use crate::ops::conv2d::epilogue::BiasResidual;
use crate::ops::conv2d::image::PerSample;
use crate::ops::{Attention, ChannelNorm, Linear};

impl AttnBlock for Cpu {
    fn attn_block_forward(
        &self,
        k: &AttnBlockWeights<'_, Self>,
        m: &Modulation<Self>,
        x: &Self::Tensor,
        keep: Keep,
    ) -> (Self::Tensor, Option<AttnBlockSaved<Self>>) {
        let (y, rstd) = self.channel_norm_forward(x, Some(m));
        let (o, attention) = self.attention_forward(self.linear_forward(k.qkv, &y), k.heads, keep);
        let mut branch = (keep == Keep::All).then(|| self.alloc(x.shape()));
        let residual = BiasResidual {
            bias: k.out.bias(),
            x,
            r: PerSample::new(&m.gates, 0),
            cr: PerSample::new(&m.gates, x.shape().c),
            branch: branch.as_deref_mut().map(SharedMut::new),
        };
        let out = self.linear_fused(k.out, &o, residual);
        let params = branch.map(|branch| (o, branch));
        (out, attention.map(|attention| AttnBlockSaved { y, rstd, attention, params }))
    }

    fn attn_block_vjp(
        &self,
        k: &AttnBlockWeights<'_, Self>,
        m: &Modulation<Self>,
        saved: &AttnBlockSaved<Self>,
        dout: &Self::Tensor,
        grads: Option<AttnBlockGrads<'_, Self>>,
    ) -> Self::Tensor {
        let dbranch = self.gated_residual_vjp_branch(m, dout);
        let dqkv = self.attention_vjp(&saved.attention, &self.linear_vjp(k.out, &dbranch));
        let dy = self.linear_vjp(k.qkv, &dqkv);
        if let Some(g) = grads {
            self.attn_block_vjp_params(k, m, saved, dout, [&dbranch, &dqkv, &dy], g);
        }
        self.channel_norm_vjp_add(&saved.y, &saved.rstd, m, &dy, dout)
    }
}
