//! filter: one generic form for the host backends; sums are f64, tap after tap.

use super::{Filter, FilterSpec};
use crate::backend::host::{HostBackend, HostTensor};
use crate::backend::{Array, Backend, Real, Shape};

impl<B: HostBackend> Filter for B {
    fn filter_forward(&self, kernel: &Self::Tensor, spec: FilterSpec, x: &Self::Tensor) -> Self::Tensor {
        let (s, mut y) = (x.shape(), self.alloc(spec.filtered(x.shape())));
        let rows = y.shape().w * s.c;
        let (taps, height) = (Taps::new(kernel), spec.filtered(s).h);
        self.each(y.chunks_exact_mut(rows).enumerate().collect(), |(at, y)| {
            let (n, i) = (at / height, at % height);
            let row = |a: usize| Some(modulo(spec.stride * i + spec.anchor.0, a, s.h));
            let column = |q: usize, b: usize| Some(modulo(spec.stride * q + spec.anchor.1, b, s.w));
            taps.sum(s, x.row(n), y, row, column);
        });
        y
    }

    fn filter_adjoint(&self, kernel: &Self::Tensor, spec: FilterSpec, y: &Self::Tensor) -> Self::Tensor {
        let (s, mut x) = (y.shape(), self.alloc(spec.image(y.shape())));
        let Shape { h, w, c, .. } = x.shape();
        let taps = Taps::new(kernel);
        // element (p + a - r) / s of y, if there is one
        let source = |at: usize, tap: usize, anchor: usize, len: usize| {
            let at = modulo(at + tap, anchor, len);
            at.is_multiple_of(spec.stride).then_some(at / spec.stride)
        };
        self.each(x.chunks_exact_mut(w * c).enumerate().collect(), |(at, x)| {
            let row = |a: usize| source(at % h, a, spec.anchor.0, h);
            let column = |q: usize, b: usize| source(q, b, spec.anchor.1, w);
            taps.sum(s, y.row(at / h), x, row, column);
        });
        x
    }
}

/// (a - b) modulo `len`.
fn modulo(a: usize, b: usize, len: usize) -> usize {
    (a as isize - b as isize).rem_euclid(len as isize) as usize
}

/// The elements of a kernel.
struct Taps {
    values: Vec<f64>, // (A, B)
    columns: usize,
}

impl Taps {
    fn new<E: Real>(kernel: &HostTensor<E>) -> Self {
        let s = kernel.shape();
        assert_eq!((s.n, s.c), (1, 1), "one kernel for all");
        Self { values: kernel.iter().map(|k| k.f64()).collect(), columns: s.w }
    }

    /// A row of the result: Σ_(a b) k_(a b) source(row(a), column(q, b)) for every q, where there is such an element.
    fn sum<E: Real>(
        &self,
        s: Shape,
        source: &[E],
        out: &mut [E],
        row: impl Fn(usize) -> Option<usize>,
        column: impl Fn(usize, usize) -> Option<usize>,
    ) {
        let mut sums = vec![0.0; out.len()];
        for b in 0..self.columns {
            let from: Vec<Option<usize>> = (0..out.len() / s.c).map(|q| column(q, b)).collect();
            for (a, taps) in self.values.chunks_exact(self.columns).enumerate() {
                let Some(row) = row(a) else { continue };
                let source = &source[row * s.w * s.c..][..s.w * s.c];
                for (sums, from) in sums.chunks_exact_mut(s.c).zip(&from) {
                    let Some(from) = from else { continue };
                    let pixel = &source[from * s.c..][..s.c];
                    sums.iter_mut().zip(pixel).for_each(|(sum, x)| *sum += taps[b] * x.f64());
                }
            }
        }
        out.iter_mut().zip(sums).for_each(|(out, sum)| *out = E::of(sum));
    }
}
