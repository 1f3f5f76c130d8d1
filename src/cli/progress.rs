//! How far a run is: a bar on a terminal, a line now and then elsewhere.

use indicatif::{ProgressBar, ProgressStyle};
use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant};

/// Between two lines where there is no terminal.
const LINE_EVERY: Duration = Duration::from_secs(10);
/// Positions of the bar per part.
const FINE: f64 = 1000.0;

/// Progress of a run, on standard error.
pub struct Progress {
    bar: Option<ProgressBar>,
    total: usize,
    before: usize,
    /// What stands before the numbers, what is counted, and how its rate is called.
    words: (String, &'static str, &'static str),
    start: Instant,
    told: Instant,
}

impl Progress {
    /// A run of `total` samples of which `before` were done when this process began.
    pub fn new(total: usize, before: usize) -> Self {
        Self::of(total, before, String::new(), "samples", "images/s")
    }
    /// A task of `total` parts, called `what`, of which `before` were done when this process began; `prefix` says which task.
    pub fn of(total: usize, before: usize, prefix: String, what: &'static str, rate: &'static str) -> Self {
        let bar = std::io::stderr().is_terminal().then(|| {
            let style = ProgressStyle::with_template("{bar:40} {msg}").expect("a template without mistakes");
            ProgressBar::new((total as f64 * FINE) as u64).with_style(style)
        });
        let now = Instant::now();
        Self { bar, total, before, words: (prefix, what, rate), start: now, told: now }
    }
    /// `done` parts, with the finished share of those under way.
    pub fn update(&mut self, done: f64) {
        self.update_with(done, "");
    }
    /// The same, with something else to tell.
    pub fn update_with(&mut self, done: f64, note: &str) {
        if let Some(bar) = &self.bar {
            bar.set_position((done * FINE) as u64);
            bar.set_message(self.line(done, note));
        } else if self.told.elapsed() >= LINE_EVERY {
            self.told = Instant::now();
            let _ = writeln!(std::io::stderr(), "{}", self.line(done, note)); // nobody may be listening
        }
    }
    /// Removes the bar.
    pub fn finish(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }

    fn line(&self, done: f64, note: &str) -> String {
        let rate = (done - self.before as f64) / self.start.elapsed().as_secs_f64();
        let left = Duration::from_secs_f64(((self.total as f64 - done) / rate.max(1e-9)).min(1e9));
        let left = if rate > 0.0 { duration(left) } else { "?".to_owned() };
        let (prefix, what, unit) = &self.words;
        let comma = if note.is_empty() { "" } else { ", " };
        format!("{prefix}{} of {} {what}, {rate:.2} {unit}, {left} left{comma}{note}", done as usize, self.total)
    }
}

/// "41 s", "3 min 20 s", "2 h 05 min".
pub fn duration(d: Duration) -> String {
    let s = d.as_secs();
    match s {
        0..60 => format!("{s} s"),
        60..3600 => format!("{} min {:02} s", s / 60, s % 60),
        _ => format!("{} h {:02} min", s / 3600, s / 60 % 60),
    }
}
