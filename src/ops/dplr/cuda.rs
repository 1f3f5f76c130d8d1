//! Launches of `kernels/dense.cu`.

use super::Dplr;
use crate::backend::cuda::{Args, Cuda, CudaTensor, Launch};
use crate::backend::{Array, Backend};
use crate::ops::Dense;

impl Dplr for Cuda {
    fn dplr_apply(&self, d: &CudaTensor, w: &CudaTensor, x: &CudaTensor) -> CudaTensor {
        let (shape, rows, len) = (x.shape(), w.shape().n, x.shape().row());
        assert!(rows == d.shape().n && (rows == 1 || rows == shape.n), "{rows} matrices for {shape:?}");
        assert!(d.shape().row() == len && w.shape().c == len, "{:?}, {:?} applied to {shape:?}", d.shape(), w.shape());
        let (t, y) = (self.dense_forward(w, x), self.alloc(shape));
        let args = Args::new().ptr_f32(&y).ptr_f32(d).ptr_f32(w).ptr_f32(&t).ptr_f32(x).arg(rows as u32);
        let args = args.arg(w.shape().w as u32).arg(len as u32).arg(shape.n as u32);
        self.launch(Launch::per_item("dplr_combine_f32", shape.len(), args));
        y
    }
}
