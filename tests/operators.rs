//! Operators: adjoints, broadcasting, gathering, and what a wrong measurement says.

mod toys;

use diem::Error;
use diem::backend::cpu::Cpu;
use diem::backend::reference::Reference;
use diem::backend::{Array, Backend, Shape};
use diem::operators::{DenseMatrix, FourierMask, Measurement, Operator, PeriodicFilter, PixelMask};
use diem::ops::Vector;
use toys::{SmallOps, mask, normal};

const IMAGE: Shape = Shape::new(3, 5, 7, 2);

/// One channel, and as many samples.
const GRAY: Shape = IMAGE.with_c(1);

/// A name, the extents of images, and the operator.
type Named<B> = (&'static str, Shape, Box<dyn Operator<B>>);

/// All operators with one array for all samples, and with one for each.
fn operators<B: SmallOps>(backend: &B) -> Vec<Named<B>> {
    let masks = [1, IMAGE.n].map(|n| mask(backend, IMAGE.with_n(n).with_c(1), 1));
    let matrices = [1, IMAGE.n].map(|n| normal(backend, Shape::new(n, 1, 11, IMAGE.row()), 2));
    let columns = [1, IMAGE.n].map(|n| mask(backend, Shape::new(n, 1, IMAGE.w, 1), 8));
    let mut all: Vec<Named<B>> = Vec::new();
    for x in masks {
        all.push(("mask", IMAGE, Box::new(PixelMask::new(x, IMAGE).unwrap())));
    }
    for a in matrices {
        all.push(("dense", IMAGE, Box::new(DenseMatrix::new(a, IMAGE).unwrap())));
    }
    for x in columns {
        all.push(("fourier", GRAY, Box::new(FourierMask::new(x, GRAY).unwrap())));
    }
    for (a, b) in [(4, 3), (1, 9)] {
        let kernel = normal(backend, Shape::new(1, a, b, 1), 9);
        all.push(("blur", IMAGE, Box::new(PeriodicFilter::blur(kernel, IMAGE).unwrap())));
    }
    for (factor, image) in [(2, Shape::new(3, 6, 4, 2)), (3, Shape::new(3, 3, 9, 1))] {
        all.push(("downsample", image, Box::new(PeriodicFilter::downsample(backend, factor, image).unwrap())));
    }
    all
}

/// <A x, v> = <x, Aᵀ v> for every sample.
fn adjoint_identity<B: SmallOps>(backend: &B, tolerance: f64) {
    for (name, image, operator) in operators(backend) {
        let x = normal(backend, image, 3);
        let v = normal(backend, operator.measured(IMAGE.n).unwrap(), 4);
        let (ax, atv) = (operator.forward(backend, &x), operator.adjoint(backend, &v));
        assert_eq!((ax.shape(), atv.shape()), (v.shape(), x.shape()), "{name}");
        let [left, right] = [(&ax, &v), (&x, &atv)].map(|(x, y)| backend.to_vec(&backend.row_dot(x, y)).unwrap());
        for (left, right) in left.iter().zip(&right) {
            assert!((left - right).abs() <= tolerance * left.abs().max(1.0), "{name}: {left} against {right}");
        }
    }
}

#[test]
fn adjoints_are_adjoint() {
    adjoint_identity(&Reference::new(), 1e-12); // sums of 770 products of order 1 in f64
    adjoint_identity(&Cpu::new(Default::default()).unwrap(), 1e-4); // 770 products, each rounded to 6e-8
}

#[test]
fn backends_agree() {
    let (reference, cpu) = (Reference::new(), Cpu::new(Default::default()).unwrap());
    for ((name, image, f64_operator), (_, _, f32_operator)) in operators(&reference).into_iter().zip(operators(&cpu)) {
        let (x, x32) = (normal(&reference, image, 3), normal(&cpu, image, 3));
        let y = reference.to_vec(&f64_operator.forward(&reference, &x)).unwrap();
        let y32 = cpu.to_vec(&f32_operator.forward(&cpu, &x32)).unwrap();
        // inputs and outputs rounded once, sums in f64, or an FFT of a few f32 roundings
        assert!(toys::distance(&y32, &y) < 1e-6, "{name}");
    }
}

#[test]
fn gather_takes_the_rows_and_shares_the_one() {
    let backend = Reference::new();
    let index = [2, 0, 2, 1];
    for (name, image, operator) in operators(&backend) {
        let x = normal(&backend, image, 5);
        let all = operator.forward(&backend, &x);
        let some = operator.gather(&backend, &index).forward(&backend, &backend.gather_rows(&x, &index));
        assert_eq!(some[..], backend.gather_rows(&all, &index)[..], "{name}");
        let m = Measurement::new(&backend, &all, &[0.1, 0.2, 0.3], operator).unwrap().gather(&backend, &index);
        assert_eq!(m.y[..], some[..], "{name}");
        for (variance, sigma) in m.variance.iter().zip([0.3f64, 0.1, 0.3, 0.2]) {
            assert_eq!(*variance, sigma * sigma);
        }
    }
}

#[test]
fn unobserved_values_never_count() {
    let backend = Reference::new();
    let pixels = mask(&backend, IMAGE.with_c(1), 1);
    let mut y = normal(&backend, IMAGE, 6);
    for (y, m) in y.chunks_exact_mut(IMAGE.c).zip(pixels.iter()) {
        if *m == 0.0 {
            y.fill(f64::NAN);
        }
    }
    let operator = Box::new(PixelMask::new(pixels, IMAGE).unwrap());
    let m = Measurement::new(&backend, &y, &[0.1], operator).unwrap();
    let residual = m.residual(&backend, &normal(&backend, IMAGE, 7));
    for (r, y) in residual.iter().zip(y.iter()) {
        assert!(if y.is_nan() { *r == 0.0 } else { r.is_finite() });
    }
}

/// Real and imaginary part of a column count where its mask is 1, in every row.
#[test]
fn unmeasured_columns_never_count() {
    let backend = Reference::new();
    for rows in [1, IMAGE.n] {
        let columns = mask(&backend, Shape::new(rows, 1, IMAGE.w, 1), 8);
        let mut y = normal(&backend, GRAY.with_c(2), 6);
        for (i, y) in y.iter_mut().enumerate() {
            if columns.row_or_shared(i / (2 * GRAY.row()))[i / 2 % IMAGE.w] == 0.0 {
                *y = f64::NAN;
            }
        }
        let operator = Box::new(FourierMask::new(columns, GRAY).unwrap());
        let m = Measurement::new(&backend, &y, &[0.1], operator).unwrap();
        let residual = m.residual(&backend, &normal(&backend, GRAY, 7));
        for (r, y) in residual.iter().zip(y.iter()) {
            assert!(if y.is_nan() { *r == 0.0 } else { r.is_finite() });
        }
        let back = m.operator.adjoint(&backend, &y); // whatever is not measured
        assert!(back.iter().all(|x| x.is_finite()));
    }
}

/// Against the formula, without separation: (F x)_k = (H W)^(-1/2) Σ x_p exp(-2πi (..)), counted from the centre.
#[test]
fn k_space_is_the_centred_orthonormal_transform() {
    let backend = Reference::new();
    for image in [Shape::new(1, 4, 6, 1), Shape::new(1, 5, 3, 1)] {
        let (h, w) = (image.h as i64, image.w as i64);
        let all = FourierMask::new(backend.upload(Shape::new(1, 1, image.w, 1), &vec![1.0; image.w]), image).unwrap();
        let x = normal(&backend, image, 5);
        let y = Operator::forward(&all, &backend, &x);
        for (k, y) in y.chunks_exact(2).enumerate() {
            let (mut re, mut im) = (0.0, 0.0);
            for (p, x) in x.iter().enumerate() {
                let along = |n: i64, k: i64, p: i64| ((k - n / 2) * (p - n / 2)) as f64 / n as f64;
                let (k, p) = (k as i64, p as i64);
                let angle = -std::f64::consts::TAU * (along(h, k / w, p / w) + along(w, k % w, p % w));
                (re, im) = (re + x * angle.cos(), im + x * angle.sin());
            }
            let scale = ((h * w) as f64).sqrt();
            assert!((y[0] - re / scale).abs() < 1e-13 && (y[1] - im / scale).abs() < 1e-13, "{k}: {y:?}"); // 24 terms
        }
        // all columns: an isometry, whose adjoint is its inverse on real images
        let back = Operator::adjoint(&all, &backend, &y);
        assert!(toys::distance(&back, &x) < 1e-14);
    }
}

/// The image of a point is the kernel around it, over the edge onto the other side; a constant stays one under downsampling.
#[test]
fn points_become_kernels() {
    let (backend, image) = (Reference::new(), Shape::new(1, 5, 7, 2));
    let kernel: Vec<f64> = (1..=12).map(f64::from).collect();
    let blur = PeriodicFilter::blur(backend.upload(Shape::new(1, 3, 4, 1), &kernel), image).unwrap();
    let mut point = backend.zeros(image);
    point[(4 * 7 + 6) * 2 + 1] = 1.0;
    let mut expected = vec![0.0; image.row()];
    for (i, k) in kernel.iter().enumerate() {
        // its element (1, 2) lies on the point (4, 6)
        let (row, column) = ((4 + i / 4 + 5 - 1) % 5, (6 + i % 4 + 7 - 2) % 7);
        expected[(row * 7 + column) * 2 + 1] = *k;
    }
    assert_eq!(Operator::forward(&blur, &backend, &point)[..], expected);
    let image = Shape::new(1, 8, 12, 1);
    let down = PeriodicFilter::downsample(&backend, 4, image).unwrap();
    let y = Operator::forward(&down, &backend, &backend.upload(image, &[3.0; 96]));
    assert_eq!(y.shape(), Shape::new(1, 2, 3, 1));
    assert!(y.iter().all(|y| (y - 3.0).abs() < 1e-14), "{:?}", &y[..]); // 256 weights of sum 1
}

/// The one-line error of a measurement that must be refused.
fn refused(y: Shape, operator_image: Shape, matrix: Shape, noise: &[f64], spoil: Option<usize>) -> String {
    let backend = Reference::new();
    let result = DenseMatrix::new(backend.zeros(matrix), operator_image).and_then(|operator| {
        let mut y = backend.zeros(y);
        if let Some(i) = spoil {
            y[i] = f64::INFINITY;
        }
        Measurement::new(&backend, &y, noise, Box::new(operator))
    });
    let error: Error = result.err().expect("an error");
    error.to_string()
}

#[test]
fn wrong_measurements_are_refused() {
    let (image, matrix, y) = (Shape::new(1, 2, 2, 3), Shape::new(4, 1, 5, 12), Shape::rows(4, 5));
    let cases = [
        (
            refused(y, image.with_c(2), matrix, &[0.1], None),
            "A: expected (1 or N, M, 8) for images (1, 2, 2, 2), found (4, 1, 5, 12)",
        ),
        (refused(Shape::rows(4, 6), image, matrix, &[0.1], None), "y: expected (4, 1, 1, 5), found (4, 1, 1, 6)"),
        (
            refused(Shape::rows(3, 5), image, matrix, &[0.1], None),
            "A: expected leading extent 1 or 3, as y has, found 4",
        ),
        (
            refused(y, image, matrix, &[0.1, 0.2], None),
            "noise: expected one value, or one for each of 4 samples, found 2",
        ),
        (refused(y, image, matrix, &[0.0], None), "noise: expected a positive standard deviation, found 0"),
        (refused(y, image, matrix, &[f64::NAN], None), "noise: expected a positive standard deviation, found NaN"),
        (refused(y, image, matrix, &[0.1], Some(11)), "non-finite value in y, sample 2"),
    ];
    for (found, expected) in cases {
        assert_eq!(found, expected);
    }
    let backend = Reference::new();
    let error = PixelMask::new(backend.zeros(Shape::new(4, 2, 3, 1)), image).err().expect("an error");
    assert_eq!(error.to_string(), "mask: expected (4, 2, 2, 1), found (4, 2, 3, 1)");
    let error = PeriodicFilter::blur(backend.zeros(Shape::new(1, 3, 3, 2)), image).err().expect("an error");
    assert_eq!(error.to_string(), "kernel: expected (1, h, w, 1), found (1, 3, 3, 2)");
    let error = PeriodicFilter::downsample(&backend, 3, image).err().expect("an error");
    assert_eq!(error.to_string(), "factor: expected a divisor of 2 and 2, the sides of the images, found 3");
    let columns = |mask, image| FourierMask::new(backend.zeros(mask), image).err().expect("an error").to_string();
    let found = columns(Shape::new(4, 2, 2, 1), image.with_c(1));
    assert_eq!(found, "mask: expected (4, 1, 2, 1), found (4, 2, 2, 1)");
    let found = columns(Shape::new(4, 1, 2, 1), image);
    assert_eq!(found, "images of k-space: expected one channel, at most 4096 x 4096 pixels, found (1, 2, 2, 3)");
}
