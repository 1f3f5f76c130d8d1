//! What a device is to the rest of the crate: arrays of real numbers, and the ops on them.
//!
//! [`Backend`] itself only makes, fills and reads arrays. What can be computed with them is declared op by op in
//! [`crate::ops`]; a type that implements all of those traits is [`crate::ops::Ops`], and networks, samplers and
//! solvers are written once, generic over it.

pub mod cpu;
pub mod cuda;
pub mod host;
pub mod reference;
pub mod timed;

use crate::Result;

/// A real number that a host array may hold: `f32` or `f64`.
pub trait Real: num_traits::Float + bytemuck::Pod + Default + Send + Sync + std::fmt::Debug + std::iter::Sum {
    /// The nearest value of this type.
    fn of(x: f64) -> Self;
    /// The exact value as f64.
    fn f64(self) -> f64;
}

macro_rules! real {
    ($t:ty) => {
        impl Real for $t {
            #[inline(always)]
            fn of(x: f64) -> Self {
                x as $t
            }
            #[inline(always)]
            fn f64(self) -> f64 {
                self as f64
            }
        }
    };
}
real!(f32);
real!(f64);

/// Extents of an activation (N, H, W, C), stored row-major, channels innermost.
///
/// A vector (N, D) is (N, 1, 1, D); per-sample scalars are (N, 1, 1, 1); tokens (N, T, C) are pixels with T = H W.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Shape {
    /// Samples.
    pub n: usize,
    /// Rows of pixels.
    pub h: usize,
    /// Columns of pixels.
    pub w: usize,
    /// Channels.
    pub c: usize,
}

impl Shape {
    /// (N, H, W, C).
    pub const fn new(n: usize, h: usize, w: usize, c: usize) -> Self {
        Self { n, h, w, c }
    }
    /// A batch of vectors (N, D).
    pub const fn rows(n: usize, d: usize) -> Self {
        Self::new(n, 1, 1, d)
    }
    /// A flat array of `len` numbers (parameters).
    pub const fn flat(len: usize) -> Self {
        Self::new(1, 1, 1, len)
    }
    /// The number of elements, N H W C.
    pub const fn len(self) -> usize {
        self.n * self.h * self.w * self.c
    }
    /// Whether it holds no element.
    pub const fn is_empty(self) -> bool {
        self.len() == 0
    }
    /// Elements per sample, D = H W C.
    pub const fn row(self) -> usize {
        self.h * self.w * self.c
    }
    /// Pixels per sample, T = H W.
    pub const fn pixels(self) -> usize {
        self.h * self.w
    }
    /// The same pixels with `c` channels.
    pub const fn with_c(self, c: usize) -> Self {
        Self { c, ..self }
    }
    /// The same extents for `n` samples.
    pub const fn with_n(self, n: usize) -> Self {
        Self { n, ..self }
    }
}

impl std::fmt::Debug for Shape {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "({}, {}, {}, {})", self.n, self.h, self.w, self.c)
    }
}

/// A device array: it knows its extents, and gives its memory back to the backend's pool when dropped.
pub trait Array: Send + Sync + Sized {
    /// Its extents.
    fn shape(&self) -> Shape;
    /// The same elements under other extents of equal length.
    fn reshape(self, shape: Shape) -> Self;
}

/// What the pool of a backend has handed out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MemoryStats {
    /// Bytes in use now.
    pub live: usize,
    /// Bytes held, in use or free for reuse.
    pub held: usize,
    /// Largest `held` so far.
    pub peak: usize,
    /// Requests that found nothing to reuse: constant from the second step of a sampler on.
    pub fresh: usize,
}

/// How much a device does at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capacity {
    /// More samples at a time than this do not make it faster, and an interruption costs a batch.
    pub samples: usize,
    /// Bytes that a run may still take.
    pub bytes: usize,
    /// Whether they are the device's own: then more is an error.
    pub own: bool,
}

/// What the kernels of a device take at most; whoever reads a file or an option asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Elements of an array.
    pub elements: usize,
    /// Channels of an attention head.
    pub head: usize,
}

/// A device: arrays, and memory for them.
///
/// Work may be queued: an op returns before it is done, and an error of the device is latched and reported by the next
/// [`Backend::download`] or [`Backend::finish`], so that ops themselves return plain arrays. Wrong extents are a bug of
/// the caller and panic; whatever a user can get wrong is checked before, where files and options are read.
pub trait Backend: Send + Sync + Sized + 'static {
    /// A device array.
    type Tensor: Array;

    /// "reference", "cpu", "cuda:0": for messages and reports.
    fn name(&self) -> String;
    /// An array with unspecified contents (NaN when the pool poisons, as in tests).
    fn alloc(&self, shape: Shape) -> Self::Tensor;
    /// An array with the given elements, rounded to the backend's precision.
    fn upload<T: Real>(&self, shape: Shape, host: &[T]) -> Self::Tensor;
    /// [`Backend::upload`], rounded as the activations of a network are.
    fn upload_activation<T: Real>(&self, shape: Shape, host: &[T]) -> Self::Tensor {
        self.upload(shape, host)
    }
    /// An array like `x`, with other elements, rounded as those of `x` are.
    fn upload_like<T: Real>(&self, x: &Self::Tensor, host: &[T]) -> Self::Tensor {
        self.upload(x.shape(), host)
    }
    /// Whether the activations of a network are less precise than f32.
    fn coarse(&self) -> bool {
        false
    }
    /// Whether its arrays hold f64.
    fn double(&self) -> bool {
        false
    }
    /// Waits, and reads all elements; the length must agree.
    ///
    /// # Errors
    /// [`crate::Error::Device`] or [`crate::Error::OutOfMemory`] when the device has failed since the last check.
    fn download<T: Real>(&self, x: &Self::Tensor, host: &mut [T]) -> Result<()>;
    /// y ← x, of the same extents.
    fn assign(&self, y: &mut Self::Tensor, x: &Self::Tensor);
    /// Sets every element.
    fn fill(&self, x: &mut Self::Tensor, value: f64);
    /// Waits for all queued work.
    ///
    /// # Errors
    /// [`crate::Error::Device`] when the device has failed since the last check.
    fn finish(&self) -> Result<()>;
    /// What the pool has handed out.
    fn memory(&self) -> MemoryStats;
    /// Gives back the memory that no array uses, and counts the peak from here: before work of other sizes.
    ///
    /// # Errors
    /// When the device has failed.
    fn release(&self) -> Result<()>;
    /// How much it does at a time.
    fn capacity(&self) -> Capacity;
    /// What its kernels take at most.
    fn limits(&self) -> Limits {
        Limits { elements: usize::MAX, head: usize::MAX }
    }

    /// Does `step(0)`, .., `step(count - 1)` in this order; `done` is told after each how many are done.
    ///
    /// A device may record steps before it runs them, and replay what it has recorded. So a step must not read the
    /// device, and what it leaves for the next must be in arrays that were there before the first.
    ///
    /// # Errors
    /// The first error of a step; [`crate::Error::Device`] when the device has failed.
    fn steps(
        &self,
        count: usize,
        step: &mut dyn FnMut(usize) -> Result<()>,
        done: &mut dyn FnMut(usize),
    ) -> Result<()> {
        one_by_one(0..count, step, done)
    }
    /// Does `f`, which is many ops, where they are started with the least delay.
    fn within<R: Send>(&self, f: impl FnOnce() -> R + Send) -> R {
        f()
    }
    /// Whether [`Backend::steps`] records.
    fn records(&self) -> bool {
        false
    }

    /// A copy.
    fn copy(&self, x: &Self::Tensor) -> Self::Tensor {
        let mut y = self.alloc(x.shape());
        self.assign(&mut y, x);
        y
    }
    /// An array of zeros.
    fn zeros(&self, shape: Shape) -> Self::Tensor {
        let mut x = self.alloc(shape);
        self.fill(&mut x, 0.0);
        x
    }
    /// All elements, as f64.
    ///
    /// # Errors
    /// As [`Backend::download`].
    fn to_vec(&self, x: &Self::Tensor) -> Result<Vec<f64>> {
        let mut host = vec![0.0; x.shape().len()];
        self.download(x, &mut host)?;
        Ok(host)
    }
}

/// [`Backend::steps`] without recording, for the steps of a range.
pub(crate) fn one_by_one(
    range: std::ops::Range<usize>,
    step: &mut dyn FnMut(usize) -> Result<()>,
    done: &mut dyn FnMut(usize),
) -> Result<()> {
    for i in range {
        step(i)?;
        done(i + 1);
    }
    Ok(())
}

/// How much of a forward pass is kept for what follows.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Keep {
    /// Nothing: only the value is wanted.
    Nothing,
    /// What the VJP with respect to the input needs.
    Input,
    /// What the VJPs with respect to input and parameters need.
    All,
}
