//! The definition, for both host backends: f64 sums, each rounded once.

use super::Dplr;
use crate::backend::host::HostBackend;
use crate::backend::{Array, Backend, Real};
use crate::ops::vector::host::{dot, linear_combination};

impl<B: HostBackend> Dplr for B {
    fn dplr_apply(&self, d: &Self::Tensor, w: &Self::Tensor, x: &Self::Tensor) -> Self::Tensor {
        let (shape, rows, len) = (x.shape(), w.shape().n, x.shape().row());
        assert!(rows == d.shape().n && (rows == 1 || rows == shape.n), "{rows} matrices for {shape:?}");
        assert!(d.shape().row() == len && w.shape().c == len, "{:?}, {:?} applied to {shape:?}", d.shape(), w.shape());
        let mut y = self.alloc(shape);
        for n in 0..shape.n {
            let (d, w, x) = (d.row_or_shared(n), w.row_or_shared(n), x.row(n));
            let terms: Vec<_> = w.chunks_exact(len).map(|w| (dot(w, x), w)).collect();
            linear_combination(y.row_mut(n), |j, _| d[j].f64() * x[j].f64(), &terms);
        }
        y
    }
}
