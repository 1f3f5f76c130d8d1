//! Launches of `kernels/mask.cu`.

use super::Mask;
use crate::backend::cuda::{Args, Cuda, CudaTensor, Dtype, Launch};
use crate::backend::{Array, Backend, Shape};

impl Mask for Cuda {
    fn mask_apply(&self, mask: &CudaTensor, x: &CudaTensor) -> CudaTensor {
        let (shape, rows) = (x.shape(), mask.shape().n);
        assert!(rows == 1 || rows == shape.n, "a mask of {rows} rows for {} samples", shape.n);
        assert_eq!(mask.shape(), Shape { n: rows, c: 1, ..shape }, "extents of the mask for {shape:?}");
        let y = self.alloc(shape);
        let args = Args::new().ptr_f32(&y).ptr_f32(x).ptr_f32(mask).arg(rows as u32);
        let args = args.arg(shape.c as u32).arg(shape.row() as u32).arg(shape.len() as u32);
        self.launch(Launch::elements("mask_apply_f32", shape.row(), shape.len(), Dtype::F32, args));
        y
    }
}
