//! The residual block on the CPU: everything between its two convolutions and after them happens in their epilogues.

use super::{ResBlock, ResBlockGrads, ResBlockSaved, ResBlockWeights, drop_silu};
use crate::backend::cpu::{Cpu, SharedMut};
use crate::backend::host::HostTensor;
use crate::backend::{Array, Backend, Keep};
use crate::ops::ChannelNorm;
use crate::ops::channel_norm::Modulation;
use crate::ops::conv2d::epilogue::{BiasResidual, BiasSilu, Plain, Times};
use crate::ops::conv2d::image::{Image, PerSample};
use crate::ops::dropout::Masks;

impl ResBlock for Cpu {
    fn res_block_forward_dropout(
        &self,
        k: &ResBlockWeights<'_, Self>,
        m: &Modulation<Self>,
        x: &Self::Tensor,
        keep: Keep,
        dropout: Option<Masks<'_>>,
    ) -> (Self::Tensor, Option<ResBlockSaved<Self>>) {
        let (y, rstd) = self.channel_norm_forward(x, Some(m));
        let (s, mut z) = (x.shape(), self.alloc(x.shape()));
        let mut derivative = (keep != Keep::Nothing).then(|| self.alloc(s));
        let silu = BiasSilu { bias: k.conv1.bias(), derivative: shared(&mut derivative) };
        k.conv1.forward().run(self, &Image::new(&y), &mut z, silu);
        drop_silu(self, dropout, &mut z, derivative.as_mut());

        let mut out = self.alloc(s);
        let mut branch = (keep == Keep::All).then(|| self.alloc(s));
        let residual = BiasResidual {
            bias: k.conv2.bias(),
            x,
            r: PerSample::new(&m.gates, 0),
            cr: PerSample::new(&m.gates, s.c),
            branch: shared(&mut branch),
        };
        k.conv2.forward().run(self, &Image::new(&z), &mut out, residual);
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
        dout: &Self::Tensor,
        grads: Option<ResBlockGrads<'_, Self>>,
    ) -> Self::Tensor {
        let s = dout.shape();
        let (mut dh, mut dy) = (self.alloc(s), self.alloc(s));
        // c r dout: written only for the parameters, or where the convolution cannot scale its input.
        let dbranch =
            (grads.is_some() || !k.conv2.vjp().scales_input()).then(|| self.gated_residual_vjp_branch(m, dout));
        let scaled = || Image::new(dout).scaled(PerSample::new(&m.gates, s.c));
        let image = dbranch.as_ref().map_or_else(scaled, Image::new);
        k.conv2.vjp().run(self, &image, &mut dh, Times(&saved.derivative));
        k.conv1.vjp().run(self, &Image::new(&dh), &mut dy, Plain);
        if let (Some(g), Some(dbranch)) = (grads, &dbranch) {
            self.res_block_vjp_params(k, m, saved, dout, [dbranch, &dh, &dy], g);
        }
        self.channel_norm_vjp_add(&saved.y, &saved.rstd, m, &dy, dout)
    }
}

fn shared(array: &mut Option<HostTensor<f32>>) -> Option<SharedMut<'_>> {
    array.as_mut().map(|array| SharedMut::new(array))
}
