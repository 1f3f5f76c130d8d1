//! The GPU backend: hand-written kernels, launched through CUDA's driver or, without a GPU, through the emulator.
//!
//! Activations of networks are f32 or bf16, as the [`Options`] say; every other array is f32: those of samplers, solvers
//! and operators, and statistics, modulations, biases. The type changes in [`crate::ops::Precondition`] alone.
//!
//! Ops queue kernels and return at once. An error is kept, nothing is launched after it, and the next
//! [`Backend::download`] or [`Backend::finish`] reports it.

mod column_sums;
pub mod cudarc;
pub mod driver;
#[cfg(feature = "emulator")]
pub mod emulated;
pub mod kernels;
mod library;
mod record;
mod scalar;
mod tensor;
mod timing;
pub(crate) mod units;

pub use driver::{Args, Boxes, Launch, TensorMap};
pub use scalar::{Scalar, Scalars, Word};
pub use tensor::{CudaTensor, Dtype};

use super::{Array, Backend, Capacity, Limits, MemoryStats, Real, Shape};
use crate::{Error, Result};
use driver::Driver;
use record::{Recorder, Slots};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tensor::Pool;

/// How a [`Cuda`] is set up.
#[derive(Clone, Copy, Debug, Default)]
pub struct Options {
    /// The type of a network's activations.
    pub precision: Dtype,
    /// Run the steps of a sampler as graphs.
    pub record: bool,
    /// Fill fresh arrays with NaN (tests).
    pub poison: bool,
}

/// The GPU backend on one device.
pub struct Cuda {
    driver: Arc<dyn Driver>,
    pool: Arc<Pool>,
    options: Options,
    failure: Mutex<Option<Error>>, // the first error since the last report
    recorder: Recorder,
    samples: Mutex<Option<(Vec<u32>, Arc<CudaTensor>)>>, // numbers of the batch's samples, the last that were asked for
}

impl Cuda {
    /// A backend on the device of `driver`.
    pub fn new(driver: Arc<dyn Driver>, options: Options) -> Self {
        Self {
            pool: Pool::new(driver.clone()),
            driver,
            options,
            failure: Mutex::default(),
            recorder: Recorder::default(),
            samples: Mutex::default(),
        }
    }
    /// The device.
    pub fn driver(&self) -> &dyn Driver {
        &*self.driver
    }
    /// The options that it was made with.
    pub fn options(&self) -> Options {
        self.options
    }

    /// An array with unspecified contents (NaN when the pool poisons).
    pub fn alloc_as(&self, shape: Shape, dtype: Dtype) -> CudaTensor {
        let bytes = (shape.len() * dtype.size()).next_multiple_of(4).max(4); // whole words, for copies and fills
        let memory = self.pool.take(bytes).or_else(|_| {
            self.trim()?;
            self.pool.take(bytes)
        });
        match memory {
            Ok(memory) => {
                let mut x = CudaTensor::new(shape, dtype, memory, self.pool.clone());
                if self.options.poison {
                    self.fill(&mut x, f64::NAN);
                }
                x
            }
            Err(error) => {
                self.fail(error);
                CudaTensor::borrowed(shape, dtype, 0) // never used: nothing is launched any more
            }
        }
    }
    /// An array of the extents and the type of `x`, with unspecified contents.
    pub fn alloc_like(&self, x: &CudaTensor) -> CudaTensor {
        self.alloc_as(x.shape(), x.dtype())
    }
    /// An array with the given elements, rounded to `dtype`.
    pub fn upload_as<T: Real>(&self, shape: Shape, host: &[T], dtype: Dtype) -> CudaTensor {
        assert_eq!(shape.len(), host.len(), "upload of {} elements as {shape:?}", host.len());
        let words = host.iter().map(|x| x.f64() as f32);
        match dtype {
            Dtype::F32 => self.upload_bytes(shape, dtype, bytemuck::cast_slice(&words.collect::<Vec<f32>>())),
            Dtype::Bf16 => {
                self.upload_bytes(shape, dtype, bytemuck::cast_slice(&words.map(to_bf16).collect::<Vec<u16>>()))
            }
        }
    }
    /// Whole numbers for a kernel that takes `const uint32_t *`; the array is no operand of any op.
    pub(crate) fn upload_words(&self, words: &[u32]) -> CudaTensor {
        self.upload_bytes(Shape::flat(words.len()), Dtype::F32, bytemuck::cast_slice(words))
    }
    /// The global numbers of a batch's samples, for a kernel; every call of a batch gets the same array.
    pub(crate) fn sample_numbers(&self, samples: &[u32]) -> Arc<CudaTensor> {
        let mut last = self.samples.lock().unwrap_or_else(PoisonError::into_inner);
        match &*last {
            Some((numbers, array)) if numbers == samples => array.clone(),
            _ if self.recorder.is_recording() => Arc::new(self.upload_words(samples)),
            _ => {
                *last = None; // so that the memory is at hand again
                let bytes = bytemuck::cast_slice(samples);
                let array = Arc::new(self.upload_now(Shape::flat(samples.len()), Dtype::F32, bytes));
                *last = Some((samples.to_vec(), array.clone()));
                array
            }
        }
    }
    /// `x` in another type; a copy when it has that type.
    pub fn cast(&self, x: &CudaTensor, dtype: Dtype) -> CudaTensor {
        let y = self.alloc_as(x.shape(), dtype);
        let kernel = match (x.dtype(), dtype) {
            (Dtype::F32, Dtype::Bf16) => "vector_cast_bf16",
            (Dtype::Bf16, Dtype::F32) => "vector_cast_f32",
            _ => return self.copy(x),
        };
        let len = x.shape().len();
        self.launch(Launch::per_item(kernel, len, Args::new().ptr(&y).ptr(x).arg(len as u32)));
        y
    }
    /// Queues a kernel; an error is kept for the next report.
    pub(crate) fn launch(&self, launch: Launch) {
        if self.failure().is_some() || launch.grid.contains(&0) {
            return;
        }
        let Some(launch) = self.recorder.take_in(launch) else { return };
        // SAFETY: ops pass addresses of arrays that they hold, of the extents that the kernel is told; a piece of memory
        // goes back to the pool, and from there to ops queued later, never to the driver while work is queued.
        if let Err(error) = unsafe { self.driver.launch(&launch) } {
            self.fail(Error::Device(format!("{launch}: {error}")));
        }
    }

    /// Boxes of an array for a kernel; an error is kept for the next report.
    pub(crate) fn tensor_map(&self, boxes: &Boxes) -> TensorMap {
        if self.failure().is_some() {
            return TensorMap::default();
        }
        self.driver.tensor_map(boxes).unwrap_or_else(|error| {
            self.fail(Error::Device(format!("{boxes:?}: {error}")));
            TensorMap::default()
        })
    }

    fn upload_bytes(&self, shape: Shape, dtype: Dtype, bytes: &[u8]) -> CudaTensor {
        match self.recorder.slots(bytes) {
            Slots::None => self.upload_now(shape, dtype, bytes),
            Slots::At(address) => CudaTensor::borrowed(shape, dtype, address),
            Slots::Full => {
                self.fail(Error::Device(record::FULL.to_owned()));
                CudaTensor::borrowed(shape, dtype, 0)
            }
        }
    }
    fn upload_now(&self, shape: Shape, dtype: Dtype, bytes: &[u8]) -> CudaTensor {
        let x = self.alloc_as(shape, dtype);
        if !bytes.is_empty() && self.failure().is_none() {
            self.driver.upload(x.address(), bytes).unwrap_or_else(|error| self.fail(error));
        }
        x
    }
    fn failure(&self) -> MutexGuard<'_, Option<Error>> {
        self.failure.lock().unwrap_or_else(PoisonError::into_inner)
    }
    fn fail(&self, error: Error) {
        self.failure().get_or_insert(error);
    }
    /// The error that has been kept, which is forgotten.
    fn report(&self) -> Result<()> {
        self.failure().take().map_or(Ok(()), Err)
    }
}

/// The nearest bf16, ties to even; NaN stays NaN.
pub fn to_bf16(x: f32) -> u16 {
    let bits = x.to_bits();
    if x.is_nan() { 0x7fff } else { ((bits + 0x7fff + (bits >> 16 & 1)) >> 16) as u16 }
}

/// The value of a bf16.
pub fn from_bf16(x: u16) -> f32 {
    f32::from_bits(u32::from(x) << 16)
}

impl Backend for Cuda {
    type Tensor = CudaTensor;

    fn name(&self) -> String {
        self.driver.name()
    }
    fn alloc(&self, shape: Shape) -> CudaTensor {
        self.alloc_as(shape, Dtype::F32)
    }
    fn upload<T: Real>(&self, shape: Shape, host: &[T]) -> CudaTensor {
        self.upload_as(shape, host, Dtype::F32)
    }
    fn upload_activation<T: Real>(&self, shape: Shape, host: &[T]) -> CudaTensor {
        self.upload_as(shape, host, self.options.precision)
    }
    fn upload_like<T: Real>(&self, x: &CudaTensor, host: &[T]) -> CudaTensor {
        self.upload_as(x.shape(), host, x.dtype())
    }
    fn coarse(&self) -> bool {
        self.options.precision == Dtype::Bf16
    }
    fn download<T: Real>(&self, x: &CudaTensor, host: &mut [T]) -> Result<()> {
        assert_eq!(x.shape().len(), host.len(), "download of {:?}", x.shape());
        if self.recorder.is_recording() {
            self.fail(Error::Device("a recorded step does not read the device".to_owned()));
        }
        self.report()?;
        let mut bytes = vec![0; x.bytes()];
        self.driver.download(x.address(), &mut bytes)?;
        let wide = |pair: &[u8]| from_bf16(u16::from_ne_bytes([pair[0], pair[1]]));
        match x.dtype() {
            Dtype::F32 => {
                let values = bytes.chunks_exact(4).map(|word| f32::from_ne_bytes([word[0], word[1], word[2], word[3]]));
                host.iter_mut().zip(values).for_each(|(host, x)| *host = T::of(x.into()));
            }
            Dtype::Bf16 => {
                host.iter_mut().zip(bytes.chunks_exact(2)).for_each(|(host, x)| *host = T::of(wide(x).into()));
            }
        }
        Ok(())
    }
    fn assign(&self, y: &mut CudaTensor, x: &CudaTensor) {
        assert_eq!((y.shape(), y.dtype()), (x.shape(), x.dtype()), "assign");
        let words = x.bytes().div_ceil(4);
        let args = Args::new().ptr(y).ptr(x).arg(words as u32);
        self.launch(Launch::per_item("vector_copy_u32", words.div_ceil(4), args));
    }
    fn copy(&self, x: &CudaTensor) -> CudaTensor {
        let mut y = self.alloc_like(x);
        self.assign(&mut y, x);
        y
    }
    fn steps(
        &self,
        count: usize,
        step: &mut dyn FnMut(usize) -> Result<()>,
        done: &mut dyn FnMut(usize),
    ) -> Result<()> {
        self.replay(count, step, done)
    }
    fn records(&self) -> bool {
        self.options.record
    }
    fn fill(&self, x: &mut CudaTensor, value: f64) {
        let words = x.bytes().div_ceil(4);
        let word = match x.dtype() {
            Dtype::F32 => (value as f32).to_bits(),
            Dtype::Bf16 => u32::from(to_bf16(value as f32)) * 0x1_0001,
        };
        self.launch(Launch::per_item("vector_fill_u32", words, Args::new().ptr(x).arg(word).arg(words as u32)));
    }
    fn finish(&self) -> Result<()> {
        self.report()?;
        self.driver.synchronize()
    }
    fn memory(&self) -> MemoryStats {
        self.pool.stats()
    }
    fn release(&self) -> Result<()> {
        self.finish()?;
        self.trim()?;
        self.pool.reset_peak();
        Ok(())
    }
    fn capacity(&self) -> Capacity {
        let free = self.driver.free_memory().unwrap_or(0);
        Capacity { samples: 256, bytes: free / 10 * 9, own: true }
    }
    fn limits(&self) -> Limits {
        Limits { elements: (1 << 31) - 1, head: crate::ops::attention::cuda::WIDEST }
    }
}

#[cfg(all(test, feature = "emulator"))]
mod tests {
    use super::*;

    fn device() -> Cuda {
        let driver = emulated::Emulated::new(Default::default()).unwrap();
        Cuda::new(Arc::new(driver), Options::default())
    }

    #[test]
    fn an_error_names_its_kernel_and_stays_until_it_is_reported() {
        let b = device();
        let x = b.zeros(Shape::rows(2, 3));
        b.launch(Launch::per_item("vector_nonsense_f32", 6, Args::new().ptr(&x).arg(6u32)));
        b.launch(Launch::per_item("vector_fill_u32", 6, Args::new().ptr(&x).arg(1f32.to_bits()).arg(6u32)));
        let error = b.finish().unwrap_err().to_string();
        assert!(error.contains("vector_nonsense_f32") && error.contains("0x6]"), "{error}");
        assert_eq!(b.to_vec(&x).unwrap(), [0.0; 6], "nothing is launched after an error");
    }

    #[test]
    fn a_kernel_that_leaves_its_array_is_an_error() {
        let b = device();
        let x = b.zeros(Shape::rows(1, 64));
        b.launch(Launch::per_item("vector_fill_u32", 80, Args::new().ptr(&x).arg(0u32).arg(80u32)));
        let error = b.to_vec(&x).unwrap_err().to_string();
        assert!(error.contains("vector_fill_u32"), "{error}");
    }

    #[test]
    fn equal_requests_get_equal_memory() {
        let b = device();
        let step = || {
            let (x, y) = (b.alloc(Shape::rows(3, 5)), b.alloc(Shape::rows(3, 5)));
            drop(x);
            let z = b.alloc(Shape::rows(5, 3));
            [y.address(), z.address()]
        };
        assert_eq!(step(), step());
        let MemoryStats { live, held, fresh, .. } = b.memory();
        assert_eq!((live, held, fresh), (0, 120, 2));
    }
}
