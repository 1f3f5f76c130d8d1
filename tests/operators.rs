//! Operators: adjoints, broadcasting, gathering, and what a wrong measurement says.

mod toys;

use diem::Error;
use diem::backend::cpu::Cpu;
use diem::backend::reference::Reference;
use diem::backend::{Array, Backend, Shape};
use diem::operators::{DenseMatrix, Measurement, Operator, PixelMask};
use diem::ops::Vector;
use toys::{SmallOps, mask, normal};

const IMAGE: Shape = Shape::new(3, 5, 7, 2);

/// Both operators with one array for all samples, and with one for each.
fn operators<B: SmallOps>(backend: &B) -> Vec<(&'static str, Box<dyn Operator<B>>)> {
    let masks = [1, IMAGE.n].map(|n| mask(backend, IMAGE.with_n(n).with_c(1), 1));
    let matrices = [1, IMAGE.n].map(|n| normal(backend, Shape::new(n, 1, 11, IMAGE.row()), 2));
    let mut all: Vec<(&str, Box<dyn Operator<B>>)> = Vec::new();
    for x in masks {
        all.push(("mask", Box::new(PixelMask::new(x, IMAGE).unwrap())));
    }
    for a in matrices {
        all.push(("dense", Box::new(DenseMatrix::new(a, IMAGE).unwrap())));
    }
    all
}

/// <A x, v> = <x, Aᵀ v> for every sample.
fn adjoint_identity<B: SmallOps>(backend: &B, tolerance: f64) {
    for (name, operator) in operators(backend) {
        let x = normal(backend, IMAGE, 3);
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
    for ((name, f64_operator), (_, f32_operator)) in operators(&reference).into_iter().zip(operators(&cpu)) {
        let (x, x32) = (normal(&reference, IMAGE, 3), normal(&cpu, IMAGE, 3));
        let y = reference.to_vec(&f64_operator.forward(&reference, &x)).unwrap();
        let y32 = cpu.to_vec(&f32_operator.forward(&cpu, &x32)).unwrap();
        assert!(toys::distance(&y32, &y) < 1e-6, "{name}"); // inputs and outputs rounded once, sums in f64
    }
}

#[test]
fn gather_takes_the_rows_and_shares_the_one() {
    let backend = Reference::new();
    let index = [2, 0, 2, 1];
    for (name, operator) in operators(&backend) {
        let x = normal(&backend, IMAGE, 5);
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
}
