//! dense: one generic form for the host backends.

use super::Dense;
use crate::backend::host::HostBackend;
use crate::backend::{Array, Backend, Real, Shape};
use crate::ops::vector::host::dot;

/// Columns that are summed together, on the stack: long enough to vectorise, and A is read once.
const BLOCK: usize = 64;

impl<B: HostBackend> Dense for B {
    fn dense_forward(&self, a: &Self::Tensor, x: &Self::Tensor) -> Self::Tensor {
        let (m, d) = extents(a.shape(), x.shape().n);
        assert_eq!(x.shape().row(), d, "elements of a sample, for a matrix {:?}", a.shape());
        let mut y = self.alloc(Shape::rows(x.shape().n, m));
        for n in 0..x.shape().n {
            for (y, a) in y.row_mut(n).iter_mut().zip(a.row_or_shared(n).chunks_exact(d)) {
                *y = B::Elem::of(dot(a, x.row(n)));
            }
        }
        y
    }

    fn dense_adjoint(&self, a: &Self::Tensor, y: &Self::Tensor, image: Shape) -> Self::Tensor {
        let (m, d) = extents(a.shape(), image.n);
        assert_eq!((y.shape(), image.row()), (Shape::rows(image.n, m), d), "extents for a matrix {:?}", a.shape());
        let mut x = self.alloc(image);
        for n in 0..image.n {
            let (a, y) = (a.row_or_shared(n), y.row(n));
            for (block, x) in x.row_mut(n).chunks_mut(BLOCK).enumerate() {
                let mut sums = [0.0; BLOCK];
                for (y, a) in y.iter().zip(a.chunks_exact(d)) {
                    for (sum, a) in sums.iter_mut().zip(&a[block * BLOCK..][..x.len()]) {
                        *sum += a.f64() * y.f64();
                    }
                }
                for (x, sum) in x.iter_mut().zip(sums) {
                    *x = B::Elem::of(sum);
                }
            }
        }
        x
    }
}

/// (M, D) of `a` (R, 1, M, D), R = 1 or `n`.
fn extents(a: Shape, n: usize) -> (usize, usize) {
    assert!(a.h == 1 && (a.n == 1 || a.n == n), "a matrix {a:?} for {n} samples");
    (a.w, a.c)
}
