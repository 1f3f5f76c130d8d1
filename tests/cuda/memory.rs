//! Memory that runs out in the middle of a run.

use crate::harness::skipped_on_one_device;
use diem::Error;
use diem::backend::cuda::driver::Driver;
use diem::backend::cuda::emulated::{Config, Emulated};
use diem::backend::cuda::{Cuda, Options};
use diem::backend::{Backend, Shape};
use diem::run::batch_size::{self, Prediction};
use std::sync::Arc;

const MEMORY: usize = 1 << 20;

/// A step on `n` samples: an array of 1,000 numbers for each, and one more.
fn step(backend: &Cuda, n: usize) -> diem::Result<()> {
    let x = backend.zeros(Shape::rows(n, 1000));
    let y = backend.copy(&x);
    drop(x);
    backend.finish().map(|()| drop(y))
}

/// What is predicted fits; then something else takes memory. The error says what the batch needs, and what still fits does fit.
#[test]
fn running_out_of_memory_names_the_need_and_a_batch_that_fits() {
    if skipped_on_one_device("it takes the device's memory") {
        return;
    }
    let driver = Arc::new(Emulated::new(Config::default()).unwrap().with_memory(MEMORY));
    let backend = Cuda::new(driver.clone(), Options::default());
    let weights = backend.zeros(Shape::flat(10_000));
    let predicted = batch_size::check(&backend, 100, 1000, || step(&backend, 1)).unwrap();
    // 40,000 bytes of weights, and 8,000 for the sample that was tried and each of the batch
    assert_eq!(predicted, Some(Prediction { size: 100, bytes: 48_000 + 800_000, sample: 8000 }));

    driver.alloc(500_000).unwrap();
    let error = batch_size::explain(&backend, predicted, step(&backend, 100).unwrap_err());
    assert!(matches!(error, Error::OutOfMemory(_)));
    let text = error.to_string();
    assert!(text.starts_with("device: out of memory: 400000 bytes wanted, "), "{text}");
    let fits: usize = text
        .split("100 samples at a time need 0.8 MiB, --batch ")
        .nth(1)
        .unwrap()
        .split(' ')
        .next()
        .unwrap()
        .parse()
        .unwrap();
    // 1,048,576 - 40,000 - 500,000 bytes are left: 8,000 for each of 63
    assert!((50..=63).contains(&fits), "{text}");
    step(&backend, fits).unwrap();

    // another error is left as it is
    let other = batch_size::explain(&backend, predicted, Error::Device("lost".to_owned()));
    assert_eq!(other.to_string(), "device: lost");
    drop(weights);
}
