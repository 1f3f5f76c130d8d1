//! `--device`: which device computes, and why.

use super::options::{Device, DeviceOptions, Precision};
use crate::backend::cpu::{Cpu, Options, simd::Isa};
use crate::backend::cuda::{self, Cuda, Dtype, cudarc};
use crate::backend::timed::Timed;
use crate::ops::TrainingOps;
use crate::{Error, Result};
use std::sync::Arc;

/// What a command does on whichever device was asked for.
pub trait Job {
    /// Does it.
    ///
    /// # Errors
    /// Its own, in one line.
    fn run<B: TrainingOps + Timed>(self, backend: &B, device: &About) -> Result<super::Outcome>;
}

/// What a device is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// The processor.
    Cpu,
    /// A GPU.
    Gpu,
    /// A GPU's kernels on the processor.
    Emulated,
}

/// What there is to say about a device.
pub struct About {
    /// What it is.
    pub kind: Kind,
    /// "cpu, AVX-512, 2 threads: chosen because ..", for people.
    pub description: String,
    /// What determines the bits of a result beside the settings: devices of the same arithmetic agree.
    pub arithmetic: String,
    /// Worker threads of the CPU.
    pub threads: Option<usize>,
}

impl DeviceOptions {
    /// Opens the device, and does the job on it.
    ///
    /// # Errors
    /// When the device is not there or does not do what was asked for; those of the job.
    pub fn run(&self, job: impl Job) -> Result<super::Outcome> {
        match self.device {
            Device::Cpu => self.run_on_cpu(job, ""),
            Device::Cuda(ordinal) => {
                let gpu = cudarc::Gpu::open(ordinal).map_err(|why| unavailable(&why))?;
                self.run_on_gpu(job, Kind::Gpu, gpu, "")
            }
            Device::Auto => match cudarc::Gpu::open(0) {
                Ok(gpu) => self.run_on_gpu(job, Kind::Gpu, gpu, ": chosen because it is there"),
                Err(why) => self.run_on_cpu(job, &format!(": chosen because {why}")),
            },
            #[cfg(feature = "emulator")]
            Device::Emulated(memory) => {
                let driver =
                    cuda::emulated::Emulated::new(cuda::emulated::Config { os_threads: 0, ..Default::default() })?;
                let driver = match memory {
                    Some(bytes) => driver.with_memory(bytes),
                    None => driver,
                };
                self.run_on_gpu(job, Kind::Emulated, driver, "")
            }
            #[cfg(not(feature = "emulator"))]
            Device::Emulated(_) => {
                let found = "emulated, but this build has not the feature `emulator`";
                Err(Error::mismatch("--device", "auto, cpu or cuda", found))
            }
        }
    }

    fn run_on_cpu(&self, job: impl Job, why: &str) -> Result<super::Outcome> {
        let cpu = self.open_cpu()?;
        let description = format!("cpu, {}, {} threads{why}", instruction_set(cpu.isa()), cpu.threads());
        let about = About {
            kind: Kind::Cpu,
            description,
            arithmetic: arithmetic(&cpu).to_owned(),
            threads: Some(cpu.threads()),
        };
        job.run(&cpu, &about)
    }

    fn run_on_gpu(
        &self,
        job: impl Job,
        kind: Kind,
        driver: impl cuda::driver::Driver + 'static,
        why: &str,
    ) -> Result<super::Outcome> {
        let precision = match self.precision {
            Precision::F32 => Dtype::F32,
            Precision::Bf16 => Dtype::Bf16,
        };
        let ((major, minor), device) = (driver.properties().arch, &driver.properties().name);
        let about = About {
            kind,
            description: format!("{}, {device}, {}{why}", driver.name(), self.precision.name()),
            arithmetic: format!("{device} {major}.{minor}, {}", self.precision.name()),
            threads: None,
        };
        job.run(&Cuda::new(Arc::new(driver), cuda::Options { precision, record: true, poison: false }), &about)
    }

    /// What [`DeviceOptions::run`] will say of the device.
    ///
    /// # Errors
    /// As of [`DeviceOptions::run`].
    pub fn description(&self) -> Result<String> {
        struct Describe(String);
        impl Job for &mut Describe {
            fn run<B: TrainingOps + Timed>(self, _: &B, device: &About) -> Result<super::Outcome> {
                self.0.clone_from(&device.description);
                Ok(super::Outcome::Done)
            }
        }
        let mut describe = Describe(String::new());
        self.run(&mut describe)?;
        Ok(describe.0)
    }

    fn open_cpu(&self) -> Result<Cpu> {
        if self.precision == Precision::Bf16 {
            return Err(Error::mismatch("--precision", "f32 on the cpu", "bf16"));
        }
        Cpu::new(Options { threads: self.threads, low_memory: self.low_memory, ..Options::default() })
    }
}

/// Why a GPU that was asked for cannot be had.
fn unavailable(why: &Error) -> Error {
    Error::mismatch("--device", "cpu or auto", format!("cuda, but {why}"))
}

/// The GPUs, one line each, or why there is none.
pub fn gpus() -> Vec<String> {
    match cudarc::count() {
        Err(why) => vec![format!("no: {why}")],
        Ok(count) => (0..count).map(|i| cudarc::describe(i).unwrap_or_else(|why| format!("cuda:{i}: {why}"))).collect(),
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
