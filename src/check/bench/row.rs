//! A line of the table that `diem bench` prints.

use super::targets::{Target, target};
use crate::backend::timed::Roofline;
use serde::Serialize;

/// How long a call took, and how that compares with what the device can do at best.
#[derive(Clone, Debug, Serialize)]
pub struct BenchRow {
    /// The op, or "level 0".
    pub op: String,
    /// Its extents.
    pub size: String,
    /// Which call: "forward", "vjp", "vjp params".
    pub call: &'static str,
    /// Seconds of one call: the fastest of several.
    pub seconds: f64,
    /// Floating point operations of one call.
    pub flops: f64,
    /// Bytes that it must read and write at least.
    pub bytes: f64,
    /// Floating point operations per second.
    pub flops_per_second: f64,
    /// Their share of the measured peak.
    pub of_peak: Option<f64>,
    /// Bytes per second.
    pub bytes_per_second: f64,
    /// Their share of the measured copy's.
    pub of_copy: f64,
    /// Whether its arrays fit the cache, where they are found again from one repetition to the next.
    pub in_cache: bool,
    /// The project's target for it on this device.
    pub target: Option<Target>,
}

impl BenchRow {
    /// A call that took `seconds` for `flops` operations on `bytes` bytes.
    pub fn new(
        op: impl Into<String>,
        size: String,
        call: &'static str,
        (flops, bytes): (f64, f64),
        seconds: f64,
        roof: &Roofline,
    ) -> Self {
        let op = op.into();
        let (flops_per_second, bytes_per_second) = (flops / seconds, bytes / seconds);
        Self {
            target: target(&op, call, roof.stage),
            op,
            size,
            call,
            seconds,
            flops,
            bytes,
            flops_per_second,
            of_peak: roof.flops.map(|peak| flops_per_second / peak),
            bytes_per_second,
            of_copy: bytes_per_second / roof.copy,
            in_cache: bytes <= roof.cache as f64,
        }
    }
    /// The head of a table of [`BenchRow::line`]s.
    pub fn head(unit: Unit) -> String {
        let flops = unit.name();
        format!(
            "{:<15} {:<42} {:<16} {:>9} {flops:>8} {:>7} {:>8} {:>7}  {}",
            "op", "size", "call", "ms", "of peak", "GB/s", "of copy", "target"
        )
    }
    /// The row as a line of a table.
    pub fn line(&self, unit: Unit) -> String {
        let Self { op, size, call, seconds, flops_per_second, bytes_per_second, of_copy, .. } = self;
        let rate = if self.flops > 0.0 { format!("{:.1}", flops_per_second / unit.scale()) } else { "-".to_owned() };
        let of_peak = self.of_peak.filter(|_| self.flops > 0.0);
        let of_peak = of_peak.map_or("-".to_owned(), |share| format!("{:.0}%", 100.0 * share));
        let cached = if self.in_cache { '*' } else { ' ' };
        let (ms, gbytes, of_copy) = (seconds * 1e3, bytes_per_second / 1e9, 100.0 * of_copy);
        let target = self.target.map_or(String::new(), |target| target.to_string());
        let line = format!(
            "{op:<15} {size:<42} {call:<16} {ms:>9.3} {rate:>8} {of_peak:>7} {gbytes:>8.1} {of_copy:>6.0}%{cached} {target}"
        );
        line.trim_end().to_owned()
    }
}

/// What speeds are told in.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Unit {
    /// 10⁹ operations per second.
    Giga,
    /// 10¹².
    Tera,
}

impl Unit {
    /// "GFLOP/s" on a processor, "TFLOP/s" on what copies or computes as fast as a GPU.
    pub fn of(roof: &Roofline) -> Self {
        if roof.flops.unwrap_or(0.0) >= 10e12 || roof.copy >= 500e9 { Self::Tera } else { Self::Giga }
    }
    /// "GFLOP/s" or "TFLOP/s".
    pub fn name(self) -> &'static str {
        match self {
            Self::Giga => "GFLOP/s",
            Self::Tera => "TFLOP/s",
        }
    }
    /// Operations per second that are 1.
    pub fn scale(self) -> f64 {
        match self {
            Self::Giga => 1e9,
            Self::Tera => 1e12,
        }
    }
}
