//! The features of garments against PyTorch: tests/golden/garments.expected.safetensors was written by tools/train_garments.py, in
//! float64.

use diem::backend::Shape;
use diem::backend::cpu::{Cpu, Options};
use diem::backend::reference::Reference;
use diem::data::{Samples, images};
use diem::metrics::features::{FEATURES, Garments};
use diem::metrics::frechet;
use diem::ops::{Conv2d, Linear, Silu};
use safetensors::SafeTensors;
use std::path::Path;

fn path(name: &str) -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(name)
}

/// The first test images of Fashion-MNIST.
fn garments() -> Samples<f32> {
    images::read(&path("assets/fashion-test.npy"), images::Selection::default()).unwrap()
}

fn check<B: Conv2d + Linear + Silu>(backend: &B, bound: f64) {
    let file = std::fs::read(path("tests/golden/garments.expected.safetensors")).unwrap();
    let tensors = SafeTensors::deserialize(&file).unwrap();
    let tensor = tensors.tensor("features").unwrap();
    let expected: Vec<f64> = tensor.data().as_chunks().0.iter().map(|b| f64::from_le_bytes(*b)).collect();
    let n = tensor.shape()[0];
    assert_eq!(tensor.shape(), [n, FEATURES]);
    let found = Garments::new(backend).features(&garments().gather(&(0..n).collect::<Vec<_>>())).unwrap();
    assert!(found.data.iter().all(|v| v.is_finite()));
    let scale = expected.iter().map(|v| v * v).sum::<f64>().sqrt();
    let error = found.data.iter().zip(&expected).map(|(a, b)| (f64::from(*a) - b).powi(2)).sum::<f64>().sqrt();
    assert!(error <= bound * scale, "{:.1e}", error / scale);
}

#[test]
fn features_agree_with_pytorch() {
    check(&Reference::new(), 1e-6); // features are returned in f32: 6e-8
    let cpu = Cpu::new(Options { threads: 2, poison: true, ..Options::default() }).unwrap();
    check(&cpu, 1e-4); // f32 through four layers, the project's bound for a network
}

#[test]
fn features_do_not_depend_on_the_batch() {
    let cpu = Cpu::new(Options { threads: 2, poison: true, ..Options::default() }).unwrap();
    let (garments, network) = (garments(), Garments::new(&cpu));
    let many = garments.gather(&(0..150).map(|i| i % garments.shape.n).collect::<Vec<_>>()); // no whole number of batches
    let (few, many) = (network.features(&garments).unwrap(), network.features(&many).unwrap());
    for i in 0..150 {
        assert_eq!(many.row(i), few.row(i % garments.shape.n), "{i}");
    }
}

#[test]
fn spoilt_images_are_further_away() {
    let cpu = Cpu::new(Options::default()).unwrap();
    let network = Garments::new(&cpu);
    let of = |spoil: &dyn Fn(usize, f32) -> f32| {
        let clean = garments();
        let data = clean.data.iter().enumerate().map(|(i, x)| spoil(i, *x)).collect();
        network.features(&Samples::new(clean.shape, data)).unwrap()
    };
    let clean = of(&|_, x| x);
    let distance = |spoil: &dyn Fn(usize, f32) -> f32| frechet(&of(spoil), &clean).unwrap();
    let (faded, striped) = (distance(&|_, x| 0.9 * x - 0.2), distance(&|i, x| if i % 4 == 0 { x } else { -2.0 }));
    assert!(frechet(&clean, &clean).unwrap() < 1e-6 * striped); // rounding of covariances without full rank
    assert!(0.0 < faded && faded < striped, "{faded} {striped}");
}

#[test]
fn other_images_have_no_features() {
    let cpu = Cpu::new(Options::default()).unwrap();
    let error = Garments::new(&cpu).features(&Samples::new(Shape::new(1, 28, 28, 1), vec![0.0; 784])).unwrap_err();
    assert!(error.to_string().contains("32 x 32 x 1") && error.to_string().contains("28 x 28 x 1"), "{error}");
}
