//! `--device`: which device computes, and why.

use super::options::{Device, DeviceOptions, Precision};
use crate::backend::cpu::{Cpu, Options, simd::Isa};
use crate::{Error, Result};

/// Why there is no CUDA in this build.
pub const NO_CUDA: &str = "this build has no CUDA kernels";

impl DeviceOptions {
    /// The CPU backend, unless something else was asked for.
    ///
    /// # Errors
    /// When this build or device does not do what was asked for.
    pub fn cpu(&self) -> Result<Cpu> {
        if let Device::Cuda(_) = self.device {
            return Err(Error::mismatch("--device", "cpu or auto", format!("cuda, but {NO_CUDA}")));
        }
        if self.precision == Precision::Bf16 {
            return Err(Error::mismatch("--precision", "f32 on the cpu", "bf16"));
        }
        Cpu::new(Options { threads: self.threads, low_memory: self.low_memory, ..Options::default() })
    }
    /// "device: cpu (AVX-512, 2 threads); ..." for people.
    pub fn describe(&self, cpu: &Cpu) -> String {
        let why = match self.device {
            Device::Auto => format!(": chosen because {NO_CUDA}"),
            _ => String::new(),
        };
        format!("cpu, {}, {} threads{why}", instruction_set(cpu.isa()), cpu.threads())
    }
}

/// The instruction set's usual name.
pub fn instruction_set(isa: Isa) -> &'static str {
    match isa {
        Isa::Avx512 => "AVX-512",
        Isa::Avx2 => "AVX2 and FMA",
        Isa::Portable => "portable code",
    }
}

/// What determines the bits of a result beside the settings: any number of threads and any fused instruction set agree.
pub fn arithmetic(cpu: &Cpu) -> &'static str {
    match (cpu.isa(), cpu.options().low_memory) {
        (Isa::Portable, false) => "cpu f32, portable",
        (Isa::Portable, true) => "cpu f32, portable, low memory",
        (_, false) => "cpu f32, fused",
        (_, true) => "cpu f32, fused, low memory",
    }
}
