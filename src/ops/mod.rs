//! The operations: one folder each, with its contract (`mod.rs`: a trait with the maths and the shapes), its f64
//! definition (`reference.rs`), its fast CPU form (`cpu.rs`), or one generic form for both (`host.rs`) where f64 and f32
//! differ in nothing but the type.
//!
//! Conventions. Activations are (N, H, W, C), row-major. A gradient of a scalar loss with respect to `x` is `dx`; `vjp`
//! maps `dy` to `dx`; `vjp_params` adds the parameter gradients to accumulators that the caller has zeroed. Weights come
//! in PyTorch's layouts. A coarse op ([`res_block`], [`attn_block`], [`merge`], [`mlp`]) has a default made of fine ones; a
//! backend may override it with a fused one, and the same tests hold for both.

pub mod adam;
pub mod attention;
pub mod attn_block;
pub mod bicgstab;
pub mod cg;
pub mod channel_norm;
pub mod concat;
pub mod conv2d;
pub mod denoising_loss;
pub mod dense;
pub mod dplr;
pub mod dropout;
pub mod ema;
pub mod filter;
pub mod fourier;
pub mod gated_residual;
pub mod global_norm;
pub mod least_squares;
pub mod linear;
pub mod mask;
pub mod merge;
pub mod mlp;
pub mod noise;
pub mod noise_embedding;
pub mod patch;
pub mod precondition;
pub mod res_block;
pub mod silu;
pub mod upsample;
pub mod vector;

pub use adam::Adam;
pub use attention::Attention;
pub use attn_block::AttnBlock;
pub use bicgstab::Bicgstab;
pub use cg::ConjugateGradient;
pub use channel_norm::ChannelNorm;
pub use concat::Concat;
pub use conv2d::Conv2d;
pub use denoising_loss::DenoisingLoss;
pub use dense::Dense;
pub use dplr::Dplr;
pub use dropout::Dropout;
pub use ema::Ema;
pub use filter::Filter;
pub use fourier::Fourier;
pub use gated_residual::GatedResidual;
pub use global_norm::GlobalNorm;
pub use least_squares::LeastSquares;
pub use linear::Linear;
pub use mask::Mask;
pub use merge::Merge;
pub use mlp::Mlp;
pub use noise::Noise;
pub use noise_embedding::NoiseEmbedding;
pub use patch::Patch;
pub use precondition::Precondition;
pub use res_block::ResBlock;
pub use silu::Silu;
pub use upsample::Upsample;
pub use vector::Vector;

/// What the solvers of the measurement's system need.
pub trait KrylovOps: Bicgstab + ConjugateGradient + LeastSquares {}

impl<B: Bicgstab + ConjugateGradient + LeastSquares> KrylovOps for B {}

/// What the operators of measurements need.
pub trait MeasurementOps: Dense + Filter + Fourier + Mask + Vector {}

impl<B: Dense + Filter + Fourier + Mask + Vector> MeasurementOps for B {}

/// Everything that networks, samplers and solvers need of a backend.
pub trait Ops:
    Attention
    + AttnBlock
    + ChannelNorm
    + Concat
    + Conv2d
    + Dplr
    + GatedResidual
    + KrylovOps
    + Linear
    + MeasurementOps
    + Merge
    + Mlp
    + Noise
    + NoiseEmbedding
    + Patch
    + Precondition
    + ResBlock
    + Silu
    + Upsample
{
}

impl<B> Ops for B where
    B: Attention
        + AttnBlock
        + ChannelNorm
        + Concat
        + Conv2d
        + Dplr
        + GatedResidual
        + KrylovOps
        + Linear
        + MeasurementOps
        + Merge
        + Mlp
        + Noise
        + NoiseEmbedding
        + Patch
        + Precondition
        + ResBlock
        + Silu
        + Upsample
{
}

/// The reference is complete: this fails to compile when it lacks an op.
const _: fn() = || {
    fn complete<B: Ops>() {}
    complete::<crate::backend::reference::Reference>();
};

/// What training needs besides.
pub trait TrainingOps: Ops + Adam + DenoisingLoss + Ema + GlobalNorm {}

impl<B: Ops + Adam + DenoisingLoss + Ema + GlobalNorm> TrainingOps for B {}
