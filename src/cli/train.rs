//! `diem train`: learns a prior from clean data, into a folder; an interrupted run there is continued.

use super::device::{About, Job};
use super::images::ImageOptions;
use super::options::{DeviceOptions, count, number};
use super::progress::Progress;
use super::{Outcome, say};
use crate::backend::Shape;
use crate::backend::timed::Timed;
use crate::data::checkpoint::{Kind, Metadata};
use crate::data::{Checkpoint, Samples};
use crate::diffusion::Gaussian;
use crate::nn::{MlpConfig, UNetConfig};
use crate::ops::TrainingOps;
use crate::ops::noise::{Purpose, Stream};
use crate::prior::ppca;
use crate::run::training::{Claim, Epoch, Folder};
use crate::train::{Data, Initial, Schedule, Settings, Trainer};
use crate::{Error, Result};
use serde_json::json;
use sha2::{Digest, Sha256};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// The least variance that a direction of the data is given: the paper's, of the manifold.
const FLOOR: f64 = 1e-6;

/// Options of `diem train`.
#[derive(clap::Args, Debug)]
#[command(allow_negative_numbers = true)] // so that they are refused as values, not as options
pub struct Args {
    /// Clean data: a folder of PNG or JPEG, one such file, .npy (uint8, or floats in [-2, 2]; vectors (N, D)), IDX (MNIST), or
    /// CIFAR-10's .bin, their folder or .tar.gz
    #[arg(long, value_name = "DATA")]
    data: PathBuf,
    /// Network: cifar, mri, small or mlp, a .json file with its metadata, or a checkpoint whose weights are the first
    #[arg(long, value_name = "NAME|FILE", default_value = "small")]
    model: String,
    /// Folder to write; an interrupted run there is continued
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Passes over the data
    #[arg(long, default_value_t = 64, value_parser = count)]
    epochs: usize,
    #[command(flatten)]
    images: ImageOptions,
    /// Samples, the last ones, that are not learned from: their loss is told after every epoch
    #[arg(long, value_name = "N", default_value_t = 0)]
    held_out: usize,
    /// Rank of the data's covariance that is stored beside the network; 0 stores none
    #[arg(long, value_name = "R", default_value_t = 64)]
    rank: usize,
    #[command(flatten)]
    settings: SettingsOptions,
    /// Seed of the first weights and all other random numbers
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Seconds between two times that the state is saved; what is learned does not depend on it
    #[arg(long, value_name = "SECONDS", default_value_t = 60.0, value_parser = seconds)]
    save_every: f64,
    #[command(flatten)]
    device: DeviceOptions,
}

/// What differs from the paper's settings, of the experiment that the network is for.
#[derive(clap::Args, Debug)]
struct SettingsOptions {
    /// Samples of a step [default: 256; mlp 1024]
    #[arg(long, value_name = "N", value_parser = count)]
    batch: Option<usize>,
    /// Images whose activations are in memory at once [default: 32]
    #[arg(long, value_name = "N", value_parser = count)]
    micro_batch: Option<usize>,
    /// Learning rate, at first [default: 2e-4; mri 1e-4, mlp 1e-3]
    #[arg(long, value_name = "RATE", value_parser = finite)]
    lr: Option<f64>,
    /// Learning rate at the end, of linear and exponential [default: 1e-6]
    #[arg(long, value_name = "RATE", value_parser = finite)]
    lr_end: Option<f64>,
    /// How the learning rate changes [default: constant; mlp linear]
    #[arg(long, value_enum)]
    schedule: Option<Schedule>,
    /// Steps until the learning rate is reached [default: 0]
    #[arg(long, value_name = "STEPS")]
    warmup: Option<u64>,
    /// Decoupled weight decay [default: 0]
    #[arg(long, value_name = "RATE", value_parser = finite)]
    weight_decay: Option<f64>,
    /// Largest norm of the gradient; 0: any [default: 1]
    #[arg(long, value_name = "NORM", value_parser = finite)]
    clip: Option<f64>,
    /// Decay of the weights' moving average; 0: none [default: 0.9999; mri 0.999, mlp 0]
    #[arg(long, value_name = "DECAY", value_parser = finite)]
    ema: Option<f64>,
    /// Probability that an activation is dropped [default: 0.1; mlp 0]
    #[arg(long, value_name = "RATE", value_parser = finite)]
    dropout: Option<f64>,
    /// Mirrors every other image [default: true for cifar and mri]
    #[arg(long, value_name = "true|false")]
    flip: Option<bool>,
    /// Turns colours by up to this part of the circle [default: 0; cifar 0.01]
    #[arg(long, value_name = "PART", value_parser = finite)]
    hue: Option<f64>,
    /// Moves colours from gray or towards it by up to this part [default: 0; cifar 0.05]
    #[arg(long, value_name = "PART", value_parser = finite)]
    saturation: Option<f64>,
    /// Moves images by up to so many pixels [default: 0; mri 4]
    #[arg(long, value_name = "PIXELS")]
    shift: Option<usize>,
}

impl SettingsOptions {
    /// The settings, where nothing else is told those of `default`.
    fn over(&self, default: Settings) -> Settings {
        let mut s = default;
        macro_rules! set {
            ($($option:ident => $($field:ident).+;)+) => {
                $(if let Some(value) = self.$option { s.$($field).+ = value; })+
            };
        }
        set! {
            batch => batch;
            micro_batch => micro_batch;
            lr => lr;
            lr_end => lr_end;
            schedule => schedule;
            warmup => warmup;
            weight_decay => weight_decay;
            clip => clip;
            ema => ema;
            dropout => dropout;
            flip => augmentation.flip;
            hue => augmentation.hue;
            saturation => augmentation.saturation;
            shift => augmentation.shift;
        }
        s
    }
}

/// A network to train.
struct Network {
    metadata: Metadata,
    /// Where its first weights are from, if not the seed.
    checkpoint: Option<Checkpoint>,
    /// The paper's settings for it.
    settings: Settings,
}

impl Network {
    /// The network `name`, for samples of the extents of `image`.
    fn open(name: &str, image: Shape) -> Result<Self> {
        let settings = |experiment: &str| {
            let mut settings = Settings::paper(experiment).unwrap_or_default();
            if image.c != 3 {
                (settings.augmentation.hue, settings.augmentation.saturation) = (0.0, 0.0);
            }
            settings
        };
        if let Some(config) = UNetConfig::preset(name) {
            let metadata =
                Metadata::new(Kind::UNet(UNetConfig { in_channels: image.c, out_channels: image.c, ..config }));
            return Ok(Self { metadata, checkpoint: None, settings: settings(name) });
        }
        if name == "mlp" {
            let kind = Kind::Mlp(MlpConfig { features: image.row(), hidden: vec![256; 3], emb: 64 });
            let metadata = Metadata { sigma_max: 1e1, ..Metadata::new(kind) };
            return Ok(Self { metadata, checkpoint: None, settings: settings("manifold") });
        }
        let path = Path::new(name);
        if !path.exists() {
            return Err(Error::mismatch(
                "--model",
                "cifar, mri, small, mlp, a .json file or a checkpoint",
                format!("'{name}'"),
            ));
        }
        let (metadata, checkpoint) = if path.extension().is_some_and(|e| e == "json") {
            let text = std::fs::read_to_string(path).map_err(|e| Error::io(path, "read", e))?;
            let expected = r#"a JSON object such as {"kind": "unet", "in_channels": 3, ..}"#;
            (serde_json::from_str(&text).map_err(|e| Error::mismatch(path.display(), expected, e))?, None)
        } else {
            let checkpoint = Checkpoint::open(path)?;
            (checkpoint.metadata().clone(), Some(checkpoint))
        };
        let experiment = if matches!(metadata.kind, Kind::Mlp(_)) { "manifold" } else { "" };
        Ok(Self { metadata, checkpoint, settings: settings(experiment) })
    }
}

struct Train<'a> {
    args: &'a Args,
    out: &'a mut dyn Write,
}

impl Job for Train<'_> {
    fn run<B: TrainingOps + Timed>(self, backend: &B, device: &About) -> Result<Outcome> {
        self.args.run_on(backend, device, self.out)
    }
}

impl Args {
    /// Learns what is missing of the run, and writes the model.
    ///
    /// # Errors
    /// In one line: options, files or folders that do not fit, a value that is not finite, a device that failed, a full disk.
    pub fn run(&self, out: &mut dyn Write) -> Result<Outcome> {
        self.device.run(Train { args: self, out })
    }

    fn run_on<B: TrainingOps>(&self, backend: &B, device: &About, out: &mut dyn Write) -> Result<Outcome> {
        let samples = self.images.read(&self.data)?;
        let Network { metadata, checkpoint, settings } = Network::open(&self.model, samples.shape)?;
        let settings = self.settings.over(settings);
        if self.held_out >= samples.shape.n {
            let expected = format!("fewer than the {} samples that there are", samples.shape.n);
            return Err(Error::mismatch("--held-out", expected, self.held_out));
        }
        let digest = fingerprint(&samples);
        let mut data = Data::new(samples);
        let held_out = data.split_off(self.held_out);
        let initial = checkpoint.as_ref().map_or(Initial::Seed(self.seed), Initial::Checkpoint);
        let steps = |trainer: &Trainer<'_, B>| Ok(trainer.steps_per_epoch(&data)? * self.epochs as u64);
        let total = steps(&Trainer::new(backend, &metadata, data.image(), settings.clone(), initial, 0)?)?;
        let mut trainer = Trainer::new(backend, &metadata, data.image(), settings.clone(), initial, total)?;

        let identity = json!({
            "command": "train",
            "version": env!("CARGO_PKG_VERSION"),
            "arithmetic": device.arithmetic,
            "data": digest,
            "held_out": self.held_out,
            "model": metadata,
            "initial": checkpoint.as_ref().map(|checkpoint| crate::run::digest(checkpoint.path())).transpose()?,
            "seed": self.seed,
            "epochs": self.epochs,
            "rank": self.rank,
            "settings": settings,
        });
        let folder = match Folder::claim(&self.out, identity.as_object().expect("written as one").clone())? {
            Claim::Open(folder) => folder,
            Claim::Finished => {
                say(out, format_args!("{}: this run is complete, nothing to do", self.out.display()))?;
                return Ok(Outcome::Done);
            }
        };
        say(out, format_args!("device: {}", device.description))?;
        if folder.state().exists() {
            trainer.load(&folder.state())?;
            say(out, format_args!("continuing: {} of {total} steps are done", trainer.steps()))?;
        }
        let last = self.learn(&mut trainer, &folder, &data, &held_out)?;
        let gaussian = self.gaussian(&mut data)?;
        trainer.write_checkpoint(&folder.model(), gaussian.as_ref())?;
        let model = folder.model();
        folder.finish()?;
        let loss =
            last.map_or(String::new(), |epoch| format!(", loss {:.4}", epoch.held_out_loss.unwrap_or(epoch.loss)));
        say(out, format_args!("{}: {total} steps{loss}", model.display()))?;
        Ok(Outcome::Done)
    }

    /// Does the steps that are left; gives the last epoch, if there was one.
    fn learn<B: TrainingOps>(
        &self,
        trainer: &mut Trainer<'_, B>,
        folder: &Folder,
        data: &Data,
        held_out: &Data,
    ) -> Result<Option<Epoch>> {
        let run = Stream::new(self.seed, Purpose::Time);
        let per_epoch = trainer.steps_per_epoch(data)?;
        let mut last = folder.keep_epochs(trainer.steps() / per_epoch)?;
        let batch = trainer.settings().batch;
        let mut progress = Progress::new(trainer.total_steps() as usize * batch, trainer.steps() as usize * batch);
        let (mut saved, mut epoch_began) = (Instant::now(), Instant::now());
        while trainer.steps() < trainer.total_steps() {
            let report = trainer.step(data, run).map_err(Error::diverged)?;
            progress.update_with((trainer.steps() as usize * batch) as f64, &format!("loss {:.4}", report.loss));
            if report.ends_epoch {
                let held_out_loss = (!held_out.is_empty()).then(|| trainer.held_out_loss(held_out, run));
                let held_out_loss = held_out_loss.transpose().map_err(Error::diverged)?;
                let epoch = Epoch::new(trainer.epoch_means(), report.lr, held_out_loss, epoch_began.elapsed());
                folder.log(&epoch)?;
                (last, epoch_began) = (Some(epoch), Instant::now());
            }
            let end = trainer.steps() == trainer.total_steps();
            if end || saved.elapsed() >= Duration::from_secs_f64(self.save_every) {
                trainer.save(&folder.state())?;
                saved = Instant::now();
            }
        }
        progress.finish();
        Ok(last)
    }

    /// Mean and covariance of the data: what a sampler starts around, and some settings of the posterior ask for.
    fn gaussian(&self, data: &mut Data) -> Result<Option<Gaussian>> {
        let rank = self.rank.min(data.image().row()).min(data.len() - 1);
        if rank == 0 {
            return Ok(None);
        }
        ppca(data, rank, FLOOR, Stream::new(self.seed, Purpose::Subspace)).map(Some)
    }
}

/// SHA-256 of the samples themselves: whatever files they came from.
fn fingerprint(samples: &Samples<f32>) -> String {
    let mut hash = Sha256::new();
    hash.update(format!("{:?}", samples.shape));
    samples.data.iter().for_each(|x| hash.update(x.to_le_bytes()));
    hash.finalize().iter().map(|b| format!("{b:02x}")).collect()
}

/// Any finite number: the settings say which they take.
fn finite(text: &str) -> std::result::Result<f64, String> {
    number(text, |_| true, "a finite number")
}

fn seconds(text: &str) -> std::result::Result<f64, String> {
    number(text, |x| (0.0..1e9).contains(&x), "seconds, 0 or more")
}
