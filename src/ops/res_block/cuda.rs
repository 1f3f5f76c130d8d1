//! The residual block on the GPU: everything between its two convolutions and after them happens in their epilogues.

use super::{ResBlock, ResBlockGrads, ResBlockSaved, ResBlockWeights, drop_silu};
use crate::backend::cuda::{Cuda, CudaTensor};
use crate::backend::{Array, Keep};
use crate::ops::ChannelNorm;
use crate::ops::channel_norm::Modulation;
use crate::ops::conv2d::cuda::epilogue::Epilogue;
use crate::ops::dropout::Masks;

impl ResBlock for Cuda {
    fn res_block_forward_dropout(
        &self,
        k: &ResBlockWeights<'_, Self>,
        m: &Modulation<Self>,
        x: &CudaTensor,
        keep: Keep,
        dropout: Option<Masks<'_>>,
    ) -> (CudaTensor, Option<ResBlockSaved<Self>>) {
        let (y, rstd) = self.channel_norm_forward(x, Some(m));
        let mut z = self.alloc_like(x);
        let mut derivative = (keep != Keep::Nothing).then(|| self.alloc_like(x));
        let silu = Epilogue::Silu { bias: k.conv1.bias(), derivative: derivative.as_ref() };
        k.conv1.forward().run(self, &[&y], &z, &silu);
        drop_silu(self, dropout, &mut z, derivative.as_mut());

        let out = self.alloc_like(x);
        let branch = (keep == Keep::All).then(|| self.alloc_like(x));
        let bias = Some(k.conv2.bias());
        let residual = Epilogue::Residual { bias, x, gates: &m.gates, branch: branch.as_ref() };
        k.conv2.forward().run(self, &[&z], &out, &residual);
        let saved = derivative.map(|derivative| ResBlockSaved {
            y,
            rstd,
            derivative,
            params: branch.map(|branch| (z, branch)),
        });
        (out, saved)
    }

    fn res_block_vjp(
        &self,
        k: &ResBlockWeights<'_, Self>,
        m: &Modulation<Self>,
        saved: &ResBlockSaved<Self>,
        dout: &CudaTensor,
        grads: Option<ResBlockGrads<'_, Self>>,
    ) -> CudaTensor {
        let ([conv1], [conv2]) = (k.conv1.vjps(), k.conv2.vjps()) else { panic!("a merge in a residual block") };
        let (dh, dy) = (self.alloc_like(dout), self.alloc_like(dout));
        let times = Epilogue::Times(&saved.derivative);
        // c r dout: written only for the parameters, or where each sample has its own gates; else they scale the weights.
        let shared = m.gates.shape().n == 1;
        let dbranch = (grads.is_some() || !shared).then(|| self.gated_residual_vjp_branch(m, dout));
        match &dbranch {
            Some(dbranch) => conv2.run(self, &[dbranch], &dh, &times),
            None => conv2.scaled(self, &m.gates, dout.shape().c).run(self, &[dout], &dh, &times),
        }
        conv1.run(self, &[&dh], &dy, &Epilogue::Bias(None));
        if let (Some(g), Some(dbranch)) = (grads, &dbranch) {
            self.res_block_vjp_params(k, m, saved, dout, [dbranch, &dh, &dy], g);
        }
        self.channel_norm_vjp_add(&saved.y, &saved.rstd, m, &dy, dout)
    }
}
