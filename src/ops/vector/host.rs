//! The definition, for both host backends: sums and dots in f64, each result rounded once.

use super::Vector;
use crate::backend::host::{HostBackend, HostTensor};
use crate::backend::{Array, Backend, Real, Shape};

/// Elements per block of [`linear_combination`]: f64 sums stay in the first-level cache.
const BLOCK: usize = 256;

/// Independent partial sums of [`dot`]: one vector register, or two.
const LANES: usize = 8;

/// y_j = start(j, y_j) + Σ_i a_i x_ij over slices of one length, summed from left to right in f64.
pub(crate) fn linear_combination<T: Real>(y: &mut [T], start: impl Fn(usize, T) -> f64, terms: &[(f64, &[T])]) {
    for (block, y) in y.chunks_mut(BLOCK).enumerate() {
        let first = block * BLOCK;
        let mut sums = [0.0; BLOCK];
        for (j, (sum, y)) in sums.iter_mut().zip(y.iter()).enumerate() {
            *sum = start(first + j, *y);
        }
        for (a, x) in terms {
            for (sum, x) in sums.iter_mut().zip(&x[first..][..y.len()]) {
                *sum += a * x.f64();
            }
        }
        for (y, sum) in y.iter_mut().zip(sums) {
            *y = T::of(sum);
        }
    }
}

/// <x, y> in f64, in an order that depends on the length only.
pub(crate) fn dot<T: Real>(x: &[T], y: &[T]) -> f64 {
    let (x, y) = (x.chunks_exact(LANES), y.chunks_exact(LANES));
    let tail: f64 = x.remainder().iter().zip(y.remainder()).map(|(x, y)| x.f64() * y.f64()).sum();
    let mut sums = [0.0; LANES];
    for (x, y) in x.zip(y) {
        for ((sum, x), y) in sums.iter_mut().zip(x).zip(y) {
            *sum += x.f64() * y.f64();
        }
    }
    sums.iter().sum::<f64>() + tail
}

/// y += a x, each element rounded once.
pub(crate) fn axpy<T: Real>(y: &mut [T], a: f64, x: &[T]) {
    for (y, x) in y.iter_mut().zip(x) {
        *y = T::of(y.f64() + a * x.f64());
    }
}

/// The elements of terms that all have the extents `shape`.
fn slices<'a, T: Real>(shape: Shape, terms: &[(f64, &'a HostTensor<T>)]) -> Vec<(f64, &'a [T])> {
    let slice = |&(a, x): &(f64, &'a HostTensor<T>)| {
        assert_eq!(x.shape(), shape, "terms of different extents");
        (a, &x[..])
    };
    terms.iter().map(slice).collect()
}

/// Panics unless `shared` has one row, or as many as `x`.
fn assert_rows(x: Shape, shared: Shape) {
    assert!(shared.n == 1 || shared.n == x.n, "{shared:?} does not broadcast over the rows of {x:?}");
}

/// Whether all elements are finite.
fn finite<T: Real>(x: &[T]) -> bool {
    x.iter().all(|x| x.is_finite())
}

impl<B: HostBackend> Vector for B {
    fn linear_combination(&self, terms: &[(f64, &Self::Tensor)]) -> Self::Tensor {
        let shape = terms.first().expect("at least one term").1.shape();
        let mut y = self.alloc(shape);
        linear_combination(&mut y, |_, _| 0.0, &slices(shape, terms));
        y
    }

    fn linear_update(&self, y: &mut Self::Tensor, a: f64, terms: &[(f64, &Self::Tensor)]) {
        let terms = slices(y.shape(), terms);
        linear_combination(y, |_, y| a * y.f64(), &terms);
    }

    fn add_assign(&self, y: &mut Self::Tensor, x: &Self::Tensor) {
        let shape = y.shape();
        assert_rows(shape, x.shape());
        assert_eq!(shape.row(), x.shape().row(), "{:?} added to {shape:?}", x.shape());
        for n in 0..shape.n {
            for (y, x) in y.row_mut(n).iter_mut().zip(x.row_or_shared(n)) {
                *y = *y + *x;
            }
        }
    }

    fn row_axpy(&self, y: &mut Self::Tensor, scale: f64, a: &Self::Tensor, x: &Self::Tensor) {
        let shape = y.shape();
        assert_eq!(shape, x.shape(), "row_axpy");
        assert_rows(shape, a.shape());
        for n in 0..shape.n {
            let a = a.row_or_shared(n)[0].f64();
            if a != 0.0 {
                axpy(y.row_mut(n), scale * a, x.row(n));
            }
        }
    }

    fn row_scale(&self, x: &Self::Tensor, a: &Self::Tensor) -> Self::Tensor {
        let shape = x.shape();
        assert_rows(shape, a.shape());
        let mut y = self.alloc(shape);
        for n in 0..shape.n {
            let a = a.row_or_shared(n)[0];
            for (y, x) in y.row_mut(n).iter_mut().zip(x.row(n)) {
                *y = a * *x;
            }
        }
        y
    }

    fn row_normalize(&self, x: &Self::Tensor, square: &Self::Tensor) -> Self::Tensor {
        let shape = x.shape();
        assert_eq!(square.shape(), Shape::rows(shape.n, 1), "squares of {shape:?}");
        let mut y = self.zeros(shape);
        for n in 0..shape.n {
            let square = square[n].f64();
            if square > 0.0 && square.is_finite() {
                for (y, x) in y.row_mut(n).iter_mut().zip(x.row(n)) {
                    *y = B::Elem::of(x.f64() / square.sqrt());
                }
            }
        }
        y
    }

    fn row_quotient(&self, x: &Self::Tensor, y: &Self::Tensor, floor: &Self::Tensor) -> Self::Tensor {
        let shape = x.shape();
        assert_eq!(shape, y.shape(), "row_quotient");
        assert_rows(shape, floor.shape());
        let mut z = self.alloc(shape);
        for n in 0..shape.n {
            let floor = floor.row_or_shared(n)[0].f64();
            for (z, (x, y)) in z.row_mut(n).iter_mut().zip(x.row(n).iter().zip(y.row(n))) {
                *z = B::Elem::of(x.f64() / y.f64().max(floor));
            }
        }
        z
    }

    fn multiply(&self, x: &Self::Tensor, y: &Self::Tensor) -> Self::Tensor {
        let (shape, other) = (x.shape(), y.shape());
        assert_rows(shape, other);
        assert!(
            shape.pixels() == other.pixels() && (other.c == 1 || other.c == shape.c),
            "{other:?} does not broadcast over {shape:?}"
        );
        let mut z = self.alloc(shape);
        for n in 0..shape.n {
            let pixels = z.row_mut(n).chunks_exact_mut(shape.c).zip(x.row(n).chunks_exact(shape.c));
            for ((z, x), y) in pixels.zip(y.row_or_shared(n).chunks_exact(other.c)) {
                for (z, (x, y)) in z.iter_mut().zip(x.iter().zip(y.iter().cycle())) {
                    *z = *x * *y;
                }
            }
        }
        z
    }

    fn row_dot(&self, x: &Self::Tensor, y: &Self::Tensor) -> Self::Tensor {
        let shape = x.shape();
        assert_eq!(shape, y.shape(), "row_dot");
        let mut z = self.alloc(Shape::rows(shape.n, 1));
        for n in 0..shape.n {
            z[n] = B::Elem::of(dot(x.row(n), y.row(n)));
        }
        z
    }

    fn rows_finite(&self, x: &Self::Tensor) -> crate::Result<Vec<bool>> {
        Ok((0..x.shape().n).map(|n| finite(x.row(n))).collect())
    }

    fn note_nonfinite(&self, first: &mut Self::Tensor, step: usize, x: &Self::Tensor) {
        assert_eq!(first.shape(), Shape::rows(x.shape().n, 1), "extents of the record");
        for (n, first) in first.iter_mut().enumerate() {
            if first.f64() < 0.0 && !finite(x.row(n)) {
                *first = B::Elem::of(step as f64);
            }
        }
    }

    fn gather_rows(&self, x: &Self::Tensor, index: &[usize]) -> Self::Tensor {
        let mut y = self.alloc(x.shape().with_n(index.len()));
        for (n, &i) in index.iter().enumerate() {
            y.row_mut(n).copy_from_slice(x.row(i));
        }
        y
    }
}
