//! `diem`: diffusion priors from corrupted observations only, and fast posterior sampling with them.
//!
//! The layers, from the bottom up; each depends only on those above it in this list, and a model reads its
//! checkpoint from [`data`]:
//!
//! - [`backend`]: device arrays, memory pool, threads. `reference` (f64 loops, the definition) and `cpu` (f32, fast).
//! - [`ops`]: one folder per operation: its contract (a trait), its reference and its fast implementation.
//! - [`nn`]: parameters, blocks, the U-Net and the MLP, with explicit forward and VJP.
//! - [`diffusion`]: noise schedule, Philox noise, denoisers, samplers.
//! - [`linalg`]: small dense matrices on the host.
//! - [`operators`]: what was measured: the map A and its adjoint.
//! - [`posterior`]: moment matching posterior sampling (MMPS), its solvers and covariances.
//! - [`train`]: denoising score matching: the trainer of a network.
//! - [`prior`]: the Gaussian prior: fitted to observations by EM, exactly conditioned on them.
//! - [`em`]: expectation maximization: from observations to a prior.
//! - [`data`]: files. [`metrics`]: distances between samples, calibration. [`plot`]: charts. [`compare`]: the paper's comparisons.
//!   [`run`]: the folder of a sampling run. [`report`]: a page about a run. [`check`]: self-tests and timings. [`cli`]: the command
//!   line.
#![warn(missing_docs)]

pub mod backend;
pub mod check;
pub mod cli;
pub mod compare;
pub mod data;
pub mod diffusion;
pub mod em;
pub mod error;
pub mod linalg;
pub mod metrics;
pub mod nn;
pub mod operators;
pub mod ops;
pub mod plot;
pub mod posterior;
pub mod prior;
pub mod report;
pub mod run;
pub mod train;

pub use error::{Error, Result};
