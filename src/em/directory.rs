//! The run directory: whose it is, where the run stands, and what is counted.
//!
//! | file | |
//! |---|---|
//! | `.lock` | locked while a process works here |
//! | `config.toml` | the configuration, every default filled in |
//! | `state.json` | what the bits depend on beside it, and where the run stands; written last |
//! | `metrics.jsonl` | one JSON object per line; what lies beyond `state.json`'s count is cut off when the run goes on |
//! | `gaussian.safetensors` | the Gaussian prior |
//! | `lap-000/`, .. | see [`Lap`] |
//! | `training-N.safetensors` | the trainer after step N of a lap, while it trains |
//!
//! Every file appears whole, under its name, before the state counts it; what is done between two states is a function of what is
//! counted, so that a kill at any moment costs time and no bit.

use super::{Config, State, keys};
use crate::data::atomic;
use crate::run::folder;
use crate::{Error, Result};
use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::path::{Path, PathBuf};

const LOCK: &str = ".lock";
const CONFIG: &str = "config.toml";
const STATE: &str = "state.json";
const METRICS: &str = "metrics.jsonl";

/// A directory that this process has locked.
pub struct Directory {
    path: PathBuf,
    metrics: File,
    _lock: File,
}

impl Directory {
    /// The state of the run in `path`, if there is one; nothing is written.
    ///
    /// # Errors
    /// When the directory is of another run, holds foreign files, or cannot be read.
    pub fn inspect(path: &Path, config: &Config, fresh: &State) -> Result<Option<State>> {
        let entries = match fs::read_dir(path) {
            Ok(entries) => entries,
            Err(e) if e.kind() == ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(Error::io(path, "read", e)),
        };
        let file = path.join(CONFIG);
        if file.exists() {
            keys::same_run(&file.display().to_string(), &Config::read(&file)?, config)?;
            return State::read(&path.join(STATE), fresh);
        }
        for entry in entries {
            let name = entry.map_err(|e| Error::io(path, "read", e))?.file_name();
            let name = name.to_string_lossy();
            if name != LOCK && !(name.starts_with(&format!(".{CONFIG}.")) && name.ends_with(".tmp")) {
                let place = format!("--out {}", path.display());
                return Err(Error::mismatch(
                    place,
                    "a new or empty folder, or a run of diem fit",
                    format!("{name} in it"),
                ));
            }
        }
        Ok(None)
    }

    /// Locks the directory, new or of this run, for work from `state` on.
    ///
    /// # Errors
    /// When another process works in it, or it cannot be written.
    pub fn claim(path: &Path, config: &Config, fresh: State) -> Result<(Self, State)> {
        fs::create_dir_all(path).map_err(|e| Error::io(path, "create", e))?;
        let lock = folder::lock(path)?;
        let found = Self::inspect(path, config, &fresh)?;
        atomic::write_bytes(&path.join(CONFIG), config.text().as_bytes())?;
        let state = found.unwrap_or(fresh);
        let metrics = open_metrics(&path.join(METRICS), state.metrics)?;
        let mut directory = Self { path: path.to_owned(), metrics, _lock: lock };
        let mut state = state;
        directory.commit(&mut state)?;
        Ok((directory, state))
    }

    /// The directory.
    pub fn path(&self) -> &Path {
        &self.path
    }
    /// A file of it.
    pub fn file(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }
    /// The folder of a lap.
    ///
    /// # Errors
    /// When it cannot be created.
    pub fn lap(&self, lap: usize) -> Result<Lap> {
        let path = self.path.join(format!("lap-{lap:03}"));
        fs::create_dir_all(&path).map_err(|e| Error::io(&path, "create", e))?;
        Ok(Lap(path))
    }

    /// Appends a line to `metrics.jsonl`, which counts with the next state.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn note(&mut self, line: &serde_json::Value) -> Result<()> {
        let written = self.metrics.write_all(format!("{line}\n").as_bytes());
        written.map_err(|e| Error::io(self.path.join(METRICS), "write", e))
    }
    /// The lines so far.
    ///
    /// # Errors
    /// When they cannot be read.
    pub fn lines(&self) -> Result<Vec<serde_json::Value>> {
        let path = self.path.join(METRICS);
        let text = fs::read_to_string(&path).map_err(|e| Error::io(&path, "read", e))?;
        let parse =
            |line: &str| serde_json::from_str(line).map_err(|e| Error::mismatch(path.display(), "JSON lines", e));
        text.lines().map(parse).collect()
    }
    /// From here on the run goes on from `state`.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn commit(&mut self, state: &mut State) -> Result<()> {
        let length = self.metrics.sync_data().and_then(|()| self.metrics.metadata());
        state.metrics = length.map_err(|e| Error::io(self.path.join(METRICS), "write", e))?.len();
        state.write(&self.path.join(STATE))
    }
    /// Removes the trainers but that of `step`.
    ///
    /// # Errors
    /// When the directory cannot be read or written.
    pub fn remove_trainers(&self, step: Option<usize>) -> Result<()> {
        let remove = || -> io::Result<()> {
            for entry in fs::read_dir(&self.path)? {
                let path = entry?.path();
                let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
                let kept = step.is_some_and(|step| name == trainer_name(step));
                if (name.starts_with("training-") || name.starts_with(".training-")) && !kept {
                    fs::remove_file(&path)?;
                }
            }
            Ok(())
        };
        remove().map_err(|e| Error::io(&self.path, "clear", e))
    }
    /// Where the trainer is after `step`.
    pub fn trainer(&self, step: usize) -> PathBuf {
        self.path.join(trainer_name(step))
    }
}

fn trainer_name(step: usize) -> String {
    format!("training-{step}.safetensors")
}

/// Opens the lines behind the last byte that counts.
fn open_metrics(path: &Path, counted: u64) -> Result<File> {
    let open = || {
        let file = OpenOptions::new().create(true).append(true).open(path)?;
        if file.metadata()?.len() < counted {
            return Err(io::Error::other(format!("shorter than the {counted} bytes that {STATE} counts")));
        }
        file.set_len(counted)?;
        atomic::sync_folder(path)?;
        Ok(file)
    };
    open().map_err(|e| Error::io(path, "continue", e))
}

/// The folder of a lap: the prior that was learned from the draws of the lap before, and the draws under it. Lap 0 has the
/// Gaussian prior, or the checkpoint of a warm start.
///
/// | file | |
/// |---|---|
/// | `model.safetensors` | the EMA of the weights, with mean, diag and factor of the PPCA of the draws before |
/// | `samples.npy` | the draws: of the training observations, then of the held-out ones |
/// | `prior.npy` | samples of the prior |
/// | `preview.png`, `prior.png` | observations with their draws; samples of the prior |
/// | `corner.png` | of vectors: the prior's marginals over the truth's |
/// | `.samples`, `.prior` | where these are drawn, and afterwards what they are of: [`crate::run::Folder`] |
pub struct Lap(PathBuf);

impl Lap {
    /// Its path.
    pub fn path(&self) -> &Path {
        &self.0
    }
    /// The checkpoint.
    pub fn model(&self) -> PathBuf {
        self.0.join("model.safetensors")
    }
    /// The draws.
    pub fn samples(&self) -> PathBuf {
        self.0.join("samples.npy")
    }
    /// Samples of the prior.
    pub fn prior(&self) -> PathBuf {
        self.0.join("prior.npy")
    }
    /// A file of it.
    pub fn file(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}
