//! The emulator as a device: the same kernels, compiled for the CPU.

use super::driver::{Boxes, Counters, Driver, Graph, Launch, Properties, TensorMap};
use crate::backend::host::available_memory;
use crate::{Error, Result};
pub use diem_emulator::{Config, HAS_RACE_CHECKER, Policy};
use diem_emulator::{Emulator, Tensor};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Streaming multiprocessors of an emulated device: few, so that small arrays fill them.
pub const MULTIPROCESSORS: u32 = 4;

/// A device made of the host, for tests and for machines without a GPU. It finishes each kernel before the next call.
pub struct Emulated {
    device: Arc<Device>,
    properties: Properties,
}

struct Device {
    emulator: Emulator,
    counters: Mutex<Counters>,
    pieces: Mutex<HashMap<u64, usize>>, // bytes of what is allocated, by address
}

impl Emulated {
    /// A device on which kernels run as `config` says.
    ///
    /// # Errors
    /// When the emulator cannot be loaded, or has not the race checker that was asked for.
    pub fn new(config: Config) -> Result<Self> {
        Self::with_wgmma(config, false)
    }
    /// The same; with `wgmma`, the kernels for sm_90a serve the layers that they are for.
    ///
    /// # Errors
    /// As [`Emulated::new`].
    pub fn with_wgmma(config: Config, wgmma: bool) -> Result<Self> {
        let emulator = Emulator::new(config).map_err(Error::Unsupported)?;
        let properties = Properties {
            name: "emulator".to_owned(),
            arch: (9, 0),
            wgmma,
            multiprocessors: MULTIPROCESSORS,
            shared_memory: 227 << 10,
            memory: available_memory().unwrap_or(4 << 30),
            cache: 64 << 10, // small: copies of eight times that are timed
        };
        let device = Device { emulator, counters: Mutex::default(), pieces: Mutex::default() };
        Ok(Self { device: Arc::new(device), properties })
    }
    /// The same device with so many bytes of memory.
    pub fn with_memory(mut self, bytes: usize) -> Self {
        self.properties.memory = bytes;
        self
    }
    fn free_bytes(&self) -> usize {
        let taken: usize = self.device.pieces().values().sum();
        self.properties.memory.saturating_sub(taken).min(available_memory().unwrap_or(usize::MAX))
    }
}

impl Device {
    /// # Safety
    /// That of [`Driver::launch`].
    unsafe fn launch(&self, launch: &Launch) -> Result<()> {
        let Launch { kernel, grid, block, shared, args } = launch;
        let args: Vec<&[u8]> = args.bytes().collect();
        // SAFETY: the caller's promise; the backend queues one launch at a time.
        unsafe { self.emulator.launch(kernel, *grid, *block, *shared, &args) }.map_err(Error::Device)
    }
    fn pieces(&self) -> MutexGuard<'_, HashMap<u64, usize>> {
        self.pieces.lock().unwrap_or_else(PoisonError::into_inner)
    }
    fn count(&self) -> MutexGuard<'_, Counters> {
        self.counters.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Driver for Emulated {
    fn name(&self) -> String {
        "emulated".to_owned()
    }
    fn properties(&self) -> &Properties {
        &self.properties
    }
    fn free_memory(&self) -> Result<usize> {
        Ok(self.free_bytes())
    }
    fn alloc(&self, bytes: usize) -> Result<u64> {
        self.device.count().allocations += 1;
        let free = self.free_bytes();
        if bytes > free {
            return Err(Error::OutOfMemory(format!("{bytes} bytes wanted, {free} free")));
        }
        let address = self.device.emulator.alloc(bytes).map_err(Error::OutOfMemory)?;
        self.device.pieces().insert(address, bytes);
        Ok(address)
    }
    fn free(&self, address: u64) -> Result<()> {
        self.device.pieces().remove(&address);
        self.device.emulator.free(address).map_err(Error::Device)
    }
    fn upload(&self, address: u64, host: &[u8]) -> Result<()> {
        self.device.count().synchronizations += 1;
        self.device.emulator.upload(address, host).map_err(Error::Device)
    }
    fn download(&self, address: u64, host: &mut [u8]) -> Result<()> {
        self.device.count().synchronizations += 1;
        self.device.emulator.download(address, host).map_err(Error::Device)
    }
    fn tensor_map(&self, boxes: &Boxes) -> Result<TensorMap> {
        let tensor = Tensor {
            base: boxes.address,
            extent: boxes.array.map(|extent| extent as u64),
            stride: boxes.strides(),
            box_extent: boxes.extents.map(|extent| extent as u32),
            step: boxes.steps.map(|step| step as u32),
            element: 2,
            rank: 4,
            swizzle: 128,
        };
        let map = self.device.emulator.tensor_map(&tensor).map_err(Error::Device)?;
        Ok(bytemuck::cast(map))
    }
    unsafe fn launch(&self, launch: &Launch) -> Result<()> {
        self.device.count().launches += 1;
        // SAFETY: the caller's promise.
        unsafe { self.device.launch(launch) }
    }
    fn graph(&self, launches: &[Launch]) -> Result<Box<dyn Graph>> {
        Ok(Box::new(Chain { device: self.device.clone(), launches: launches.to_vec() }))
    }
    fn pace(&self) -> Result<()> {
        Ok(())
    }
    fn synchronize(&self) -> Result<()> {
        self.device.count().synchronizations += 1;
        Ok(())
    }
    fn counters(&self) -> Counters {
        *self.device.count()
    }
}

/// A graph: the kernels, one after the other.
struct Chain {
    device: Arc<Device>,
    launches: Vec<Launch>,
}

impl Graph for Chain {
    unsafe fn launch(&self) -> Result<()> {
        self.device.count().graphs += 1;
        for launch in &self.launches {
            // SAFETY: the caller's promise.
            unsafe { self.device.launch(launch) }.map_err(|error| Error::Device(format!("{launch}: {error}")))?;
        }
        Ok(())
    }
}
