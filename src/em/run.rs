//! A run from its start, or from where it was interrupted, to its end.

use super::directory::Lap;
use super::measure::prior_samples;
use super::state::{Identity, Phase};
use super::{Config, Directory, Draws, Problem, State, Watch, disk};
use crate::data::Checkpoint;
use crate::data::checkpoint::{Kind, Metadata};
use crate::diffusion::samplers::Plan;
use crate::metrics::FeatureMoments;
use crate::ops::TrainingOps;
use crate::ops::noise::{Purpose, Stream};
use crate::run::digest;
use crate::{Error, Result};
use std::path::{Path, PathBuf};

/// What a run starts from beside its configuration.
pub struct Start<'a> {
    /// The run directory.
    pub out: &'a Path,
    /// A checkpoint whose draws the first lap learns from, instead of the Gaussian prior's.
    pub warm_start: Option<&'a Path>,
    /// What determines the bits of a device: devices of the same arithmetic agree.
    pub arithmetic: &'a str,
}

/// A run under way, in a directory that it has locked.
pub struct Run<'a, B: TrainingOps> {
    pub(super) backend: &'a B,
    pub(super) config: Config,
    pub(super) problem: Problem,
    pub(super) metadata: Metadata,
    pub(super) plan: Plan,
    pub(super) directory: Directory,
    pub(super) state: State,
    /// Those of [`Problem::truth`], once they are known: the same in every lap.
    pub(super) truth_features: Option<FeatureMoments>,
    pub(super) watch: &'a mut dyn Watch,
}

impl<'a, B: TrainingOps> Run<'a, B> {
    /// Checks everything, then claims the directory; a refused start leaves it as it was.
    ///
    /// # Errors
    /// In one line: files that do not fit each other, the model or the device, a directory of another run or in use, too little disk.
    pub fn open(backend: &'a B, config: Config, start: &Start<'_>, watch: &'a mut dyn Watch) -> Result<Self> {
        let problem = Problem::read(&config)?;
        let metadata = config.model.metadata(problem.image).map_err(|e| e.within("[model]"))?;
        metadata.check_limits(backend.limits(), problem.image)?;
        check_settings(&config, &problem)?;
        let plan = config.plan()?;
        let warm_start = start.warm_start.map(|path| warm(path, &problem, &config)).transpose()?;
        let identity = Identity {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            arithmetic: start.arithmetic.to_owned(),
            observations: problem.observations.digest(),
            training: problem.training,
            warm_start,
        };
        let fresh = State::new(identity);
        let found = Directory::inspect(start.out, &config, &fresh)?;
        let lap = found.as_ref().map_or(0, |state| state.lap);
        if lap <= config.laps.count {
            disk::check(start.out, need(&config, &problem, &metadata, lap, &disk::Written::of(start.out, lap)))?;
        }
        let (directory, state) = Directory::claim(start.out, &config, fresh)?;
        let truth_features = None;
        let run = Self { backend, config, problem, metadata, plan, directory, state, truth_features, watch };
        if let Some(path) = start.warm_start
            && (run.state.lap, run.state.phase) == (0, Phase::Sample)
        {
            copy(path, &run.directory.lap(0)?.model())?;
        }
        Ok(run)
    }

    /// Where it stands.
    pub fn state(&self) -> &State {
        &self.state
    }

    /// A line for the user.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn say(&mut self, line: &str) -> Result<()> {
        self.watch.say(line)
    }

    /// Does what is left to do.
    ///
    /// # Errors
    /// [`Error::Diverged`] with the reason; in one line, a device that failed, a file that cannot be read or written: the run can be continued.
    pub fn finish(mut self) -> Result<()> {
        while self.state.lap <= self.config.laps.count {
            match self.state.phase {
                Phase::Gaussian => self.fit_gaussian()?,
                Phase::Train => self.m_step()?,
                Phase::Sample => self.e_step()?,
                Phase::Lap => self.measure()?,
            }
        }
        Ok(())
    }

    /// The next phase, when all that the one before has made is on disk.
    pub(super) fn advance(&mut self, lap: usize, phase: Phase) -> Result<()> {
        if lap != self.state.lap {
            self.state.seconds = 0.0;
        }
        (self.state.lap, self.state.phase, self.state.training) = (lap, phase, None);
        self.directory.commit(&mut self.state)?;
        self.directory.remove_trainers(None)
    }

    /// The folder of the lap that is under way.
    pub(super) fn lap(&self) -> Result<Lap> {
        self.directory.lap(self.state.lap)
    }
    /// The random numbers of a lap.
    pub(super) fn stream(&self, lap: usize) -> Stream {
        Stream { iteration: lap as u32, ..Stream::new(self.config.seed, Purpose::Start) }
    }
    /// The Gaussian prior's file.
    pub(super) fn gaussian(&self) -> PathBuf {
        self.directory.file("gaussian.safetensors")
    }
    /// Draws of all observations.
    pub(super) fn total(&self) -> usize {
        self.problem.observations.len() * self.config.sample.draws
    }
    /// The draws of a lap, drawn again if they are not there.
    pub(super) fn draws(&mut self, lap: usize) -> Result<Draws> {
        let path = self.directory.lap(lap)?.samples();
        if !path.exists() {
            self.draw(lap)?;
        }
        Draws::open(&path, &self.problem, self.config.sample.draws, self.config.sample.bound)
    }
}

/// What can be known before anything is computed.
fn check_settings(config: &Config, problem: &Problem) -> Result<()> {
    config.gaussian.check(problem.image, problem.training).map_err(|e| e.within("[gaussian]"))?;
    config.train.validate(problem.image).map_err(|e| e.within("[train]"))?;
    let draws = problem.training * config.sample.draws;
    if config.train.batch > draws {
        let expected = format!("at most {draws}, the draws of a lap");
        return Err(Error::mismatch("[train]: batch", expected, config.train.batch));
    }
    let total = problem.observations.len().checked_mul(config.sample.draws);
    if total.is_none_or(|total| u32::try_from(total).is_err()) {
        return Err(Error::mismatch("[sample]: draws", "fewer than 2^32 draws in all", config.sample.draws));
    }
    Ok(())
}

/// The fingerprint of a warm start's checkpoint, which must take the observed images.
fn warm(path: &Path, problem: &Problem, config: &Config) -> Result<String> {
    let checkpoint = Checkpoint::open(path)?;
    checkpoint.check_image(problem.image)?;
    if config.sample.settings().of_prior().is_some() && checkpoint.covariance().is_none() {
        let expected = "tensors mean, diag and factor: the Gaussian prior that [sample] asks for";
        return Err(Error::mismatch(format_args!("--warm-start {}", path.display()), expected, "none"));
    }
    let levels = |m: &Metadata| (m.sigma_min, m.sigma_max);
    let network = !matches!(checkpoint.metadata().kind, Kind::Gaussian { .. }); // which is of any noise level
    let (theirs, ours) = (levels(checkpoint.metadata()), (config.model.sigma_min, config.model.sigma_max));
    if network && theirs != ours {
        let place = format!("--warm-start {}: sigma_min and sigma_max", path.display());
        return Err(Error::mismatch(
            place,
            format_args!("{} and {}, as [model]", ours.0, ours.1),
            format_args!("{} and {}", theirs.0, theirs.1),
        ));
    }
    digest(path)
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    let bytes = std::fs::read(from).map_err(|e| Error::io(from, "read", e))?;
    crate::data::atomic::write_bytes(to, &bytes)
}

/// Bytes that the laps from `lap` on will write beside what is there: those of samples that are kept, and of the weights.
fn need(config: &Config, problem: &Problem, metadata: &Metadata, lap: usize, written: &disk::Written) -> u64 {
    let row = 4 * problem.image.row() as u64;
    let draws = (problem.observations.len() * config.sample.draws) as u64 * row;
    let prior = prior_samples(config, problem) as u64 * row;
    let rank = config.gaussian.rank as u64 + 2;
    let weights = 4 * metadata.layout().elements() as u64 + rank * row;
    let laps = (config.laps.count + 1).saturating_sub(lap);
    // a lap's samples are removed when those of a later one are there
    let kept = config.laps.keep.map_or(laps, |keep| laps.min((keep + 1).saturating_sub(written.earlier).max(1)));
    let trainer = 2 * 4 * 4 * metadata.layout().elements() as u64; // one, and the next while it is written
    (kept as u64 * draws + laps as u64 * (prior + weights) + trainer).saturating_sub(written.bytes)
}
