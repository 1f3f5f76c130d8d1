//! The report of a folder of `diem sample` ([`crate::run::folder`]).

use super::html::{Node, definitions, element, plain, table, text};
use super::page::Section;
use super::scale::number;
use super::settings::{flattened, preformatted};
use super::{Report, name, pictures, timings};
use crate::run::Batch;
use serde_json::Value;
use std::fs;
use std::path::Path;

/// The pictures, and what they show.
const PICTURES: [(&str, &str, &str); 3] = [
    ("grid.png", "Samples.", "Of a posterior: each observation, followed by its draws."),
    ("mean.png", "Mean.", "Of the draws of each observation."),
    ("std.png", "Standard deviation.", "Of the draws of each observation; dark is 0, bright the largest of all."),
];
/// What of the report is shown elsewhere.
const APART: [&str; 4] = ["run", "batches", "failures", "command_line"];
/// Samples that are not finite and are listed.
const LISTED: usize = 20;

/// Whether this is such a folder.
pub fn is_run(path: &Path) -> bool {
    ["run.json", "progress.jsonl"].iter().any(|name| path.join(name).is_file())
}

/// Reads what is there.
pub fn report(path: &Path) -> Report {
    let mut notes = Vec::new();
    let run = if path.join("run.json").is_file() { finished(path, &mut notes) } else { unfinished(path, &mut notes) };
    let shown = show(path, &mut notes);
    let sections = vec![
        Section { id: "state", heading: "Where it stands", contents: definitions(&run.about()) },
        Section { id: "pictures", heading: "Pictures", contents: shown },
        Section { id: "failures", heading: "Samples that are not finite", contents: run.failures() },
        Section { id: "timings", heading: "Timings", contents: run.timings() },
        Section {
            id: "configuration",
            heading: "Configuration",
            contents: definitions(&flattened(&run.report["run"])),
        },
        Section { id: "again", heading: "Run it again", contents: run.again(&mut notes) },
    ];
    Report { title: name(path), status: run.status, notes, sections }
}

/// What is known of a run.
struct Run {
    status: String,
    /// As `run.json` has it.
    report: Value,
}

fn finished(path: &Path, notes: &mut Vec<String>) -> Run {
    let report = fs::read_to_string(path.join("run.json")).map_err(|e| e.to_string());
    let report = report.and_then(|json| serde_json::from_str(&json).map_err(|e| e.to_string()));
    let report: Value = report.unwrap_or_else(|why| {
        notes.push(format!("run.json cannot be read: {why}"));
        Value::Null
    });
    let samples = report["run"]["shape"][0].as_u64();
    let samples = samples.map_or(String::new(), |n| format!(": {n} samples"));
    Run { status: format!("A run of diem sample, complete{samples}."), report }
}

/// From the journal: the identity, then a line for each batch.
fn unfinished(path: &Path, notes: &mut Vec<String>) -> Run {
    let journal = fs::read_to_string(path.join("progress.jsonl")).unwrap_or_else(|e| {
        notes.push(format!("progress.jsonl cannot be read: {e}"));
        String::new()
    });
    let mut lines = journal.lines();
    let identity: Value = serde_json::from_str(lines.next().unwrap_or_default()).unwrap_or_else(|e| {
        notes.push(format!("progress.jsonl, line 1: {e}"));
        Value::Null
    });
    let mut batches: Vec<Batch> = Vec::new();
    for (i, line) in lines.enumerate() {
        match serde_json::from_str(line) {
            Ok(batch) => batches.push(batch),
            Err(e) => notes.push(format!("progress.jsonl, line {}: {e}", i + 2)),
        }
    }
    notes.push("run.json is missing: the run is not complete".to_owned());
    let done: usize = batches.iter().map(|batch| batch.samples).sum();
    let total = identity["shape"][0].as_u64().map_or(String::new(), |total| format!(" of {total}"));
    let seconds: f64 = batches.iter().map(|batch| batch.seconds).sum();
    let failures: Vec<_> = batches.iter().flat_map(|batch| &batch.failures).collect();
    let report = serde_json::json!({
        "run": identity, "batches": batches.iter().map(|b| b.samples).collect::<Vec<_>>(), "seconds": seconds,
        "breakdowns": batches.iter().map(|b| b.breakdowns).sum::<u64>(), "failures": failures,
    });
    Run { status: format!("A run of diem sample, running or interrupted: {done}{total} samples are done."), report }
}

impl Run {
    fn about(&self) -> Vec<(String, String)> {
        let Value::Object(report) = &self.report else { return Vec::new() };
        let others = report.iter().filter(|(name, _)| !APART.contains(&name.as_str()));
        flattened(&others.map(|(name, value)| (name.clone(), value.clone())).collect::<serde_json::Map<_, _>>().into())
    }

    fn failures(&self) -> Node {
        let all = self.report["failures"].as_array().cloned().unwrap_or_default();
        if all.is_empty() {
            return Node::default();
        }
        let cell = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        let row = |f: &Value| ["sample", "step", "layer"].iter().map(|name| cell(&f[*name])).collect();
        let rows: Vec<Vec<String>> = all.iter().take(LISTED).map(row).collect();
        let header = ["sample", "step", "layer"].map(str::to_owned);
        Node::from([plain("p", text(format_args!("{} in all.", all.len()))), table(&header, &rows)])
    }

    fn timings(&self) -> Node {
        let Some(seconds) = self.report["seconds"].as_f64() else { return Node::default() };
        let batches: Vec<f64> =
            self.report["batches"].as_array().into_iter().flatten().filter_map(Value::as_f64).collect();
        let samples: f64 = batches.iter().sum();
        let entries = [
            ("drawing", timings::time(seconds)),
            ("samples", number(samples)),
            ("batches", batches.len().to_string()),
            ("images per second", if seconds > 0.0 { number(samples / seconds) } else { "–".to_owned() }),
        ];
        definitions(&entries.map(|(name, value)| (name.to_owned(), value)))
    }

    fn again(&self, notes: &mut Vec<String>) -> Node {
        match self.report["command_line"].as_str() {
            Some(command) => preformatted(command),
            None => {
                notes.push("the command is not known: it is written to run.json when the run is complete".to_owned());
                Node::default()
            }
        }
    }
}

fn show(path: &Path, notes: &mut Vec<String>) -> Node {
    let mut figures = Vec::new();
    for (file, title, caption) in PICTURES.iter().filter(|(file, ..)| path.join(file).is_file()) {
        match pictures::figure(&path.join(file), title, caption) {
            Ok(figure) => figures.push(figure),
            Err(why) => notes.push(why),
        }
    }
    element("div", &[("class", &"pictures large")], figures.into_iter().collect::<Node>())
}
