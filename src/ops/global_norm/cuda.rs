//! Launches of `kernels/global_norm.cu`.

use super::GlobalNorm;
use crate::backend::cuda::{Args, Cuda, CudaTensor, Dtype, Launch};
use crate::backend::{Array, Backend, Shape};

/// Elements that a block of the first stage sums, `kElementsPerBlock` of the kernel.
const ELEMENTS_PER_BLOCK: usize = 1 << 14;

impl GlobalNorm for Cuda {
    fn global_norm(&self, x: &[&CudaTensor]) -> CudaTensor {
        let blocks = |x: &CudaTensor| x.shape().len().div_ceil(ELEMENTS_PER_BLOCK);
        let count: usize = x.iter().map(|x| blocks(x)).sum();
        let partial = self.alloc(Shape::rows(count, 2)); // an f64 each
        let mut first = 0;
        for x in x {
            assert_eq!(x.dtype(), Dtype::F32, "the norm of gradients");
            let args = Args::new().ptr(&partial).ptr(x).arg(first as u32).arg(x.shape().len() as u32);
            self.launch(Launch::blocks("global_norm_partial_f32", blocks(x), 256, args));
            first += blocks(x);
        }
        let norm = self.alloc(Shape::flat(1));
        self.launch(Launch::blocks("global_norm_f32", 1, 256, Args::new().ptr(&norm).ptr(&partial).arg(count as u32)));
        norm
    }
}
