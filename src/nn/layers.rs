//! Layers with parameters: packed weights, and where their gradients go.

use super::params::{Grads, Layout, ParamId};
use crate::backend::{Backend, Keep, Shape};
use crate::ops::channel_norm::Modulation;
use crate::ops::conv2d::Conv2dSpec;
use crate::ops::{Concat, Conv2d, GatedResidual, Linear, Merge, Silu, Vector};
use std::borrow::Borrow;

/// Builds layers from named parameters. Each is asked for once and can be dropped when its layer is packed.
pub(super) struct Builder<'a, B, F> {
    pub backend: &'a B,
    pub layout: &'a Layout,
    /// The value of a parameter, flat: borrowed from [`super::Params`], or made for the occasion.
    pub values: F,
    /// Whether VJPs will be asked for.
    pub vjp: bool,
}

impl<B: Backend, F: Fn(ParamId) -> T, T: Borrow<B::Tensor>> Builder<'_, B, F> {
    fn ids(&self, name: &str) -> (ParamId, ParamId) {
        (self.layout.id(&format!("{name}.weight")), self.layout.id(&format!("{name}.bias")))
    }

    /// The layer `name`, for inputs of about the extents `x`.
    pub fn convolution(&self, name: String, x: Shape, stride: usize) -> ConvLayer<B>
    where
        B: Conv2d,
    {
        let (w, b) = self.ids(&name);
        let spec = Conv2dSpec { c_in: x.c, c_out: self.layout[b].len(), stride };
        let k = self.backend.conv2d(spec, (self.values)(w).borrow(), (self.values)(b).borrow(), x, self.vjp);
        ConvLayer { name, spec, k, w, b }
    }

    /// The layer `name`, which merges `c1` channels from below with those of the skip; `x` has both.
    pub fn merge(&self, name: String, x: Shape, c1: usize) -> ConvLayer<B>
    where
        B: Merge,
    {
        let (w, b) = self.ids(&name);
        let spec = Conv2dSpec { c_in: x.c, c_out: self.layout[b].len(), stride: 1 };
        let k = self.backend.merge(spec, c1, (self.values)(w).borrow(), (self.values)(b).borrow(), x, self.vjp);
        ConvLayer { name, spec, k, w, b }
    }

    /// The layer `name`; a 1x1 convolution is one too.
    pub fn linear(&self, name: String) -> LinearLayer<B>
    where
        B: Linear,
    {
        let (w, b) = self.ids(&name);
        let (c_out, c_in) = (self.layout[w].dims[0], self.layout[w].dims[1]);
        let k = self.backend.linear(c_in, c_out, (self.values)(w).borrow(), Some((self.values)(b).borrow()));
        LinearLayer { name, k, w, b }
    }

    /// The layer `name`, without bias.
    pub fn projection(&self, name: &str) -> (B::Linear, ParamId)
    where
        B: Linear,
    {
        let w = self.layout.id(&format!("{name}.weight"));
        let (c_out, c_in) = (self.layout[w].dims[0], self.layout[w].dims[1]);
        (self.backend.linear(c_in, c_out, (self.values)(w).borrow(), None), w)
    }

    /// The layers `block`.q, `block`.k and `block`.v in one.
    pub fn qkv(&self, block: &str) -> QkvLayer<B>
    where
        B: Linear + Concat,
    {
        let (w, b): (Vec<_>, Vec<_>) = ["q", "k", "v"].iter().map(|part| self.ids(&format!("{block}.{part}"))).unzip();
        let (w, b) = ([w[0], w[1], w[2]], [b[0], b[1], b[2]]);
        let stack = |[q, k, v]: [ParamId; 3]| {
            let qk = self.backend.concat_forward((self.values)(q).borrow(), (self.values)(k).borrow());
            self.backend.concat_forward(&qk, (self.values)(v).borrow())
        };
        let channels = self.layout[b[0]].len();
        let k = self.backend.linear(channels, 3 * channels, &stack(w), Some(&stack(b)));
        QkvLayer { k, w, b }
    }

    /// The modulation of `block`.
    pub fn modulation(&self, block: &str) -> ModulationLayer<B>
    where
        B: Linear,
    {
        let fc = |i| self.linear(format!("{block}.mod.fc{i}"));
        ModulationLayer { fc1: fc(1), fc2: fc(2) }
    }
}

/// A 3x3 convolution.
pub(super) struct ConvLayer<B: Conv2d> {
    pub name: String,
    pub spec: Conv2dSpec,
    pub k: B::Conv2d,
    pub w: ParamId,
    pub b: ParamId,
}

impl<B: Conv2d> ConvLayer<B> {
    /// The extents of the input whose output has extents `y`.
    pub fn input(&self, y: Shape) -> Shape {
        Shape::new(y.n, y.h * self.spec.stride, y.w * self.spec.stride, self.spec.c_in)
    }
    pub fn vjp_params(&self, backend: &B, x: &B::Tensor, dy: &B::Tensor, grads: &mut Grads<B>) {
        let [dw, db] = grads.get_many_mut([self.w, self.b]);
        backend.conv2d_vjp_params(&self.k, x, dy, dw, db);
    }
}

/// A linear layer.
pub(super) struct LinearLayer<B: Linear> {
    pub name: String,
    pub k: B::Linear,
    w: ParamId,
    b: ParamId,
}

impl<B: Linear> LinearLayer<B> {
    pub fn vjp_params(&self, backend: &B, x: &B::Tensor, dy: &B::Tensor, grads: &mut Grads<B>) {
        let [dw, db] = grads.get_many_mut([self.w, self.b]);
        backend.linear_vjp_params(&self.k, x, dy, dw, Some(db));
    }
}

/// Queries, keys and values: three layers of the checkpoint as one.
pub(super) struct QkvLayer<B: Linear> {
    pub k: B::Linear,
    w: [ParamId; 3],
    b: [ParamId; 3],
}

impl<B: Linear + Concat + Vector> QkvLayer<B> {
    /// Adds the gradients of the stacked weight (3 C, C) and bias (3 C) to those of the three layers.
    pub fn add_grads(&self, backend: &B, dw: &B::Tensor, db: &B::Tensor, grads: &mut Grads<B>) {
        for ([q, k, v], stacked) in [(self.w, dw), (self.b, db)] {
            let third = crate::backend::Array::shape(stacked).c / 3;
            let (dq, dkv) = backend.concat_vjp(stacked, third);
            let (dk, dv) = backend.concat_vjp(&dkv, third);
            for (id, d) in [(q, dq), (k, dk), (v, dv)] {
                backend.add_assign(grads.get_mut(id), &d);
            }
        }
    }
}

/// (a, b, c) = fc2(silu(fc1(t))) of one block, t the noise embedding.
pub(super) struct ModulationLayer<B: Linear> {
    fc1: LinearLayer<B>,
    fc2: LinearLayer<B>,
}

/// What the parameter gradients of a modulation need.
pub(super) struct ModulationSaved<B: Backend> {
    /// (R, 1, 1, E): SiLU's value.
    z: B::Tensor,
    /// (R, 1, 1, E): SiLU's derivative.
    derivative: B::Tensor,
}

impl<B: Linear + Silu + GatedResidual> ModulationLayer<B> {
    /// The modulation at the embedding `t` (R, 1, 1, E); what is kept is for the parameters only.
    pub fn forward(&self, backend: &B, t: &B::Tensor, keep: Keep) -> (Modulation<B>, Option<ModulationSaved<B>>) {
        let keep = if keep == Keep::All { Keep::All } else { Keep::Nothing };
        let (z, derivative) = backend.silu_forward(&backend.linear_forward(&self.fc1.k, t), keep);
        let abc = backend.linear_forward(&self.fc2.k, &z);
        let gates = backend.gates(&abc);
        (Modulation { abc, gates }, derivative.map(|derivative| ModulationSaved { z, derivative }))
    }
    /// Adds the parameter gradients of both layers.
    pub fn vjp_params(
        &self,
        backend: &B,
        t: &B::Tensor,
        saved: &ModulationSaved<B>,
        dabc: &B::Tensor,
        grads: &mut Grads<B>,
    ) {
        self.fc2.vjp_params(backend, &saved.z, dabc, grads);
        let dh = backend.silu_vjp(&saved.derivative, &backend.linear_vjp(&self.fc2.k, dabc));
        self.fc1.vjp_params(backend, t, &dh, grads);
    }
}
