//! The folder of a training run.
//!
//! | file | |
//! |---|---|
//! | `.lock` | locked while a process works here |
//! | `config.json` | the run's identity: all that its result depends on |
//! | `metrics.jsonl` | one line per epoch |
//! | `state.safetensors` | where training stands: weights, moments, steps; gone when the run is complete |
//! | `model.safetensors` | the model; where it is, the run is complete |

use super::folder::{lock, read_json, same_run};
use crate::data::atomic;
use crate::train::EpochMeans;
use crate::{Error, Result};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

const CONFIG: &str = "config.json";
const METRICS: &str = "metrics.jsonl";
const STATE: &str = "state.safetensors";
const MODEL: &str = "model.safetensors";
const LOCK: &str = ".lock";

/// A line of the metrics.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Epoch {
    /// "train".
    pub phase: String,
    /// 0: clean data have no laps.
    pub lap: u32,
    /// Its number, from 0.
    pub epoch: u64,
    /// The mean loss of its steps.
    pub loss: f64,
    /// The model's loss on samples that are not learned from.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub held_out_loss: Option<f64>,
    /// The mean norm of the gradient.
    pub gradient_norm: f64,
    /// The learning rate of its last step.
    pub lr: f64,
    /// Seconds that this process has spent on it.
    pub seconds: f64,
}

impl Epoch {
    /// An epoch with these means.
    pub fn new(means: EpochMeans, lr: f64, held_out_loss: Option<f64>, time: Duration) -> Self {
        let EpochMeans { epoch, loss, gradient_norm, .. } = means;
        Self {
            phase: "train".into(),
            lap: 0,
            epoch,
            loss,
            held_out_loss,
            gradient_norm,
            lr,
            seconds: time.as_secs_f64(),
        }
    }
}

/// Whom a folder belongs to.
pub enum Claim {
    /// To this run, which is complete.
    Finished,
    /// To this run, which goes on or begins.
    Open(Folder),
}

/// A claimed folder of a run that is not complete.
pub struct Folder {
    path: PathBuf,
    _lock: File,
}

impl Folder {
    /// Claims `path` for the run `identity`.
    ///
    /// # Errors
    /// When the folder belongs to another run, holds foreign files, is in use, or cannot be written.
    pub fn claim(path: &Path, identity: Map<String, Value>) -> Result<Claim> {
        inspect(path, &identity)?;
        fs::create_dir_all(path).map_err(|e| Error::io(path, "create", e))?;
        let lock = lock(path)?;
        if inspect(path, &identity)? {
            let _ = fs::remove_file(path.join(STATE)); // left where the process was killed at the very end
            return Ok(Claim::Finished);
        }
        for name in names(path)?.iter().filter(|name| unfinished(name)) {
            let leftover = path.join(name); // of a process that was killed while it wrote
            fs::remove_file(&leftover).map_err(|e| Error::io(&leftover, "remove", e))?;
        }
        let config = path.join(CONFIG);
        if !config.exists() {
            atomic::write(&config, |w| writeln!(w, "{:#}", Value::from(identity)))?;
        }
        Ok(Claim::Open(Self { path: path.to_owned(), _lock: lock }))
    }

    /// Where the state is.
    pub fn state(&self) -> PathBuf {
        self.path.join(STATE)
    }
    /// Where the model is, at the end.
    pub fn model(&self) -> PathBuf {
        self.path.join(MODEL)
    }

    /// Drops the lines of the metrics from epoch number `done` on, which will be done again; gives the last that stays.
    ///
    /// # Errors
    /// When they cannot be read or written.
    pub fn keep_epochs(&self, done: u64) -> Result<Option<Epoch>> {
        let path = self.path.join(METRICS);
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(Error::io(&path, "read", e)),
        };
        let epochs = text.lines().filter_map(|line| serde_json::from_str::<Epoch>(line).ok()); // the last may be half a line
        let mut kept: Vec<Epoch> = epochs.filter(|epoch| epoch.epoch < done).collect();
        atomic::write(&path, |w| kept.iter().try_for_each(|epoch| writeln!(w, "{}", line(epoch))))?;
        Ok(kept.pop())
    }

    /// Appends a line to the metrics.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn log(&self, epoch: &Epoch) -> Result<()> {
        let path = self.path.join(METRICS);
        let append = || {
            let mut file = OpenOptions::new().create(true).append(true).open(&path)?;
            writeln!(file, "{}", line(epoch))
        };
        append().map_err(|e| Error::io(&path, "write", e))
    }

    /// Ends a run whose model is written: its state is no longer needed.
    ///
    /// # Errors
    /// When the state cannot be removed.
    pub fn finish(self) -> Result<()> {
        let state = self.state();
        fs::remove_file(&state).map_err(|e| Error::io(&state, "remove", e))
    }
}

fn line(epoch: &Epoch) -> String {
    serde_json::to_string(epoch).expect("numbers and strings")
}

/// A file that [`atomic`] has not given its name.
fn unfinished(name: &str) -> bool {
    let of = |file: &str| name.starts_with(&format!(".{file}.")) && name.ends_with(".tmp");
    [CONFIG, METRICS, STATE, MODEL].into_iter().any(of)
}

fn names(path: &Path) -> Result<Vec<String>> {
    let entries = match fs::read_dir(path) {
        Ok(entries) => entries,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(e) => return Err(Error::io(path, "read", e)),
    };
    let name = |entry: io::Result<fs::DirEntry>| Ok(entry?.file_name().to_string_lossy().into_owned());
    entries.map(name).collect::<io::Result<_>>().map_err(|e| Error::io(path, "read", e))
}

/// Refuses a folder that is not this run's; whether the run is complete.
fn inspect(path: &Path, identity: &Map<String, Value>) -> Result<bool> {
    if let Some(found) = read_json(&path.join(CONFIG), |text| text)? {
        same_run(path, identity, found.as_object())?;
        return Ok(path.join(MODEL).exists());
    }
    match names(path)?.into_iter().find(|name| name != LOCK && !unfinished(name)) {
        Some(name) => Err(Error::mismatch(
            format!("--out {}", path.display()),
            "a new or empty folder, or one of this run",
            format!("{name} in it"),
        )),
        None => Ok(false),
    }
}
