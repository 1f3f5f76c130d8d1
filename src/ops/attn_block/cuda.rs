//! The default composition, of the CUDA backend's own parts.

use super::AttnBlock;
use crate::backend::cuda::Cuda;

impl AttnBlock for Cuda {}
