//! Where a run stands.

use crate::data::atomic;
use crate::{Error, Result};
use serde::{Deserialize, Serialize};
use std::io::{ErrorKind, Write};
use std::path::Path;

/// `state.json`: what a run's bits depend on beside its configuration, and what of it is done.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct State {
    /// What must be the same when the run goes on.
    pub identity: Identity,
    /// The lap that is under way; 0 is that of the first draws.
    pub lap: usize,
    /// What is next in it.
    pub phase: Phase,
    /// Bytes of `metrics.jsonl` that count.
    pub metrics: u64,
    /// Seconds of this lap so far.
    pub seconds: f64,
    /// The M step that is under way.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub training: Option<Training>,
}

/// What is not in the configuration but determines the bits of a run.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Identity {
    /// Of the program.
    pub version: String,
    /// Devices of the same arithmetic agree in all bits.
    pub arithmetic: String,
    /// Fingerprint of all observations, those that are held out last.
    pub observations: String,
    /// How many of them are learned from.
    pub training: usize,
    /// Fingerprint of the warm start's checkpoint.
    pub warm_start: Option<String>,
}

/// What is next in a lap.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Phase {
    /// The Gaussian prior, in lap 0.
    Gaussian,
    /// The M step.
    Train,
    /// The E step.
    Sample,
    /// What is measured.
    Lap,
}

/// Within an M step.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
pub struct Training {
    /// Steps done: the trainer is in a file of this number.
    pub step: usize,
    /// Seconds since the last line of metrics.
    pub seconds: f64,
    /// The last steps, so many in a row, whose median loss was too large.
    #[serde(default)]
    pub too_large: usize,
}

impl State {
    /// A run at its beginning.
    pub fn new(identity: Identity) -> Self {
        let phase = if identity.warm_start.is_some() { Phase::Sample } else { Phase::Gaussian };
        Self { identity, lap: 0, phase, metrics: 0, seconds: 0.0, training: None }
    }

    /// The state in a file, if it is there.
    ///
    /// # Errors
    /// When it is of a run with another identity than that of `fresh`, or cannot be read.
    pub fn read(path: &Path, fresh: &Self) -> Result<Option<Self>> {
        let text = match std::fs::read_to_string(path) {
            Ok(text) => text,
            Err(e) if e.kind() == ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(Error::io(path, "read", e)),
        };
        let state: Self =
            serde_json::from_str(&text).map_err(|e| Error::mismatch(path.display(), "the state of a run", e))?;
        state.identity.check(path, &fresh.identity)?;
        Ok(Some(state))
    }
    /// Writes the file, atomically.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn write(&self, path: &Path) -> Result<()> {
        let json = serde_json::to_string_pretty(self).expect("numbers and strings");
        atomic::write(path, |w| writeln!(w, "{json}"))
    }
}

impl Identity {
    /// Refuses another identity than that of the run in `path`.
    fn check(&self, path: &Path, now: &Self) -> Result<()> {
        let text = |warm_start: &Option<String>| warm_start.clone().unwrap_or("none".to_owned());
        // a run goes on without the option too: its checkpoint is in lap-000
        let warm_start = if now.warm_start.is_none() { &self.warm_start } else { &now.warm_start };
        for (key, theirs, ours) in [
            ("version", self.version.clone(), now.version.clone()),
            ("device", self.arithmetic.clone(), now.arithmetic.clone()),
            ("observations (SHA-256)", self.observations.clone(), now.observations.clone()),
            ("observations to learn from", self.training.to_string(), now.training.to_string()),
            ("--warm-start (SHA-256)", text(&self.warm_start), text(warm_start)),
        ] {
            if theirs != ours {
                let place = format!("{}: {key}", path.display());
                return Err(Error::mismatch(place, format_args!("{theirs}, as the run has it"), ours));
            }
        }
        Ok(())
    }
}
