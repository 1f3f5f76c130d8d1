//! `diem fit`: from observations to a prior, lap by lap, in a directory that survives interruption.

use super::device::{About, Job};
use super::options::DeviceOptions;
use super::progress::Progress;
use super::{Outcome, say};
use crate::backend::timed::Timed;
use crate::em::{Config, Run, Start, Task, Watch};
use crate::ops::TrainingOps;
use crate::{Error, Result};
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};

/// Options of `diem fit`.
#[derive(clap::Args, Debug)]
pub struct Args {
    /// What to learn from, and how; that of a run directory continues its run
    #[arg(value_name = "CONFIG.toml")]
    config: PathBuf,
    /// Run directory; an interrupted run there is continued [default: the configuration's name without .toml]
    #[arg(long, value_name = "RUN")]
    out: Option<PathBuf>,
    /// Begin with draws under this checkpoint, instead of a Gaussian prior; a network of the same extents is trained further
    #[arg(long, value_name = "M.safetensors")]
    warm_start: Option<PathBuf>,
    #[command(flatten)]
    device: DeviceOptions,
}

struct Fit<'a> {
    args: &'a Args,
    config: Config,
    out: &'a mut dyn Write,
}

impl Job for Fit<'_> {
    fn run<B: TrainingOps + Timed>(self, backend: &B, device: &About) -> Result<Outcome> {
        self.args.run_on(backend, device, self.config, self.out)
    }
}

impl Args {
    /// Learns, or goes on learning.
    ///
    /// # Errors
    /// In one line: configuration, files or directory that do not fit, a device that failed, a full disk; a run that diverged.
    pub fn run(&self, out: &mut dyn Write) -> Result<Outcome> {
        let config = Config::read(&self.config)?;
        self.device.run(Fit { args: self, config, out })
    }

    fn run_on<B: TrainingOps>(
        &self,
        backend: &B,
        device: &About,
        config: Config,
        out: &mut dyn Write,
    ) -> Result<Outcome> {
        let directory = self.directory()?;
        let laps = config.laps.count;
        let start = Start { out: &directory, warm_start: self.warm_start.as_deref(), arithmetic: &device.arithmetic };
        let mut teller = Teller { out, progress: None };
        let mut run = Run::open(backend, config, &start, &mut teller)?;
        let (lap, path) = (run.state().lap, directory.display());
        if lap > laps {
            run.say(&format!("{path}: this run is complete, nothing to do"))?;
            return Ok(Outcome::Done);
        }
        run.say(&format!("device: {}", device.description))?;
        if run.state().metrics > 0 {
            run.say(&format!("{path}: continuing in lap {lap} of {laps}"))?;
        }
        run.finish()?;
        let model = format!("lap-{laps:03}/model.safetensors");
        let prior = if directory.join(&model).exists() { &model } else { "gaussian.safetensors" };
        say(out, format_args!("{path}: {laps} laps are done; the prior is {prior}"))?;
        Ok(Outcome::Done)
    }

    /// Where the run is: `--out`, or the directory whose configuration this is, or one of its name.
    fn directory(&self) -> Result<PathBuf> {
        if let Some(out) = &self.out {
            return Ok(out.clone());
        }
        let parent = self.config.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
        if parent.join("state.json").exists() {
            return Ok(parent.to_owned());
        }
        let stem = self.config.file_stem().filter(|_| self.config.extension().is_some());
        let stem =
            stem.ok_or_else(|| Error::mismatch(self.config.display(), "a .toml file (or --out)", "another name"))?;
        Ok(stem.into())
    }
}

/// Prints lines, and shows progress.
struct Teller<'a> {
    out: &'a mut dyn Write,
    progress: Option<Progress>,
}

impl Watch for Teller<'_> {
    fn begin(&mut self, lap: usize, task: Task, total: usize, done: usize) {
        let (what, rate) = match task {
            Task::Gaussian => ("iterations of the Gaussian prior", "iterations/s"),
            Task::Train => ("training steps", "steps/s"),
            Task::Sample => ("draws", "images/s"),
            Task::Prior => ("samples of the prior", "images/s"),
        };
        self.progress = Some(Progress::of(total, done, format!("lap {lap}: "), what, rate));
    }
    fn update(&mut self, done: f64) {
        if let Some(progress) = &mut self.progress {
            progress.update(done);
        }
    }
    fn end(&mut self) {
        if let Some(progress) = self.progress.take() {
            progress.finish();
        }
    }
    /// Hours of work do not end because nobody reads on (`diem fit .. | head -1`).
    fn say(&mut self, line: &str) -> Result<()> {
        match say(self.out, line) {
            Err(Error::Io { source, .. }) if source.kind() == ErrorKind::BrokenPipe => Ok(()),
            result => result,
        }
    }
}
