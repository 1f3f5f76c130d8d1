//! Numbers of the host that kernels are given: `kernels/scalar.cuh`.

use super::record::{FULL, Slots};
use super::{Cuda, CudaTensor};
use crate::Error;
use crate::backend::{Backend, Shape};

/// An f32 argument of a kernel: `at` where it is not null, else `value`. With `stride` 1 it stands for one number per row.
#[derive(Clone, Copy, Debug, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
pub struct Scalar {
    at: u64,
    value: f32,
    stride: u32,
}

/// A u32 argument of a kernel, as [`Scalar`].
#[derive(Clone, Copy, Debug, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
pub struct Word {
    at: u64,
    value: u32,
    pad: u32,
}

/// One number for all rows, or one for each, until the kernel that takes [`Scalars::arg`] is queued.
pub struct Scalars {
    arg: Scalar,
    _array: Option<CudaTensor>,
}

impl Scalars {
    /// The kernel's argument.
    pub fn arg(&self) -> Scalar {
        self.arg
    }
}

impl Cuda {
    /// A number that may change from step to step of a sampler.
    pub fn scalar(&self, value: f64) -> Scalar {
        let value = value as f32;
        match self.slot(value.to_bits()) {
            Some(at) => Scalar { at, value: 0.0, stride: 0 },
            None => Scalar { at: 0, value, stride: 0 },
        }
    }
    /// A word that may change from step to step of a sampler.
    pub fn word(&self, value: u32) -> Word {
        match self.slot(value) {
            Some(at) => Word { at, value: 0, pad: 0 },
            None => Word { at: 0, value, pad: 0 },
        }
    }
    /// One number that all rows share, or one for each of them.
    pub fn scalars(&self, values: &[f64]) -> Scalars {
        match values {
            [value] => Scalars { arg: self.scalar(*value), _array: None },
            _ => {
                let array = self.upload(Shape::rows(values.len(), 1), values);
                Scalars { arg: Scalar { at: array.address(), value: 0.0, stride: 1 }, _array: Some(array) }
            }
        }
    }

    /// Where a recorded step will find the word.
    fn slot(&self, word: u32) -> Option<u64> {
        match self.recorder.slots(bytemuck::bytes_of(&word)) {
            Slots::None => None,
            Slots::At(address) => Some(address),
            Slots::Full => {
                self.fail(Error::Device(FULL.to_owned()));
                None
            }
        }
    }
}
