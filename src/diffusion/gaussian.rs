//! The exact denoiser of a Gaussian prior with DPLR covariance: a network without weights.
