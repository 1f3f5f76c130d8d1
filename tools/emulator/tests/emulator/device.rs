//! The device of the test kernels, with typed buffers.

use bytemuck::{Pod, bytes_of, cast_slice, cast_slice_mut};
use diem_emulator::compile::{Build, files};
use diem_emulator::{Config, Emulator, compiler};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

/// The emulator of the test kernels in the plain or the race build.
pub fn emulator(config: Config) -> Emulator {
    static PLAIN: OnceLock<Emulator> = OnceLock::new();
    static RACE: OnceLock<Emulator> = OnceLock::new();
    let (cell, build) = if config.race { (&RACE, Build::Race) } else { (&PLAIN, Build::Plain) };
    let mut emulator = *cell.get_or_init(|| Emulator::open(&library(build), config).expect("the library loads"));
    emulator.config = config;
    emulator
}

/// Where the test kernels lie.
pub fn kernels() -> PathBuf {
    compiler().emulator.join("../tests/kernels")
}

/// A folder for what the tests compile.
pub fn scratch(name: &str) -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join("emulator").join(name)
}

/// The test kernels, linked.
pub fn library(build: Build) -> PathBuf {
    let folder = scratch(build.name());
    let library = folder.join("kernels.so");
    let kernels = files(&kernels(), "cu").expect("the folder is there");
    let warnings = compiler().library(build, &kernels, &folder, &library).expect("the kernels compile");
    assert!(warnings.is_empty(), "{warnings}");
    library
}

/// A device buffer of `len` elements, freed when dropped. Unwritten elements are all ones: NaN, or -1.
pub struct Buffer<'e, T> {
    emulator: &'e Emulator,
    pub address: u64,
    len: usize,
    element: std::marker::PhantomData<T>,
}

impl<'e, T: Pod> Buffer<'e, T> {
    pub fn new(emulator: &'e Emulator, len: usize) -> Self {
        let address = emulator.alloc(len * size_of::<T>()).expect("memory");
        Buffer { emulator, address, len, element: std::marker::PhantomData }
    }

    pub fn of(emulator: &'e Emulator, values: &[T]) -> Self {
        let buffer = Self::new(emulator, values.len());
        emulator.upload(buffer.address, cast_slice(values)).expect("the buffer is as long");
        buffer
    }

    pub fn read(&self) -> Vec<T> {
        let mut values = vec![T::zeroed(); self.len];
        self.emulator.download(self.address, cast_slice_mut(&mut values)).expect("the buffer is as long");
        values
    }
}

impl<T> Drop for Buffer<'_, T> {
    fn drop(&mut self) {
        self.emulator.free(self.address).expect("it is live");
    }
}

/// An argument of a launch.
pub trait Argument {
    fn bytes(&self) -> Vec<u8>;
}
impl<T> Argument for Buffer<'_, T> {
    fn bytes(&self) -> Vec<u8> {
        self.address.to_ne_bytes().to_vec()
    }
}
impl<T: Pod> Argument for T {
    fn bytes(&self) -> Vec<u8> {
        bytes_of(self).to_vec()
    }
}

/// Launches with grid, block, shared bytes and arguments.
pub fn launch(
    emulator: &Emulator,
    kernel: &str,
    (grid, block, shared): ([u32; 3], [u32; 3], u32),
    args: &[&dyn Argument],
) -> Result<(), String> {
    let bytes: Vec<Vec<u8>> = args.iter().map(|a| a.bytes()).collect();
    let args: Vec<&[u8]> = bytes.iter().map(Vec::as_slice).collect();
    // SAFETY: the callers pass live buffers; where one is too short on purpose, a guard page follows it.
    unsafe { emulator.launch(kernel, grid, block, shared, &args) }
}

/// Uniform in [-1, 1), the same sequence for a seed (splitmix64).
pub struct Random(pub u64);

impl Random {
    pub fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub fn uniform(&mut self) -> f32 {
        (self.bits() >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    }

    pub fn floats(&mut self, n: usize) -> Vec<f32> {
        (0..n).map(|_| self.uniform()).collect()
    }

    /// Random bf16, as bits and as the numbers that they stand for.
    pub fn bf16(&mut self, n: usize) -> (Vec<u16>, Vec<f32>) {
        let bits: Vec<u16> = (0..n).map(|_| (self.uniform().to_bits() >> 16) as u16).collect();
        let values = bits.iter().map(|&b| from_bf16(b)).collect();
        (bits, values)
    }
}

pub fn from_bf16(bits: u16) -> f32 {
    f32::from_bits(u32::from(bits) << 16)
}
