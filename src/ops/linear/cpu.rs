//! Linear layers on the CPU: the direct convolution with one tap.

use super::Linear;
use crate::backend::cpu::{Cpu, SharedMut};
use crate::backend::host::HostTensor;
use crate::backend::{Array, Backend, Shape};
use crate::ops::conv2d::direct::{self, Direct};
use crate::ops::conv2d::epilogue::{Bias, Epilogue, Plain, Store};
use crate::ops::conv2d::image::Image;
use crate::ops::conv2d::vjp_params;

/// A layer's packed weights.
pub struct CpuLinear {
    c_in: usize,
    c_out: usize,
    bias: HostTensor<f32>,
    forward: Direct,
    vjp: Direct,
}

impl CpuLinear {
    /// (c_out), zeros without a bias.
    pub(crate) fn bias(&self) -> &[f32] {
        &self.bias
    }
}

impl Cpu {
    /// w x, finished by `epilogue`.
    pub(crate) fn linear_fused<E: Epilogue>(&self, k: &CpuLinear, x: &HostTensor<f32>, epilogue: E) -> HostTensor<f32> {
        self.product(&k.forward, k.c_out, x, epilogue)
    }
    /// wᵀ dy, finished by `epilogue`.
    pub(crate) fn linear_vjp_fused<E: Epilogue>(
        &self,
        k: &CpuLinear,
        dy: &HostTensor<f32>,
        epilogue: E,
    ) -> HostTensor<f32> {
        self.product(&k.vjp, k.c_in, dy, epilogue)
    }
    fn product<E: Epilogue>(&self, k: &Direct, c_out: usize, x: &HostTensor<f32>, epilogue: E) -> HostTensor<f32> {
        let mut y = self.alloc(x.shape().with_c(c_out));
        let store = Store { shape: y.shape(), y: SharedMut::new(&mut y), epilogue };
        k.run(self, &Image::new(x), store);
        y
    }
}

impl Linear for Cpu {
    type Linear = CpuLinear;

    fn linear(&self, c_in: usize, c_out: usize, w: &Self::Tensor, b: Option<&Self::Tensor>) -> CpuLinear {
        assert_eq!(w.len(), c_out * c_in, "weights of a linear layer, {c_in} to {c_out}");
        let bias = b.map_or_else(|| self.zeros(Shape::flat(c_out)), |b| self.copy(b));
        assert_eq!(bias.len(), c_out, "bias of a linear layer, {c_in} to {c_out}");
        CpuLinear {
            c_in,
            c_out,
            bias,
            forward: Direct::new(self, c_in, c_out, 1, direct::point(), |o, c, _| w[o * c_in + c]),
            vjp: Direct::new(self, c_out, c_in, 1, direct::point(), |c, o, _| w[o * c_in + c]),
        }
    }

    fn linear_forward(&self, k: &CpuLinear, x: &Self::Tensor) -> Self::Tensor {
        self.linear_fused(k, x, Bias(&k.bias))
    }

    fn linear_vjp(&self, k: &CpuLinear, dy: &Self::Tensor) -> Self::Tensor {
        self.linear_vjp_fused(k, dy, Plain)
    }

    fn linear_vjp_params(
        &self,
        k: &CpuLinear,
        x: &Self::Tensor,
        dy: &Self::Tensor,
        dw: &mut Self::Tensor,
        db: Option<&mut Self::Tensor>,
    ) {
        assert_eq!((x.shape().c, dy.shape().c), (k.c_in, k.c_out), "linear layer");
        vjp_params::accumulate(self, &direct::point(), 1, &Image::new(x), dy, dw, db.map(|db| &mut **db));
    }
}
