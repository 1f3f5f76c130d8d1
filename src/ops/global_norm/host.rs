//! global_norm: one generic form for the host backends.

use super::GlobalNorm;
use crate::backend::host::HostBackend;
use crate::backend::{Backend, Real, Shape};

impl<B: HostBackend> GlobalNorm for B {
    fn global_norm(&self, x: &[&Self::Tensor]) -> Self::Tensor {
        let squares = |x: &&Self::Tensor| x.iter().map(|x| x.f64() * x.f64()).sum::<f64>();
        let mut norm = self.alloc(Shape::flat(1));
        norm[0] = B::Elem::of(x.iter().map(squares).sum::<f64>().sqrt());
        norm
    }
}
