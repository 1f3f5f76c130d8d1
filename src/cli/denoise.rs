//! `diem denoise`: one call of the denoiser, its VJP, or the posterior denoiser, on arrays.

use super::device::{About, Job};
use super::load::Loaded;
use super::options::{BatchSize, DeviceOptions, ModelOptions, PosteriorOptions, batch, positive};
use super::{Outcome, refuse_existing, say};
use crate::backend::{Keep, Shape};
use crate::data::{Array, DType, Samples, npy};
use crate::diffusion::Denoiser;
use crate::diffusion::samplers::Sampler;
use crate::ops::Ops;
use crate::run::{PosteriorOf, batch_size};
use crate::{Error, Result};
use std::io::Write;
use std::ops::Range;
use std::path::{Path, PathBuf};

/// Options of `diem denoise`.
#[derive(clap::Args, Debug)]
pub struct Args {
    #[command(flatten)]
    model: ModelOptions,
    /// Noisy samples x_t, (N, H, W, C) or (N, D) float32
    #[arg(long, value_name = "XT.npy")]
    input: PathBuf,
    /// Noise level: one value for all samples, or one for each
    #[arg(allow_negative_numbers = true, long, value_name = "S", num_args = 1.., required = true, value_parser = positive)]
    sigma: Vec<f64>,
    /// E[x | x_t], or E[x | x_t, y] with observations, as the input
    #[arg(long, value_name = "X.npy")]
    out: PathBuf,
    /// Also computes the VJP of the denoiser for this u, as the input
    #[arg(long, value_name = "U.npy", conflicts_with = "observations")]
    vjp: Option<PathBuf>,
    /// J^T u
    #[arg(long, value_name = "G.npy")]
    vjp_out: Option<PathBuf>,
    #[command(flatten)]
    posterior: PosteriorOptions,
    /// Samples at a time: auto, or a number; the results do not depend on it
    #[arg(long, default_value = "auto", value_parser = batch)]
    batch: BatchSize,
    #[command(flatten)]
    device: DeviceOptions,
    /// Writes over files that are there
    #[arg(long)]
    force: bool,
}

impl Args {
    /// Reads the arrays, calls the denoiser, writes the results.
    ///
    /// # Errors
    /// In one line: options and files that do not fit, a device that failed.
    pub fn run(&self, out: &mut dyn Write) -> Result<Outcome> {
        if !self.force {
            refuse_existing(&self.out)?;
            self.vjp_out.as_deref().map_or(Ok(()), refuse_existing)?;
        }
        if self.vjp_out.as_ref() == Some(&self.out) {
            return Err(Error::mismatch("--vjp-out", "another file than --out", self.out.display()));
        }
        let x_t = read(&self.input)?;
        let n = x_t.shape.n;
        self.check_prior_above()?;
        if self.sigma.len() != 1 && self.sigma.len() != n {
            return Err(Error::mismatch("--sigma", format!("1 value, or {n} as --input has"), self.sigma.len()));
        }
        let u = self.vjp.as_deref().map(read).transpose()?;
        if let (Some(u), Some(path)) = (&u, &self.vjp)
            && u.shape != x_t.shape
        {
            return Err(Error::mismatch(
                path.display(),
                format!("{:?}, as --input", x_t.shape),
                format!("{:?}", u.shape),
            ));
        }
        self.device.run(Denoise { args: self, x_t, u, out })
    }

    /// A batch has one covariance (a sampler's samples are all at one σ), and no result may depend on the batch.
    fn check_prior_above(&self) -> Result<()> {
        let limit = self.posterior.method.settings()?.prior_above.unwrap_or(0.0);
        let above = self.sigma.iter().filter(|&&sigma| sigma >= limit).count();
        match above == 0 || above == self.sigma.len() {
            true => Ok(()),
            false => {
                Err(Error::mismatch("--sigma", format_args!("all below --prior-above {limit}, or all above"), "both"))
            }
        }
    }

    fn run_on<B: Ops>(
        &self,
        backend: &B,
        x_t: &Samples<f32>,
        u: Option<&Samples<f32>>,
        out: &mut dyn Write,
    ) -> Result<Outcome> {
        let n = x_t.shape.n;
        let loaded = Loaded::open(backend, &self.model, &self.posterior, Some(x_t.shape), u.is_some())?;
        if let Some(found) = loaded.observations.as_ref().map(|o| o.len()).filter(|&len| len != n) {
            return Err(Error::mismatch("--observations", format!("{n} samples, as --input has"), found));
        }
        let call = Call { backend, loaded: &loaded, options: self, x_t, u };
        let (x_hat, g) = call.all()?;
        write(&self.out, x_t.shape, x_hat.clone())?;
        if let Some((path, g)) = self.vjp_out.as_deref().zip(g.as_ref()) {
            write(path, x_t.shape, g.clone())?;
        }
        say(out, format_args!("{}: {n} samples", self.out.display()))?;
        let results = x_hat.chunks(x_t.shape.row()).chain(g.iter().flat_map(|g| g.chunks(x_t.shape.row())));
        let failed = results.filter(|x| !x.iter().all(|x| x.is_finite())).count();
        if failed > 0 {
            say(out, format_args!("{failed} of the results are not finite"))?;
            return Ok(Outcome::NonFinite);
        }
        Ok(Outcome::Done)
    }
}

struct Denoise<'a> {
    args: &'a Args,
    x_t: Samples<f32>,
    u: Option<Samples<f32>>,
    out: &'a mut dyn Write,
}

impl Job for Denoise<'_> {
    fn run<B: Ops>(self, backend: &B, _: &About) -> Result<Outcome> {
        self.args.run_on(backend, &self.x_t, self.u.as_ref(), self.out)
    }
}

/// Steps of the process whose weights DPS takes its strength from.
const STEPS: usize = 256;

/// What is evaluated.
struct Call<'a, B: Ops> {
    backend: &'a B,
    loaded: &'a Loaded<B>,
    options: &'a Args,
    x_t: &'a Samples<f32>,
    u: Option<&'a Samples<f32>>,
}

impl<B: Ops> Call<'_, B> {
    /// The value, and the VJP if there is a u, batch by batch.
    fn all(&self) -> Result<(Vec<f32>, Option<Vec<f32>>)> {
        let (shape, elements) = (self.x_t.shape, self.loaded.largest_array());
        let probe = || self.batch(0..1).map(drop);
        let (size, predicted) = match self.options.batch {
            BatchSize::Of(size) => {
                let size = size.min(shape.n);
                (size, batch_size::check(self.backend, size, elements, probe)?)
            }
            BatchSize::Auto => {
                let predicted = batch_size::automatic(self.backend, shape.n, elements, probe)?;
                (predicted.size, Some(predicted))
            }
        };
        self.batches(size).map_err(|error| batch_size::explain(self.backend, predicted, error))
    }

    fn batches(&self, size: usize) -> Result<(Vec<f32>, Option<Vec<f32>>)> {
        let shape = self.x_t.shape;
        let mut x_hat = vec![f32::NAN; shape.len()];
        let mut g = self.u.map(|_| x_hat.clone());
        for first in (0..shape.n).step_by(size) {
            let range = first..(first + size).min(shape.n);
            let elements = range.start * shape.row()..range.end * shape.row();
            let (value, gradient) = self.batch(range)?;
            self.backend.download(&value, &mut x_hat[elements.clone()])?;
            if let (Some(g), Some(gradient)) = (&mut g, gradient) {
                self.backend.download(&gradient, &mut g[elements])?;
            }
        }
        Ok((x_hat, g))
    }

    fn batch(&self, range: Range<usize>) -> Result<(B::Tensor, Option<B::Tensor>)> {
        let Self { backend, loaded, options, .. } = *self;
        let index: Vec<usize> = range.collect();
        let upload = |x: &Samples<f32>| {
            let x = x.gather(&index);
            backend.upload(x.shape, &x.data)
        };
        let x_t = upload(self.x_t);
        let sigma = match options.sigma.as_slice() {
            [shared] => vec![*shared],
            each => index.iter().map(|&n| each[n]).collect(),
        };
        if let Some(PosteriorOf { observations, settings, prior, .. }) =
            loaded.posterior(options.posterior.method.settings()?, 1)?
        {
            let measurement = observations.bind(backend, &index, loaded.image, loaded.operator.as_ref())?;
            let plan = loaded.plan(Sampler::default(), STEPS)?;
            let mut estimator = settings.estimator(backend, &loaded.model, &measurement, prior, &plan)?;
            return Ok((estimator.estimate(backend, &x_t, &sigma)?, None));
        }
        let keep = if self.u.is_some() { Keep::Input } else { Keep::Nothing };
        let condition = loaded.model.condition(backend, &sigma, keep);
        let (x_hat, saved) = loaded.model.forward(backend, &x_t, &condition, keep);
        let g = self.u.zip(saved).map(|(u, saved)| loaded.model.vjp(backend, &condition, &saved, &upload(u)));
        Ok((x_hat, g))
    }
}

/// Samples from a file, all finite.
fn read(path: &Path) -> Result<Samples<f32>> {
    let Array { shape, data } = npy::read(path, &[DType::F32, DType::F64])?;
    let shape = match shape[..] {
        [n, d] => Shape::rows(n, d),
        [n, h, w, c] => Shape::new(n, h, w, c),
        _ => return Err(Error::mismatch(path.display(), "shape (N, H, W, C) or (N, D)", format!("{shape:?}"))),
    };
    if shape.is_empty() {
        return Err(Error::mismatch(path.display(), "at least one sample", format!("shape {shape:?}")));
    }
    let x = Samples::new(shape, data.into_f32());
    match x.data.iter().position(|x| !x.is_finite()) {
        Some(i) => Err(Error::NonFinite { place: format!("{}, sample {}", path.display(), i / shape.row()) }),
        None => Ok(x),
    }
}

fn write(path: &Path, shape: Shape, x: Vec<f32>) -> Result<()> {
    let dims = [shape.n].into_iter().chain(crate::run::folder::row_dims(shape)).collect::<Vec<_>>();
    npy::write(path, &Array::f32(&dims, x))
}
