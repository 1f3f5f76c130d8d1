//! What the `cuda` backend needs of the thing below it: memory, kernel launches, graphs.
//!
//! Two things implement [`Driver`]: CUDA's own driver API, and the emulator that runs the same kernels on the CPU.

use super::Dtype;
use crate::{Error, Result};
use bytemuck::NoUninit;
use std::fmt;
use std::time::Instant;

/// What a device is and has.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Properties {
    /// "NVIDIA H100 80GB HBM3".
    pub name: String,
    /// Compute capability: (9, 0) is sm_90.
    pub arch: (u32, u32),
    /// Whether kernels for sm_90a (wgmma) run on it.
    pub wgmma: bool,
    /// Streaming multiprocessors.
    pub multiprocessors: u32,
    /// Bytes of shared memory that one block may ask for.
    pub shared_memory: u32,
    /// Bytes of device memory.
    pub memory: usize,
    /// Bytes of the cache before it (L2).
    pub cache: usize,
}

/// How often the host did what a sampler's step must not do.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Counters {
    /// Device allocations.
    pub allocations: usize,
    /// Waits of the host for the device: uploads and downloads among them.
    pub synchronizations: usize,
    /// Kernels launched one by one.
    pub launches: usize,
    /// Graphs launched.
    pub graphs: usize,
}

/// Work on one device, in one queue: everything is done in the order in which it was asked for.
///
/// # Errors
/// Of all methods: what the device says, in one line. After the first error of a device nothing else can be relied upon.
pub trait Driver: Send + Sync {
    /// "cuda:0", "emulated".
    fn name(&self) -> String;
    /// What the device is.
    fn properties(&self) -> &Properties;
    /// Bytes that are free now.
    fn free_memory(&self) -> Result<usize>;
    /// Device memory of `bytes` bytes, aligned to 16 bytes at least.
    fn alloc(&self, bytes: usize) -> Result<u64>;
    /// Gives back what [`Driver::alloc`] gave, once; queued work that uses it is finished first.
    fn free(&self, address: u64) -> Result<()>;
    /// Copies to the device, and waits until `host` may be changed.
    fn upload(&self, address: u64, host: &[u8]) -> Result<()>;
    /// Waits for all queued work, and copies from the device.
    fn download(&self, address: u64, host: &mut [u8]) -> Result<()>;
    /// The value of a kernel's `TensorMap` parameter.
    fn tensor_map(&self, boxes: &Boxes) -> Result<TensorMap>;
    /// Queues a kernel.
    ///
    /// # Safety
    /// Every address among the arguments is that of memory of this device as large as the kernel takes it to be, and none
    /// of it is freed before the kernel ends.
    unsafe fn launch(&self, launch: &Launch) -> Result<()>;
    /// Makes one unit of kernels that run one after the other.
    fn graph(&self, launches: &[Launch]) -> Result<Box<dyn Graph>>;
    /// Waits until at most one launched graph is unfinished: the device always has the next one at hand.
    fn pace(&self) -> Result<()>;
    /// Seconds of each of `count` laps, for each of which `lap` queues work, by the device's clock where it has one.
    fn laps(&self, count: usize, lap: &mut dyn FnMut() -> Result<()>) -> Result<Vec<f64>> {
        let timed = |_| {
            let start = Instant::now();
            lap()?;
            self.synchronize()?;
            Ok(start.elapsed().as_secs_f64())
        };
        (0..count).map(timed).collect()
    }
    /// The name and the version of the vendor's library of matrix products, where there is one.
    fn library(&self) -> Result<String> {
        Err(Error::Unsupported(format!("cuBLAS is not for {}", self.name())))
    }
    /// Queues a product by the vendor's library.
    ///
    /// # Safety
    /// That of [`Driver::launch`].
    unsafe fn library_product(&self, _product: &Product) -> Result<()> {
        self.library().map(drop)
    }
    /// Waits for all queued work.
    fn synchronize(&self) -> Result<()>;
    /// What has been done so far.
    fn counters(&self) -> Counters;
}

/// A dense array of bf16 and the boxes of it that TMA (sm_90) copies to shared memory, with zeros outside the array. The
/// innermost dimension comes first; a box has at most 64 elements along it, 128 bytes, which are swizzled.
#[derive(Clone, Copy, Debug)]
pub struct Boxes {
    /// The array's address.
    pub address: u64,
    /// The array's extents.
    pub array: [usize; 4],
    /// Those of a box.
    pub extents: [usize; 4],
    /// From an element of a box to the next, in elements of the array.
    pub steps: [usize; 4],
}

impl Boxes {
    /// Bytes from an element of the array to the next.
    pub(super) fn strides(&self) -> [u64; 4] {
        let [c, w, h, _] = self.array.map(|extent| extent as u64);
        [2, 2 * c, 2 * c * w, 2 * c * w * h]
    }
}

/// CUDA's `CUtensorMap`, or the emulator's.
pub type TensorMap = [u64; 16];

/// A fixed chain of kernels with fixed arguments.
pub trait Graph: Send + Sync {
    /// Queues all of them.
    ///
    /// # Errors
    /// As of [`Driver`].
    ///
    /// # Safety
    /// That of [`Driver::launch`], for each.
    unsafe fn launch(&self) -> Result<()>;
}

/// y = x wᵀ, all in one precision, with sums in f32.
#[derive(Clone, Copy, Debug)]
pub struct Product {
    /// Rows of `x` and `y`.
    pub rows: usize,
    /// Columns of `x` and `w`.
    pub c_in: usize,
    /// Rows of `w`, columns of `y`.
    pub c_out: usize,
    /// Address of (rows, c_in).
    pub x: u64,
    /// Address of (c_out, c_in).
    pub w: u64,
    /// Address of (rows, c_out).
    pub y: u64,
    /// The type of the elements of all three.
    pub dtype: Dtype,
}

/// A kernel with its launch shape and its arguments.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Launch {
    /// Its name, `<op>_<what>_<dtype>`.
    pub kernel: &'static str,
    /// Blocks along x, y, z.
    pub grid: [u32; 3],
    /// Threads of a block along x, y, z.
    pub block: [u32; 3],
    /// Bytes of dynamic shared memory.
    pub shared: u32,
    /// The arguments, in the kernel's order.
    pub args: Args,
}

impl Launch {
    /// One thread for every 16 bytes of `len` elements, when rows of `row` are made of such groups, else for every
    /// element: `each_group` of `kernels/rows.cuh`.
    pub fn elements(kernel: &'static str, row: usize, len: usize, dtype: Dtype, args: Args) -> Self {
        assert!(len < 1 << 31, "{kernel}: {len} elements, more than one launch takes");
        let wide = 16 / dtype.size();
        Self::per_item(kernel, if row.is_multiple_of(wide) { len / wide } else { len }, args)
    }
    /// One block for each of `count` rows: `each_of_row` of `kernels/rows.cuh`.
    pub fn rows(kernel: &'static str, count: usize, args: Args) -> Self {
        Self::blocks(kernel, count, 256, args)
    }
    /// One thread for each of `count` items, in blocks of 256.
    pub fn per_item(kernel: &'static str, count: usize, args: Args) -> Self {
        const THREADS: usize = 256;
        assert!(count < 1 << 31, "{kernel}: {count} items, more than one launch takes");
        Self::blocks(kernel, count.div_ceil(THREADS), THREADS, args)
    }
    /// `blocks` blocks of `threads` threads, without dynamic shared memory.
    pub fn blocks(kernel: &'static str, blocks: usize, threads: usize, args: Args) -> Self {
        let [blocks, threads] = [blocks, threads].map(|n| u32::try_from(n).expect("a launch within CUDA's limits"));
        Self { kernel, grid: [blocks, 1, 1], block: [threads, 1, 1], shared: 0, args }
    }
}

impl fmt::Display for Launch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { kernel, grid, block, shared, args } = self;
        write!(f, "kernel {kernel}, grid {grid:?}, block {block:?}, {shared} bytes of shared memory, arguments {args}")
    }
}

/// Arguments of a kernel, by value.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
pub struct Args {
    words: Vec<u64>,         // each argument begins with a new one
    places: Vec<(u32, u32)>, // first word, bytes
}

impl Args {
    /// None yet.
    pub fn new() -> Self {
        Self::default()
    }
    /// The next one: a number, a [`super::Scalar`] or another plain value of the size that the kernel declares.
    pub fn arg<T: NoUninit>(mut self, value: T) -> Self {
        let bytes = bytemuck::bytes_of(&value);
        let first = self.words.len();
        self.places.push((first as u32, bytes.len() as u32));
        self.words.resize(first + bytes.len().div_ceil(8), 0);
        bytemuck::cast_slice_mut(&mut self.words[first..])[..bytes.len()].copy_from_slice(bytes);
        self
    }
    /// The next one: the address of `x`.
    pub fn ptr(self, x: &super::CudaTensor) -> Self {
        self.arg(x.address())
    }
    /// The next one: the address of `x`, for a kernel that takes f32 alone.
    pub fn ptr_f32(self, x: &super::CudaTensor) -> Self {
        assert_eq!(x.dtype(), Dtype::F32, "the type of an argument");
        self.ptr(x)
    }
    /// The next one: the address of `x`, or null.
    pub fn ptr_or_null(self, x: Option<&super::CudaTensor>) -> Self {
        self.arg(x.map_or(0, super::CudaTensor::address))
    }
    /// The bytes of each argument.
    pub fn bytes(&self) -> impl ExactSizeIterator<Item = &[u8]> {
        self.places.iter().map(|&(word, bytes)| &bytemuck::cast_slice(&self.words[word as usize..])[..bytes as usize])
    }
}

impl fmt::Display for Args {
    /// Each argument as one hexadecimal number, except long ones.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let argument = |bytes: &[u8]| match bytes.len() {
            0..=16 => {
                let hex: String = bytes.iter().rev().map(|byte| format!("{byte:02x}")).collect();
                format!("0x{}", hex.trim_start_matches('0'))
            }
            len => format!("({len} bytes)"),
        };
        write!(f, "[{}]", self.bytes().map(argument).collect::<Vec<_>>().join(", "))
    }
}
