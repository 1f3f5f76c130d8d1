//! Launches of `kernels/precondition.cu`: here alone, arrays change between f32 and the network's type.

use super::{Coefficients, Precondition};
use crate::backend::cuda::{Args, Cuda, CudaTensor, Dtype, Launch, Scalars};
use crate::backend::{Array, Shape};
use crate::kernel;

impl Cuda {
    /// The coefficient `c` at every σ.
    fn coefficients(&self, c: fn(Coefficients) -> f64, sigma: &[f64], shape: Shape) -> Scalars {
        assert!(sigma.len() == 1 || sigma.len() == shape.n, "{} noise levels for {shape:?}", sigma.len());
        self.scalars(&sigma.iter().map(|&sigma| c(Coefficients::at(sigma))).collect::<Vec<_>>())
    }

    /// c x in the network's type.
    fn to_network(&self, x: &CudaTensor, c: fn(Coefficients) -> f64, sigma: &[f64]) -> CudaTensor {
        if x.dtype() != Dtype::F32 {
            return self.to_network(&self.cast(x, Dtype::F32), c, sigma);
        }
        let (shape, dtype) = (x.shape(), self.options().precision);
        let (y, c) = (self.alloc_as(shape, dtype), self.coefficients(c, sigma, shape));
        let args = Args::new().ptr(&y).ptr(x).arg(c.arg()).arg(shape.row() as u32).arg(shape.len() as u32);
        self.launch(Launch::elements(kernel!("precondition_scale", dtype), shape.row(), shape.len(), dtype, args));
        y
    }

    /// a x + b f, with f of the network.
    fn estimate(
        &self,
        (a, x): (fn(Coefficients) -> f64, &CudaTensor),
        (b, f): (fn(Coefficients) -> f64, &CudaTensor),
        sigma: &[f64],
    ) -> CudaTensor {
        let (shape, dtype) = (x.shape(), f.dtype());
        assert_eq!(shape, f.shape(), "extents of the network's output");
        let (a, b) = (self.coefficients(a, sigma, shape), self.coefficients(b, sigma, shape));
        let y = self.alloc_as(shape, Dtype::F32);
        let args = Args::new().ptr(&y).ptr_f32(x).ptr(f).arg(a.arg()).arg(b.arg());
        let args = args.arg(shape.row() as u32).arg(shape.len() as u32);
        self.launch(Launch::elements(kernel!("precondition_combine", dtype), shape.row(), shape.len(), dtype, args));
        y
    }
}

impl Precondition for Cuda {
    fn precondition_input(&self, x: &CudaTensor, sigma: &[f64]) -> CudaTensor {
        self.to_network(x, |k| k.c_in, sigma)
    }
    fn precondition_output(&self, x: &CudaTensor, f: &CudaTensor, sigma: &[f64]) -> CudaTensor {
        self.estimate((|k| k.c_skip, x), (|k| k.c_out, f), sigma)
    }
    fn precondition_output_vjp(&self, dd: &CudaTensor, sigma: &[f64]) -> CudaTensor {
        self.to_network(dd, |k| k.c_out, sigma)
    }
    fn precondition_vjp(&self, dd: &CudaTensor, dg: &CudaTensor, sigma: &[f64]) -> CudaTensor {
        self.estimate((|k| k.c_skip, dd), (|k| k.c_in, dg), sigma)
    }
}
