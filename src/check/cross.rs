//! A backend against the reference, from equal inputs.

use super::case::{At, Input, Once, draw, draw_dy, upload};
use super::{Case, CheckRow, norm, relative_error, scale};
use crate::Result;
use crate::backend::reference::Reference;
use crate::backend::{Array, Backend, Keep};
use crate::ops::TrainingOps;

/// One row for every value and every gradient of the case.
///
/// All three amounts of keeping are run, since a backend may compute each in its own way; the worst error counts. None for a
/// case that cannot be compared in the backend's precision.
///
/// # Errors
/// When the device has failed.
pub fn check<C: Case, B: TrainingOps>(case: &C, backend: &B, seed: u64) -> Result<Vec<CheckRow>> {
    let coarse = backend.coarse() && case.network();
    if coarse && !case.coarse() {
        return Ok(Vec::new());
    }
    let inputs = case.inputs();
    // the reference is given what the device holds
    let x: Vec<_> = upload(backend, &inputs, &draw(&inputs, seed));
    let x = x.iter().map(|x| backend.to_vec(x)).collect::<Result<Vec<_>>>()?;
    let (mut values, mut gradients) = (Vec::new(), Vec::new());
    for keep in [Keep::Nothing, Keep::Input, Keep::All] {
        let found = results(case, backend, &inputs, &x, keep, |y| draw_dy(backend, y, seed, inputs.len()))?;
        let reference = Reference::new();
        let expected = results(case, &reference, &inputs, &x, keep, |y| reference.upload(y.shape(), &found.dy))?;
        for ((name, found), (_, expected)) in found.values.iter().zip(&expected.values) {
            worst(&mut values, name, relative_error(found, expected, norm(expected)));
        }
        assert_eq!(found.slots, expected.slots, "inputs of {} that have a gradient", case.op());
        for ((&slot, found), e) in found.slots.iter().zip(&found.gradients).zip(&expected.gradients) {
            let error = relative_error(found, e, scale(e, &expected.gradients));
            worst(&mut gradients, &inputs[slot].name, error);
        }
    }
    let against = format!("{} against reference", backend.name());
    let bound = if coarse { case.coarse_bound() } else { case.bound() };
    let row = |(name, error)| CheckRow::new(case, format!("{name}: {against}"), error, bound);
    let mut rows: Vec<CheckRow> = values.into_iter().map(row).collect();
    rows.extend(CheckRow::gradients(case, gradients, &against, bound));
    Ok(rows)
}

/// Raises the error of `name` to `error`.
fn worst(errors: &mut Vec<(String, f64)>, name: &str, error: f64) {
    match errors.iter_mut().find(|row| row.0 == name) {
        Some(row) => row.1 = row.1.max(error),
        None => errors.push((name.to_owned(), error)),
    }
}

/// What a case computed, on the host.
struct Results {
    values: Vec<(&'static str, Vec<f64>)>,
    dy: Vec<f64>,
    slots: Vec<usize>,
    gradients: Vec<Vec<f64>>,
}

fn results<C: Case, B: TrainingOps>(
    case: &C,
    backend: &B,
    inputs: &[Input],
    x: &[Vec<f64>],
    keep: Keep,
    dy_of: impl Fn(&B::Tensor) -> B::Tensor,
) -> Result<Results> {
    let x = &upload(backend, inputs, x);
    let mut outcome = case.run(At { backend, x, dy: None, keep: Keep::Nothing }, &mut Once)?;
    let mut dy_host = Vec::new();
    if keep != Keep::Nothing {
        let dy = dy_of(&outcome.values[0].1);
        dy_host = backend.to_vec(&dy)?;
        outcome = case.run(At { backend, x, dy: Some(&dy), keep }, &mut Once)?;
    }
    let download = |(name, value): &(&'static str, B::Tensor)| Ok((*name, backend.to_vec(value)?));
    let values = outcome.values.iter().map(download).collect::<Result<_>>()?;
    let (slots, gradients) = outcome.gradients.download(backend)?.into_iter().unzip();
    Ok(Results { values, dy: dy_host, slots, gradients })
}
