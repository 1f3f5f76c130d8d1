//! fourier: the definition, one frequency at a time, along rows and then along columns.

use super::{Fourier, image, k_space};
use crate::backend::reference::Reference;
use crate::backend::{Array, Backend};
use std::f64::consts::TAU;

type Tensor = <Reference as Backend>::Tensor;

/// A complex number.
type Complex = (f64, f64);

/// n^(-1/2) Σ_j x_j exp(± 2πi (k - c)(j - c)/n), c = ⌊n/2⌋.
fn frequency(n: usize, k: usize, sign: f64, x: impl Fn(usize) -> Complex) -> Complex {
    let c = (n / 2) as i64;
    let mut sum = (0.0, 0.0);
    for j in 0..n {
        let turns = ((k as i64 - c) * (j as i64 - c)).rem_euclid(n as i64); // exact: the angle does not grow with it
        let (sin, cos) = (sign * TAU * turns as f64 / n as f64).sin_cos();
        let (re, im) = x(j);
        sum = (sum.0 + re * cos - im * sin, sum.1 + re * sin + im * cos);
    }
    let scale = 1.0 / (n as f64).sqrt();
    (scale * sum.0, scale * sum.1)
}

impl Fourier for Reference {
    fn fourier_forward(&self, mask: &Tensor, x: &Tensor) -> Tensor {
        let mut y = self.zeros(k_space(mask.shape(), x.shape()));
        let (h, w) = (x.shape().h, x.shape().w);
        for n in 0..x.shape().n {
            let (mask, x, y) = (mask.row_or_shared(n), x.row(n), y.row_mut(n));
            for column in (0..w).filter(|&column| mask[column] != 0.0) {
                let row = |row: usize| frequency(w, column, -1.0, |j| (x[row * w + j], 0.0));
                let rows: Vec<Complex> = (0..h).map(row).collect();
                for k in 0..h {
                    (y[2 * (k * w + column)], y[2 * (k * w + column) + 1]) = frequency(h, k, -1.0, |j| rows[j]);
                }
            }
        }
        y
    }

    fn fourier_adjoint(&self, mask: &Tensor, y: &Tensor) -> Tensor {
        let mut x = self.zeros(image(mask.shape(), y.shape()));
        let (h, w) = (x.shape().h, x.shape().w);
        for n in 0..x.shape().n {
            let (mask, y, x) = (mask.row_or_shared(n), y.row(n), x.row_mut(n));
            let mut columns = vec![(0.0, 0.0); h * w];
            for column in (0..w).filter(|&column| mask[column] != 0.0) {
                let of = |j: usize| (y[2 * (j * w + column)], y[2 * (j * w + column) + 1]);
                for k in 0..h {
                    columns[k * w + column] = frequency(h, k, 1.0, of);
                }
            }
            for (i, x) in x.iter_mut().enumerate() {
                *x = frequency(w, i % w, 1.0, |j| columns[i / w * w + j]).0;
            }
        }
        x
    }
}
