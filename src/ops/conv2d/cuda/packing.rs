//! Packed weights of a linear map on pixels: `kernels/conv2d_pack.cu`.

use super::map::{Layer, int};
use super::tile::step_bytes;
use super::view::{Axis, View};
use crate::backend::cuda::{Args, Boxes, Cuda, CudaTensor, Dtype, Launch, TensorMap};
use crate::backend::{Array, Shape};
use bytemuck::{NoUninit, Pod, Zeroable};

/// Some of the channels that a map reads.
pub(super) struct Part {
    /// Their offset in the weights.
    pub first: usize,
    /// How many.
    pub channels: usize,
    /// How their pixels are read.
    pub view: View,
}

/// What a map's weights are made of.
pub(super) struct Packing<'a> {
    dtype: Dtype,
    wgmma: bool,
    layer: Layer<'a>,
    outputs: usize,
    /// Of an output and of a channel in the layer's weights.
    strides: [usize; 2],
    parts: &'a [Part],
}

/// One phase of the output pixels, (step p + a, step q + b).
pub(super) struct PackedPhase {
    dtype: Dtype,
    a: i32,
    b: i32,
    /// Of each array, without its address and extents.
    windows: Vec<Window>,
    /// Channels that are packed together, before the next tap.
    block: usize,
    /// Of a step of the products.
    bk: usize,
    weights: CudaTensor,
}

/// As in the kernel: pixel (n, stride p + i0 + r, stride q + j0 + s), r < kh, s < kw, of x (N, h, w, c).
#[derive(Clone, Copy, Default, Pod, Zeroable)]
#[repr(C)]
struct Window {
    x: u64,
    h: i32,
    w: i32,
    c: i32,
    stride: i32,
    i0: i32,
    j0: i32,
    kh: i32,
    kw: i32,
}

#[derive(Clone, Copy, Default, Pod, Zeroable)]
#[repr(C)]
pub(super) struct Phase {
    inputs: [Window; 2],
    weights: u64,
    h: i32,
    w: i32,
    a: i32,
    b: i32,
}

#[derive(Clone, Copy, NoUninit)]
#[repr(C)]
struct PackArgs {
    w: u64,
    packed: u64,
    first: i32,
    stride_o: i32,
    stride_c: i32,
    width: i32,
    outputs: i32,
    channels: i32,
    kh: i32,
    kw: i32,
    block: i32,
    bk: i32,
    rows: [u8; 4],
    cols: [u8; 4],
}

impl<'a> Packing<'a> {
    pub fn new(
        cuda: &Cuda,
        dtype: Dtype,
        layer: Layer<'a>,
        outputs: usize,
        strides: [usize; 2],
        parts: &'a [Part],
    ) -> Self {
        // Less than half a tile of wgmma, or half a step of it, is better served by mma.sync.
        let wide = outputs >= 64 && outputs.is_multiple_of(8) && parts.iter().all(|part| part.channels >= 64);
        let wgmma = cuda.driver().properties().wgmma && dtype == Dtype::Bf16 && wide;
        let packing = Self { dtype, wgmma, layer, outputs, strides, parts };
        assert!(parts.len() == 1 || !packing.gathered(), "merge of channels that are no multiples of 16 bytes");
        Self { wgmma: wgmma && !packing.gathered(), ..packing }
    }
    /// Whether the products are made by wgmma: a matter of the layer and the device, never of the batch.
    pub fn wgmma(&self) -> bool {
        self.wgmma
    }
    /// Whether channels are read one by one, for want of whole 16-byte chunks.
    pub fn gathered(&self) -> bool {
        let chunk = 16 / self.dtype.size();
        self.parts.iter().any(|part| !part.channels.is_multiple_of(chunk))
    }
    /// Packs the phase that is number `i` along y, `j` along x.
    pub fn phase(&self, cuda: &Cuda, (i, j): (usize, usize)) -> PackedPhase {
        let bk = step_bytes(self.wgmma) / self.dtype.size();
        let axes = |part: &Part| (part.view.phases[i], part.view.phases[j]);
        let elements = |part: &Part| {
            let taps = axes(part).0.taps.len() * axes(part).1.taps.len();
            let depth = if self.gathered() {
                (taps * part.channels).next_multiple_of(bk)
            } else {
                taps * part.channels.next_multiple_of(bk)
            };
            depth * rows(self.outputs)
        };
        let weights = cuda.alloc_as(Shape::flat(self.parts.iter().map(elements).sum()), self.dtype);
        let (mut packed, mut windows, mut block) = (weights.address(), Vec::new(), bk);
        for part in self.parts {
            let (y, x) = axes(part);
            let (kh, kw) = (int(y.taps.len()), int(x.taps.len()));
            if self.gathered() {
                block = part.channels;
            }
            let args = PackArgs {
                w: self.layer.w.address(),
                packed,
                first: int(part.first),
                stride_o: int(self.strides[0]),
                stride_c: int(self.strides[1]),
                width: int(self.layer.width),
                outputs: int(self.outputs),
                channels: int(part.channels),
                kh,
                kw,
                block: int(block),
                bk: int(bk),
                rows: sets(y),
                cols: sets(x),
            };
            let len = elements(part);
            let kernel = crate::kernel!("conv2d_pack", self.dtype);
            cuda.launch(Launch::per_item(kernel, len, Args::new().arg(args).arg(int(len))));
            packed += (len * self.dtype.size()) as u64;
            let (stride, i0, j0) = (part.view.stride, y.origin, x.origin);
            windows.push(Window { c: int(part.channels), stride, i0, j0, kh, kw, ..Window::default() });
        }
        let (y, x) = axes(&self.parts[0]);
        PackedPhase { dtype: self.dtype, a: y.a, b: x.a, windows, block, bk, weights }
    }
}

impl PackedPhase {
    /// The packed weights.
    pub fn weights(&self) -> &CudaTensor {
        &self.weights
    }
    /// With input channel c times the f32 number c at `factor`; for one array.
    pub fn scaled(&self, cuda: &Cuda, factor: u64, outputs: usize) -> Self {
        let [window] = self.windows[..] else { panic!("scaling of {} arrays", self.windows.len()) };
        let weights = cuda.alloc_like(&self.weights);
        let len = weights.shape().len();
        let args = Args::new().ptr(&weights).ptr(&self.weights).arg(factor).arg(int(len)).arg(int(rows(outputs)));
        let args = args.arg(window.c).arg(window.kh * window.kw).arg(int(self.block)).arg(int(self.bk));
        cuda.launch(Launch::per_item(crate::kernel!("conv2d_scale", self.dtype), len, args));
        Self { windows: vec![window], weights, ..*self }
    }
    /// How many rows more than one tap's the taps of a column read of input number `i`, where those are neighbours.
    pub fn shareable(&self, i: usize) -> usize {
        self.windows.get(i).map_or(0, |window| if window.stride == 1 { window.kh as usize - 1 } else { 0 })
    }
    /// For TMA: input number `i`, `x`, in boxes of n x h x w pixels and one step of the products.
    pub fn input_map(&self, cuda: &Cuda, i: usize, x: &CudaTensor, [n, h, w]: [usize; 3]) -> TensorMap {
        let s = x.shape();
        let stride = self.windows[i].stride as usize;
        let (array, extents) = ([s.c, s.w, s.h, s.n], [self.bk, w, h, n]);
        cuda.tensor_map(&Boxes { address: x.address(), array, extents, steps: [1, stride, stride, 1] })
    }
    /// The same of the weights, `columns` outputs of one step.
    pub fn weights_map(&self, cuda: &Cuda, outputs: usize, columns: usize) -> TensorMap {
        let rows = rows(outputs);
        let array = [self.bk, rows, self.weights.shape().len() / (self.bk * rows), 1];
        let extents = [self.bk, columns, 1, 1];
        cuda.tensor_map(&Boxes { address: self.weights.address(), array, extents, steps: [1; 4] })
    }
    /// The kernel's argument for the inputs `x` and an output of extents `y`.
    pub fn args(&self, x: &[&CudaTensor], y: Shape, step: usize) -> Phase {
        let mut inputs = [Window::default(); 2];
        for (to, (window, x)) in inputs.iter_mut().zip(self.windows.iter().zip(x)) {
            let s = x.shape();
            assert_eq!((s.n, int(s.c), x.dtype()), (y.n, window.c, self.dtype), "input of a convolution to {y:?}");
            *to = Window { x: x.address(), h: int(s.h), w: int(s.w), ..*window };
        }
        let pixels = |extent: usize, a: i32| (int(extent) - a + int(step) - 1) / int(step);
        let (h, w) = (pixels(y.h, self.a), pixels(y.w, self.b));
        Phase { inputs, weights: self.weights.address(), h, w, a: self.a, b: self.b }
    }
}

fn sets(axis: Axis) -> [u8; 4] {
    std::array::from_fn(|i| axis.taps.get(i).copied().unwrap_or(0))
}

/// Rows of packed weights.
fn rows(outputs: usize) -> usize {
    outputs.next_multiple_of(32)
}
