//! The op registry: one case per op and size serves three modes, as in ggml's backend tests.
//!
//! - finite differences: every VJP of the reference against central differences of the reference, and every linear map
//!   against its adjoint ([`gradient`]);
//! - another backend against the reference, values and all gradients ([`cross`]);
//! - timing, with floating point operations and memory traffic ([`bench`]).
//!
//! A [`Case`] says once, generically over the backend, how its op is called; [`cases`] lists them all.

pub mod bench;
pub mod case;
pub mod cases;
pub mod cross;
pub mod gradient;
mod library;

pub use case::Case;

use crate::Result;
use crate::backend::reference::Reference;
use crate::backend::timed::Timed;
use crate::ops::TrainingOps;

/// One line of the table that `diem check` prints.
#[derive(Clone, Debug)]
pub struct CheckRow {
    /// The op, or the network.
    pub op: &'static str,
    /// Its extents.
    pub size: String,
    /// What was compared: "dx: finite differences", "adjoint", "y: cpu against reference".
    pub what: String,
    /// Relative error; infinite when a value was not finite.
    pub error: f64,
    /// The largest error that passes.
    pub bound: f64,
    /// Whether it passed.
    pub pass: bool,
}

impl CheckRow {
    fn new(case: &impl Case, what: String, error: f64, bound: f64) -> Self {
        Self { op: case.op(), size: case.size(), what, error, bound, pass: error <= bound }
    }
    /// One row for each gradient; of many (a network's parameters) only the worst after the first.
    fn gradients(case: &impl Case, mut errors: Vec<(String, f64)>, against: &str, bound: f64) -> Vec<Self> {
        if errors.len() > MANY {
            let count = errors.len() - 1;
            let worst = errors[1..].iter().max_by(|a, b| a.1.total_cmp(&b.1)).expect("many");
            let worst = (format!("worst of {count}, {}", worst.0), worst.1);
            errors.splice(1.., [worst]);
        }
        let row = |(name, error)| Self::new(case, format!("d{name}: {against}"), error, bound);
        errors.into_iter().map(row).collect()
    }
}

/// More gradients than any single op has.
const MANY: usize = 8;

/// Checks every case whose "op size" contains `filter`: the reference by finite differences, then, unless it is the
/// reference itself, `backend` against it; and its linear layers against the vendor's library. `row` gets each result as soon as it is known.
///
/// # Errors
/// When the device has failed.
pub fn run<B: TrainingOps + Timed>(filter: &str, seed: u64, backend: &B, mut row: impl FnMut(CheckRow)) -> Result<()> {
    cases::small(&mut Checks { filter, seed, backend, row: &mut row })?;
    library::check(filter, seed, backend, row)
}

/// What is done with every case of the registry.
pub trait Visitor {
    /// Does it with one.
    ///
    /// # Errors
    /// When the device has failed.
    fn visit(&mut self, case: impl Case) -> Result<()>;
}

struct Checks<'a, B, F> {
    filter: &'a str,
    seed: u64,
    backend: &'a B,
    row: F,
}

impl<B: TrainingOps, F: FnMut(CheckRow)> Visitor for Checks<'_, B, F> {
    fn visit(&mut self, case: impl Case) -> Result<()> {
        if case.matches(self.filter) {
            gradient::check(&case, &Reference::new(), self.seed)?.into_iter().for_each(&mut self.row);
            cross::check(&case, self.backend, self.seed)?.into_iter().for_each(&mut self.row);
        }
        Ok(())
    }
}

/// A gradient's error is measured against its own norm, or against this fraction of the norm of all gradients of its
/// case where that is larger: some vanish identically (that of a key's bias, which shifts all logits of a query alike).
const SMALL_GRADIENT: f64 = 1e-2;

/// The norm that the error of a gradient is measured against; `all` are those of the case.
fn scale(gradient: &[f64], all: &[Vec<f64>]) -> f64 {
    let total = all.iter().map(|g| dot(g, g)).sum::<f64>().sqrt();
    norm(gradient).max(SMALL_GRADIENT * total)
}

/// error / scale: 0 for no error at any scale, infinite for what is not a number.
fn relative(error: f64, scale: f64) -> f64 {
    match error {
        0.0 => 0.0,
        error if error.is_nan() || scale.is_nan() => f64::INFINITY,
        error => error / scale,
    }
}

/// |found - expected| / scale; infinite when either has a value that is not finite, which is asked first.
fn relative_error(found: &[f64], expected: &[f64], scale: f64) -> f64 {
    assert_eq!(found.len(), expected.len());
    if !found.iter().chain(expected).all(|x| x.is_finite()) {
        return f64::INFINITY;
    }
    let difference: Vec<f64> = found.iter().zip(expected).map(|(f, e)| f - e).collect();
    relative(norm(&difference), scale)
}

fn dot(x: &[f64], y: &[f64]) -> f64 {
    assert_eq!(x.len(), y.len());
    x.iter().zip(y).map(|(x, y)| x * y).sum()
}

fn norm(x: &[f64]) -> f64 {
    dot(x, x).sqrt()
}
