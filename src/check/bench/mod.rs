//! Timings: how long each call of a case takes, next to the work that it must do.

pub mod peak;
pub mod step;

use super::case::{At, Case, Once, Probe, Work, draw, draw_dy, upload};
use super::{Visitor, cases};
use crate::Result;
use crate::backend::Keep;
use crate::ops::TrainingOps;
use std::time::{Duration, Instant};

/// One line of the table that `diem bench` prints.
#[derive(Clone, Debug)]
pub struct BenchRow {
    /// The op.
    pub op: &'static str,
    /// Its extents.
    pub size: String,
    /// Which call: "forward", "vjp", "vjp params".
    pub what: &'static str,
    /// Seconds of one call: the fastest of several.
    pub seconds: f64,
    /// Floating point operations of one call.
    pub flops: f64,
    /// Bytes that it must read and write at least.
    pub bytes: f64,
}

impl BenchRow {
    /// 10⁹ floating point operations per second.
    pub fn gflops(&self) -> f64 {
        self.flops / self.seconds / 1e9
    }
    /// 10⁹ bytes per second.
    pub fn gbytes(&self) -> f64 {
        self.bytes / self.seconds / 1e9
    }
    /// The head of a table of [`BenchRow::line`]s.
    pub fn head() -> String {
        format!(
            "{:<18} {:<28} {:<12} {:>9} {:>8} {:>8} {:>7} {:>7}",
            "op", "size", "call", "ms", "MFLOP", "GFLOP/s", "of peak", "GB/s"
        )
    }
    /// The row as a line of a table; `peak` is the device's, in operations per second.
    pub fn line(&self, peak: f64) -> String {
        let Self { op, size, what, seconds, flops, .. } = self;
        let (ms, mflop, of_peak) = (seconds * 1e3, flops / 1e6, 100.0 * flops / seconds / peak);
        let (gflops, gbytes) = (self.gflops(), self.gbytes());
        format!("{op:<18} {size:<28} {what:<12} {ms:>9.3} {mflop:>8.0} {gflops:>8.1} {of_peak:>6.0}% {gbytes:>7.1}")
    }
}

/// Times every case whose "op size" contains `filter`; `row` gets each result as soon as it is known.
///
/// # Errors
/// When the device has failed.
pub fn run<B: TrainingOps>(filter: &str, seed: u64, backend: &B, row: impl FnMut(BenchRow)) -> Result<()> {
    cases::large(&mut Timings { filter, seed, backend, row })
}

struct Timings<'a, B, F> {
    filter: &'a str,
    seed: u64,
    backend: &'a B,
    row: F,
}

impl<B: TrainingOps, F: FnMut(BenchRow)> Visitor for Timings<'_, B, F> {
    fn visit(&mut self, case: impl Case) -> Result<()> {
        if case.matches(self.filter) {
            time(&case, self.backend, self.seed)?.into_iter().for_each(&mut self.row);
        }
        Ok(())
    }
}

/// Times what `case` calls: first without parameter gradients, then what it calls only for them.
fn time<C: Case, B: TrainingOps>(case: &C, backend: &B, seed: u64) -> Result<Vec<BenchRow>> {
    let inputs = case.inputs();
    let x = &upload(backend, &inputs, &draw(&inputs, seed));
    let y = case.run(At { backend, x, dy: None, keep: Keep::Nothing }, &mut Once)?.values.swap_remove(0).1;
    let dy = Some(&draw_dy(backend, &y, seed, inputs.len()));
    let mut watch = Stopwatch { backend, calls: Vec::new() };
    for keep in [Keep::Input, Keep::All] {
        case.run(At { backend, x, dy, keep }, &mut watch)?;
    }
    backend.finish()?;
    let row = |(what, work, seconds): (&'static str, Work, f64)| BenchRow {
        op: case.op(),
        size: case.size(),
        what,
        seconds,
        flops: work.flops,
        bytes: F32 * work.elements as f64,
    };
    Ok(watch.calls.into_iter().map(row).collect())
}

/// Bytes of an element: the fast backends are f32.
const F32: f64 = 4.0;

/// How long a call is repeated: timings of other processes' work are many and short, the fastest has the least of it.
const BUDGET: Duration = Duration::from_millis(100);

/// Repeats every call, and takes the time.
struct Stopwatch<'a, B> {
    backend: &'a B,
    calls: Vec<(&'static str, Work, f64)>,
}

impl<B: TrainingOps> Probe for Stopwatch<'_, B> {
    fn call<T>(&mut self, what: &'static str, work: Work, mut f: impl FnMut() -> T) -> T {
        let mut result = f();
        if self.calls.iter().all(|call| call.0 != what) {
            let (start, mut best) = (Instant::now(), f64::INFINITY);
            while start.elapsed() < BUDGET || best.is_infinite() {
                let start = Instant::now();
                result = f();
                // an error shows again in the `finish` after all calls
                let _ = self.backend.finish();
                best = best.min(start.elapsed().as_secs_f64());
            }
            self.calls.push((what, work, best));
        }
        result
    }
}
