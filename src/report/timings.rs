//! How long what took.

use super::html::{Node, plain, table, text};
use super::log::Log;
use super::scale::number;

/// Seconds in a unit that makes the largest of them a number of a few digits.
pub struct Unit {
    name: &'static str,
    seconds: f64,
}

impl Unit {
    /// For times up to `most` seconds.
    pub fn fitting(most: f64) -> Self {
        match most {
            s if s < 300.0 => Self { name: "s", seconds: 1.0 },
            s if s < 5.0 * 3600.0 => Self { name: "min", seconds: 60.0 },
            _ => Self { name: "h", seconds: 3600.0 },
        }
    }
    /// The unit's symbol.
    pub fn name(&self) -> &'static str {
        self.name
    }
    /// A time in it.
    pub fn of(&self, seconds: f64) -> String {
        number((seconds / self.seconds * 100.0).round() / 100.0)
    }
}

/// A time with its unit.
pub fn time(seconds: f64) -> String {
    let unit = Unit::fitting(seconds);
    format!("{} {}", unit.of(seconds), unit.name())
}

/// Each lap's phases, and their sum.
pub fn node(log: &Log) -> Node {
    let laps: Vec<Lap> = log.laps().into_iter().map(|lap| Lap::of(log, lap)).filter(|lap| lap.total() > 0.0).collect();
    if laps.is_empty() {
        return Node::default();
    }
    let sum = |part: fn(&Lap) -> f64| laps.iter().map(part).sum::<f64>();
    let unit = Unit::fitting(sum(Lap::total));
    let row = |name: String, parts: [f64; 4], rate: String| {
        let parts = parts.iter().map(|seconds| unit.of(*seconds));
        std::iter::once(name).chain(parts).chain([rate]).collect::<Vec<_>>()
    };
    let mut rows: Vec<_> =
        laps.iter().map(|l| row(l.lap.to_string(), [l.train, l.sample, l.rest, l.total()], l.rate.clone())).collect();
    rows.push(row(
        "all".to_owned(),
        [sum(|l| l.train), sum(|l| l.sample), sum(|l| l.rest), sum(Lap::total)],
        String::new(),
    ));
    let heads = ["M step: training", "E step: draws", "fitting, measuring", "sum"]
        .map(|head| format!("{head}, {}", unit.name()));
    let header: Vec<String> =
        std::iter::once("lap".to_owned()).chain(heads).chain(["draws per s".to_owned()]).collect();
    let note =
        plain("p", text("Wall-clock time of the work that the log counts; what an interruption cost is not in it."));
    Node::from([note, table(&header, &rows)])
}

/// What a lap took, in seconds.
pub fn seconds(log: &Log, lap: u64) -> f64 {
    Lap::of(log, lap).total()
}

/// Seconds of one lap.
struct Lap {
    lap: u64,
    train: f64,
    sample: f64,
    rest: f64,
    rate: String,
}

impl Lap {
    fn of(log: &Log, lap: u64) -> Self {
        let seconds = |phase| log.sum(phase, lap, "seconds").filter(|s| s.is_finite()).unwrap_or(0.0);
        let (train, sample) = (seconds("train"), seconds("sample"));
        let rest = (seconds("lap") - train - sample).max(0.0);
        let rate = log.at("sample", lap).map_or("–".to_owned(), |entry| entry.shown("images_per_second"));
        Self { lap, train, sample, rest, rate }
    }
    fn total(&self) -> f64 {
        self.train + self.sample + self.rest
    }
}
