//! Sums over pixels, channel by channel: the second stage is `kernels/column_sums.cu`.

use super::{Args, Cuda, CudaTensor, Launch};
use crate::backend::{Array, Backend, Shape};
use std::ops::Range;

/// Pixels of one sample that a block of the first stage sums, `kPixelsPerBlock` of `kernels/column_sums.cuh`.
const PIXELS_PER_BLOCK: usize = 64;

impl Cuda {
    /// Adds sums over the pixels of arrays of extents `s` to the columns of `target`, (R, 1, 1, ..) with R = 1 or N.
    ///
    /// `first_stage` makes the launch, with the given grid (blocks per sample, N), that writes the sums of each block,
    /// (N, blocks per sample, columns). The order of the sums depends on the extents of a sample only, then on N if R = 1.
    pub(crate) fn add_column_sums(
        &self,
        s: Shape,
        columns: Range<usize>,
        target: &mut CudaTensor,
        first_stage: impl FnOnce(&CudaTensor, [u32; 3]) -> Launch,
    ) {
        let (rows, stride) = (target.shape().n, target.shape().row());
        assert!(rows == 1 || rows == s.n, "gradients of {rows} rows for {s:?}");
        let blocks = s.pixels().div_ceil(PIXELS_PER_BLOCK);
        let partial = self.alloc(Shape::rows(s.n * blocks, columns.len()));
        self.launch(first_stage(&partial, [blocks as u32, s.n as u32, 1]));
        let args = Args::new().ptr(target).ptr(&partial).arg(rows as u32).arg((s.n * blocks / rows) as u32);
        let args = args.arg(columns.len() as u32).arg(stride as u32).arg(columns.start as u32);
        self.launch(Launch::per_item("add_partial_sums_f32", rows * columns.len(), args));
    }
}
