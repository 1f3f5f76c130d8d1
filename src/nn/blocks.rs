//! The two blocks of the U-Net, each with its modulation by the noise level.

use super::layers::{Builder, ConvLayer, ModulationLayer, ModulationSaved, QkvLayer};
use super::params::{Grads, ParamId};
use crate::backend::{Array, Backend, Keep, Shape};
use crate::ops::Ops;
use crate::ops::attn_block::{AttnBlockGrads, AttnBlockSaved, AttnBlockWeights};
use crate::ops::channel_norm::Modulation;
use crate::ops::dropout::Masks;
use crate::ops::res_block::{ResBlockGrads, ResBlockSaved, ResBlockWeights};
use std::borrow::Borrow;
use std::sync::Arc;

/// A residual or an attention block: (N, H, W, C) to the same.
pub(super) struct Block<B: Ops> {
    /// "down.0.res.1".
    pub name: String,
    pub modulation: ModulationLayer<B>,
    kind: Kind<B>,
}

enum Kind<B: Ops> {
    Res(ResLayers<B>),
    Attn(AttnLayers<B>),
}

/// How a forward is done.
#[derive(Clone, Copy)]
pub(super) struct Pass<'a> {
    pub keep: Keep,
    /// What residual blocks drop.
    pub dropout: Option<Masks<'a>>,
}

/// What a block's VJPs need.
pub(super) struct BlockSaved<B: Ops> {
    /// (N, H, W, C): the block's input, for the parameters.
    input: Option<Arc<B::Tensor>>,
    kind: KindSaved<B>,
}

enum KindSaved<B: Ops> {
    Res(ResBlockSaved<B>),
    Attn(AttnBlockSaved<B>),
}

/// Where a block's parameter gradients go, and what its modulation saved for them.
pub(super) struct BlockGrads<'a, B: Backend> {
    pub grads: &'a mut Grads<B>,
    /// (R, 1, 1, E): the noise embedding.
    pub embedding: &'a B::Tensor,
    pub modulation: &'a ModulationSaved<B>,
}

impl<B: Ops> Block<B> {
    /// The residual block `name`, for inputs of about the extents `x`.
    pub fn res<F, T>(builder: &Builder<'_, B, F>, name: String, x: Shape) -> Self
    where
        F: Fn(ParamId) -> T,
        T: Borrow<B::Tensor>,
    {
        let conv = |i| builder.convolution(format!("{name}.conv{i}"), x, 1);
        let kind = Kind::Res(ResLayers { conv1: conv(1), conv2: conv(2) });
        Self { modulation: builder.modulation(&name), kind, name }
    }

    /// The attention block `name`.
    pub fn attn<F, T>(builder: &Builder<'_, B, F>, name: String, heads: usize) -> Self
    where
        F: Fn(ParamId) -> T,
        T: Borrow<B::Tensor>,
    {
        let (out, w_out) = builder.projection(&format!("{name}.o"));
        let kind = Kind::Attn(AttnLayers { qkv: builder.qkv(&name), out, w_out, heads });
        Self { modulation: builder.modulation(&name), kind, name }
    }

    /// The output, and what was kept.
    pub fn forward(
        &self,
        backend: &B,
        m: &Modulation<B>,
        x: &Arc<B::Tensor>,
        Pass { keep, dropout }: Pass<'_>,
    ) -> (B::Tensor, Option<BlockSaved<B>>) {
        let (y, kind) = match &self.kind {
            Kind::Res(layers) => {
                let (y, saved) = backend.res_block_forward_dropout(&layers.weights(), m, x, keep, dropout);
                (y, saved.map(KindSaved::Res))
            }
            Kind::Attn(layers) => {
                let (y, saved) = backend.attn_block_forward(&layers.weights(), m, x, keep);
                (y, saved.map(KindSaved::Attn))
            }
        };
        let input = (keep == Keep::All).then(|| x.clone());
        (y, kind.map(|kind| BlockSaved { input, kind }))
    }

    /// dx; with `grads` also adds the parameter gradients (after a forward that kept all).
    pub fn vjp(
        &self,
        backend: &B,
        m: &Modulation<B>,
        saved: &BlockSaved<B>,
        dy: &B::Tensor,
        grads: Option<BlockGrads<'_, B>>,
    ) -> B::Tensor {
        let Some(BlockGrads { grads, embedding, modulation }) = grads else {
            return self.kind.vjp(backend, m, &saved.kind, dy, None);
        };
        let x = saved.input.as_deref().expect("the forward kept all");
        let mut dabc = backend.zeros(m.abc.shape());
        let dx = self.kind.vjp(backend, m, &saved.kind, dy, Some(KindGrads { x, grads, dabc: &mut dabc }));
        self.modulation.vjp_params(backend, embedding, modulation, &dabc, grads);
        dx
    }
}

/// Where the parameter gradients of a block's own layers go, and its modulation's.
struct KindGrads<'a, B: Backend> {
    /// (N, H, W, C): the block's input.
    x: &'a B::Tensor,
    grads: &'a mut Grads<B>,
    /// (R, 1, 1, 3 C).
    dabc: &'a mut B::Tensor,
}

impl<B: Ops> Kind<B> {
    fn vjp(
        &self,
        backend: &B,
        m: &Modulation<B>,
        saved: &KindSaved<B>,
        dy: &B::Tensor,
        grads: Option<KindGrads<'_, B>>,
    ) -> B::Tensor {
        match (self, saved) {
            (Self::Res(layers), KindSaved::Res(saved)) => layers.vjp(backend, m, saved, dy, grads),
            (Self::Attn(layers), KindSaved::Attn(saved)) => layers.vjp(backend, m, saved, dy, grads),
            _ => unreachable!("saved by a block of the other kind"),
        }
    }
}

struct ResLayers<B: Ops> {
    conv1: ConvLayer<B>,
    conv2: ConvLayer<B>,
}

impl<B: Ops> ResLayers<B> {
    fn weights(&self) -> ResBlockWeights<'_, B> {
        ResBlockWeights { conv1: &self.conv1.k, conv2: &self.conv2.k }
    }
    fn vjp(
        &self,
        backend: &B,
        m: &Modulation<B>,
        saved: &ResBlockSaved<B>,
        dy: &B::Tensor,
        grads: Option<KindGrads<'_, B>>,
    ) -> B::Tensor {
        let grads = grads.map(|KindGrads { x, grads, dabc }| {
            let ids = [self.conv1.w, self.conv1.b, self.conv2.w, self.conv2.b];
            let [dw1, db1, dw2, db2] = grads.get_many_mut(ids);
            ResBlockGrads { x, dw1, db1, dw2, db2, dabc }
        });
        backend.res_block_vjp(&self.weights(), m, saved, dy, grads)
    }
}

struct AttnLayers<B: Ops> {
    qkv: QkvLayer<B>,
    out: B::Linear,
    w_out: ParamId,
    heads: usize,
}

impl<B: Ops> AttnLayers<B> {
    fn weights(&self) -> AttnBlockWeights<'_, B> {
        AttnBlockWeights { qkv: &self.qkv.k, out: &self.out, heads: self.heads }
    }
    fn vjp(
        &self,
        backend: &B,
        m: &Modulation<B>,
        saved: &AttnBlockSaved<B>,
        dy: &B::Tensor,
        grads: Option<KindGrads<'_, B>>,
    ) -> B::Tensor {
        let Some(KindGrads { x, grads, dabc }) = grads else {
            return backend.attn_block_vjp(&self.weights(), m, saved, dy, None);
        };
        let c = x.shape().c;
        let mut dw_qkv = backend.zeros(Shape::flat(3 * c * c));
        let mut db_qkv = backend.zeros(Shape::flat(3 * c));
        let dw_out = grads.get_mut(self.w_out);
        let stacked = AttnBlockGrads { x, dw_qkv: &mut dw_qkv, db_qkv: &mut db_qkv, dw_out, dabc };
        let dx = backend.attn_block_vjp(&self.weights(), m, saved, dy, Some(stacked));
        self.qkv.add_grads(backend, &dw_qkv, &db_qkv, grads);
        dx
    }
}
