//! Noise, preconditioning, operators and solvers of the CUDA kernels against the reference.

use crate::harness::{Input, agree, device, same_bits_alone, schedules};
use diem::backend::cpu::{Cpu, Options};
use diem::backend::cuda::Dtype;
use diem::backend::reference::Reference;
use diem::backend::{Array, Backend, Shape};
use diem::ops::cg::{BREAKDOWN, CONVERGED, MaskedSystem, RUNNING};
use diem::ops::filter::FilterSpec;
use diem::ops::noise::{Purpose, Stream};
use diem::ops::{Bicgstab, ConjugateGradient, Dense, Dplr, Filter, Fourier, LeastSquares, Mask, Noise, Precondition};

/// Three samples: rows of 105 elements, which no 16-byte access divides, and of 192, which are made of them.
const SHAPES: [Shape; 2] = [Shape::new(3, 5, 7, 3), Shape::new(3, 8, 8, 3)];

/// A few roundings of 6e-8 in f32.
const F32: f64 = 3e-7;
/// One rounding to bf16, whose unit is 2^-8: half of it at most, and a third of that on average.
const BF16: f64 = 2e-3;

#[test]
fn noise_has_the_bits_of_the_cpu() {
    let cpu = Cpu::new(Options::default()).unwrap();
    let stream =
        Stream { iteration: 5, epoch: 9, ..Stream::new(0x1234_5678_9abc_def0, Purpose::Correction) }.at(65535, 3);
    for config in schedules() {
        let b = device(config, Dtype::F32);
        for shape in [Shape::rows(4, 5), Shape::rows(4, 1000), Shape::new(4, 5, 7, 3)] {
            let samples = [0, 7, u32::MAX, 3];
            let expected = cpu.to_vec(&cpu.noise_normal(shape, stream, &samples)).unwrap();
            let found = b.to_vec(&b.noise_normal(shape, stream, &samples)).unwrap();
            assert_eq!(found, expected, "{config:?}");
        }
    }
}

#[test]
fn preconditioning_changes_the_type() {
    const SHARED: [f64; 1] = [0.7];
    const OWN: [f64; 3] = [1e-3, 0.7, 80.0];
    fn run<B: Precondition>(b: &B, x: &[B::Tensor], sigma: &[f64]) -> Vec<B::Tensor> {
        vec![
            b.precondition_input(&x[0], sigma),
            b.precondition_output(&x[0], &x[1], sigma),
            b.precondition_output_vjp(&x[0], sigma),
            b.precondition_vjp(&x[0], &x[1], sigma),
        ]
    }
    for (dtype, bound) in [(Dtype::F32, F32), (Dtype::Bf16, BF16)] {
        for shape in SHAPES {
            let inputs = [Input::f32(shape, 0), Input::normal(shape, dtype, 1)];
            agree(&inputs, dtype, bound, |b, x| run(b, x, &SHARED), |b, x| run(b, x, &SHARED));
            agree(&inputs, dtype, bound, |b, x| run(b, x, &OWN), |b, x| run(b, x, &OWN));
        }
    }
}

#[test]
fn masks_hide_what_was_not_measured() {
    fn run<B: Mask>(b: &B, x: &[B::Tensor]) -> Vec<B::Tensor> {
        x[1..].iter().map(|mask| b.mask_apply(mask, &x[0])).collect()
    }
    for shape in SHAPES {
        let mask = |n: usize, slot: usize| {
            let shape = Shape { n, c: 1, ..shape };
            let values = Input::f32(shape, slot).values.into_iter().map(|z| f64::from(z > 0.0));
            Input::new(shape, Dtype::F32, values)
        };
        agree(&[Input::f32(shape, 0), mask(3, 1), mask(1, 2)], Dtype::F32, 0.0, run, run);
    }
    let b = device(Default::default(), Dtype::F32);
    let x = b.upload(Shape::new(1, 1, 2, 2), &[f64::NAN, f64::INFINITY, 3.0, 4.0]);
    let mask = b.upload(Shape::new(1, 1, 2, 1), &[0.0, 1.0]);
    assert_eq!(b.to_vec(&b.mask_apply(&mask, &x)).unwrap(), [0.0, 0.0, 3.0, 4.0]);
}

#[test]
fn columns_of_k_space() {
    fn run<B: Fourier>(b: &B, x: &[B::Tensor]) -> Vec<B::Tensor> {
        let forward = x[2..].iter().map(|mask| b.fourier_forward(mask, &x[0]));
        let adjoint = x[2..].iter().map(|mask| b.fourier_adjoint(mask, &x[1]));
        forward.chain(adjoint).collect()
    }
    let columns = |n: usize, w: usize, slot: usize| {
        let shape = Shape::new(n, 1, w, 1);
        Input::new(shape, Dtype::F32, Input::f32(shape, slot).values.into_iter().map(|z| f64::from(z > 0.0)))
    };
    for (h, w) in [(5, 7), (8, 6), (1, 33)] {
        let inputs = [Input::f32(Shape::new(3, h, w, 1), 0), Input::f32(Shape::new(3, h, w, 2), 1)];
        let masks = [columns(3, w, 2), columns(1, w, 3)];
        agree(&inputs.into_iter().chain(masks).collect::<Vec<_>>(), Dtype::F32, F32, run, run);
    }
    // what is not measured does not count
    let b = device(Default::default(), Dtype::F32);
    let y = b.upload(Shape::new(1, 1, 2, 2), &[f64::NAN, f64::INFINITY, 3.0, 4.0]);
    let x = b.to_vec(&b.fourier_adjoint(&b.upload(Shape::new(1, 1, 2, 1), &[0.0, 1.0]), &y)).unwrap();
    assert!(x.iter().all(|x| (x - 3.0 / 2f64.sqrt()).abs() < 1e-6), "{x:?}"); // the zero frequency of two pixels
    let inputs = [Input::f32(Shape::new(3, 5, 7, 1), 0), Input::f32(Shape::new(3, 5, 7, 2), 1), columns(3, 7, 2)];
    same_bits_alone(&inputs, run);
}

#[test]
fn periodic_filters() {
    fn run<B: Filter>(b: &B, x: &[B::Tensor], spec: FilterSpec) -> Vec<B::Tensor> {
        vec![b.filter_forward(&x[2], spec, &x[0]), b.filter_adjoint(&x[2], spec, &x[1])]
    }
    for (image, (a, b), anchor, stride) in [
        (Shape::new(3, 5, 7, 3), (4, 3), (2, 1), 1),
        (Shape::new(2, 6, 9, 1), (8, 5), (5, 2), 3),
        (Shape::new(1, 3, 4, 2), (13, 9), (6, 4), 1), // larger than the image
    ] {
        let spec = FilterSpec { anchor, stride };
        let kernel = Input::f32(Shape::new(1, a, b, 1), 2);
        let inputs = [Input::f32(image, 0), Input::f32(spec.filtered(image), 1), kernel];
        agree(&inputs, Dtype::F32, F32, |b, x| run(b, x, spec), |b, x| run(b, x, spec));
        same_bits_alone(&inputs, |b, x| run(b, x, spec));
    }
}

#[test]
fn matrices_and_their_adjoints() {
    fn run<B: Dense>(b: &B, x: &[B::Tensor]) -> Vec<B::Tensor> {
        let forward = x[2..].iter().map(|a| b.dense_forward(a, &x[0]));
        let adjoint = x[2..].iter().map(|a| b.dense_adjoint(a, &x[1], SHAPES[0]));
        forward.chain(adjoint).collect()
    }
    let (image, m) = (SHAPES[0], 13);
    let matrix = |n, slot| Input::f32(Shape::new(n, 1, m, image.row()), slot);
    let inputs = [Input::f32(image, 0), Input::f32(Shape::rows(3, m), 1), matrix(3, 2), matrix(1, 3)];
    agree(&inputs, Dtype::F32, F32, run, run);
}

#[test]
fn diagonal_plus_low_rank() {
    fn run<B: Dplr>(b: &B, x: &[B::Tensor]) -> Vec<B::Tensor> {
        vec![b.dplr_apply(&x[1], &x[2], &x[0]), b.dplr_apply(&x[3], &x[4], &x[0])]
    }
    let (image, k) = (SHAPES[0], 9);
    let factors = |n, slot| {
        [Input::f32(Shape::rows(n, image.row()), slot), Input::f32(Shape::new(n, 1, k, image.row()), slot + 1)]
    };
    let [own_d, own_w] = factors(3, 1);
    let [shared_d, shared_w] = factors(1, 3);
    // W x is rounded to f32 in between
    agree(&[Input::f32(image, 0), own_d, own_w, shared_d, shared_w], Dtype::F32, 2.0 * F32, run, run);
}

#[test]
fn conjugate_gradient_iterations() {
    /// Two iterations with given products: r, p, s, <r, r> and status after each, and the tally.
    fn run<B: ConjugateGradient>(b: &B, x: &[B::Tensor]) -> Vec<B::Tensor> {
        let mut state = b.cg_start(b.copy(&x[0]), SHAPES[1].with_n(6));
        let mut tally = b.zeros(Shape::rows(6, 3));
        let mut found = Vec::new();
        for products in x[1..].chunks(2) {
            b.cg_update(&mut state, &products[0], &products[1], 1e-3);
            b.cg_tally(&mut tally, &state.status);
            found.extend([&state.r, &state.p, &state.s, &state.rr, &state.status].map(|x| b.copy(x)));
        }
        found.push(tally);
        found
    }
    // sample 0 iterates twice; 1 has no residual; 2 breaks down at <p, q> < 0, 3 at NaN; 4 converges at once, since q = p;
    // 5 breaks down in its second iteration, at <r, q> < 0 < <p, q>
    let measured = Shape::new(6, 5, 7, 3);
    let (row, image) = (measured.row(), SHAPES[1].with_n(6));
    let mut r = Input::f32(measured, 0).values;
    r[row..2 * row].fill(0.0);
    let noise = Input::f32(measured, 1).values;
    let scales = [2.0, 1.0, -1.0, f64::NAN, 1.0, 2.0];
    let disturbed = [0, 5].map(|n| n * row..(n + 1) * row);
    let mut products: Vec<f64> = (0..measured.len()).map(|i| scales[i / row] * r[i]).collect();
    for i in disturbed.iter().cloned().flatten() {
        products[i] += 0.3 * noise[i];
    }
    let first = Input::new(measured, Dtype::F32, products.iter().copied());
    for (sample, weights) in disturbed.into_iter().zip([(2.0, 0.1), (-0.5, 1.0)]) {
        let dot = |y: &[f64]| r[sample.clone()].iter().zip(&y[sample.clone()]).map(|(r, y)| r * y).sum::<f64>();
        let alpha = dot(&r) / dot(&products);
        for i in sample.clone() {
            // of the residual after the first iteration, which is orthogonal to r, and of r
            products[i] = weights.0 * (r[i] - alpha * products[i]) + weights.1 * r[i];
        }
    }
    let second = Input::new(measured, Dtype::F32, products);
    let inputs =
        [Input::new(measured, Dtype::F32, r.clone()), Input::f32(image, 2), first, Input::f32(image, 3), second];
    // <r, r> after an update that cancels most of r keeps the absolute rounding error of r's elements
    agree(&inputs, Dtype::F32, 1e-6, run, run);

    let reference = Reference::new();
    let x: Vec<_> = inputs.iter().map(|input| reference.upload(input.shape, &input.values)).collect();
    let status: Vec<f64> = run(&reference, &x).iter().rev().nth(1).expect("of the last iteration").to_vec();
    assert_eq!(status, [RUNNING, CONVERGED, BREAKDOWN, BREAKDOWN, CONVERGED, BREAKDOWN]);
}

#[test]
fn the_mask_is_part_of_the_iteration() {
    /// Two iterations with g = p + z / 2: <p, q> is positive, and r shrinks to a third at most.
    fn run<B: ConjugateGradient>(b: &B, x: &[B::Tensor]) -> Vec<B::Tensor> {
        let [r, z, own @ .., shared_mask, shared_cov_y, shared_variance] = x else { panic!("inputs") };
        let own = MaskedSystem { mask: &own[0], cov_y: &own[1], variance: &own[2] };
        let shared = MaskedSystem { mask: shared_mask, cov_y: shared_cov_y, variance: shared_variance };
        let solve = |system: MaskedSystem<B>| {
            let mut state = b.cg_start(b.mask_apply(system.mask, r), x[1].shape());
            for _ in 0..2 {
                let g = b.linear_combination(&[(1.0, &state.p), (0.5, z)]);
                b.cg_update_masked(&mut state, &g, &system, 1e-3);
            }
            [state.r, state.p, state.s, state.rr, state.status]
        };
        solve(own).into_iter().chain(solve(shared)).collect()
    }
    for shape in SHAPES {
        let mask = |n: usize, slot: usize| {
            let shape = Shape { n, c: 1, ..shape };
            Input::new(shape, Dtype::F32, Input::f32(shape, slot).values.into_iter().map(|z| f64::from(z > 0.0)))
        };
        let numbers = |values: &[f64]| Input::new(Shape::rows(values.len(), 1), Dtype::F32, values.iter().copied());
        let own = [mask(3, 2), numbers(&[0.1, 0.2, 0.3]), numbers(&[2.0, 1.0, 0.5])];
        let inputs: Vec<_> = [Input::f32(shape, 0), Input::f32(shape, 1)]
            .into_iter()
            .chain(own)
            .chain([mask(1, 3), numbers(&[0.2]), numbers(&[1.5])])
            .collect();
        // r cancels to a tenth in two iterations: ten times a few roundings
        agree(&inputs, Dtype::F32, 1e-5, run, run);
    }
}

#[test]
fn bicgstab_iterations() {
    /// Two iterations with given products of p and r: everything after each half.
    fn run<B: Bicgstab>(b: &B, x: &[B::Tensor]) -> Vec<B::Tensor> {
        let mut state = b.bicgstab_start(b.copy(&x[0]), SHAPES[1].with_n(6));
        let mut found = Vec::new();
        for products in x[2..].chunks(2) {
            b.bicgstab_bi(&mut state, &x[1], &products[0], 1e-3);
            found.extend([&state.r, &state.s, &state.numbers, &state.status].map(|x| b.copy(x)));
            b.bicgstab_stab(&mut state, &products[0], &x[1], &products[1], 1e-3);
            found.extend([&state.r, &state.p, &state.s, &state.numbers, &state.status].map(|x| b.copy(x)));
        }
        found
    }
    // sample 0 iterates twice; 1 has no residual; 2 has <r, v> = 0, and 3 a v that is not finite: no α; 4 converges at once,
    // since v = r; 5 has t = 0: no ω
    let measured = Shape::new(6, 5, 7, 3);
    let row = measured.row();
    let mut r = Input::f32(measured, 0).values;
    r[row..2 * row].fill(0.0);
    let [v, t, second_v, second_t] = [1, 2, 3, 4].map(|slot| {
        let noise = Input::f32(measured, slot).values;
        let scales = [1.0, 1.0, 0.0, f64::NAN, 1.0, if slot % 2 == 0 { 0.0 } else { 1.0 }];
        let weights = [0.3, 0.3, 0.0, 0.3, 0.0, if slot % 2 == 0 { 0.0 } else { 0.3 }];
        let product = |i: usize| scales[i / row] * r[i] + weights[i / row] * noise[i];
        Input::new(measured, Dtype::F32, (0..measured.len()).map(product))
    });
    let r = Input::new(measured, Dtype::F32, r.iter().copied());
    let inputs = [r, Input::f32(SHAPES[1].with_n(6), 5), v, t, second_v, second_t];
    // r cancels to a third in each half, and ρ = <r̃, r> more: ten times a few roundings
    agree(&inputs, Dtype::F32, 1e-5, run, run);

    let reference = Reference::new();
    let x: Vec<_> = inputs.iter().map(|input| reference.upload(input.shape, &input.values)).collect();
    let status = run(&reference, &x).last().expect("of the last half").to_vec();
    assert_eq!(status, [RUNNING, CONVERGED, BREAKDOWN, BREAKDOWN, CONVERGED, BREAKDOWN]);
}

#[test]
fn least_squares_of_each_sample() {
    /// Three columns: the status after each, and the solution.
    fn run<B: LeastSquares>(b: &B, x: &[B::Tensor]) -> Vec<B::Tensor> {
        let mut state = b.least_squares_start(&x[0], 3);
        let mut found = vec![b.copy(&state.status)];
        let mut columns = x[1..].iter();
        for j in 0..3 {
            let column: Vec<_> = columns.by_ref().take(j + 1).map(|x| b.copy(x)).collect();
            b.least_squares_push(&mut state, &column, columns.next().expect("its square"), 1e-3);
            found.push(b.copy(&state.status));
        }
        found.extend(b.least_squares_solution(&state));
        found
    }
    // sample 0 runs through; 1 has β = 0; 2 a β that is not finite; 3 converges at column 1, whose last element is 0; 4 has a column
    // 1 that is not finite, 5 one of zeros, and both keep the solution of column 0
    let numbers = |values: [f64; 6]| Input::new(Shape::rows(6, 1), Dtype::F32, values);
    let inputs = [
        numbers([2.0, 0.0, f64::INFINITY, 1.0, 3.0, 1.0]),
        numbers([1.0, 1.0, 1.0, 1.5, 2.0, 0.0]),
        numbers([0.25, 1.0, 1.0, 0.5, 1.0, 1.0]),
        numbers([0.3, 1.0, 1.0, -0.5, f64::NAN, 0.0]),
        numbers([1.2, 1.0, 1.0, 0.8, 1.0, 0.0]),
        numbers([0.16, 1.0, 1.0, 0.0, 1.0, 0.0]),
        numbers([-0.2, 1.0, 1.0, 1.0, 1.0, 1.0]),
        numbers([0.1, 1.0, 1.0, 1.0, 1.0, 1.0]),
        numbers([0.9, 1.0, 1.0, 1.0, 1.0, 1.0]),
        numbers([0.09, 1.0, 1.0, 1.0, 1.0, 1.0]),
    ];
    let reference = Reference::new();
    let x: Vec<_> = inputs.iter().map(|input| reference.upload(input.shape, &input.values)).collect();
    let expected = run(&reference, &x);
    let status = [RUNNING, CONVERGED, BREAKDOWN, CONVERGED, BREAKDOWN, BREAKDOWN];
    assert_eq!(expected[3].to_vec(), status);
    // min ‖β e_1 - H y‖ has Hᵀ H y = β Hᵀ e_1: sample 0, three columns
    let h = [[1.0, 0.3, -0.2], [0.5, 1.2, 0.1], [0.0, 0.4, 0.9], [0.0, 0.0, 0.3]];
    let y: Vec<f64> = expected[4..].iter().map(|y| y[0]).collect();
    let residual: Vec<f64> =
        (0..4).map(|i| if i == 0 { 2f64.sqrt() } else { 0.0 } - (0..3).map(|j| h[i][j] * y[j]).sum::<f64>()).collect();
    for j in 0..3 {
        let normal: f64 = (0..4).map(|i| h[i][j] * residual[i]).sum();
        assert!(normal.abs() < 1e-6, "column {j}: {normal:e}"); // the inputs are f32
    }
    agree(&inputs, Dtype::F32, 1e-6, run, run);
}

#[test]
fn a_sample_does_not_depend_on_its_batch() {
    let b = device(Default::default(), Dtype::F32);
    let shape = SHAPES[0];
    let x = Input::f32(shape, 0);
    let row = &x.values[2 * shape.row()..];
    let (whole, alone) = (b.upload(shape, &x.values), b.upload(shape.with_n(1), row));
    let bits = |r, shape: Shape| {
        let mut state = b.cg_start(b.copy(r), shape);
        b.cg_update(&mut state, r, r, 1e-3);
        [state.r, state.p, state.s, state.rr].map(|x| b.to_vec(&x).unwrap())
    };
    for (whole, alone) in bits(&whole, shape).into_iter().zip(bits(&alone, shape.with_n(1))) {
        assert_eq!(whole[2 * alone.len()..], alone);
    }
}
