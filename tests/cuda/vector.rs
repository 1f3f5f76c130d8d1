//! Vector arithmetic of the CUDA kernels against the reference.

use crate::harness::{Input, agree, device, schedules};
use diem::backend::cuda::{CudaTensor, Dtype};
use diem::backend::{Backend, Shape};
use diem::ops::Vector;

/// Three samples: rows of 385 elements, which no 16-byte access divides, and of 24 x 16, which are made of them.
const SHAPES: [Shape; 2] = [Shape::new(3, 7, 11, 5), Shape::new(3, 4, 6, 16)];

/// One operation in f32: a few roundings of 6e-8.
const F32: f64 = 3e-7;
/// One rounding to bf16, whose unit is 2^-8: half of it at most, and a third of that on average.
const BF16: f64 = 2e-3;

#[test]
fn linear_combinations_of_one_to_nine_terms() {
    fn run<B: Vector>(b: &B, x: &[B::Tensor]) -> Vec<B::Tensor> {
        let weights = [0.3, -7.0, 1e-3, 1.5, 0.25, -0.5, 2.0, 1.0, -1.0];
        let terms: Vec<_> = weights.into_iter().zip(x).collect();
        [1, 2, 4, 5, 9].map(|count| b.linear_combination(&terms[..count])).into()
    }
    for shape in SHAPES {
        let inputs: Vec<_> = (0..9).map(|slot| Input::f32(shape, slot)).collect();
        agree(&inputs, Dtype::F32, F32, run, run);
    }
}

#[test]
fn updates_in_place() {
    fn run<B: Vector>(b: &B, x: &[B::Tensor]) -> Vec<B::Tensor> {
        let weights = [-7.0, 1e-3, 1.5, 0.25, -0.5, 2.0, 1.0, -1.0];
        let terms: Vec<_> = weights.into_iter().zip(&x[1..]).collect();
        let update = |count: usize| {
            let mut y = b.copy(&x[0]);
            b.linear_update(&mut y, 0.3, &terms[..count]);
            y
        };
        [0, 1, 3, 4, 8].map(update).into()
    }
    for shape in SHAPES {
        let inputs: Vec<_> = (0..9).map(|slot| Input::f32(shape, slot)).collect();
        agree(&inputs, Dtype::F32, F32, run, run);
    }
}

#[test]
fn the_first_step_that_is_not_finite_is_noted() {
    for config in schedules() {
        let b = device(config, Dtype::F32);
        let shape = SHAPES[0];
        let mut first = b.upload(Shape::rows(3, 1), &[-1.0; 3]);
        let mut x = vec![0.5; shape.len()];
        for (step, broken) in [(4, None), (5, Some(2)), (6, Some(0))] {
            if let Some(row) = broken {
                x[row * shape.row() + 7] = f64::INFINITY;
            }
            b.note_nonfinite(&mut first, step, &b.upload(shape, &x));
        }
        assert_eq!(b.to_vec(&first).unwrap(), [6.0, -1.0, 5.0], "{config:?}");
    }
}

#[test]
fn additions_share_a_row_or_not() {
    fn run<B: Vector>(b: &B, x: &[B::Tensor]) -> Vec<B::Tensor> {
        let mut y = [b.copy(&x[0]), b.copy(&x[0])];
        b.add_assign(&mut y[0], &x[1]);
        b.add_assign(&mut y[1], &x[2]);
        y.into()
    }
    for (dtype, bound) in [(Dtype::F32, F32), (Dtype::Bf16, BF16)] {
        for shape in SHAPES {
            let inputs = [shape, shape, shape.with_n(1)].into_iter().enumerate();
            let inputs: Vec<_> = inputs.map(|(slot, shape)| Input::normal(shape, dtype, slot)).collect();
            agree(&inputs, Dtype::F32, bound, run, run);
        }
    }
}

#[test]
fn rows_are_scaled_and_added_each_by_its_own_number() {
    fn run<B: Vector>(b: &B, x: &[B::Tensor]) -> Vec<B::Tensor> {
        let mut y = [b.copy(&x[0]), b.copy(&x[0])];
        b.row_axpy(&mut y[0], 3.0, &x[2], &x[1]);
        b.row_axpy(&mut y[1], -0.1, &x[3], &x[1]);
        let [own, shared] = y;
        vec![own, shared, b.row_scale(&x[0], &x[2]), b.row_scale(&x[0], &x[3])]
    }
    for shape in SHAPES {
        let own = Input::new(Shape::rows(3, 1), Dtype::F32, [0.7, 0.0, -2.0]);
        let shared = Input::new(Shape::rows(1, 1), Dtype::F32, [1.3]);
        agree(&[Input::f32(shape, 0), Input::f32(shape, 1), own, shared], Dtype::F32, F32, run, run);
    }
}

#[test]
fn a_row_whose_number_is_zero_keeps_its_bits() {
    for config in schedules() {
        let b = device(config, Dtype::F32);
        let shape = SHAPES[0];
        let x = Input::f32(shape, 0).values;
        let mut y = b.upload(shape, &x);
        let a = b.upload(Shape::rows(3, 1), &[1.0, 0.0, 1.0]);
        let nan = b.upload(shape, &vec![f64::NAN; shape.len()]);
        b.row_axpy(&mut y, 1.0, &a, &nan);
        let y = b.to_vec(&y).unwrap();
        let row = shape.row()..2 * shape.row();
        assert_eq!(y[row.clone()], x[row], "{config:?}");
        assert!(y[0].is_nan());
    }
}

#[test]
fn products_broadcast_over_rows_and_channels() {
    fn run<B: Vector>(b: &B, x: &[B::Tensor]) -> Vec<B::Tensor> {
        x[1..].iter().map(|y| b.multiply(&x[0], y)).collect()
    }
    for (dtype, bound) in [(Dtype::F32, F32), (Dtype::Bf16, BF16)] {
        for shape in SHAPES {
            let shapes = [shape, shape, shape.with_n(1), shape.with_c(1), shape.with_n(1).with_c(1)];
            let inputs: Vec<_> =
                shapes.into_iter().enumerate().map(|(slot, shape)| Input::normal(shape, dtype, slot)).collect();
            agree(&inputs, Dtype::F32, bound, run, run);
        }
    }
}

#[test]
fn dots_accumulate_in_f64() {
    fn run<B: Vector>(b: &B, x: &[B::Tensor]) -> Vec<B::Tensor> {
        vec![b.row_dot(&x[0], &x[0]), b.row_dot(&x[0], &x[1])]
    }
    for shape in SHAPES {
        // <x, x'> cancels to 1e-4 of its terms; an f32 sum would err by 1e-3 of it
        let x = Input::f32(shape, 0);
        let other = x.values.iter().enumerate().map(|(i, x)| if i % 2 == 0 { 1.0 / x } else { -1.0 / x + 1e-4 });
        let other = Input::new(shape, Dtype::F32, other);
        let [x, other] = [x, other];
        agree(&[x, other], Dtype::F32, 1e-6, run, run); // the result is rounded once
    }
}

#[test]
fn rows_that_are_not_finite_are_found() {
    for config in schedules() {
        let b = device(config, Dtype::F32);
        for (shape, dtype) in SHAPES.into_iter().flat_map(|shape| [(shape, Dtype::F32), (shape, Dtype::Bf16)]) {
            let mut x = Input::normal(shape, dtype, 0).values;
            x[shape.row() - 1] = f64::NAN;
            x[2 * shape.row()] = f64::NEG_INFINITY;
            let x = b.upload_as(shape, &x, dtype);
            assert_eq!(b.rows_finite(&x).unwrap(), [false, true, false], "{config:?}");
        }
    }
}

#[test]
fn rows_are_gathered() {
    fn run<B: Vector>(b: &B, x: &[B::Tensor]) -> Vec<B::Tensor> {
        vec![b.gather_rows(&x[0], &[2, 0, 0, 1, 2])]
    }
    for dtype in [Dtype::F32, Dtype::Bf16] {
        for shape in SHAPES {
            agree(&[Input::normal(shape, dtype, 0)], Dtype::F32, 0.0, run, run);
        }
    }
}

#[test]
fn casts_copies_and_fills() {
    for config in schedules() {
        let b = device(config, Dtype::Bf16);
        let shape = Shape::new(1, 1, 1, 37); // an odd number of bf16
        let x = Input::f32(shape, 0).values;
        let rounded = Input::new(shape, Dtype::Bf16, x.iter().copied()).values;
        let y = b.cast(&b.upload(shape, &x), Dtype::Bf16);
        let values = |x: &CudaTensor| b.to_vec(x).unwrap();
        assert_eq!(
            (values(&y), values(&b.copy(&y)), values(&b.cast(&y, Dtype::F32))),
            (rounded.clone(), rounded.clone(), rounded)
        );
        let mut y = y;
        b.fill(&mut y, -1.5);
        assert_eq!(values(&y), [-1.5; 37]);
        assert!(values(&b.alloc(shape)).iter().all(|x| x.is_nan()), "poisoned");
    }
}

#[test]
fn a_row_is_picked_from_many_arrays() {
    fn run<B: Vector>(b: &B, x: &[B::Tensor]) -> Vec<B::Tensor> {
        // more arrays than one launch takes, of different rows
        let arrays: Vec<_> = x.iter().cycle().take(131).collect();
        b.pick_rows(&arrays, 2)
    }
    let shapes = [SHAPES[0], SHAPES[1], Shape::rows(5, 1), Shape::rows(3, 2048)];
    let inputs: Vec<_> = shapes.into_iter().enumerate().map(|(slot, shape)| Input::f32(shape, slot)).collect();
    agree(&inputs, Dtype::F32, 0.0, run, run);
}

#[test]
fn rows_over_their_norms_and_over_others() {
    fn run<B: Vector>(b: &B, x: &[B::Tensor]) -> Vec<B::Tensor> {
        vec![b.row_normalize(&x[0], &x[2]), b.row_quotient(&x[0], &x[1], &x[3]), b.row_quotient(&x[0], &x[1], &x[4])]
    }
    let numbers = |values: &[f64]| Input::new(Shape::rows(values.len(), 1), Dtype::F32, values.iter().copied());
    for shape in SHAPES {
        // a row of norm 0 has no direction
        let scalars = [numbers(&[2.0, 0.0, 0.3]), numbers(&[0.7, 1e-3, 2.0]), numbers(&[0.2])];
        let inputs: Vec<_> = [Input::f32(shape, 0), Input::f32(shape, 1)].into_iter().chain(scalars).collect();
        agree(&inputs, Dtype::F32, F32, run, run);
    }
    let b = device(Default::default(), Dtype::F32);
    let x = b.upload(Shape::rows(2, 2), &[f64::NAN, 1.0, 1.0, 1.0]);
    let square = b.upload(Shape::rows(2, 1), &[f64::NAN, f64::INFINITY]);
    assert_eq!(b.to_vec(&b.row_normalize(&x, &square)).unwrap(), [0.0; 4], "no direction either");
}
