//! Convolution on the CPU: Winograd where it is exact enough and faster, the direct form elsewhere.

use super::direct::{self, Direct};
use super::epilogue::{Bias, Epilogue, Plain, Store};
use super::image::Image;
use super::transform::{F2, F4, Transform};
use super::vjp_params;
use super::winograd::{Sink, Winograd};
use super::winograd_params;
use super::{Conv2d, Conv2dSpec};
use crate::backend::cpu::simd::LANES;
use crate::backend::cpu::{Cpu, SharedMut};
use crate::backend::host::HostTensor;
use crate::backend::{Array, Backend, Shape};
use std::array::from_fn;

/// A layer's packed weights.
pub struct CpuConv2d {
    spec: Conv2dSpec,
    bias: HostTensor<f32>,
    forward: Form,
    vjp: Option<Form>,
}

/// The algorithm of one direction.
pub(crate) enum Form {
    /// F(4x4, 3x3).
    F4(Winograd<F4>),
    /// F(2x2, 3x3).
    F2(Winograd<F2>),
    /// By definition.
    Direct(Direct),
}

impl Form {
    /// A layer of stride 1; `weight(o, c, k)` gives its weights, k = 3 r + s.
    fn new(cpu: &Cpu, c_in: usize, c_out: usize, x: Shape, weight: impl Fn(usize, usize, usize) -> f32 + Sync) -> Self {
        // Whole vectors of the widest instruction set, so that all of them take the same path.
        if !c_in.is_multiple_of(LANES) || !c_out.is_multiple_of(LANES) {
            return Self::Direct(Direct::new(cpu, c_in, c_out, 1, direct::window(), weight));
        }
        let taps = |o: usize, c: usize| from_fn(|k| weight(o, c, k));
        if cpu.options().low_memory || products::<F2>(x) <= products::<F4>(x) {
            Self::F2(Winograd::new(cpu, c_in, c_out, taps))
        } else {
            Self::F4(Winograd::new(cpu, c_in, c_out, taps))
        }
    }
    /// Convolves `x` into `y`.
    pub fn run<E: Epilogue>(&self, cpu: &Cpu, x: &Image<'_>, y: &mut HostTensor<f32>, epilogue: E) {
        let store = Store { shape: y.shape(), y: SharedMut::new(y), epilogue };
        match self {
            Self::F4(k) => k.run(cpu, x, store),
            Self::F2(k) => k.run(cpu, x, store),
            Self::Direct(k) => k.run(cpu, x, store),
        }
    }
    /// Whether it takes an image of such parts: Winograd reads whole vectors of the widest instruction set.
    pub fn takes(&self, x: &Image<'_>) -> bool {
        matches!(self, Self::Direct(_)) || x.parts().iter().all(|part| part.c.is_multiple_of(LANES))
    }
    /// Whether it takes an image with a scale.
    pub fn scales_input(&self) -> bool {
        !matches!(self, Self::Direct(_))
    }
    /// Convolves `x` into a sink of whole tiles; false, and nothing done, if the form has none.
    pub fn run_winograd(&self, cpu: &Cpu, x: &Image<'_>, sink: impl Sink) -> bool {
        match self {
            Self::F4(k) => k.run(cpu, x, sink),
            Self::F2(k) => k.run(cpu, x, sink),
            Self::Direct(_) => return false,
        }
        true
    }
}

/// Multiplications of an image and a pair of channels.
fn products<T: Transform>(x: Shape) -> usize {
    x.h.div_ceil(T::OUTPUTS) * x.w.div_ceil(T::OUTPUTS) * T::INPUTS * T::INPUTS
}

impl CpuConv2d {
    /// Its extents.
    pub(crate) fn spec(&self) -> Conv2dSpec {
        self.spec
    }
    /// (c_out)
    pub(crate) fn bias(&self) -> &[f32] {
        &self.bias
    }
    /// The forward's weights.
    pub(crate) fn forward(&self) -> &Form {
        &self.forward
    }
    /// The VJP's weights.
    pub(crate) fn vjp(&self) -> &Form {
        self.vjp.as_ref().expect("the layer was packed for its VJP")
    }
    /// Adds the gradients of weights and bias, by the algorithm of the forward.
    pub(crate) fn add_gradients(
        &self,
        cpu: &Cpu,
        x: &Image<'_>,
        dy: &HostTensor<f32>,
        dw: &mut HostTensor<f32>,
        db: &mut HostTensor<f32>,
    ) {
        match &self.forward {
            Form::F4(_) if self.forward.takes(x) => winograd_params::accumulate::<F4>(cpu, x, dy, dw),
            Form::F2(_) if self.forward.takes(x) => winograd_params::accumulate::<F2>(cpu, x, dy, dw),
            _ => return vjp_params::accumulate(cpu, &direct::window(), self.spec.stride, x, dy, dw, Some(db)),
        }
        vjp_params::accumulate_bias(cpu, dy, db);
    }
}

impl Conv2d for Cpu {
    type Conv2d = CpuConv2d;

    fn conv2d(&self, spec: Conv2dSpec, w: &Self::Tensor, b: &Self::Tensor, x: Shape, vjp: bool) -> CpuConv2d {
        let Conv2dSpec { c_in, c_out, stride } = spec;
        assert_eq!((w.len(), b.len()), (c_out * c_in * 9, c_out), "weights of {spec:?}");
        assert!(stride == 1 || stride == 2, "stride of {spec:?}");
        let weight = |o: usize, c: usize, k: usize| w[(o * c_in + c) * 9 + k];
        let transposed = |c: usize, o: usize, k: usize| weight(o, c, k);
        let flipped = |c: usize, o: usize, k: usize| weight(o, c, 8 - k);
        let (forward, vjp) = if stride == 1 {
            (Form::new(self, c_in, c_out, x, weight), vjp.then(|| Form::new(self, c_out, c_in, x, flipped)))
        } else {
            let forward = Direct::new(self, c_in, c_out, 2, direct::window(), weight);
            let vjp = vjp.then(|| Form::Direct(Direct::vjp_of_stride_2(self, c_out, c_in, transposed)));
            (Form::Direct(forward), vjp)
        };
        CpuConv2d { spec, bias: self.copy(b), forward, vjp }
    }

    fn conv2d_forward(&self, k: &CpuConv2d, x: &Self::Tensor) -> Self::Tensor {
        let mut y = self.alloc(k.spec.output(x.shape()));
        k.forward.run(self, &Image::new(x), &mut y, Bias(&k.bias));
        y
    }

    fn conv2d_vjp(&self, k: &CpuConv2d, x: Shape, dy: &Self::Tensor) -> Self::Tensor {
        assert_eq!(k.spec.output(x), dy.shape(), "VJP of {:?}", k.spec);
        let mut dx = self.alloc(x);
        k.vjp().run(self, &Image::new(dy), &mut dx, Plain);
        dx
    }

    fn conv2d_vjp_params(
        &self,
        k: &CpuConv2d,
        x: &Self::Tensor,
        dy: &Self::Tensor,
        dw: &mut Self::Tensor,
        db: &mut Self::Tensor,
    ) {
        assert_eq!(k.spec.output(x.shape()), dy.shape(), "VJP of {:?}", k.spec);
        k.add_gradients(self, &Image::new(x), dy, dw, db);
    }
}
