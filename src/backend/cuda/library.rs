//! Products by the vendor's library: a yardstick for `bench` and an oracle for `check`. No sampler calls it.

use super::driver::Product;
use super::timing::Plan;
use super::{Cuda, CudaTensor, Dtype, to_bf16};
use crate::Result;
use crate::backend::timed::Timing;
use crate::backend::{Array, Shape};

/// Side of the matrices whose product is the measured peak.
const SIDE: usize = 8192;

impl Cuda {
    /// x wᵀ by the library, and its time: `x` (N, H, W, C), `w` flat (c_out, C) in the same precision.
    pub(super) fn product_by_library(
        &self,
        x: &CudaTensor,
        w: &CudaTensor,
        c_out: usize,
    ) -> Result<(CudaTensor, Timing)> {
        let (s, dtype) = (x.shape(), x.dtype());
        assert_eq!((w.shape().len(), w.dtype()), (s.c * c_out, dtype), "weights of a product of {s:?}");
        let y = self.alloc_as(s.with_c(c_out), dtype);
        self.report()?;
        let [x, w, at] = [x, w, &y].map(CudaTensor::address);
        let product = Product { rows: s.n * s.pixels(), c_in: s.c, c_out, x, w, y: at, dtype };
        let timing = self.time_product(1, &product)?;
        Ok((y, timing))
    }

    /// Operations per second of a large product in the network's precision, and who has done it.
    pub(super) fn library_flops(&self) -> Result<(f64, String)> {
        let library = self.driver.library()?;
        let dtype = self.options.precision;
        let bytes = SIDE * SIDE * dtype.size();
        let [x, w, y] = [self.scratch(bytes)?, self.scratch(bytes)?, self.scratch(bytes)?];
        let numbers = numbers(SIDE * SIDE, dtype);
        self.driver.upload(x.address, &numbers)?;
        self.driver.upload(w.address, &numbers)?;
        let [x, w, y] = [&x, &w, &y].map(|scratch| scratch.address);
        let product = Product { rows: SIDE, c_in: SIDE, c_out: SIDE, x, w, y, dtype };
        let seconds = self.time_product(5, &product)?.fastest;
        let precision = match dtype {
            Dtype::F32 => "f32",
            Dtype::Bf16 => "bf16",
        };
        Ok((2.0 * (SIDE as f64).powi(3) / seconds, format!("{library}, {SIDE} x {SIDE} x {SIDE} in {precision}")))
    }

    fn time_product(&self, repeat: usize, product: &Product) -> Result<Timing> {
        let laps = |copies: usize, count: usize| {
            let mut lap = || {
                // SAFETY: the arrays outlive the products, which are waited for.
                (0..copies).try_for_each(|_| unsafe { self.driver.library_product(product) })
            };
            let mut seconds = self.driver.laps(count + 1, &mut lap)?;
            seconds.remove(0); // it loads a kernel
            Ok::<_, crate::Error>(seconds)
        };
        let Plan { copies, count } = Plan::new(laps(1, 1)?[0], 1, repeat);
        let seconds = laps(copies, count)?;
        Ok(Timing::new(seconds.into_iter().map(|seconds| seconds / copies as f64).collect(), 0))
    }
}

/// Bytes of numbers in [-1/2, 1/2) without order: zeros would be multiplied at a higher clock.
fn numbers(len: usize, dtype: Dtype) -> Vec<u8> {
    let number = |i: usize| ((i as u32).wrapping_mul(2_654_435_761) >> 8) as f32 / (1 << 24) as f32 - 0.5;
    match dtype {
        Dtype::F32 => (0..len).flat_map(|i| number(i).to_ne_bytes()).collect(),
        Dtype::Bf16 => (0..len).flat_map(|i| to_bf16(number(i)).to_ne_bytes()).collect(),
    }
}

/// Device memory beside the pool, whose peak is that of a run.
pub(super) struct Scratch<'a> {
    cuda: &'a Cuda,
    pub address: u64,
}

impl Cuda {
    pub(super) fn scratch(&self, bytes: usize) -> Result<Scratch<'_>> {
        Ok(Scratch { cuda: self, address: self.driver.alloc(bytes)? })
    }
}

impl Scratch<'_> {
    /// All of it as an array of f32, which must not outlive it.
    pub fn array(&self, len: usize) -> CudaTensor {
        CudaTensor::borrowed(Shape::flat(len), Dtype::F32, self.address)
    }
}

impl Drop for Scratch<'_> {
    fn drop(&mut self) {
        let _ = self.cuda.driver.free(self.address); // a device that has failed frees nothing
    }
}
