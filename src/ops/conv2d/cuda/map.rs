//! A linear map on pixels with its packed weights, and its launch: `kernels/conv2d.cuh`.

use super::epilogue::Epilogue;
use super::tile::Tile;
use super::view::{Axis, View};
use crate::backend::cuda::{Args, Cuda, CudaTensor, Dtype, Launch};
use crate::backend::{Array, Shape};
use bytemuck::{NoUninit, Pod, Zeroable};
use std::ops::Range;

/// A layer's weights as PyTorch has them: w\[o, c, r, s\].
#[derive(Clone, Copy)]
pub(crate) struct Layer<'a> {
    /// Flat (c_out, c_in, width, width), f32.
    pub w: &'a CudaTensor,
    /// Input channels.
    pub c_in: usize,
    /// Output channels.
    pub c_out: usize,
    /// Taps along an axis: 1 or 3.
    pub width: usize,
}

impl Layer<'_> {
    /// The layer itself, on an image whose channels are split into `parts`, each read in its own way.
    pub fn forward(&self, cuda: &Cuda, dtype: Dtype, parts: &[(usize, View)]) -> Map {
        assert_eq!(parts.iter().map(|part| part.0).sum::<usize>(), self.c_in, "parts of a layer's input");
        let taps = self.width * self.width;
        let mut first = 0;
        let parts = parts.iter().map(|&(channels, view)| {
            first += channels * taps;
            Part { first: first - channels * taps, channels, view }
        });
        Map::new(cuda, dtype, self, self.c_out, [self.c_in * taps, taps], &parts.collect::<Vec<_>>())
    }
    /// Its gradient for some of the input's channels.
    pub fn vjp(&self, cuda: &Cuda, dtype: Dtype, channels: Range<usize>, view: View) -> Map {
        let taps = self.width * self.width;
        let part = Part { first: channels.start * taps, channels: self.c_out, view };
        Map::new(cuda, dtype, self, channels.len(), [taps, self.c_in * taps], &[part])
    }
}

/// Some of the channels that a map reads.
struct Part {
    first: usize, // offset in the weights
    channels: usize,
    view: View,
}

/// From the pixels of one or two arrays to those of another.
pub(crate) struct Map {
    dtype: Dtype,
    /// Channels of each array that is read.
    channels: Vec<usize>,
    /// Channels that are written.
    outputs: usize,
    /// Output pixels from one p to the next.
    step: usize,
    phases: Vec<PackedPhase>,
}

struct PackedPhase {
    a: i32,
    b: i32,
    /// Of each array, without its address and extents.
    windows: Vec<Window>,
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
struct Phase {
    inputs: [Window; 2],
    weights: u64,
    h: i32,
    w: i32,
    a: i32,
    b: i32,
}

#[derive(Clone, Copy, NoUninit)]
#[repr(C)]
struct Conv2dArgs {
    phases: [Phase; 4],
    y: u64,
    n: i32,
    h: i32,
    w: i32,
    c: i32,
    step: i32,
    blocks_n: i32,
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
    rows: [u8; 4],
    cols: [u8; 4],
}

impl Map {
    fn new(cuda: &Cuda, dtype: Dtype, layer: &Layer<'_>, outputs: usize, strides: [usize; 2], parts: &[Part]) -> Self {
        let step = parts[0].view.phases.len();
        let places = (0..step).flat_map(|i| (0..step).map(move |j| (i, j)));
        let phases = places.map(|(i, j)| PackedPhase::new(cuda, dtype, layer, outputs, strides, parts, (i, j)));
        let phases = phases.collect();
        Self { dtype, channels: parts.iter().map(|part| part.channels).collect(), outputs, step, phases }
    }

    /// Channels that are written.
    pub fn outputs(&self) -> usize {
        self.outputs
    }

    /// The same map of an image whose channels are multiplied by those of `factor`, one row of f32, from `first` on; for
    /// maps of one array in one phase.
    pub fn scaled(&self, cuda: &Cuda, factor: &CudaTensor, first: usize) -> Self {
        let ([channels], [phase]) = (&self.channels[..], &self.phases[..]) else {
            panic!("scaling of {:?} channels in {} phases", self.channels, self.phases.len())
        };
        let weights = cuda.alloc_like(&phase.weights);
        let len = weights.shape().len();
        let args = Args::new().ptr(&weights).ptr(&phase.weights).arg(factor.address() + 4 * first as u64);
        let args = args.arg(int(len)).arg(int(rows(self.outputs))).arg(int(*channels));
        cuda.launch(Launch::per_item(crate::kernel!("conv2d_scale", self.dtype), len, args));
        let phase = PackedPhase { weights, windows: phase.windows.clone(), ..*phase };
        Self { channels: self.channels.clone(), phases: vec![phase], ..*self }
    }

    /// `y`, (N, H, W, outputs), from the arrays `x`, finished by `epilogue`.
    pub fn run(&self, cuda: &Cuda, x: &[&CudaTensor], y: &CudaTensor, epilogue: &Epilogue<'_>) {
        let s = y.shape();
        assert_eq!((y.dtype(), s.c), (self.dtype, self.outputs), "output of a convolution");
        assert_eq!(x.len(), self.channels.len(), "inputs of a convolution");
        let chunk = 16 / self.dtype.size();
        let aligned = self.channels.iter().all(|channels| channels.is_multiple_of(chunk));
        assert!(aligned || x.len() == 1, "parts of {:?} channels", self.channels);
        let (h, w) = (s.h.div_ceil(self.step), s.w.div_ceil(self.step));
        let tile = if aligned { Tile::best(cuda, s.n * h * w, self.outputs, self.phases.len()) } else { Tile::Small };

        let (rows, columns) = tile.extents();
        let blocks = [(s.n * h * w).div_ceil(rows), self.outputs.div_ceil(columns)];
        let mut phases = [Phase::default(); 4];
        for (to, phase) in phases.iter_mut().zip(&self.phases) {
            *to = phase.args(self, x, s);
        }
        let args = Conv2dArgs {
            phases,
            y: y.address(),
            n: int(s.n),
            h: int(s.h),
            w: int(s.w),
            c: int(s.c),
            step: int(self.step),
            blocks_n: int(blocks[1]),
        };
        assert!(s.len() < 1 << 31 && x.iter().all(|x| x.shape().len() < 1 << 31), "a convolution to {s:?}");
        cuda.launch(Launch {
            kernel: epilogue.kernel(tile, x.len(), aligned, self.dtype),
            grid: [int(blocks[0] * blocks[1]) as u32, 1, self.phases.len() as u32],
            block: [tile.threads(), 1, 1],
            shared: tile.shared(),
            args: Args::new().arg(args).arg(epilogue.args(s)),
        });
    }
}

impl PackedPhase {
    fn new(
        cuda: &Cuda,
        dtype: Dtype,
        layer: &Layer<'_>,
        outputs: usize,
        strides: [usize; 2],
        parts: &[Part],
        (i, j): (usize, usize),
    ) -> Self {
        let bk = 64 / dtype.size();
        let rows = rows(outputs);
        let axes = |part: &Part| (part.view.phases[i], part.view.phases[j]);
        let depth = |part: &Part| {
            let (y, x) = axes(part);
            (y.taps.len() * x.taps.len() * part.channels).next_multiple_of(bk)
        };
        let weights = cuda.alloc_as(Shape::flat(parts.iter().map(depth).sum::<usize>() * rows), dtype);
        let mut at = weights.address();
        for part in parts {
            let (y, x) = axes(part);
            let args = PackArgs {
                w: layer.w.address(),
                packed: at,
                first: int(part.first),
                stride_o: int(strides[0]),
                stride_c: int(strides[1]),
                width: int(layer.width),
                outputs: int(outputs),
                channels: int(part.channels),
                kh: int(y.taps.len()),
                kw: int(x.taps.len()),
                rows: sets(y),
                cols: sets(x),
            };
            let kernel = crate::kernel!("conv2d_pack", dtype);
            cuda.launch(Launch::per_item(kernel, rows * depth(part), Args::new().arg(args)));
            at += (rows * depth(part) * dtype.size()) as u64;
        }
        let (y, x) = axes(&parts[0]);
        let windows = parts.iter().map(|part| {
            let (y, x) = axes(part);
            let (kh, kw) = (int(y.taps.len()), int(x.taps.len()));
            let (stride, i0, j0) = (part.view.stride, y.origin, x.origin);
            Window { c: int(part.channels), stride, i0, j0, kh, kw, ..Window::default() }
        });
        Self { a: y.a, b: x.a, windows: windows.collect(), weights }
    }

    fn args(&self, map: &Map, x: &[&CudaTensor], y: Shape) -> Phase {
        let mut inputs = [Window::default(); 2];
        for (to, (window, x)) in inputs.iter_mut().zip(self.windows.iter().zip(x)) {
            let s = x.shape();
            assert_eq!((s.n, int(s.c), x.dtype()), (y.n, window.c, map.dtype), "input of a convolution to {y:?}");
            *to = Window { x: x.address(), h: int(s.h), w: int(s.w), ..*window };
        }
        let pixels = |extent: usize, a: i32| (int(extent) - a + int(map.step) - 1) / int(map.step);
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

/// An extent as kernels take it.
pub(super) fn int(extent: usize) -> i32 {
    i32::try_from(extent).expect("extents below 2^31")
}
