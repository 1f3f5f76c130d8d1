//! Kernels.

use super::FilterSpec;
use crate::backend::Shape;
use std::f64::consts::TAU;

/// The kernel of bicubic downsampling by `factor`, F x F numbers of sum 1, F = 4 f - (f mod 2), and where it lies.
///
/// A pixel of y is the mean of x around the middle of its block of f x f pixels, with weights B(d/f) along each side at the distance d
/// from the middle, in pixels; B is the cubic convolution kernel with a = -1/2, stretched by f against aliasing, as in MATLAB's and
/// Pillow's `resize`.
///
/// # Reference
/// Keys, *Cubic convolution interpolation for digital image processing*, IEEE TASSP 1981, equation 15.
pub fn bicubic(factor: usize) -> (Vec<f64>, FilterSpec) {
    let taps = 4 * factor - factor % 2;
    // the block's first pixel lies (f - 1)/2 before its middle, the first tap (F - 1)/2
    let last = (taps - 1 + factor - 1) / 2;
    let weight = |t: usize| cubic((t as f64 - (taps - 1) as f64 / 2.0) / factor as f64);
    let sum: f64 = (0..taps).map(weight).sum();
    let kernel = outer(taps, |a, b| weight(a) * weight(b) / (sum * sum));
    (kernel, FilterSpec { anchor: (last, last), stride: factor })
}

/// A normal density of standard deviation `sigma` pixels, `size` x `size` numbers of sum 1.
pub fn gaussian(size: usize, sigma: f64) -> Vec<f64> {
    let weight = |t: usize| (-0.5 * ((t as f64 - (size / 2) as f64) / sigma).powi(2)).exp();
    normalised(outer(size, |a, b| weight(a) * weight(b)))
}

/// A straight motion of `size` pixels, one less if that is even, through the middle at uniform speed, at `degrees` from the
/// horizontal, counter-clockwise: `size` x `size` numbers of sum 1, each point of the path shared among the four pixels around it.
pub fn motion(size: usize, degrees: f64) -> Vec<f64> {
    let steps = 32 * size;
    let (sin, cos) = (degrees / 360.0 * TAU).sin_cos();
    let (middle, reach) = ((size / 2) as f64, ((size - 1) / 2) as f64);
    let mut kernel = vec![0.0; size * size];
    for step in 0..=steps {
        let along = reach * (2.0 * step as f64 / steps as f64 - 1.0);
        let (row, column) = (middle - along * sin, middle + along * cos);
        for (a, b) in [(0.0, 0.0), (0.0, 1.0), (1.0, 0.0), (1.0, 1.0)] {
            let (r, c) = (row.floor() + a, column.floor() + b);
            let share = (1.0 - (row - r).abs()) * (1.0 - (column - c).abs());
            if (0.0..size as f64).contains(&r) && (0.0..size as f64).contains(&c) {
                kernel[r as usize * size + c as usize] += share;
            }
        }
    }
    normalised(kernel)
}

/// The extents of a square kernel.
pub(crate) fn square(kernel: &[f64]) -> Shape {
    let side = kernel.len().isqrt();
    Shape::new(1, side, side, 1)
}

/// Keys' kernel with a = -1/2.
fn cubic(x: f64) -> f64 {
    match x.abs() {
        x if x < 1.0 => (1.5 * x - 2.5) * x * x + 1.0,
        x if x < 2.0 => ((-0.5 * x + 2.5) * x - 4.0) * x + 2.0,
        _ => 0.0,
    }
}

fn outer(size: usize, f: impl Fn(usize, usize) -> f64) -> Vec<f64> {
    (0..size * size).map(|i| f(i / size, i % size)).collect()
}

fn normalised(mut kernel: Vec<f64>) -> Vec<f64> {
    let sum: f64 = kernel.iter().sum();
    kernel.iter_mut().for_each(|k| *k /= sum);
    kernel
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::Backend;
    use crate::backend::reference::Reference;
    use crate::ops::Filter;

    /// Cubic convolution reproduces straight lines: far from the seam, y is the value in the middle of each block.
    #[test]
    fn a_ramp_stays_a_ramp() {
        for factor in [1, 2, 3, 4] {
            let (h, w) = (8 * factor, 12 * factor);
            let ramp = |i: usize| 0.3 * (i / w) as f64 + (i % w) as f64;
            let backend = Reference::new();
            let x = backend.upload(Shape::new(1, h, w, 1), &(0..h * w).map(ramp).collect::<Vec<_>>());
            let (kernel, spec) = bicubic(factor);
            let kernel = backend.upload(square(&kernel), &kernel);
            let y = backend.filter_forward(&kernel, spec, &x);
            let middle = |i: usize| (factor * i) as f64 + (factor - 1) as f64 / 2.0;
            for (at, y) in y.iter().enumerate() {
                let (i, j) = (at / 12, at % 12);
                if (2..6).contains(&i) && (2..10).contains(&j) {
                    let expected = 0.3 * middle(i) + middle(j);
                    assert!((y - expected).abs() < 1e-12, "{factor}, {i} {j}: {y} {expected}"); // 256 products below 50
                }
            }
        }
    }

    #[test]
    fn kernels_have_the_sum_1_and_their_middle() {
        let (bicubic, spec) = bicubic(1);
        assert_eq!((bicubic.len(), spec.anchor), (9, (1, 1)));
        assert!(
            bicubic.iter().enumerate().all(|(i, k)| (k - f64::from(u8::from(i == 4))).abs() < 1e-15),
            "the identity"
        );
        for kernel in [gaussian(5, 1.0), motion(5, 30.0), motion(1, 0.0), gaussian(1, 3.0)] {
            let sum: f64 = kernel.iter().sum();
            assert!((sum - 1.0).abs() < 1e-14 && kernel.iter().all(|k| *k >= 0.0), "{kernel:?}");
            // as much before the middle as behind it
            let last = kernel.len() - 1;
            assert!((0..=last).all(|i| (kernel[i] - kernel[last - i]).abs() < 1e-14), "{kernel:?}");
        }
        let along_the_row = motion(5, 0.0);
        assert!((0..25).all(|i| (along_the_row[i] > 0.05) == (i / 5 == 2)), "{along_the_row:?}");
        let even = motion(4, 0.0); // around element 2
        assert!(even[8] < 1e-14 && (even[9] - even[11]).abs() < 1e-14 && even[10] > even[9], "{even:?}");
    }
}
