//! Launches of `kernels/fourier.cu`.

use super::{Fourier, image, k_space};
use crate::backend::cuda::{Args, Cuda, CudaTensor, Launch};
use crate::backend::{Array, Backend, Shape};

impl Fourier for Cuda {
    fn fourier_forward(&self, mask: &CudaTensor, x: &CudaTensor) -> CudaTensor {
        let shape = k_space(mask.shape(), x.shape());
        let (rows, y) = (self.alloc(shape), self.alloc(shape));
        along(self, "fourier_rows_f32", with_mask(&rows, x, mask), shape, shape.w);
        along(self, "fourier_columns_f32", with_mask(&y, &rows, mask), shape, shape.h);
        y
    }

    fn fourier_adjoint(&self, mask: &CudaTensor, y: &CudaTensor) -> CudaTensor {
        let shape = image(mask.shape(), y.shape());
        let (columns, x) = (self.alloc(y.shape()), self.alloc(shape));
        along(self, "fourier_columns_adjoint_f32", with_mask(&columns, y, mask), shape, shape.h);
        along(self, "fourier_rows_adjoint_f32", Args::new().ptr_f32(&x).ptr_f32(&columns), shape, shape.w);
        x
    }
}

fn with_mask(out: &CudaTensor, x: &CudaTensor, mask: &CudaTensor) -> Args {
    Args::new().ptr_f32(out).ptr_f32(x).ptr_f32(mask).arg(mask.shape().n as u32)
}

/// A thread for every frequency or pixel, each a sum over a line of `length`, whose roots of unity a block has in shared memory.
fn along(backend: &Cuda, kernel: &'static str, args: Args, s: Shape, length: usize) {
    const ROOT: usize = 2 * size_of::<f32>();
    let (pixels, shared) = (s.n * s.pixels(), (length * ROOT) as u32);
    let args = args.arg(s.h as u32).arg(s.w as u32).arg(pixels as u32);
    backend.launch(Launch { shared, ..Launch::per_item(kernel, pixels, args) });
}
