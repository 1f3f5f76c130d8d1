//! Device arrays, and the pool that they come from.

use super::driver::Driver;
use crate::Result;
use crate::backend::{Array, MemoryStats, Shape};
use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The type of an array's elements.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub enum Dtype {
    /// IEEE single precision.
    #[default]
    F32,
    /// The upper half of an f32.
    Bf16,
}

impl Dtype {
    /// Bytes of an element.
    pub const fn size(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::Bf16 => 2,
        }
    }
}

/// The name of a kernel for the type of its elements: `kernel!("silu_forward", dtype)`.
#[macro_export]
#[doc(hidden)]
macro_rules! kernel {
    ($name:literal, $dtype:expr) => {
        match $dtype {
            $crate::backend::cuda::Dtype::F32 => concat!($name, "_f32"),
            $crate::backend::cuda::Dtype::Bf16 => concat!($name, "_bf16"),
        }
    };
}

/// A piece of device memory.
#[derive(Clone, Copy, Debug)]
pub(super) struct Memory {
    pub address: u64,
    pub bytes: usize,
    serial: usize, // in the order in which the driver gave them
}

/// Device memory by size, kept for reuse.
///
/// Of the free pieces of a size the oldest is handed out: equal sequences of requests get equal addresses, so that a
/// recorded step can be recognised.
pub(super) struct Pool {
    driver: Arc<dyn Driver>,
    state: Mutex<PoolState>,
}

#[derive(Default)]
struct PoolState {
    free: HashMap<usize, BTreeMap<usize, u64>>, // bytes, serial, address
    pieces: usize,
    stats: MemoryStats,
}

impl Pool {
    pub fn new(driver: Arc<dyn Driver>) -> Arc<Self> {
        Arc::new(Self { driver, state: Mutex::default() })
    }
    /// Memory with unspecified contents.
    pub fn take(&self, bytes: usize) -> Result<Memory> {
        let mut s = self.state();
        let oldest = s.free.get_mut(&bytes).and_then(BTreeMap::pop_first);
        let (serial, address) = match oldest {
            Some(piece) => piece,
            None => {
                let address = self.driver.alloc(bytes)?;
                s.pieces += 1;
                s.stats.fresh += 1;
                s.stats.held += bytes;
                s.stats.peak = s.stats.peak.max(s.stats.held);
                (s.pieces, address)
            }
        };
        s.stats.live += bytes;
        Ok(Memory { address, bytes, serial })
    }
    /// Gives everything that is free back to the driver.
    pub fn trim(&self) -> Result<()> {
        let mut s = self.state();
        for (bytes, pieces) in std::mem::take(&mut s.free) {
            for address in pieces.into_values() {
                s.stats.held -= bytes;
                self.driver.free(address)?;
            }
        }
        Ok(())
    }
    /// Counts the peak from here.
    pub fn reset_peak(&self) {
        let mut s = self.state();
        s.stats.peak = s.stats.held;
    }
    /// What has been handed out.
    pub fn stats(&self) -> MemoryStats {
        self.state().stats
    }
    fn give(&self, memory: Memory) {
        let mut s = self.state();
        s.stats.live -= memory.bytes;
        s.free.entry(memory.bytes).or_default().insert(memory.serial, memory.address);
    }
    fn state(&self) -> MutexGuard<'_, PoolState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        let _ = self.trim(); // a device that has failed frees nothing
    }
}

/// Memory that goes back to its pool with the last array that uses it.
struct Owner {
    memory: Memory,
    pool: Arc<Pool>,
}

impl Drop for Owner {
    fn drop(&mut self) {
        self.pool.give(self.memory);
    }
}

/// An array in device memory.
pub struct CudaTensor {
    shape: Shape,
    dtype: Dtype,
    address: u64,
    owner: Option<Arc<Owner>>,
}

impl CudaTensor {
    /// All of `memory`, which comes from `pool`.
    pub(super) fn new(shape: Shape, dtype: Dtype, memory: Memory, pool: Arc<Pool>) -> Self {
        Self { shape, dtype, address: memory.address, owner: Some(Arc::new(Owner { memory, pool })) }
    }
    /// Memory at `address` that outlives the array.
    pub(super) fn borrowed(shape: Shape, dtype: Dtype, address: u64) -> Self {
        Self { shape, dtype, address, owner: None }
    }
    /// The same memory under a second name, for as long as neither is written.
    pub(crate) fn share(&self) -> Self {
        Self { shape: self.shape, dtype: self.dtype, address: self.address, owner: self.owner.clone() }
    }
    /// The type of its elements.
    pub fn dtype(&self) -> Dtype {
        self.dtype
    }
    /// Where it is on the device; its first element is aligned to 16 bytes.
    pub fn address(&self) -> u64 {
        self.address
    }
    /// Bytes of its elements.
    pub fn bytes(&self) -> usize {
        self.shape.len() * self.dtype.size()
    }
}

impl Array for CudaTensor {
    fn shape(&self) -> Shape {
        self.shape
    }
    fn reshape(mut self, shape: Shape) -> Self {
        assert_eq!(self.shape.len(), shape.len(), "reshape {:?} to {shape:?}", self.shape);
        self.shape = shape;
        self
    }
}
