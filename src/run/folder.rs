//! A run's folder: what is counted as done is on disk, and an interrupted run goes on where it stopped.
//!
//! | file | |
//! |---|---|
//! | `.lock` | locked while a process works here |
//! | `progress.jsonl` | first line: the run's identity; then one line per finished batch |
//! | `samples.partial.npy` | the samples so far, in order |
//! | `samples.npy` | all of them: the partial file, renamed |
//! | `run.json` | the report, written last: where it is, the run is complete |
//!
//! A batch is appended to the samples and synchronised before the journal counts it. Whatever lies beyond what the journal
//! counts is cut off when the run is continued, so that a kill, a crash or a full disk at any moment costs one batch.

use crate::backend::Shape;
use crate::data::{NpyReader, NpyWriter, atomic};
use crate::{Error, Result};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::fmt;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

const LOCK: &str = ".lock";
const JOURNAL: &str = "progress.jsonl";
const PARTIAL: &str = "samples.partial.npy";
const SAMPLES: &str = "samples.npy";
const REPORT: &str = "run.json";
/// What the report calls the run's identity.
const IDENTITY: &str = "run";

/// A sample that is not finite.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Failure {
    /// Its number in `samples.npy`.
    pub sample: usize,
    /// Step of the sampler after which it was first seen, from 0.
    pub step: usize,
    /// The layer that made it, if it could be found.
    pub layer: Option<String>,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let layer = self.layer.as_ref().map_or(String::new(), |layer| format!(", {layer}"));
        write!(f, "sample {}, step {}{layer}", self.sample, self.step)
    }
}

/// One line of the journal.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Batch {
    /// Samples in it.
    pub samples: usize,
    /// Wall-clock time, in seconds.
    pub seconds: f64,
    /// Solves that ended in a breakdown.
    pub breakdowns: u64,
    /// Samples that are not finite.
    pub failures: Vec<Failure>,
}

/// Whom a folder belongs to.
pub enum Claim {
    /// To this run, which is complete: its report.
    Finished(Value),
    /// To this run, which goes on or begins.
    Open(Folder),
}

/// A claimed folder of a run that is not complete.
pub struct Folder {
    path: PathBuf,
    identity: Map<String, Value>,
    journal: File,
    samples: NpyWriter,
    shape: Shape,
    batches: Vec<Batch>,
    _lock: File,
}

impl Folder {
    /// Claims `path` for the run `identity`, whose result is `shape` (M, H, W, C).
    ///
    /// # Errors
    /// When the folder belongs to another run, holds foreign files, is in use, or cannot be written.
    pub fn claim(path: &Path, identity: Map<String, Value>, shape: Shape) -> Result<Claim> {
        inspect(path, &identity)?;
        fs::create_dir_all(path).map_err(|e| Error::io(path, "create", e))?;
        let lock = lock(path)?;
        if let Some(report) = inspect(path, &identity)? {
            return Ok(Claim::Finished(report));
        }
        let journal_path = path.join(JOURNAL);
        if !journal_path.exists() {
            atomic::write(&journal_path, |w| writeln!(w, "{}", Value::from(identity.clone())))?;
        }
        let (journal, batches) = open_journal(&journal_path)?;
        let samples = open_samples(path, shape, batches.iter().map(|b| b.samples).sum())?;
        Ok(Claim::Open(Self { path: path.to_owned(), identity, journal, samples, shape, batches, _lock: lock }))
    }

    /// The samples that are on disk.
    pub fn done(&self) -> usize {
        self.batches.iter().map(|b| b.samples).sum()
    }
    /// What the journal holds.
    pub fn batches(&self) -> &[Batch] {
        &self.batches
    }
    /// The folder.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Appends a batch: `x` holds its samples.
    ///
    /// # Errors
    /// When it cannot be written; the run can be continued later.
    pub fn append(&mut self, x: &[f32], batch: Batch) -> Result<()> {
        assert_eq!(x.len(), batch.samples * self.shape.row(), "a batch of {} samples", batch.samples);
        self.samples.append(x)?;
        self.samples.sync()?;
        let line = serde_json::to_string(&batch).expect("numbers and strings") + "\n";
        let written = self.journal.write_all(line.as_bytes()).and_then(|()| self.journal.sync_data());
        written.map_err(|e| Error::io(self.path.join(JOURNAL), "write", e))?;
        self.batches.push(batch);
        Ok(())
    }

    /// All samples, when every one is on disk.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn samples(&self) -> Result<NpyReader> {
        let partial = self.path.join(PARTIAL);
        NpyReader::open(&if partial.exists() { partial } else { self.path.join(SAMPLES) })
    }

    /// Ends a run of which every sample is on disk: `samples.npy` gets its name, then `run.json` says that all is there.
    ///
    /// # Errors
    /// When a file cannot be written; the run can be continued later.
    pub fn finish(self, report: Map<String, Value>) -> Result<Value> {
        assert_eq!(self.done(), self.shape.n, "samples on disk");
        let (partial, samples) = (self.path.join(PARTIAL), self.path.join(SAMPLES));
        if partial.exists() {
            fs::rename(&partial, &samples).map_err(|e| Error::io(&samples, "write", e))?;
        }
        let mut all = Map::from_iter([(IDENTITY.to_owned(), Value::Object(self.identity))]);
        all.extend(report);
        let all = Value::Object(all);
        atomic::write(&self.path.join(REPORT), |w| writeln!(w, "{all:#}"))?; // its folder's sync covers the rename above
        let journal = self.path.join(JOURNAL);
        fs::remove_file(&journal).map_err(|e| Error::io(&journal, "remove", e))?;
        Ok(all)
    }
}

/// Takes back that the run in `path` is complete, when its samples are gone, so that they can be drawn again.
pub(crate) fn forget(path: &Path) -> Result<()> {
    let report = path.join(REPORT);
    fs::remove_file(&report).map_err(|e| Error::io(&report, "remove", e))
}

/// Refuses a folder that is not this run's; gives the report if the run is complete.
fn inspect(path: &Path, identity: &Map<String, Value>) -> Result<Option<Value>> {
    let entries = match fs::read_dir(path) {
        Ok(entries) => entries,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(Error::io(path, "read", e)),
    };
    if let Some(report) = read_json(&path.join(REPORT), |text| text)? {
        let found = report.get(IDENTITY).and_then(Value::as_object);
        same_run(path, identity, found)?;
        return Ok(Some(report));
    }
    if let Some(found) = read_json(&path.join(JOURNAL), |text| text.lines().next().unwrap_or_default())? {
        same_run(path, identity, found.as_object())?;
        return Ok(None);
    }
    for entry in entries {
        let name = entry.map_err(|e| Error::io(path, "read", e))?.file_name();
        let unfinished = name.to_str().is_some_and(|n| n.starts_with(&format!(".{JOURNAL}.")) && n.ends_with(".tmp"));
        if name != LOCK && !unfinished {
            return Err(Error::mismatch(
                format!("--out {}", path.display()),
                "a new or empty folder, or one of this run",
                format!("{} in it", Path::new(&name).display()),
            ));
        }
    }
    Ok(None)
}

/// The JSON in a part of a file; `None` where there is no such file.
pub(super) fn read_json(path: &Path, part: impl Fn(&str) -> &str) -> Result<Option<Value>> {
    let text = match fs::read_to_string(path) {
        Ok(text) => text,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(Error::io(path, "read", e)),
    };
    let value = serde_json::from_str(part(&text));
    value.map(Some).map_err(|e| Error::mismatch(path.display(), "the JSON of a run", e))
}

/// Compares identities entry by entry, so that the message names what differs.
pub(super) fn same_run(path: &Path, identity: &Map<String, Value>, found: Option<&Map<String, Value>>) -> Result<()> {
    let place = || format!("--out {}: belongs to another run", path.display());
    let found = found.ok_or_else(|| Error::mismatch(place(), "its settings", "none"))?;
    for (key, expected) in identity {
        let theirs = found.get(key).unwrap_or(&Value::Null);
        if theirs != expected {
            return Err(Error::mismatch(place(), format!("{key} {expected}"), format!("{key} {theirs}")));
        }
    }
    Ok(())
}

/// Locks a folder for this process.
pub(crate) fn lock(path: &Path) -> Result<File> {
    let name = path.join(LOCK);
    let file = OpenOptions::new().create(true).truncate(false).write(true).open(&name);
    let file = file.map_err(|e| Error::io(&name, "create", e))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(Error::mismatch(
            format!("--out {}", path.display()),
            "a folder that no other process works in",
            "one that is locked",
        )),
        Err(TryLockError::Error(e)) => Err(Error::io(&name, "lock", e)),
    }
}

/// Opens the journal behind its last whole line.
fn open_journal(path: &Path) -> Result<(File, Vec<Batch>)> {
    let read = fs::read(path).map_err(|e| Error::io(path, "read", e))?;
    let mut lines = read.split_inclusive(|&b| b == b'\n');
    let mut valid = lines.next().map_or(0, <[u8]>::len); // the identity, compared before
    let mut batches = Vec::new();
    for line in lines.take_while(|line| line.ends_with(b"\n")) {
        let Ok(batch) = serde_json::from_slice::<Batch>(line) else { break };
        batches.push(batch);
        valid += line.len();
    }
    let open = || {
        let mut file = OpenOptions::new().write(true).open(path)?;
        file.set_len(valid as u64)?;
        file.seek(SeekFrom::End(0))?;
        Ok(file)
    };
    Ok((open().map_err(|e| Error::io(path, "write", e))?, batches))
}

/// Opens the samples behind the last one that counts.
fn open_samples(folder: &Path, shape: Shape, done: usize) -> Result<NpyWriter> {
    let row = row_dims(shape);
    let (partial, complete) = (folder.join(PARTIAL), folder.join(SAMPLES));
    match done {
        0 => NpyWriter::create(&partial, shape.n, &row),
        _ if done == shape.n && complete.exists() => NpyWriter::resume(&complete, shape.n, &row, done),
        _ => NpyWriter::resume(&partial, shape.n, &row, done),
    }
}

/// Extents of a sample in a file: (H, W, C), or (D) for a vector.
pub(crate) fn row_dims(shape: Shape) -> Vec<usize> {
    if shape.pixels() == 1 { vec![shape.c] } else { vec![shape.h, shape.w, shape.c] }
}
