//! Networks: explicit forward, what it saves, and the VJP, generic over the backend.

mod blocks;
pub mod config;
mod flops;
mod init;
mod layers;
mod mlp;
pub mod params;
mod unet;

pub use config::{MlpConfig, UNetConfig};
pub use flops::Flops;
pub use init::initial;
pub use mlp::Mlp;
pub use params::{Grads, Layout, ParamId, ParamSpec, Params};
pub use unet::UNet;

use crate::Result;
use crate::backend::{Backend, Keep};
use crate::ops::Vector;
use crate::ops::dropout::Masks;

/// A noise-conditional network, R^D to R^D for images (N, H, W, C).
pub trait Network<B: Backend>: Send + Sync {
    /// What depends on the noise level only, computed once for all VJPs and all samples that share it.
    type Condition: Send + Sync;
    /// What a forward keeps for the VJPs.
    type Saved: Send + Sync;

    /// The condition of `log_sigma`: one value for all samples, or one for each. `Keep::All` for parameter gradients.
    fn condition(&self, backend: &B, log_sigma: &[f64], keep: Keep) -> Self::Condition;
    /// Elements of the condition of one noise level.
    fn condition_len(&self) -> usize;
    /// The condition of noise level `i` of those of `all`, without what parameter gradients need.
    fn pick_condition(&self, backend: &B, all: &Self::Condition, i: usize) -> Self::Condition;
    /// The value, and what was kept (`None` for `Keep::Nothing`).
    fn forward(
        &self,
        backend: &B,
        x: &B::Tensor,
        condition: &Self::Condition,
        keep: Keep,
    ) -> (B::Tensor, Option<Self::Saved>) {
        self.forward_dropout(backend, x, condition, keep, None)
    }
    /// The same, with dropout in training, where the network has any.
    fn forward_dropout(
        &self,
        backend: &B,
        x: &B::Tensor,
        condition: &Self::Condition,
        keep: Keep,
        dropout: Option<Masks<'_>>,
    ) -> (B::Tensor, Option<Self::Saved>);
    /// Jᵀ dy with respect to x.
    fn vjp(&self, backend: &B, condition: &Self::Condition, saved: &Self::Saved, dy: &B::Tensor) -> B::Tensor;
    /// Jᵀ dy with respect to x, and adds that with respect to the parameters to `grads`; condition and forward kept all.
    fn vjp_params(
        &self,
        backend: &B,
        condition: &Self::Condition,
        saved: &Self::Saved,
        dy: &B::Tensor,
        grads: &mut Grads<B>,
    ) -> B::Tensor;
    /// Where a forward first gives a value that is not finite: a diagnosis, which runs the forward once more.
    ///
    /// # Errors
    /// When the device has failed.
    fn locate_nonfinite(&self, backend: &B, x: &B::Tensor, condition: &Self::Condition) -> Result<Option<NonFinite>>;
}

/// A layer's output that is not finite.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NonFinite {
    /// The layer's name, as in its parameters' names; "input" for the network's input.
    pub layer: String,
    /// The sample's index in the batch.
    pub sample: usize,
}

/// The first output, in the order of computation, that is not finite. `run` does a forward that shows every layer's
/// output to the probe that it is given.
fn first_nonfinite<B: Vector>(
    backend: &B,
    x: &B::Tensor,
    run: impl FnOnce(&mut dyn FnMut(&str, &B::Tensor)),
) -> Result<Option<NonFinite>> {
    let mut found = Ok(None);
    let mut probe = |layer: &str, y: &B::Tensor| {
        if matches!(found, Ok(None)) {
            let sample = backend.rows_finite(y).map(|finite| finite.iter().position(|finite| !finite));
            found = sample.map(|sample| sample.map(|sample| NonFinite { layer: layer.to_owned(), sample }));
        }
    };
    probe("input", x);
    run(&mut probe);
    found
}
