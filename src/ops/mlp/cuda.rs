//! Launches of `kernels/mlp.cu`: each pass is one kernel in f32, where no layer is wider than it holds.

use super::{HiddenSaved, Mlp, MlpSaved, MlpWeights, concat, forward_by_layers, vjp_by_layers};
use crate::backend::cuda::{Args, Cuda, CudaTensor, Dtype, Launch};
use crate::backend::{Array, Backend, Keep, Shape};
use crate::ops::linear::cuda::CudaLinear;
use bytemuck::{NoUninit, Pod, Zeroable};
use std::sync::Arc;

/// As in the kernel.
const LAYERS: usize = 8;
const WIDTH: usize = 256;
const SAMPLES: usize = 64;
/// The samples, and two buffers of weights.
const SHARED: usize = SAMPLES * WIDTH * size_of::<f32>() + 2 * WIDTH * 64;

/// As in the kernel.
#[derive(Clone, Copy, Default, Pod, Zeroable)]
#[repr(C)]
struct Layer {
    w: u64,
    b: u64,
    y: u64,
    derivative: u64,
    rstd: u64,
    inputs: i32,
    outputs: i32,
    rows: i32,
    padding: i32,
}

/// As in the kernel.
#[derive(Clone, Copy, NoUninit)]
#[repr(C)]
struct MlpArgs {
    layers: [Layer; LAYERS],
    x: u64,
    extra: u64,
    out: u64,
    count: i32,
    n: i32,
    features: i32,
    extra_features: i32,
    extra_rows: i32,
    padding: i32,
}

impl<'a> MlpWeights<'a, Cuda> {
    /// All layers, in the order of the forward.
    fn layers(&self) -> Vec<&'a CudaLinear> {
        self.hidden.iter().copied().chain([self.last]).collect()
    }
    /// Whether the kernel takes this network for `x`.
    fn is_fused(&self, x: &CudaTensor) -> bool {
        let narrow = |layer: &CudaLinear| layer.inputs() <= WIDTH && layer.outputs() <= WIDTH;
        x.dtype() == Dtype::F32
            && self.hidden.len() < LAYERS
            && self.layers().into_iter().all(narrow)
            && x.shape().n * WIDTH < 1 << 32
    }
}

impl Layer {
    fn keeping(self, saved: Option<&HiddenSaved<Cuda>>) -> Self {
        let Some(HiddenSaved { derivative, y, rstd }) = saved else { return self };
        Self { derivative: derivative.address(), y: y.address(), rstd: rstd.address(), ..self }
    }
}

impl Cuda {
    fn mlp_launch(
        &self,
        kernel: &'static str,
        layers: &[Layer],
        x: &CudaTensor,
        extra: Option<&CudaTensor>,
    ) -> CudaTensor {
        let mut args = MlpArgs {
            layers: Default::default(),
            x: x.address(),
            extra: extra.map_or(0, CudaTensor::address),
            out: 0,
            count: layers.len() as i32,
            n: x.shape().n as i32,
            features: x.shape().c as i32,
            extra_features: extra.map_or(0, |extra| extra.shape().c as i32),
            extra_rows: extra.map_or(1, |extra| extra.shape().n as i32),
            padding: 0,
        };
        args.layers[..layers.len()].copy_from_slice(layers);
        let outputs = layers.last().expect("at least one layer").outputs;
        let out = self.alloc(Shape::rows(x.shape().n, outputs as usize));
        args.out = out.address();
        let mut launch = Launch::blocks(kernel, x.shape().n.div_ceil(SAMPLES), 256, Args::new().arg(args));
        launch.shared = SHARED as u32;
        self.launch(launch);
        out
    }
}

impl Mlp for Cuda {
    fn mlp_forward(
        &self,
        k: &MlpWeights<'_, Self>,
        x: &CudaTensor,
        embedding: &CudaTensor,
        keep: Keep,
    ) -> (CudaTensor, Option<MlpSaved<Self>>) {
        if !k.is_fused(x) {
            return forward_by_layers(self, k, x, embedding, keep, |_, _| ());
        }
        let n = x.shape().n;
        let hidden = |layer: &CudaLinear| HiddenSaved {
            derivative: self.alloc(Shape::rows(n, layer.outputs())),
            y: Arc::new(self.alloc(Shape::rows(n, layer.outputs()))),
            rstd: self.alloc(Shape::rows(n, 1)),
        };
        let saved = (keep != Keep::Nothing).then(|| MlpSaved {
            hidden: k.hidden.iter().map(|layer| hidden(layer)).collect(),
            input: (keep == Keep::All).then(|| Arc::new(concat(self, x, embedding))),
        });
        let layers = k.layers().into_iter().enumerate().map(|(i, layer)| {
            let [w, _] = layer.packed_f32();
            Layer {
                w: w.address(),
                b: layer.bias().map_or(0, CudaTensor::address),
                inputs: layer.inputs() as i32,
                outputs: layer.outputs() as i32,
                rows: layer.outputs().next_multiple_of(32) as i32,
                ..Layer::default()
            }
            .keeping(saved.as_ref().and_then(|saved| saved.hidden.get(i)))
        });
        let y = self.mlp_launch("mlp_forward_f32", &layers.collect::<Vec<_>>(), x, Some(embedding));
        (y, saved)
    }

    fn mlp_vjp(&self, k: &MlpWeights<'_, Self>, saved: &MlpSaved<Self>, dy: &CudaTensor) -> CudaTensor {
        if !k.is_fused(dy) {
            return vjp_by_layers(self, k, saved, dy, None);
        }
        let layers = k.layers().into_iter().enumerate().rev().map(|(i, layer)| {
            let [_, w] = layer.packed_f32();
            let outputs = if i == 0 { dy.shape().c } else { layer.inputs() };
            Layer {
                w: w.address(),
                inputs: layer.outputs() as i32,
                outputs: outputs as i32,
                rows: layer.inputs().next_multiple_of(32) as i32,
                ..Layer::default()
            }
            .keeping(i.checked_sub(1).map(|before| &saved.hidden[before]))
        });
        self.mlp_launch("mlp_vjp_f32", &layers.collect::<Vec<_>>(), dy, None)
    }
}
