//! precondition: one generic form for the host backends; the coefficients are f64 in both.

use super::{Coefficients, Precondition};
use crate::backend::host::{HostBackend, HostTensor};
use crate::backend::{Array, Backend, Real};

/// An array, and the coefficient that multiplies it.
type Term<'a, E> = (fn(Coefficients) -> f64, &'a HostTensor<E>);

/// Σ a(σ_n) x_n, row by row, over the terms (a, x).
fn combine<B: HostBackend, const K: usize>(
    backend: &B,
    sigma: &[f64],
    terms: [Term<B::Elem>; K],
) -> HostTensor<B::Elem> {
    let shape = terms[0].1.shape();
    assert!(sigma.len() == 1 || sigma.len() == shape.n, "{} noise levels for {shape:?}", sigma.len());
    let mut y = backend.alloc(shape);
    for n in 0..shape.n {
        let coefficients = Coefficients::at(sigma[n % sigma.len()]);
        let terms = terms.map(|(a, x)| (B::Elem::of(a(coefficients)), x.row(n)));
        for (i, y) in y.row_mut(n).iter_mut().enumerate() {
            *y = terms.iter().map(|(a, x)| *a * x[i]).sum();
        }
    }
    y
}

impl<B: HostBackend> Precondition for B {
    fn precondition_input(&self, x: &Self::Tensor, sigma: &[f64]) -> Self::Tensor {
        combine(self, sigma, [(|k| k.c_in, x)])
    }
    fn precondition_output(&self, x: &Self::Tensor, f: &Self::Tensor, sigma: &[f64]) -> Self::Tensor {
        combine(self, sigma, [(|k| k.c_skip, x), (|k| k.c_out, f)])
    }
    fn precondition_output_vjp(&self, dd: &Self::Tensor, sigma: &[f64]) -> Self::Tensor {
        combine(self, sigma, [(|k| k.c_out, dd)])
    }
    fn precondition_vjp(&self, dd: &Self::Tensor, dg: &Self::Tensor, sigma: &[f64]) -> Self::Tensor {
        combine(self, sigma, [(|k| k.c_skip, dd), (|k| k.c_in, dg)])
    }
}
