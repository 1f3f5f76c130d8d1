//! Finite differences and adjoint identities: whether a backend's VJPs are those of its own forward.

use super::case::{At, Input, Once, draw, draw_dy, normal, upload};
use super::{Case, CheckRow, dot, norm, relative, scale};
use crate::Result;
use crate::backend::Keep;
use crate::ops::TrainingOps;

/// Step of the central differences, for inputs of order 1 (else times their standard deviation), in f64. Their truncation error is h²/6 f''' ~ 1e-11 and
/// their rounding error 1e-16/h = 1e-11, relative to f' of order 1: both far below [`BOUND`], and both small at once only
/// near this h.
const H: f64 = 1e-5;

/// Relative error of a VJP that passes.
pub const BOUND: f64 = 1e-6;

/// Relative error of <A u, v> = <u, Aᵀ v> that passes: only rounding, 1e-16 for each of a few thousand terms.
pub const ADJOINT_BOUND: f64 = 1e-12;

/// Random directions for each input. For u ~ N(0, I) the square of <e, u> is |e|² on average, so that the root mean
/// square over the directions estimates the error of the whole gradient; 4 of them miss it by a factor of 10 once in 5,000.
const DIRECTIONS: usize = 4;

/// One row for each gradient of the case, and one for its adjoint identity if it is linear.
///
/// # Errors
/// When the device has failed.
pub fn check<C: Case, B: TrainingOps>(case: &C, backend: &B, seed: u64) -> Result<Vec<CheckRow>> {
    let inputs = case.inputs();
    let x = draw(&inputs, seed);
    let value = |x: &[Vec<f64>]| -> Result<Vec<f64>> {
        let x = &upload(backend, &inputs, x);
        let outcome = case.run(At { backend, x, dy: None, keep: Keep::Nothing }, &mut Once)?;
        backend.to_vec(&outcome.values[0].1)
    };
    let (dy, slots, gradients) = gradients(case, backend, &inputs, &x, seed)?;

    let mut errors = Vec::new();
    for (&slot, gradient) in slots.iter().zip(&gradients) {
        let input = &inputs[slot];
        let mut squares = 0.0;
        for k in 0..DIRECTIONS {
            let u = normal(gradient.len(), seed, inputs.len() + 1 + DIRECTIONS * slot + k);
            let h = H * input.std(); // of the input's own size
            let loss = |h: f64| -> Result<f64> {
                let mut x = x.clone();
                x[slot].iter_mut().zip(&u).for_each(|(x, u)| *x += h * u);
                Ok(dot(&dy, &value(&x)?))
            };
            let difference = (loss(h)? - loss(-h)?) / (2.0 * h);
            squares += (difference - dot(gradient, &u)).powi(2);
        }
        let error = (squares / DIRECTIONS as f64).sqrt();
        errors.push((input.name.clone(), relative(error, scale(gradient, &gradients))));
    }
    let mut rows = CheckRow::gradients(case, errors, "finite differences", BOUND);
    if !case.linear().is_empty() {
        let mut zero = x.clone();
        case.linear().iter().for_each(|&slot| zero[slot].fill(0.0));
        let a_u: Vec<f64> = value(&x)?.iter().zip(value(&zero)?).map(|(y, constant)| y - constant).collect();
        let linear = slots.iter().zip(&gradients).filter(|(slot, _)| case.linear().contains(slot));
        let u_at_v: f64 = linear.map(|(&slot, at_v)| dot(&x[slot], at_v)).sum();
        let error = relative((dot(&a_u, &dy) - u_at_v).abs(), norm(&a_u) * norm(&dy));
        rows.push(CheckRow::new(case, "adjoint".to_owned(), error, ADJOINT_BOUND));
    }
    Ok(rows)
}

/// dy; the inputs that have a gradient; their gradients of <dy, y> at `x`.
type AllGradients = (Vec<f64>, Vec<usize>, Vec<Vec<f64>>);

fn gradients<C: Case, B: TrainingOps>(
    case: &C,
    backend: &B,
    inputs: &[Input],
    x: &[Vec<f64>],
    seed: u64,
) -> Result<AllGradients> {
    let x = &upload(backend, inputs, x);
    let y = case.run(At { backend, x, dy: None, keep: Keep::Nothing }, &mut Once)?.values.swap_remove(0).1;
    let dy = draw_dy(backend, &y, seed, inputs.len());
    let outcome = case.run(At { backend, x, dy: Some(&dy), keep: Keep::All }, &mut Once)?;
    let (slots, gradients) = outcome.gradients.download(backend)?.into_iter().unzip();
    Ok((backend.to_vec(&dy)?, slots, gradients))
}
