//! `metrics.jsonl`: one JSON object per line, of which every number is a curve or a column.

use super::scale::number;
use crate::{Error, Result};
use serde_json::{Map, Value};
use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::path::Path;

/// What an entry is, when, and how long it took: not measured quantities.
const BOOKKEEPING: [&str; 6] = ["phase", "lap", "epoch", "step", "iteration", "seconds"];
/// Faulty lines that are named; the others are counted.
const NAMED: usize = 5;

/// One line.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    /// "gaussian", "train", "sample" or "lap".
    pub phase: String,
    /// EM iteration.
    pub lap: u64,
    /// Epoch of a lap's training, or iteration of the Gaussian prior.
    pub step: Option<u64>,
    values: Map<String, Value>,
}

impl Entry {
    fn parse(line: &str) -> std::result::Result<Self, String> {
        let values: Map<String, Value> =
            serde_json::from_str(line).map_err(|e| e.to_string().replace(" at line 1 column", " at column"))?;
        let whole = |name: &str| values.get(name).and_then(Value::as_u64);
        let phase = values.get("phase").and_then(Value::as_str).ok_or("no \"phase\"")?.to_owned();
        let step = whole("epoch").or_else(|| whole("iteration"));
        Ok(Self { phase, lap: whole("lap").unwrap_or(0), step, values })
    }
    /// A number; NaN where JSON, which has none, says null.
    pub fn number(&self, name: &str) -> Option<f64> {
        let value = self.values.get(name)?;
        value.as_f64().or_else(|| value.is_null().then_some(f64::NAN))
    }
    /// A word.
    pub fn word(&self, name: &str) -> Option<&str> {
        self.values.get(name)?.as_str()
    }
    /// The names of what was measured.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        let measured = |name: &&String| !BOOKKEEPING.contains(&name.as_str()) && self.number(name).is_some();
        self.values.keys().filter(measured).map(String::as_str)
    }
    /// A number for people; a dash where there is none.
    pub fn shown(&self, name: &str) -> String {
        self.number(name).map_or("–".to_owned(), number)
    }
}

/// All lines that can be read.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Log {
    /// In the order of the file; of two for the same phase, lap and step the later one, which a continued run has written.
    pub entries: Vec<Entry>,
    /// What could not be read, a sentence each.
    pub faults: Vec<String>,
}

impl Log {
    /// Reads the file; `None` where there is none.
    ///
    /// # Errors
    /// [`Error::Io`] when it cannot be read.
    pub fn read(path: &Path) -> Result<Option<Self>> {
        match std::fs::read(path) {
            Ok(bytes) => Ok(Some(Self::parse(&String::from_utf8_lossy(&bytes)))),
            Err(e) if e.kind() == ErrorKind::NotFound => Ok(None),
            Err(e) => Err(Error::io(path, "read", e)),
        }
    }

    fn parse(content: &str) -> Self {
        let mut log = Self::default();
        let mut faults = Vec::new();
        let whole = content.rfind('\n').map_or(0, |end| end + 1);
        for (i, line) in content[..whole].lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
            match Entry::parse(line) {
                Ok(entry) => log.entries.push(entry),
                Err(why) => faults.push(format!("metrics.jsonl, line {}: {why}", i + 1)),
            }
        }
        let more = faults.len().saturating_sub(NAMED);
        log.faults = faults.into_iter().take(NAMED).collect();
        if more > 0 {
            log.faults.push(format!("metrics.jsonl: {more} more lines that are no entries"));
        }
        if whole < content.len() {
            log.faults.push("metrics.jsonl: the last line is unfinished; the run may be writing it".to_owned());
        }
        log.keep_latest();
        log
    }

    fn keep_latest(&mut self) {
        let mut seen = BTreeSet::new();
        let mut kept: Vec<Entry> = Vec::new();
        for entry in self.entries.drain(..).rev() {
            if seen.insert((entry.phase.clone(), entry.lap, entry.step)) {
                kept.push(entry);
            }
        }
        kept.reverse();
        self.entries = kept;
    }

    /// The entries of one phase.
    pub fn of<'a>(&'a self, phase: &'a str) -> impl Iterator<Item = &'a Entry> + Clone {
        self.entries.iter().filter(move |entry| entry.phase == phase)
    }
    /// The entry of a phase of a lap, the last one.
    pub fn at<'a>(&'a self, phase: &'a str, lap: u64) -> Option<&'a Entry> {
        self.of(phase).filter(|entry| entry.lap == lap).last()
    }
    /// What the entries of a phase have measured, in order of name.
    pub fn names<'a>(&'a self, phase: &'a str) -> BTreeSet<&'a str> {
        self.of(phase).flat_map(Entry::names).collect()
    }
    /// The laps that any entry is about.
    pub fn laps(&self) -> BTreeSet<u64> {
        self.entries.iter().filter(|entry| entry.phase != "gaussian").map(|entry| entry.lap).collect()
    }
    /// The sum of a number over the entries of a phase of a lap, if any has it.
    pub fn sum(&self, phase: &str, lap: u64, name: &str) -> Option<f64> {
        self.of(phase).filter(|entry| entry.lap == lap).filter_map(|entry| entry.number(name)).reduce(|a, b| a + b)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_read_is_named_and_the_rest_is_kept() {
        let log = Log::parse(concat!(
            "{\"phase\": \"train\", \"lap\": 1, \"epoch\": 0, \"loss\": 1.0}\n",
            "{\"phase\": \"tra\n",
            "[1]\n",
            "{\"lap\": 1}\n",
            "{\"phase\": \"train\", \"lap\": 1, \"epoch\": 0, \"loss\": null, \"name\": \"x\"}\n",
            "{\"phase\": \"train\", \"lap\": 1, \"ep",
        ));
        assert_eq!(log.entries.len(), 1);
        assert!(log.entries[0].number("loss").is_some_and(f64::is_nan));
        assert_eq!(log.names("train").into_iter().collect::<Vec<_>>(), ["loss"]);
        assert_eq!(log.faults.len(), 4, "{:?}", log.faults);
        for (fault, part) in log.faults.iter().zip(["line 2", "line 3", "line 4: no \"phase\"", "unfinished"]) {
            assert!(fault.contains(part), "{fault}");
        }
    }
}
