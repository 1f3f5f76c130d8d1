//! concat: one generic form for the host backends.

use super::Concat;
use crate::backend::host::HostBackend;
use crate::backend::{Array, Backend};

impl<B: HostBackend> Concat for B {
    fn concat_forward(&self, x1: &Self::Tensor, x2: &Self::Tensor) -> Self::Tensor {
        let (c1, c2) = (x1.shape().c, x2.shape().c);
        assert_eq!(x1.shape().with_c(c2), x2.shape(), "concatenation");
        let mut y = self.alloc(x1.shape().with_c(c1 + c2));
        for ((y, x1), x2) in y.chunks_exact_mut(c1 + c2).zip(x1.chunks_exact(c1)).zip(x2.chunks_exact(c2)) {
            y[..c1].copy_from_slice(x1);
            y[c1..].copy_from_slice(x2);
        }
        y
    }
    fn concat_vjp(&self, dy: &Self::Tensor, c1: usize) -> (Self::Tensor, Self::Tensor) {
        let s = dy.shape();
        let c2 = s.c - c1;
        let (mut dx1, mut dx2) = (self.alloc(s.with_c(c1)), self.alloc(s.with_c(c2)));
        for ((dy, dx1), dx2) in dy.chunks_exact(s.c).zip(dx1.chunks_exact_mut(c1)).zip(dx2.chunks_exact_mut(c2)) {
            dx1.copy_from_slice(&dy[..c1]);
            dx2.copy_from_slice(&dy[c1..]);
        }
        (dx1, dx2)
    }
}
