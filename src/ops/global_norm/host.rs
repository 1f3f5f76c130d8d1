//! global_norm: one generic form for the host backends.

use super::GlobalNorm;
use crate::backend::host::{HostBackend, PART};
use crate::backend::{Backend, Real, Shape};
use crate::ops::vector::host::dot;

impl<B: HostBackend> GlobalNorm for B {
    fn global_norm(&self, x: &[&Self::Tensor]) -> Self::Tensor {
        let parts: Vec<&[B::Elem]> = x.iter().flat_map(|x| x.chunks(PART)).collect();
        let mut squares = vec![0.0; parts.len()];
        self.each(parts.into_iter().zip(&mut squares).collect(), |(x, square)| *square = dot(x, x));
        let mut norm = self.alloc(Shape::flat(1));
        norm[0] = B::Elem::of(squares.iter().sum::<f64>().sqrt());
        norm
    }
}
