//! The network under training: losses of a batch, and their gradients.

use crate::Result;
use crate::backend::{Backend, Keep, Shape};
use crate::data::checkpoint::Kind;
use crate::diffusion::Denoiser;
use crate::diffusion::denoiser::Preconditioned;
use crate::nn::{Grads, Mlp, Network, NonFinite, Params, UNet};
use crate::ops::TrainingOps;
use crate::ops::dropout::Masks;

/// A batch of noisy samples.
pub(super) struct Batch<B: Backend> {
    /// (N, H, W, C): without noise.
    pub x: B::Tensor,
    /// (N, H, W, C): x + σ z.
    pub x_t: B::Tensor,
    /// N noise levels.
    pub sigma: Vec<f64>,
}

/// The network with its weights packed.
pub(super) enum Learner<B: TrainingOps> {
    UNet(Preconditioned<UNet<B>>),
    Mlp(Preconditioned<Mlp<B>>),
}

impl<B: TrainingOps> Learner<B> {
    /// The network of these weights; without `vjp` it has losses only.
    pub fn new(backend: &B, kind: &Kind, image: Shape, vjp: bool, weights: &Params<B>) -> Self {
        let values = |id| &weights[id];
        match kind {
            Kind::UNet(config) => {
                Self::UNet(Preconditioned(UNet::new(backend, config, (image.h, image.w), vjp, values)))
            }
            Kind::Mlp(config) => Self::Mlp(Preconditioned(Mlp::new(backend, config, values))),
            Kind::Gaussian { .. } => unreachable!("a trainer refuses what has nothing to learn"),
        }
    }

    /// The losses, (N, 1, 1, 1), without dropout.
    pub fn losses(&self, backend: &B, batch: &Batch<B>) -> B::Tensor {
        match self {
            Self::UNet(denoiser) => losses(backend, denoiser, batch),
            Self::Mlp(denoiser) => losses(backend, denoiser, batch),
        }
    }

    /// The losses, (N, 1, 1, 1); adds to `grads` the gradients of `share` times their mean, with what `dropout` keeps.
    pub fn gradients(
        &self,
        backend: &B,
        batch: &Batch<B>,
        dropout: Option<Masks<'_>>,
        share: f64,
        grads: &mut Grads<B>,
    ) -> B::Tensor {
        match self {
            Self::UNet(denoiser) => gradients(backend, denoiser, batch, dropout, share, grads),
            Self::Mlp(denoiser) => gradients(backend, denoiser, batch, dropout, share, grads),
        }
    }

    /// Where the denoiser first gives a value that is not finite.
    ///
    /// # Errors
    /// When the device has failed.
    pub fn locate_nonfinite(&self, backend: &B, batch: &Batch<B>) -> Result<Option<NonFinite>> {
        match self {
            Self::UNet(denoiser) => locate_nonfinite(backend, denoiser, batch),
            Self::Mlp(denoiser) => locate_nonfinite(backend, denoiser, batch),
        }
    }
}

fn losses<B: TrainingOps, D: Denoiser<B>>(backend: &B, denoiser: &D, batch: &Batch<B>) -> B::Tensor {
    let condition = denoiser.condition(backend, &batch.sigma, Keep::Nothing);
    let (d, _) = denoiser.forward(backend, &batch.x_t, &condition, Keep::Nothing);
    backend.denoising_loss(&d, &batch.x, &batch.sigma).0
}

fn gradients<B: TrainingOps, N: Network<B>>(
    backend: &B,
    denoiser: &Preconditioned<N>,
    batch: &Batch<B>,
    dropout: Option<Masks<'_>>,
    share: f64,
    grads: &mut Grads<B>,
) -> B::Tensor {
    let condition = denoiser.condition(backend, &batch.sigma, Keep::All);
    let (d, saved) = denoiser.forward_dropout(backend, &batch.x_t, &condition, dropout);
    let (losses, mut dd) = backend.denoising_loss(&d, &batch.x, &batch.sigma);
    if share != 1.0 {
        dd = backend.linear_combination(&[(share, &dd)]);
    }
    denoiser.vjp_params(backend, &condition, &saved, &dd, grads);
    losses
}

fn locate_nonfinite<B: TrainingOps, D: Denoiser<B>>(
    backend: &B,
    denoiser: &D,
    batch: &Batch<B>,
) -> Result<Option<NonFinite>> {
    let condition = denoiser.condition(backend, &batch.sigma, Keep::Nothing);
    denoiser.locate_nonfinite(backend, &batch.x_t, &condition)
}
