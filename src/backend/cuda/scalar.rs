//! Numbers of the host that a kernel is given.

use super::Cuda;

/// An f32 argument of a kernel: `at` where a step has been recorded, else `value`.
#[derive(Clone, Copy, Debug, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
pub struct Scalar {
    at: u64,
    value: f32,
    pad: u32,
}

/// A u32 argument of a kernel, as [`Scalar`].
#[derive(Clone, Copy, Debug, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
pub struct Word {
    at: u64,
    value: u32,
    pad: u32,
}

impl Cuda {
    /// A number that may change from step to step of a sampler.
    pub fn scalar(&self, value: f64) -> Scalar {
        Scalar { at: 0, value: value as f32, pad: 0 }
    }
    /// A word that may change from step to step of a sampler.
    pub fn word(&self, value: u32) -> Word {
        Word { at: 0, value, pad: 0 }
    }
}
