//! Timings: how long each call of a case takes, next to the work that it must do and to what the device can do at best.

pub mod levels;
pub mod row;
pub mod step;
mod targets;
pub mod training;

pub use row::{BenchRow, Unit};

use super::case::{At, Case, Input, Once, Probe, Work};
use super::{Visitor, cases, library};
use crate::Result;
use crate::backend::timed::{Roofline, Timed};
use crate::backend::{Array, Keep};
use crate::ops::TrainingOps;

/// The sizes of the ops that are timed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Sizes {
    /// Those of `check`, for the emulator.
    Small,
    /// Those of the CIFAR-10 U-Net with such a batch.
    Cifar(usize),
}

/// Times every case whose "op size" contains `filter`; `row` gets each result as soon as it is known.
///
/// # Errors
/// When the device has failed.
pub fn run<B: TrainingOps + Timed>(
    filter: &str,
    sizes: Sizes,
    backend: &B,
    roof: &Roofline,
    row: impl FnMut(BenchRow),
) -> Result<()> {
    let mut timings = Timings { filter, backend, roof, row };
    match sizes {
        Sizes::Small => cases::small(&mut timings),
        Sizes::Cifar(batch) => {
            cases::large(&mut timings, batch)?;
            library::bench(filter, batch, backend, roof, &mut timings.row)
        }
    }
}

struct Timings<'a, B, F> {
    filter: &'a str,
    backend: &'a B,
    roof: &'a Roofline,
    row: F,
}

impl<B: TrainingOps + Timed, F: FnMut(BenchRow)> Visitor for Timings<'_, B, F> {
    fn visit(&mut self, case: impl Case) -> Result<()> {
        if case.matches(self.filter) {
            for Call { what, work, seconds } in time(&case, self.backend, &[Keep::Input, Keep::All])? {
                (self.row)(BenchRow::new(case.op(), case.size(), what, work.costs(self.backend), seconds, self.roof));
            }
        }
        Ok(())
    }
}

/// A timed call.
struct Call {
    what: &'static str,
    work: Work,
    seconds: f64,
}

impl Work {
    /// (floating point operations, bytes).
    fn costs<B: Timed>(self, backend: &B) -> (f64, f64) {
        (self.flops, self.bytes(backend.coarse()))
    }
}

/// Times what `case` calls with each amount of keeping: its calls, and then those that come only with the next.
fn time<C: Case, B: TrainingOps + Timed>(case: &C, backend: &B, keeps: &[Keep]) -> Result<Vec<Call>> {
    let inputs = case.inputs();
    let upload = |(slot, input): (usize, &Input)| {
        let x = input.repeated(slot);
        if input.activation { backend.upload_activation(input.shape, &x) } else { backend.upload(input.shape, &x) }
    };
    let x: &Vec<_> = &inputs.iter().enumerate().map(upload).collect();
    let y = case.run(At { backend, x, dy: None, keep: Keep::Nothing }, &mut Once)?.values.swap_remove(0).1;
    let dy = Input::normal("dy", y.shape()).repeated(inputs.len());
    let dy = Some(&backend.upload_like(&y, &dy));
    let mut watch = Stopwatch { backend, calls: Vec::new(), failure: Ok(()) };
    for &keep in keeps {
        case.run(At { backend, x, dy, keep }, &mut watch)?;
    }
    watch.failure?;
    backend.finish()?;
    Ok(watch.calls)
}

/// Repeats every call, and takes the time.
struct Stopwatch<'a, B> {
    backend: &'a B,
    calls: Vec<Call>,
    failure: Result<()>,
}

impl<B: Timed> Probe for Stopwatch<'_, B> {
    fn call<T>(&mut self, what: &'static str, work: Work, mut f: impl FnMut() -> T) -> T {
        let result = f();
        if self.failure.is_ok() && self.calls.iter().all(|call| call.what != what) {
            match self.backend.time(1, &mut || drop(f())) {
                Ok(timing) => self.calls.push(Call { what, work, seconds: timing.fastest }),
                Err(error) => self.failure = Err(error),
            }
        }
        result
    }
}
