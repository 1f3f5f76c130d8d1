//! Vector arithmetic and the DPLR product of both host backends, against loops over host arrays.

use diem::backend::cpu::{Cpu, Options};
use diem::backend::reference::Reference;
use diem::backend::{Array, Backend, Shape};
use diem::ops::noise::{Purpose, Stream};
use diem::ops::{Dplr, Noise, Vector};

/// Three samples of 7 x 11 pixels with 5 channels: D = 385 is no multiple of any block or register.
const SHAPE: Shape = Shape::new(3, 7, 11, 5);
const D: usize = SHAPE.row();

/// Runs `check` on both backends, with the rounding error of one operation.
macro_rules! on_both {
    ($check:ident) => {
        $check(&Reference::new(), 2.0f64.powi(-53));
        $check(&Cpu::new(Options { poison: true, ..Options::default() }).unwrap(), 2.0f64.powi(-24));
    };
}

/// A random array, and its elements.
fn random<B: Noise>(backend: &B, shape: Shape, step: usize) -> (B::Tensor, Vec<f64>) {
    let samples: Vec<u32> = (0..shape.n as u32).collect();
    let x = backend.noise_normal(shape, Stream::new(8, Purpose::Test).at(step, 0), &samples);
    let values = backend.to_vec(&x).unwrap();
    (x, values)
}

/// Panics unless every element is near, relative to `scale`.
fn assert_near<B: Backend>(backend: &B, found: &B::Tensor, expected: &[f64], scale: impl Fn(usize) -> f64, bound: f64) {
    let found = backend.to_vec(found).unwrap();
    assert_eq!(found.len(), expected.len());
    for (i, (found, expected)) in found.iter().zip(expected).enumerate() {
        assert!(found.is_finite() && expected.is_finite(), "element {i} of {}: {found} {expected}", backend.name());
        let error = (found - expected).abs();
        assert!(error <= bound * scale(i), "element {i} of {}: {found} {expected}", backend.name());
    }
}

#[test]
fn linear_combinations() {
    fn check<B: Vector + Noise>(backend: &B, ulp: f64) {
        let ((x, xs), (y, ys), (z, zs)) =
            (random(backend, SHAPE, 0), random(backend, SHAPE, 1), random(backend, SHAPE, 2));
        let expected: Vec<f64> = (0..SHAPE.len()).map(|i| 0.3 * xs[i] - 7.0 * ys[i] + 1e-3 * zs[i]).collect();
        let scale = |i: usize| 0.3 * xs[i].abs() + 7.0 * ys[i].abs() + 1e-3 * zs[i].abs();
        let found = backend.linear_combination(&[(0.3, &x), (-7.0, &y), (1e-3, &z)]);
        assert_near(backend, &found, &expected, scale, 4.0 * ulp); // three products, two sums, one rounding
    }
    on_both!(check);
}

#[test]
fn additions_and_axpy() {
    fn check<B: Vector + Noise>(backend: &B, ulp: f64) {
        let ((mut y, ys), (x, xs)) = (random(backend, SHAPE, 3), random(backend, SHAPE, 4));
        let (mean, means) = random(backend, SHAPE.with_n(1), 5);
        backend.add_assign(&mut y, &mean);
        let sums: Vec<f64> = (0..SHAPE.len()).map(|i| ys[i] + means[i % D]).collect();
        assert_near(backend, &y, &sums, |i| sums[i].abs(), ulp);

        let before = backend.to_vec(&y).unwrap();
        let a = backend.upload(Shape::rows(3, 1), &[0.5, 0.0, -2.0]);
        let poisoned: Vec<f64> = (0..SHAPE.len()).map(|i| if i / D == 1 { f64::NAN } else { xs[i] }).collect();
        backend.row_axpy(&mut y, 3.0, &a, &backend.upload(SHAPE, &poisoned));
        let factor = |i: usize| [1.5, 0.0, -6.0][i / D];
        let expected: Vec<f64> = (0..SHAPE.len()).map(|i| before[i] + factor(i) * xs[i]).collect();
        assert_near(backend, &y, &expected, |i| before[i].abs() + 6.0 * xs[i].abs(), 3.0 * ulp);
        assert_eq!(backend.to_vec(&y).unwrap()[D..2 * D], before[D..2 * D], "a row with a = 0");

        let expected: Vec<f64> = (0..SHAPE.len()).map(|i| [0.5, 0.0, -2.0][i / D] * xs[i]).collect();
        assert_near(backend, &backend.row_scale(&x, &a), &expected, |i| expected[i].abs(), 0.0); // powers of two: exact
    }
    on_both!(check);
}

#[test]
fn products_broadcast() {
    fn check<B: Vector + Noise>(backend: &B, ulp: f64) {
        let (x, xs) = random(backend, SHAPE, 6);
        for other in [SHAPE, SHAPE.with_n(1), SHAPE.with_c(1), SHAPE.with_n(1).with_c(1)] {
            let (y, ys) = random(backend, other, 7);
            let of = |i: usize| {
                let (n, pixel, c) = (i / D, i % D / SHAPE.c, i % SHAPE.c);
                ys[(n.min(other.n - 1) * SHAPE.pixels() + pixel) * other.c + c.min(other.c - 1)]
            };
            let expected: Vec<f64> = (0..SHAPE.len()).map(|i| xs[i] * of(i)).collect();
            assert_near(backend, &backend.multiply(&x, &y), &expected, |i| expected[i].abs(), ulp);
        }
    }
    on_both!(check);
}

#[test]
fn dots_and_rows() {
    fn check<B: Vector + Noise>(backend: &B, ulp: f64) {
        let ((x, xs), (y, ys)) = (random(backend, SHAPE, 8), random(backend, SHAPE, 9));
        let row = |v: &[f64], n: usize| v[n * D..][..D].to_vec();
        let sum =
            |n: usize, f: &dyn Fn(f64, f64) -> f64| row(&xs, n).iter().zip(row(&ys, n)).map(|(x, y)| f(*x, y)).sum();
        let expected: Vec<f64> = (0..3).map(|n| sum(n, &|x, y| x * y)).collect();
        // one rounding of the result, and f64 sums of D products in different orders
        let scale = |n: usize| ulp * expected[n].abs() + D as f64 * 1e-16 * sum(n, &|x, y| (x * y).abs());
        assert_near(backend, &backend.row_dot(&x, &y), &expected, scale, 1.0);

        let gathered = backend.gather_rows(&x, &[2, 0, 2, 1]);
        let expected = [row(&xs, 2), row(&xs, 0), row(&xs, 2), row(&xs, 1)].concat();
        assert_near(backend, &gathered, &expected, |_| 0.0, 0.0);
        assert_eq!(gathered.shape(), SHAPE.with_n(4));

        for bad in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
            let mut values = xs.clone();
            values[2 * D - 1] = bad;
            let finite = backend.rows_finite(&backend.upload(SHAPE, &values)).unwrap();
            assert_eq!(finite, [true, false, true]);
        }
    }
    on_both!(check);
}

#[test]
fn dplr_products() {
    fn check<B: Dplr + Vector + Noise>(backend: &B, ulp: f64) {
        let (x, xs) = random(backend, SHAPE, 10);
        for (rows, rank) in [(1, 4), (3, 1), (1, 0), (3, 6)] {
            let (d, ds) = random(backend, Shape::rows(rows, D), 11);
            let (w, ws) = random(backend, Shape::new(rows, 1, rank, D), 12);
            let product = |n: usize, i: usize, f: &dyn Fn(f64) -> f64| {
                let shared = n.min(rows - 1);
                let x = &xs[n * D..][..D];
                let low_rank = (0..rank).map(|k| {
                    let w = &ws[(shared * rank + k) * D..][..D];
                    f(w[i]) * w.iter().zip(x).map(|(w, x)| f(w * x)).sum::<f64>()
                });
                f(ds[shared * D + i] * x[i]) + low_rank.sum::<f64>()
            };
            let all =
                |f: &dyn Fn(f64) -> f64| -> Vec<f64> { (0..SHAPE.len()).map(|i| product(i / D, i % D, f)).collect() };
            let (expected, scale) = (all(&|v| v), all(&f64::abs));
            // f64 sums of D products on both sides, and one rounding
            assert_near(backend, &backend.dplr_apply(&d, &w, &x), &expected, |i| scale[i], ulp.max(D as f64 * 1e-16));
        }
    }
    on_both!(check);
}
