//! The report of a run directory of `diem fit` ([`crate::em::directory`]).

use super::html::{Node, definitions, element, plain, table, text};
use super::log::Log;
use super::page::Section;
use super::settings::{flattened, preformatted, quoted};
use super::{Report, curves, name, pictures, timings};
use serde_json::Value;
use std::collections::BTreeMap;
use std::fs::{self, File, TryLockError};
use std::path::{Path, PathBuf};

/// Pictures of a lap, and what they show.
const PICTURES: [(&str, &str); 3] = [
    ("preview.png", "Observations, each followed by draws of its posterior."),
    ("prior.png", "Samples of the prior."),
    ("corner.png", "Pairs of components: samples of the prior and the truth."),
];
/// Earlier laps that are shown.
const SHOWN: usize = 11;

/// Whether this is such a directory.
pub fn is_run(path: &Path) -> bool {
    ["config.toml", "state.json"].iter().any(|name| path.join(name).is_file())
}

/// Reads what is there.
pub fn report(path: &Path) -> Report {
    let mut run = Run::read(path);
    let sections = vec![
        Section { id: "state", heading: "Where it stands", contents: run.state_section() },
        Section { id: "results", heading: "Results of every lap", contents: run.results() },
        Section { id: "curves", heading: "Curves", contents: curves::node(&run.log) },
        Section { id: "pictures", heading: "Pictures of every lap", contents: run.pictures() },
        Section { id: "moments", heading: "Mean and standard deviation", contents: run.moments() },
        Section { id: "timings", heading: "Timings", contents: timings::node(&run.log) },
        Section { id: "configuration", heading: "Configuration", contents: run.configuration() },
        Section { id: "again", heading: "Run it again", contents: run.again() },
    ];
    Report { title: name(path), status: run.status(), notes: run.notes, sections }
}

/// What was found in a run directory.
struct Run<'a> {
    path: &'a Path,
    config: Option<String>,
    /// Laps in all, as the configuration says.
    planned: Option<u64>,
    state: Value,
    log: Log,
    laps: BTreeMap<u64, PathBuf>,
    notes: Vec<String>,
}

impl<'a> Run<'a> {
    fn read(path: &'a Path) -> Self {
        let mut notes = Vec::new();
        let config = read_text(&path.join("config.toml"), &mut notes);
        let table = config.as_deref().and_then(|config| match config.parse::<toml::Table>() {
            Ok(table) => Some(table),
            Err(e) => {
                notes.push(format!("config.toml is no TOML: {}", e.message()));
                None
            }
        });
        let planned = table.as_ref().and_then(|t| t.get("laps")?.get("count")?.as_integer()?.try_into().ok());
        let state = read_text(&path.join("state.json"), &mut notes).map_or(Value::Null, |json| {
            serde_json::from_str(&json).unwrap_or_else(|e| {
                notes.push(format!("state.json is no JSON: {e}"));
                Value::Null
            })
        });
        let log = Log::read(&path.join("metrics.jsonl")).unwrap_or_else(|e| {
            notes.push(e.to_string());
            Some(Log::default())
        });
        let log = log.unwrap_or_else(|| {
            notes.push("metrics.jsonl is missing: there are no curves and timings".to_owned());
            Log::default()
        });
        notes.extend(log.faults.iter().cloned());
        let mut run = Self { path, config, planned, state, log, laps: laps(path), notes };
        run.note_missing_files();
        run
    }

    /// The lap that is under way.
    fn lap(&self) -> Option<u64> {
        self.state["lap"].as_u64()
    }
    fn complete(&self) -> bool {
        self.lap().zip(self.planned).is_some_and(|(lap, planned)| lap > planned)
    }

    /// Names what the laps that are done should have.
    fn note_missing_files(&mut self) {
        let done = self.lap().map_or(0, |lap| lap.saturating_sub(1));
        let has = |lap: u64, file: &str| self.laps.get(&lap).is_some_and(|path| path.join(file).is_file());
        let images = self.laps.values().any(|path| path.join("preview.png").is_file());
        let mut missing = Vec::new();
        for lap in 0..=done {
            let model = (lap > 0).then_some("model.safetensors");
            let pictures = images.then_some(["preview.png", "prior.png"]);
            let files = model.into_iter().chain(pictures.into_iter().flatten());
            let files = files.filter(|file| self.lap().is_some_and(|l| l > 0) && !has(lap, file));
            missing.extend(files.map(|file| format!("lap-{lap:03}/{file} is missing")));
        }
        self.notes.extend(missing);
    }

    fn status(&self) -> String {
        let of = self.planned.map_or(String::new(), |planned| format!(" of {planned}"));
        let Some(lap) = self.lap() else { return "A run of diem fit of which nothing is known.".to_owned() };
        if self.complete() {
            return format!("A run of diem fit, complete: {} laps.", lap - 1);
        }
        let next = match self.state["phase"].as_str() {
            Some("gaussian") => "the Gaussian prior",
            Some("train") => "the M step: training",
            Some("sample") => "the E step: draws",
            Some("lap") => "measuring",
            _ => "what is next is not known",
        };
        let running = if locked(self.path) { "running" } else { "not running: interrupted, or stopped with a reason" };
        format!("A run of diem fit, in lap {lap}{of}, {next}; {running} when this was written.")
    }

    fn state_section(&self) -> Node {
        let seconds: f64 = self.log.laps().into_iter().map(|lap| timings::seconds(&self.log, lap)).sum();
        let mut entries = vec![
            ("laps done".to_owned(), self.log.of("lap").filter(|entry| entry.lap > 0).count().to_string()),
            ("time counted".to_owned(), timings::time(seconds)),
        ];
        let told = |name: &str| match name {
            "lap" | "phase" => !self.complete(),
            "training.step" => true,
            name => name.starts_with("identity."), // the others are for the program only
        };
        entries.extend(flattened(&self.state).into_iter().filter(|(name, _)| told(name)));
        definitions(&entries)
    }

    /// A row for each lap: what was measured, and what went wrong in the E step.
    fn results(&self) -> Node {
        let columns = |phase| self.log.names(phase).into_iter().map(move |name| (phase, name));
        let columns: Vec<_> =
            columns("lap").chain(columns("sample").filter(|(_, name)| *name != "images_per_second")).collect();
        let titles = columns.iter().map(|(phase, name)| match *phase {
            "lap" => (*name).to_owned(),
            _ => format!("E step: {name}"),
        });
        let header: Vec<String> = std::iter::once("lap".to_owned()).chain(titles).collect();
        let measured = |lap: &u64| ["lap", "sample"].iter().any(|phase| self.log.at(phase, *lap).is_some());
        let rows = self.log.laps().into_iter().filter(measured).map(|lap| {
            let cells = columns
                .iter()
                .map(|(phase, name)| self.log.at(phase, lap).map_or("–".to_owned(), |entry| entry.shown(name)));
            std::iter::once(lap.to_string()).chain(cells).collect()
        });
        let rows: Vec<Vec<String>> = rows.collect();
        if rows.is_empty() { Node::default() } else { table(&header, &rows) }
    }

    fn pictures(&mut self) -> Node {
        let mut figures: Vec<(u64, Vec<Node>)> = Vec::new();
        for (lap, path) in &self.laps {
            let mut of_lap = Vec::new();
            for (file, caption) in PICTURES.iter().filter(|(file, _)| path.join(file).is_file()) {
                match pictures::figure(&path.join(file), &format!("Lap {lap}."), caption) {
                    Ok(figure) => of_lap.push(figure),
                    Err(why) => self.notes.push(why),
                }
            }
            if !of_lap.is_empty() {
                figures.push((*lap, of_lap));
            }
        }
        let Some((_, latest)) = figures.pop() else { return Node::default() };
        let latest = element("div", &[("class", &"pictures large")], latest.into_iter().collect::<Node>());
        let every = figures.len().div_ceil(SHOWN).max(1);
        let (shown, all) = (figures.len().div_ceil(every), figures.len());
        let earlier: Node = figures.into_iter().step_by(every).flat_map(|(_, figures)| figures).collect();
        if all == 0 {
            return latest;
        }
        let heading = if shown < all { format!("Earlier: {shown} of {all} laps") } else { "Earlier laps".to_owned() };
        let earlier = element("div", &[("class", &"pictures small")], earlier);
        Node::from([latest, plain("h3", text(heading)), earlier])
    }

    /// Of the draws and of the learned prior in the last lap that has them.
    fn moments(&mut self) -> Node {
        let mut nodes = Vec::new();
        for (file, what) in [("samples.npy", "draws of posteriors"), ("prior.npy", "samples of the prior")] {
            let last = self.laps.iter().rev().find(|(_, path)| path.join(file).is_file());
            let Some((lap, path)) = last else { continue };
            match pictures::moment_maps(&path.join(file), what) {
                Ok(Some(maps)) => {
                    nodes.push(plain("h3", text(format_args!("Lap {lap}: {what}"))));
                    nodes.push(element("div", &[("class", &"pictures small")], maps));
                }
                Ok(None) => {}
                Err(why) => self.notes.push(why.to_string()),
            }
        }
        nodes.into_iter().collect()
    }

    fn configuration(&self) -> Node {
        self.config.as_deref().map_or(Node::default(), preformatted)
    }

    fn again(&self) -> Node {
        let fit = format!("diem fit {}", quoted(&self.path.join("config.toml")));
        let warm = self.laps.get(&0).map(|path| path.join("model.safetensors")).filter(|path| path.is_file());
        let warm = warm.map_or(String::new(), |path| format!(" --warm-start {}", quoted(&path)));
        let new = PathBuf::from(format!("{}-again", self.path.display().to_string().trim_end_matches('/')));
        let from_the_start = preformatted(&format!("{fit}{warm} --out {}", quoted(&new)));
        let whence = "In the folder that the paths of the configuration are relative to. The same bits come out on a device of the \
                      same arithmetic.";
        let mut nodes = vec![plain("p", text(whence)), from_the_start];
        if !self.complete() {
            nodes.push(plain("p", text("To go on with this run:")));
            nodes.push(preformatted(&fit));
        }
        nodes.into_iter().collect()
    }
}

/// The folders of laps that are there.
fn laps(path: &Path) -> BTreeMap<u64, PathBuf> {
    let entries = fs::read_dir(path).into_iter().flatten().flatten();
    let lap = |path: PathBuf| Some((path.file_name()?.to_str()?.strip_prefix("lap-")?.parse().ok()?, path));
    entries.filter_map(|entry| lap(entry.path())).collect()
}

fn read_text(path: &Path, notes: &mut Vec<String>) -> Option<String> {
    match fs::read(path) {
        Ok(bytes) => Some(String::from_utf8_lossy(&bytes).into_owned()),
        Err(e) => {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            notes.push(format!("{name} is missing or cannot be read: {e}"));
            None
        }
    }
}

/// Whether a process works in the directory.
fn locked(path: &Path) -> bool {
    let lock = File::open(path.join(".lock"));
    lock.is_ok_and(|lock| matches!(lock.try_lock_shared(), Err(TryLockError::WouldBlock)))
}
