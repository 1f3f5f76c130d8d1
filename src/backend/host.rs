//! Arrays in host memory, shared by the `reference` and `cpu` backends, and the pool that they come from.

use super::{Array, Backend, Capacity, MemoryStats, Real, Shape};
use std::collections::HashMap;
use std::ops::{Deref, DerefMut};
use std::sync::{Arc, Mutex, PoisonError};

/// Alignment of every buffer, one cache line: `std::alloc` wants it explicit.
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C, align(64))]
struct Line([u64; 8]);

/// Above this many bytes a buffer is its own mapping, with huge pages asked for: 4 KiB pages cost the convolution's
/// 36 weight streams a TLB miss each.
const HUGE: usize = 1 << 20;

/// Zeroed, 64-byte aligned memory of `len` elements.
pub struct Buffer<T> {
    memory: Memory,
    len: usize,
    of: std::marker::PhantomData<T>,
}

enum Memory {
    Lines(Vec<Line>),
    Mapped(memmap2::MmapMut),
}

impl<T: Real> Buffer<T> {
    /// Zeros.
    ///
    /// # Panics
    /// When the system has no memory left.
    pub fn zeros(len: usize) -> Self {
        let bytes = len * size_of::<T>();
        let memory = if bytes >= HUGE {
            let map = memmap2::MmapMut::map_anon(bytes).expect("out of memory");
            #[cfg(target_os = "linux")]
            let _ = map.advise(memmap2::Advice::HugePage); // a hint: without it everything still works
            Memory::Mapped(map)
        } else {
            Memory::Lines(vec![Line([0; 8]); bytes.div_ceil(size_of::<Line>())])
        };
        Self { memory, len, of: std::marker::PhantomData }
    }
    /// A copy of `x`.
    pub fn from_slice(x: &[T]) -> Self {
        let mut b = Self::zeros(x.len());
        b.copy_from_slice(x);
        b
    }
}

impl<T: Real> Deref for Buffer<T> {
    type Target = [T];
    #[inline]
    fn deref(&self) -> &[T] {
        let bytes: &[u8] = match &self.memory {
            Memory::Lines(v) => bytemuck::cast_slice(v),
            Memory::Mapped(m) => m,
        };
        bytemuck::cast_slice(&bytes[..self.len * size_of::<T>()])
    }
}

impl<T: Real> DerefMut for Buffer<T> {
    #[inline]
    fn deref_mut(&mut self) -> &mut [T] {
        let bytes: &mut [u8] = match &mut self.memory {
            Memory::Lines(v) => bytemuck::cast_slice_mut(v),
            Memory::Mapped(m) => m,
        };
        bytemuck::cast_slice_mut(&mut bytes[..self.len * size_of::<T>()])
    }
}

/// Buffers by length, kept for reuse: a sampler's second step finds every buffer that it needs.
pub struct Pool<T> {
    state: Mutex<PoolState<T>>,
    poison: bool,
}

struct PoolState<T> {
    free: HashMap<usize, Vec<Buffer<T>>>,
    stats: MemoryStats,
}

impl<T: Real> Pool<T> {
    /// An empty pool. With `poison`, arrays are handed out full of NaN, so that an op that leaves an element unwritten
    /// is seen.
    pub fn new(poison: bool) -> Arc<Self> {
        Arc::new(Self { state: Mutex::new(PoolState { free: HashMap::new(), stats: MemoryStats::default() }), poison })
    }
    /// An array with unspecified contents, or NaN.
    pub fn take(self: &Arc<Self>, shape: Shape) -> HostTensor<T> {
        let len = shape.len();
        let bytes = len * size_of::<T>();
        let reused = {
            let mut s = self.state.lock().unwrap_or_else(PoisonError::into_inner);
            let reused = s.free.get_mut(&len).and_then(Vec::pop);
            s.stats.live += bytes;
            if reused.is_none() {
                s.stats.fresh += 1;
                s.stats.held += bytes;
                s.stats.peak = s.stats.peak.max(s.stats.held);
            }
            reused
        };
        let mut data = reused.unwrap_or_else(|| Buffer::zeros(len));
        if self.poison {
            data.fill(T::nan());
        }
        HostTensor { shape, data: Some(data), pool: self.clone() }
    }
    /// What has been handed out.
    pub fn stats(&self) -> MemoryStats {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).stats
    }
    /// Frees what is not in use; the peak counts from here.
    pub fn release(&self) {
        let mut s = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        s.free.clear();
        s.stats.held = s.stats.live;
        s.stats.peak = s.stats.held;
    }
    fn give(&self, data: Buffer<T>) {
        let mut s = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        s.stats.live -= data.len() * size_of::<T>();
        s.free.entry(data.len()).or_default().push(data);
    }
}

/// An array in host memory.
pub struct HostTensor<T: Real> {
    shape: Shape,
    data: Option<Buffer<T>>, // Some until drop
    pool: Arc<Pool<T>>,
}

impl<T: Real> HostTensor<T> {
    /// The elements of sample `n`.
    pub fn row(&self, n: usize) -> &[T] {
        let d = self.shape.row();
        &self[n * d..(n + 1) * d]
    }
    /// The elements of sample `n`.
    pub fn row_mut(&mut self, n: usize) -> &mut [T] {
        let d = self.shape.row();
        &mut self[n * d..(n + 1) * d]
    }
    /// The elements of row `n` of an array whose one row may stand for all samples.
    pub fn row_or_shared(&self, n: usize) -> &[T] {
        self.row(if self.shape.n == 1 { 0 } else { n })
    }
}

impl<T: Real> Array for HostTensor<T> {
    fn shape(&self) -> Shape {
        self.shape
    }
    fn reshape(mut self, shape: Shape) -> Self {
        assert_eq!(self.shape.len(), shape.len(), "reshape {:?} to {shape:?}", self.shape);
        self.shape = shape;
        self
    }
}

impl<T: Real> Deref for HostTensor<T> {
    type Target = [T];
    #[inline]
    fn deref(&self) -> &[T] {
        self.data.as_ref().expect("present until drop")
    }
}

impl<T: Real> DerefMut for HostTensor<T> {
    #[inline]
    fn deref_mut(&mut self) -> &mut [T] {
        self.data.as_mut().expect("present until drop")
    }
}

impl<T: Real> Drop for HostTensor<T> {
    fn drop(&mut self) {
        if let Some(data) = self.data.take() {
            self.pool.give(data);
        }
    }
}

/// A backend whose arrays are host memory. It gets [`Backend`] and the small ops (per-sample vectors, observation
/// operators, noise) from generic loops, written once in `host.rs` of each op; the heavy ops it implements itself.
pub trait HostBackend: Send + Sync + Sized + 'static {
    /// Element type.
    type Elem: Real;
    /// "reference" or "cpu".
    const NAME: &'static str;
    /// Where its arrays come from.
    fn pool(&self) -> &Arc<Pool<Self::Elem>>;
    /// As of [`Backend`].
    fn within<R: Send>(&self, f: impl FnOnce() -> R + Send) -> R {
        f()
    }
    /// Does `f` for each part of an op's work, in any order, and at once where the backend has workers.
    fn each<P: Send>(&self, parts: Vec<P>, f: impl Fn(P) + Send + Sync) {
        parts.into_iter().for_each(f);
    }
}

/// Elements of a part of an elementwise op: what one worker does at a time.
pub const PART: usize = 1 << 16;

impl<B: HostBackend> Backend for B {
    type Tensor = HostTensor<B::Elem>;

    fn within<R: Send>(&self, f: impl FnOnce() -> R + Send) -> R {
        HostBackend::within(self, f)
    }
    fn name(&self) -> String {
        B::NAME.to_owned()
    }
    fn alloc(&self, shape: Shape) -> Self::Tensor {
        self.pool().take(shape)
    }
    fn upload<T: Real>(&self, shape: Shape, host: &[T]) -> Self::Tensor {
        assert_eq!(shape.len(), host.len(), "upload of {} elements as {shape:?}", host.len());
        let mut x = self.alloc(shape);
        for (x, v) in x.iter_mut().zip(host) {
            *x = B::Elem::of(v.f64());
        }
        x
    }
    fn double(&self) -> bool {
        size_of::<B::Elem>() == size_of::<f64>()
    }
    fn download<T: Real>(&self, x: &Self::Tensor, host: &mut [T]) -> crate::Result<()> {
        assert_eq!(x.len(), host.len(), "download of {:?}", x.shape());
        for (v, x) in host.iter_mut().zip(x.iter()) {
            *v = T::of(x.f64());
        }
        Ok(())
    }
    fn assign(&self, y: &mut Self::Tensor, x: &Self::Tensor) {
        assert_eq!(y.shape(), x.shape(), "assign");
        self.each(y.chunks_mut(PART).zip(x.chunks(PART)).collect(), |(y, x)| y.copy_from_slice(x));
    }
    fn fill(&self, x: &mut Self::Tensor, value: f64) {
        self.each(x.chunks_mut(PART).collect(), |x| x.fill(B::Elem::of(value)));
    }
    fn finish(&self) -> crate::Result<()> {
        Ok(())
    }
    fn memory(&self) -> MemoryStats {
        self.pool().stats()
    }
    fn release(&self) -> crate::Result<()> {
        self.pool().release();
        Ok(())
    }
    fn capacity(&self) -> Capacity {
        let available = available_memory().unwrap_or(4 << 30);
        Capacity { samples: 16, bytes: available / 2, own: false }
    }
}

/// Bytes that programs can still get without swapping (Linux).
pub fn available_memory() -> Option<usize> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<usize>().ok().map(|kib| kib << 10)
}
