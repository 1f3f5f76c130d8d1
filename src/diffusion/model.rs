//! A model from a checkpoint, whatever its kind.

use super::denoiser::{Denoiser, Preconditioned, PreconditionedCondition};
use super::gaussian::{Gaussian, GaussianCondition};
use super::table::Tabulate;
use crate::backend::{Keep, Shape};
use crate::data::Checkpoint;
use crate::data::checkpoint::{Kind, Metadata};
use crate::nn::{self, Mlp, Network, NonFinite, UNet, UNetConfig};
use crate::ops::Ops;
use crate::{Error, Result};

/// A denoiser, and what its checkpoint says about it.
pub struct Model<B: Ops> {
    denoiser: Kinds<Preconditioned<UNet<B>>, Preconditioned<Mlp<B>>, Gaussian>,
    metadata: Metadata,
    mean: Option<Vec<f32>>,
    prior: Option<Gaussian>,
}

/// One of the three kinds of model, or what belongs to it.
pub enum Kinds<U, M, G> {
    /// Of a U-Net.
    UNet(U),
    /// Of an MLP.
    Mlp(M),
    /// Of a Gaussian prior.
    Gaussian(G),
}

impl<B: Ops> Model<B> {
    /// The model of `checkpoint`, for samples of the extents `image` (whatever their number). Without `vjp` it has
    /// forwards only: enough for samples of the prior, with half the memory.
    ///
    /// # Errors
    /// When the model does not take such samples, the device does not compute it, or its Gaussian is not one.
    pub fn load(backend: &B, checkpoint: &Checkpoint, image: Shape, vjp: bool) -> Result<Self> {
        checkpoint.check_image(image)?;
        checkpoint.check_limits(backend.limits(), image)?;
        let metadata = checkpoint.metadata().clone();
        let place = |tensor| format!("{}: tensor {tensor}", checkpoint.path().display());
        let mean = checkpoint.mean();
        if let Some(mean) = &mean
            && mean.len() != image.row()
        {
            let expected = format_args!("({}), as images of {} x {} x {}", image.row(), image.h, image.w, image.c);
            return Err(Error::mismatch(place("mean"), expected, format_args!("({})", mean.len())));
        }
        let covariance = mean.as_ref().zip(checkpoint.covariance());
        let prior = covariance.map(|(mean, (diag, factor))| {
            if let Some(negative) = diag.iter().find(|&&v| v < 0.0) {
                return Err(Error::mismatch(place("diag"), "values of 0 or above", negative));
            }
            Gaussian::new(doubles(mean), doubles(&diag), doubles(&factor))
        });
        let prior = prior.transpose()?;
        let layout = metadata.layout();
        let values = |id| checkpoint.parameter(backend, &layout[id]);
        let denoiser = match &metadata.kind {
            Kind::UNet(config) => {
                Kinds::UNet(Preconditioned(UNet::new(backend, config, (image.h, image.w), vjp, values)))
            }
            Kind::Mlp(config) => Kinds::Mlp(Preconditioned(Mlp::new(backend, config, values))),
            Kind::Gaussian { .. } => Kinds::Gaussian(prior.clone().expect("its tensors were found when it was opened")),
        };
        Ok(Self { denoiser, metadata, mean, prior })
    }

    /// An untrained U-Net with the paper's initialisation.
    ///
    /// # Errors
    /// When there is no such network, it does not take samples of the extents `image`, or the device does not compute it.
    pub fn initial(backend: &B, config: UNetConfig, image: Shape, vjp: bool, seed: u64) -> Result<Self> {
        let metadata = Metadata::new(Kind::UNet(config.clone()));
        metadata.validate()?;
        metadata.check_image(image)?;
        metadata.check_limits(backend.limits(), image)?;
        let layout = config.layout();
        let values = |id| backend.upload(Shape::flat(layout[id].len()), &nn::initial(&layout, id, seed));
        let network = UNet::new(backend, &config, (image.h, image.w), vjp, values);
        Ok(Self { denoiser: Kinds::UNet(Preconditioned(network)), metadata, mean: None, prior: None })
    }

    /// The model's kind, its extents and noise levels.
    pub fn metadata(&self) -> &Metadata {
        &self.metadata
    }
    /// μ_x, D values, where the checkpoint has it: what the reverse process starts around.
    pub fn mean(&self) -> Option<&[f32]> {
        self.mean.as_deref()
    }
    /// The fitted Gaussian of the training data, where the checkpoint has it.
    pub fn prior(&self) -> Option<&Gaussian> {
        self.prior.as_ref()
    }
}

fn doubles(x: &[f32]) -> Vec<f64> {
    x.iter().copied().map(f64::from).collect()
}

/// What σ determines of a model.
pub type ModelCondition<B> = Kinds<
    PreconditionedCondition<<UNet<B> as Network<B>>::Condition>,
    PreconditionedCondition<<Mlp<B> as Network<B>>::Condition>,
    GaussianCondition<B>,
>;

/// What a model's VJPs need.
pub type ModelSaved<B> = Kinds<<UNet<B> as Network<B>>::Saved, <Mlp<B> as Network<B>>::Saved, ()>;

impl<B: Ops> Denoiser<B> for Model<B> {
    type Condition = ModelCondition<B>;
    type Saved = ModelSaved<B>;

    fn condition(&self, backend: &B, sigma: &[f64], keep: Keep) -> Self::Condition {
        match &self.denoiser {
            Kinds::UNet(d) => Kinds::UNet(d.condition(backend, sigma, keep)),
            Kinds::Mlp(d) => Kinds::Mlp(d.condition(backend, sigma, keep)),
            Kinds::Gaussian(d) => Kinds::Gaussian(d.condition(backend, sigma, keep)),
        }
    }

    fn forward(
        &self,
        backend: &B,
        x_t: &B::Tensor,
        condition: &Self::Condition,
        keep: Keep,
    ) -> (B::Tensor, Option<Self::Saved>) {
        match (&self.denoiser, condition) {
            (Kinds::UNet(d), Kinds::UNet(condition)) => {
                let (x_hat, saved) = d.forward(backend, x_t, condition, keep);
                (x_hat, saved.map(Kinds::UNet))
            }
            (Kinds::Mlp(d), Kinds::Mlp(condition)) => {
                let (x_hat, saved) = d.forward(backend, x_t, condition, keep);
                (x_hat, saved.map(Kinds::Mlp))
            }
            (Kinds::Gaussian(d), Kinds::Gaussian(condition)) => {
                let (x_hat, saved) = d.forward(backend, x_t, condition, keep);
                (x_hat, saved.map(Kinds::Gaussian))
            }
            _ => unreachable!("the condition is of a model of another kind"),
        }
    }

    fn vjp(&self, backend: &B, condition: &Self::Condition, saved: &Self::Saved, u: &B::Tensor) -> B::Tensor {
        match (&self.denoiser, condition, saved) {
            (Kinds::UNet(d), Kinds::UNet(condition), Kinds::UNet(saved)) => d.vjp(backend, condition, saved, u),
            (Kinds::Mlp(d), Kinds::Mlp(condition), Kinds::Mlp(saved)) => d.vjp(backend, condition, saved, u),
            (Kinds::Gaussian(d), Kinds::Gaussian(condition), Kinds::Gaussian(saved)) => {
                d.vjp(backend, condition, saved, u)
            }
            _ => unreachable!("condition or saved are of a model of another kind"),
        }
    }

    fn locate_nonfinite(&self, backend: &B, x_t: &B::Tensor, condition: &Self::Condition) -> Result<Option<NonFinite>> {
        match (&self.denoiser, condition) {
            (Kinds::UNet(d), Kinds::UNet(condition)) => d.locate_nonfinite(backend, x_t, condition),
            (Kinds::Mlp(d), Kinds::Mlp(condition)) => d.locate_nonfinite(backend, x_t, condition),
            (Kinds::Gaussian(d), Kinds::Gaussian(condition)) => d.locate_nonfinite(backend, x_t, condition),
            _ => unreachable!("the condition is of a model of another kind"),
        }
    }
}

impl<B: Ops> Tabulate<B> for Model<B> {
    fn picked(&self) -> usize {
        match &self.denoiser {
            Kinds::UNet(d) => d.picked(),
            Kinds::Mlp(_) | Kinds::Gaussian(_) => 0, // one kernel, as a pick is; matrices of the host
        }
    }
    fn pick(&self, backend: &B, all: &Self::Condition, i: usize) -> Self::Condition {
        match (&self.denoiser, all) {
            (Kinds::UNet(d), Kinds::UNet(all)) => Kinds::UNet(d.pick(backend, all, i)),
            (Kinds::Mlp(d), Kinds::Mlp(all)) => Kinds::Mlp(d.pick(backend, all, i)),
            _ => unreachable!("the table is of a model of another kind"),
        }
    }
}
