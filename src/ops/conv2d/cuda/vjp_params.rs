//! The parameter gradients of a convolution or linear layer on the GPU: `kernels/conv2d_vjp_params.cu`.

use super::map::int;
use crate::backend::cuda::{Args, Cuda, CudaTensor, Launch};
use crate::backend::{Array, Backend, Shape};
use bytemuck::{NoUninit, Pod, Zeroable};

/// What the layer read: an array, or concat(upsample(x), skip).
pub(crate) struct Input<'a> {
    parts: [Option<(&'a CudaTensor, usize)>; 2], // with log2 of the upsampling
    /// Its extents, C being the sum over the parts.
    shape: Shape,
}

impl<'a> Input<'a> {
    /// The array itself.
    pub fn new(x: &'a CudaTensor) -> Self {
        Self { parts: [Some((x, 0)), None], shape: x.shape() }
    }
    /// concat(upsample(x), skip).
    pub fn merged(x: &'a CudaTensor, skip: &'a CudaTensor) -> Self {
        let s = skip.shape();
        Self { parts: [Some((x, 1)), Some((skip, 0))], shape: s.with_c(x.shape().c + s.c) }
    }
}

/// As in the kernel: (n, h >> shift, w >> shift, c).
#[derive(Clone, Copy, Default, Pod, Zeroable)]
#[repr(C)]
struct Part {
    x: u64,
    c: i32,
    shift: i32,
}

#[derive(Clone, Copy, NoUninit)]
#[repr(C)]
struct VjpParamsArgs {
    parts: [Part; 2],
    dy: u64,
    dw: u64,
    db: u64,
    n: i32,
    h: i32,
    w: i32,
    c_in: i32,
    h_out: i32,
    w_out: i32,
    c_out: i32,
    stride: i32,
    width: i32,
    steps: i32,
}

/// Channels of `dy` and columns (tap, channel of x) of a block.
const TILE: usize = 128;

/// Adds the gradients to `dw`, (c_out, c_in, width, width), and `db`, (c_out), f32.
pub(crate) fn accumulate(
    cuda: &Cuda,
    x: &Input<'_>,
    width: usize,
    stride: usize,
    dy: &CudaTensor,
    dw: &mut CudaTensor,
    db: Option<&mut CudaTensor>,
) {
    let (s, y, dtype) = (x.shape, dy.shape(), dy.dtype());
    let columns = width * width * s.c;
    assert_eq!(dw.shape().len(), y.c * columns, "weight gradient of {s:?} to {y:?}");
    assert!(x.parts.iter().flatten().all(|(x, _)| x.dtype() == dtype), "types of a weight gradient");
    let step = 64 / dtype.size();
    let steps = (y.n * y.pixels()).div_ceil(step);
    let (steps, pieces) = split(cuda, steps, y.c.div_ceil(TILE) * columns.div_ceil(TILE));

    let partial_dw = cuda.alloc(Shape::flat(pieces * y.c * columns));
    let partial_db = db.as_ref().map(|_| cuda.alloc(Shape::flat(pieces * y.c)));
    let part = |part: Option<(&CudaTensor, usize)>| {
        part.map_or(Part::default(), |(x, shift)| Part { x: x.address(), c: int(x.shape().c), shift: int(shift) })
    };
    let args = VjpParamsArgs {
        parts: x.parts.map(part),
        dy: dy.address(),
        dw: partial_dw.address(),
        db: partial_db.as_ref().map_or(0, CudaTensor::address),
        n: int(y.n),
        h: int(s.h),
        w: int(s.w),
        c_in: int(s.c),
        h_out: int(y.h),
        w_out: int(y.w),
        c_out: int(y.c),
        stride: int(stride),
        width: int(width),
        steps: int(steps),
    };
    let aligned = [s.c, y.c].iter().all(|channels| channels.is_multiple_of(16 / dtype.size()));
    let kernel = if aligned {
        crate::kernel!("conv2d_vjp_params", dtype)
    } else {
        crate::kernel!("conv2d_vjp_params_gathered", dtype)
    };
    let grid = [columns.div_ceil(TILE), y.c.div_ceil(TILE), pieces].map(|blocks| int(blocks) as u32);
    cuda.launch(Launch { kernel, grid, block: [128, 1, 1], shared: 4 * 2 * 8192, args: Args::new().arg(args) });
    add(cuda, dw, &partial_dw, pieces, s.c, width * width);
    if let Some((db, partial)) = db.zip(partial_db) {
        add(cuda, db, &partial, pieces, 1, 1);
    }
}

/// (steps of a piece, pieces): enough blocks for every multiprocessor to have two, of at least 8 steps.
fn split(cuda: &Cuda, steps: usize, tiles: usize) -> (usize, usize) {
    let wanted = (2 * cuda.driver().properties().multiprocessors as usize).div_ceil(tiles);
    let piece = steps.div_ceil(wanted).max(8);
    (piece, steps.div_ceil(piece))
}

/// target\[o, c, tap\] += the sum over the pieces of `partial`, (pieces, o, tap, c).
fn add(cuda: &Cuda, target: &CudaTensor, partial: &CudaTensor, pieces: usize, c: usize, taps: usize) {
    let len = target.shape().len();
    let args = Args::new().ptr(target).ptr(partial).arg(int(pieces)).arg(int(len)).arg(int(c)).arg(int(taps));
    cuda.launch(Launch::per_item("conv2d_vjp_params_add_f32", len, args));
}
