//! The residual block of the U-Net (coarse op): norm and modulation, convolution, SiLU, convolution, gated residual.

mod cpu;
mod cuda;
mod reference;

use super::channel_norm::Modulation;
use super::dropout::Masks;
use super::{ChannelNorm, Conv2d, Dropout, GatedResidual, Silu, Vector};
use crate::backend::{Array, Keep};

/// The two convolutions of a block.
pub struct ResBlockWeights<'a, B: Conv2d> {
    /// First convolution, C to C, stride 1.
    pub conv1: &'a B::Conv2d,
    /// Second convolution, C to C, stride 1.
    pub conv2: &'a B::Conv2d,
}

/// What the VJPs need.
pub struct ResBlockSaved<B: Conv2d> {
    /// (N, H, W, C): the normalised input.
    pub y: B::Tensor,
    /// (N, H, W, 1).
    pub rstd: B::Tensor,
    /// (N, H, W, C): SiLU's derivative, masked as its value.
    pub derivative: B::Tensor,
    /// (N, H, W, C): SiLU's value, and the branch's output, for the parameters.
    pub params: Option<(B::Tensor, B::Tensor)>,
}

/// Accumulators of the parameter gradients, and the block's input, which they need.
pub struct ResBlockGrads<'a, B: Conv2d> {
    /// (N, H, W, C): the block's input.
    pub x: &'a B::Tensor,
    /// First convolution: weight.
    pub dw1: &'a mut B::Tensor,
    /// First convolution: bias.
    pub db1: &'a mut B::Tensor,
    /// Second convolution: weight.
    pub dw2: &'a mut B::Tensor,
    /// Second convolution: bias.
    pub db2: &'a mut B::Tensor,
    /// (R, 1, 1, 3 C).
    pub dabc: &'a mut B::Tensor,
}

/// y = norm(x; a, b); z = dropout(silu(conv1(y))); out = (x + c conv2(z)) r.
pub trait ResBlock: Conv2d + ChannelNorm + Dropout + Silu + GatedResidual + Vector {
    /// The block's output, (N, H, W, C), and what was kept; without dropout.
    fn res_block_forward(
        &self,
        k: &ResBlockWeights<'_, Self>,
        m: &Modulation<Self>,
        x: &Self::Tensor,
        keep: Keep,
    ) -> (Self::Tensor, Option<ResBlockSaved<Self>>) {
        self.res_block_forward_dropout(k, m, x, keep, None)
    }
    /// The same, with dropout in training; the VJP needs not know.
    fn res_block_forward_dropout(
        &self,
        k: &ResBlockWeights<'_, Self>,
        m: &Modulation<Self>,
        x: &Self::Tensor,
        keep: Keep,
        dropout: Option<Masks<'_>>,
    ) -> (Self::Tensor, Option<ResBlockSaved<Self>>) {
        let (y, rstd) = self.channel_norm_forward(x, Some(m));
        let (mut z, mut derivative) = self.silu_forward(&self.conv2d_forward(k.conv1, &y), keep);
        drop_silu(self, dropout, &mut z, derivative.as_mut());
        let branch = self.conv2d_forward(k.conv2, &z);
        let out = self.gated_residual_forward(x, &branch, m);
        let saved = derivative.map(|derivative| ResBlockSaved {
            y,
            rstd,
            derivative,
            params: (keep == Keep::All).then_some((z, branch)),
        });
        (out, saved)
    }

    /// dx; with `grads` also the parameter gradients (after a forward that kept all).
    fn res_block_vjp(
        &self,
        k: &ResBlockWeights<'_, Self>,
        m: &Modulation<Self>,
        saved: &ResBlockSaved<Self>,
        dout: &Self::Tensor,
        grads: Option<ResBlockGrads<'_, Self>>,
    ) -> Self::Tensor {
        let (mut dx, dbranch) = self.gated_residual_vjp(m, dout);
        let dz = self.conv2d_vjp(k.conv2, saved.y.shape(), &dbranch);
        let dh = self.silu_vjp(&saved.derivative, &dz);
        let dy = self.conv2d_vjp(k.conv1, saved.y.shape(), &dh);
        if let Some(g) = grads {
            self.res_block_vjp_params(k, m, saved, dout, [&dbranch, &dh, &dy], g);
        }
        self.add_assign(&mut dx, &self.channel_norm_vjp(&saved.y, &saved.rstd, Some(m), &dy));
        dx
    }

    /// Adds the parameter gradients, given those of the branch's output, of SiLU's input, and of the norm's output: what
    /// every form of the VJP computes on its way.
    fn res_block_vjp_params(
        &self,
        k: &ResBlockWeights<'_, Self>,
        m: &Modulation<Self>,
        saved: &ResBlockSaved<Self>,
        dout: &Self::Tensor,
        [dbranch, dh, dy]: [&Self::Tensor; 3],
        g: ResBlockGrads<'_, Self>,
    ) {
        let (z, branch) = saved.params.as_ref().expect("the forward kept all");
        self.gated_residual_vjp_params(g.x, branch, m, dout, g.dabc);
        self.conv2d_vjp_params(k.conv2, z, dbranch, g.dw2, g.db2);
        self.conv2d_vjp_params(k.conv1, &saved.y, dh, g.dw1, g.db1);
        self.channel_norm_vjp_params(g.x, &saved.y, &saved.rstd, dy, g.dabc);
    }
}

/// Drops elements of SiLU's value, and those of its derivative with them.
fn drop_silu<B: Dropout>(
    backend: &B,
    dropout: Option<Masks<'_>>,
    z: &mut B::Tensor,
    derivative: Option<&mut B::Tensor>,
) {
    if let Some(masks) = dropout {
        masks.apply(backend, z);
        derivative.into_iter().for_each(|derivative| masks.apply(backend, derivative));
    }
}
