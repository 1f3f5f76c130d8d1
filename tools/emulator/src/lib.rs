//! Runs the CUDA kernels of `kernels/*.cu` on the CPU: the same source files, compiled by the host's C++ compiler, one fiber
//! per CUDA thread, with exact barriers, warp collectives, tensor-core and asynchronous-copy instructions.
//!
//! Two builds of every kernel are embedded: the plain one, and one whose memory accesses all pass a race checker.
//! What is modelled, and what is not, stands in the crate's README.

pub mod compile;
mod library;
pub mod seeded;

use compile::Compiler;
use library::{Library, RawConfig};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

/// In which order the threads of a block run. A correct kernel gives the same result under every policy.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Policy {
    /// One warp runs as far as it can, then the next one up.
    #[default]
    Forward,
    /// One warp runs as far as it can, then the next one down; blocks run from last to first.
    Reverse,
    /// A random warp for a random while, a random lane of it; asynchronous copies happen at random times.
    Random,
    /// Round-robin over warps.
    Lockstep,
}

/// How kernels are run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Config {
    /// The schedule.
    pub policy: Policy,
    /// Of the random policy.
    pub seed: u64,
    /// Run the build with the race checker: several times slower, and finds what a schedule does not show.
    pub race: bool,
    /// Asynchronous copies happen when they are waited for, else when they are issued. Both are legal.
    pub async_late: bool,
    /// Blocks run on this many threads of the host; 0: one per core. The race build has one.
    pub os_threads: u32,
}

impl Default for Config {
    fn default() -> Self {
        Config { policy: Policy::Forward, seed: 0, race: false, async_late: true, os_threads: 1 }
    }
}

impl Config {
    /// Every schedule in every build that there is; where an environment variable replaces the library of one
    /// ([`PLAIN_VARIABLE`]), in that build only.
    pub fn all() -> impl Iterator<Item = Config> {
        let replaced = |variable| std::env::var_os(variable).is_some();
        let only = match (replaced(PLAIN_VARIABLE), replaced(RACE_VARIABLE)) {
            (true, false) => Some(false),
            (false, true) => Some(true),
            _ => None,
        };
        let runs = move |race: &bool| only.is_none_or(|only| only == *race) && (!race || HAS_RACE_CHECKER);
        [false, true].into_iter().filter(runs).flat_map(Config::schedules)
    }

    /// Every policy with early and late asynchronous copies, in the plain or the race build.
    pub fn schedules(race: bool) -> impl Iterator<Item = Config> {
        [Policy::Forward, Policy::Reverse, Policy::Random, Policy::Lockstep].into_iter().flat_map(move |policy| {
            [false, true].map(|async_late| Config { policy, seed: 1, race, async_late, ..Config::default() })
        })
    }
}

/// A device made of the host: kernels, and memory for them.
///
/// Buffers belong to the library, not to this value: emulators of the same build may use each other's.
#[derive(Clone, Copy)]
pub struct Emulator {
    library: &'static Library,
    /// How the next launches run. Changing `race` has no effect: it chose the library.
    pub config: Config,
}

/// An array in device memory of up to four dimensions, innermost first, and the box of it that one TMA load brings. Extents
/// and boxes of the dimensions past `rank` are 1.
#[derive(Clone, Copy, Debug)]
#[repr(C)] // `emu_tensor` of `emu/ptx_sm90.cpp`
pub struct Tensor {
    /// Its address.
    pub base: u64,
    /// Elements along each dimension.
    pub extent: [u64; 4],
    /// Bytes from an element to the next.
    pub stride: [u64; 4],
    /// Elements of a box along each dimension.
    pub box_extent: [u32; 4],
    /// From an element of a box to the next, in elements of the tensor.
    pub step: [u32; 4],
    /// Bytes per element: 1, 2, 4 or 8.
    pub element: u32,
    /// Dimensions.
    pub rank: u32,
    /// Width in bytes of the swizzle in shared memory: 0 (none), 32, 64 or 128.
    pub swizzle: u32,
}

impl Tensor {
    /// What `cuTensorMapEncodeTiled` asks of it.
    fn check(&self) -> Result<(), String> {
        let Self { base, extent, stride, box_extent, step, element, rank, swizzle } = self;
        let whole = |&bytes: &u64| bytes.is_multiple_of(16) && bytes < 1 << 40;
        let all = |ok: &dyn Fn(usize) -> bool| (0..*rank as usize).all(ok);
        let rules = [
            (base.is_multiple_of(16), "an address that is a multiple of 16"),
            (all(&|d| (1..=1 << 32).contains(&extent[d])), "extents of 1 to 2^32"),
            (stride[0] == u64::from(*element) && stride[1..].iter().all(whole), "strides of whole 16 bytes below 2^40"),
            (all(&|d| (1..=8).contains(&step[d])), "steps of 1 to 8"),
            (all(&|d| (1..=256).contains(&(box_extent[d] * step[d]))), "boxes that span 1 to 256 elements"),
            (*swizzle == 0 || box_extent[0] * element <= *swizzle, "boxes no wider than the swizzle"),
        ];
        match rules.iter().find(|rule| !rule.0) {
            Some((_, rule)) => Err(format!("a tensor map takes {rule}, not {self:?}")),
            None => Ok(()),
        }
    }
}

/// Environment variables that name libraries to use in place of the embedded ones: kernels with a bug, or a sanitizer.
pub const PLAIN_VARIABLE: &str = "DIEM_EMULATOR_PLAIN";
/// See [`PLAIN_VARIABLE`].
pub const RACE_VARIABLE: &str = "DIEM_EMULATOR_RACE";

/// Whether the race checker was built; it needs g++.
pub const HAS_RACE_CHECKER: bool = !RACE_LIBRARY.is_empty();

const PLAIN_LIBRARY: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/plain.so"));
const RACE_LIBRARY: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/race.so"));

impl Emulator {
    /// An emulator of the embedded kernels, or of those that [`PLAIN_VARIABLE`] names.
    ///
    /// # Errors
    /// The library cannot be loaded, or `config.race` where the crate was built without g++.
    pub fn new(config: Config) -> Result<Self, String> {
        static PLAIN: OnceLock<Result<Library, String>> = OnceLock::new();
        static RACE: OnceLock<Result<Library, String>> = OnceLock::new();
        if config.race && !HAS_RACE_CHECKER {
            return Err("this build of the emulator has no race checker: it needs g++".into());
        }
        let load = |variable, name, bytes| match std::env::var_os(variable) {
            Some(path) => Library::open(Path::new(&path)),
            None => Library::embedded(name, bytes),
        };
        let library = match config.race {
            false => PLAIN.get_or_init(|| load(PLAIN_VARIABLE, c"emulator-plain", PLAIN_LIBRARY)),
            true => RACE.get_or_init(|| load(RACE_VARIABLE, c"emulator-race", RACE_LIBRARY)),
        };
        Ok(Emulator { library: library.as_ref().map_err(Clone::clone)?, config })
    }

    /// An emulator of the kernels in a library that [`compile`] made; `config.race` says nothing here. The library stays
    /// loaded until the process ends.
    ///
    /// # Errors
    /// The library cannot be loaded.
    pub fn open(library: &Path, config: Config) -> Result<Self, String> {
        Ok(Emulator { library: Box::leak(Box::new(Library::open(library)?)), config })
    }

    /// The kernels' names, sorted.
    pub fn kernels(&self) -> &'static [String] {
        self.library.kernels()
    }

    /// Memory filled with 0xff (NaN in f32, f16 and bf16). A kernel that runs over its end, to 16 bytes, is an error of
    /// the launch.
    ///
    /// # Errors
    /// The host's memory is exhausted.
    pub fn alloc(&self, bytes: usize) -> Result<u64, String> {
        match self.library.alloc(bytes) {
            0 => Err(format!("out of memory: {bytes} bytes")),
            address => Ok(address),
        }
    }

    /// Gives a buffer back.
    ///
    /// # Errors
    /// `address` is not the start of a buffer.
    pub fn free(&self, address: u64) -> Result<(), String> {
        if self.library.free(address) { Ok(()) } else { Err(format!("{address:#x} is not the start of a buffer")) }
    }

    /// Copies to the device.
    ///
    /// # Errors
    /// The target does not lie in one buffer.
    pub fn upload(&self, address: u64, bytes: &[u8]) -> Result<(), String> {
        let target = self.pointer(address, bytes.len())?;
        // SAFETY: the target lies in a live buffer of the library, which no Rust value overlaps.
        unsafe { target.copy_from_nonoverlapping(bytes.as_ptr(), bytes.len()) };
        Ok(())
    }

    /// Copies from the device.
    ///
    /// # Errors
    /// The source does not lie in one buffer.
    pub fn download(&self, address: u64, bytes: &mut [u8]) -> Result<(), String> {
        let source = self.pointer(address, bytes.len())?;
        // SAFETY: the source lies in a live, initialised buffer of the library, which no Rust value overlaps.
        unsafe { source.copy_to_nonoverlapping(bytes.as_mut_ptr(), bytes.len()) };
        Ok(())
    }

    /// Sets every byte of a range.
    ///
    /// # Errors
    /// The range does not lie in one buffer.
    pub fn fill(&self, address: u64, bytes: usize, value: u8) -> Result<(), String> {
        let target = self.pointer(address, bytes)?;
        // SAFETY: the range lies in a live buffer of the library, which no Rust value overlaps.
        unsafe { target.write_bytes(value, bytes) };
        Ok(())
    }

    /// The value of a kernel's `TensorMap` parameter: an array in device memory, as TMA reads it.
    ///
    /// # Errors
    /// What CUDA refuses.
    pub fn tensor_map(&self, tensor: &Tensor) -> Result<[u8; 128], String> {
        tensor.check()?;
        Ok(self.library.tensor_map(tensor))
    }

    fn pointer(&self, address: u64, bytes: usize) -> Result<*mut u8, String> {
        if !self.library.owns(address, bytes) {
            return Err(format!("{bytes} bytes at {address:#x} do not lie in one buffer"));
        }
        Ok(std::ptr::with_exposed_provenance_mut(address as usize))
    }

    /// Runs a kernel to its end. `args` are the arguments' bytes; a pointer is the 8 bytes of an address.
    ///
    /// # Errors
    /// An unknown kernel, arguments of another number or size than the kernel's, a launch shape that CUDA refuses, or what
    /// went wrong inside: an access out of bounds, a race, a deadlock, divergence. The message names the kernel, block,
    /// thread and address, and the process can go on, but buffers hold what the kernel had written by then.
    ///
    /// # Safety
    /// A kernel is C++ and writes where its arguments point. Each address argument must point into a live buffer of this
    /// emulator, and no other launch or copy may use what the kernel writes at the same time.
    pub unsafe fn launch(
        &self,
        kernel: &str,
        grid: [u32; 3],
        block: [u32; 3],
        shared: u32,
        args: &[&[u8]],
    ) -> Result<(), String> {
        let config = RawConfig {
            policy: self.config.policy as u32,
            os_threads: self.config.os_threads,
            seed: self.config.seed,
            async_late: self.config.async_late.into(),
        };
        // SAFETY: the caller's promise.
        unsafe { self.library.launch(kernel, grid, block, shared, args, &config) }
    }
}

/// Where the build script keeps the objects of the embedded kernels.
pub fn kernel_objects(build: compile::Build) -> PathBuf {
    Path::new(env!("OUT_DIR")).join(build.name())
}

/// The compiler that built the emulator, for building further libraries from kernels.
pub fn compiler() -> Compiler {
    Compiler {
        command: env!("EMULATOR_CXX").split('\x1f').map(String::from).collect(),
        emulator: Path::new(env!("CARGO_MANIFEST_DIR")).join("emu"),
        headers: PathBuf::from(env!("EMULATOR_KERNELS")),
        runtime: PathBuf::from(env!("OUT_DIR")),
    }
}
