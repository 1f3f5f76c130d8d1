//! The fast native path: f32, SIMD chosen at run time, one worker per core.

pub(crate) mod lanes;
pub(crate) mod micro;
mod peak;
pub mod simd;
mod timing;

use super::host::{Buffer, HostBackend, HostTensor, Pool};
use super::{Array, Backend, Shape};
use rayon::prelude::*;
use simd::Isa;
use std::marker::PhantomData;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// The f32 CPU backend.
///
/// Every op gives the same bits for any number of threads, any batch and AVX2 or AVX-512: a reduction is never split
/// between tasks, and its order depends on the extents of one sample only.
pub struct Cpu {
    pool: Arc<Pool<f32>>,
    threads: rayon::ThreadPool,
    scratch: Vec<Mutex<Buffer<f32>>>,
    isa: Isa,
    options: Options,
}

/// How a [`Cpu`] is set up.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Worker threads; 0 is one per core.
    pub threads: usize,
    /// The instruction set; detected by default.
    pub isa: Isa,
    /// Trade speed for memory: smaller Winograd tiles, whose packed weights take less than half.
    pub low_memory: bool,
    /// Fill fresh arrays with NaN (tests).
    pub poison: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self { threads: 0, isa: Isa::detect(), low_memory: false, poison: false }
    }
}

impl Cpu {
    /// A backend with its own worker threads.
    ///
    /// # Errors
    /// When the machine lacks the instruction set, or the threads cannot be started.
    pub fn new(options: Options) -> crate::Result<Self> {
        if !options.isa.available() {
            return Err(crate::Error::Unsupported(format!("this machine has no {:?}", options.isa)));
        }
        let threads = rayon::ThreadPoolBuilder::new()
            .num_threads(options.threads)
            .thread_name(|i| format!("diem-cpu-{i}"))
            .build()
            .map_err(|e| crate::Error::Device(format!("cannot start worker threads: {e}")))?;
        let scratch = (0..threads.current_num_threads()).map(|_| Mutex::new(Buffer::zeros(0))).collect();
        Ok(Self { pool: Pool::new(options.poison), threads, scratch, isa: options.isa, options })
    }
    /// The instruction set in use.
    pub fn isa(&self) -> Isa {
        self.isa
    }
    /// The options that it was made with.
    pub fn options(&self) -> Options {
        self.options
    }
    /// The number of workers.
    pub fn threads(&self) -> usize {
        self.scratch.len()
    }
    /// Runs `f` once on every worker, each with its own scratch of `len` floats that persists between calls; `f` takes
    /// its share of the work from a counter of the caller's.
    pub fn each_worker(&self, len: usize, f: impl Fn(&mut [f32]) + Sync) {
        self.threads.broadcast(|worker| {
            let mut scratch = self.scratch[worker.index()].lock().unwrap_or_else(PoisonError::into_inner);
            if scratch.len() < len {
                *scratch = Buffer::zeros(len);
            }
            f(&mut scratch[..len]);
        });
    }
    /// Adds to the columns of `target`, (R, 1, 1, ..) with R = 1 or `n`, what `f` sums over each sample; the samples in
    /// order when they share a row.
    pub(crate) fn add_sample_sums(
        &self,
        n: usize,
        columns: std::ops::Range<usize>,
        target: &mut HostTensor<f32>,
        f: impl Fn(usize, &mut [f32]) + Sync,
    ) {
        let mut sums = self.zeros(Shape::rows(n, columns.len()));
        self.install(|| sums.par_chunks_mut(columns.len()).enumerate().for_each(|(i, sums)| f(i, sums)));
        let rows = target.shape().n;
        for i in 0..n {
            for (target, sum) in target.row_mut(i % rows)[columns.clone()].iter_mut().zip(sums.row(i)) {
                *target += sum;
            }
        }
    }
    /// Runs `f` where rayon's parallel iterators use this backend's workers.
    pub fn install<R: Send>(&self, f: impl FnOnce() -> R + Send) -> R {
        self.threads.install(f)
    }
}

/// The tasks of an op, 0 .. count, handed out to whichever worker asks next.
pub(crate) struct Tasks {
    next: AtomicUsize,
    count: usize,
}

impl Tasks {
    /// `count` tasks.
    pub fn new(count: usize) -> Self {
        Self { next: AtomicUsize::new(0), count }
    }
    /// One that nobody has taken yet.
    #[inline]
    pub fn take(&self) -> Option<usize> {
        let task = self.next.fetch_add(1, Ordering::Relaxed);
        (task < self.count).then_some(task)
    }
}

/// An array that several workers write disjoint parts of.
#[derive(Clone, Copy)]
pub(crate) struct SharedMut<'a> {
    start: *mut f32,
    len: usize,
    array: PhantomData<&'a mut [f32]>,
}

// SAFETY: it is a pointer into an exclusively borrowed array; whoever writes through it sees to it that no element is
// accessed by two workers.
unsafe impl Send for SharedMut<'_> {}
// SAFETY: as above.
unsafe impl Sync for SharedMut<'_> {}

impl<'a> SharedMut<'a> {
    /// All of `array`.
    pub fn new(array: &'a mut [f32]) -> Self {
        Self { start: array.as_mut_ptr(), len: array.len(), array: PhantomData }
    }
    /// A pointer to its first element, valid for the whole array.
    #[inline(always)]
    pub fn ptr(self) -> *mut f32 {
        self.start
    }
    /// `len` elements from `start`.
    ///
    /// # Safety
    /// No other slice that overlaps this one is alive.
    ///
    /// # Panics
    /// When they are not all in the array.
    #[inline(always)]
    pub unsafe fn slice(self, start: usize, len: usize) -> &'a mut [f32] {
        assert!(start <= self.len && len <= self.len - start, "{len} elements from {start} of {}", self.len);
        // SAFETY: inside the array; exclusive, as the caller promises.
        unsafe { std::slice::from_raw_parts_mut(self.start.add(start), len) }
    }
}

impl HostBackend for Cpu {
    type Elem = f32;
    const NAME: &'static str = "cpu";
    fn pool(&self) -> &Arc<Pool<f32>> {
        &self.pool
    }
    /// On a worker: from any other thread each op would put that thread to sleep and wake it again, 4% of a posterior step
    /// with 2 workers (EPYC, Zen 4).
    fn within<R: Send>(&self, f: impl FnOnce() -> R + Send) -> R {
        self.install(f)
    }
    fn each<P: Send>(&self, parts: Vec<P>, f: impl Fn(P) + Send + Sync) {
        if parts.len() < 2 {
            return parts.into_iter().for_each(f);
        }
        self.install(|| parts.into_par_iter().for_each(f));
    }
}
