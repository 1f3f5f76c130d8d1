//! cuBLAS on the queue of a device, loaded when it is first asked for.

use super::Context;
use crate::backend::cuda::Dtype;
use crate::backend::cuda::driver::Product;
use crate::{Error, Result};
use cudarc::cublas::sys::{self, cublasStatus_t as Status};
use cudarc::driver::sys as driver;
use std::ffi::{c_int, c_void};
use std::ptr::null_mut;
use std::sync::Arc;

/// Bytes of its workspace, given to it so that it allocates none: NVIDIA's default for compute capability 9.0.
const WORKSPACE: usize = 32 << 20;

/// The library, ready to work.
pub struct Cublas {
    context: Arc<Context>,
    handle: sys::cublasHandle_t,
    workspace: driver::CUdeviceptr,
    /// "cuBLAS 12.4.5".
    pub name: String,
}

// SAFETY: cuBLAS may be called from any thread, with one handle too as long as its settings stay as they are, and they are
// never changed after `open`; every call makes the context current first.
unsafe impl Send for Cublas {}
// SAFETY: as above.
unsafe impl Sync for Cublas {}

/// Succeeds when cuBLAS has: every return code goes through here.
fn check(status: Status, what: &str) -> Result<()> {
    match status {
        Status::CUBLAS_STATUS_SUCCESS => Ok(()),
        _ => Err(Error::Device(format!("cuBLAS, {what}: {status:?}"))),
    }
}

impl Cublas {
    /// Loads the library.
    ///
    /// # Errors
    /// In one line: it is not installed, or does not start.
    pub fn open(context: Arc<Context>) -> Result<Self> {
        // SAFETY: it only tries to open the library.
        if !unsafe { sys::is_culib_present() } {
            return Err(Error::Unsupported("no cuBLAS (libcublas.so, or .so.12) is installed".to_owned()));
        }
        context.bind()?;
        let mut cublas = Self { context, handle: null_mut(), workspace: 0, name: String::new() };
        let mut version = 0;
        // SAFETY: the library is there and the context current; results are written to live variables. The workspace is
        // set after the queue, which resets it.
        unsafe {
            check(sys::cublasCreate_v2(&mut cublas.handle), "start")?;
            check(sys::cublasGetVersion_v2(cublas.handle, &mut version), "version")?;
            super::check(driver::cuMemAlloc_v2(&mut cublas.workspace, WORKSPACE), "cuBLAS's workspace")?;
            check(sys::cublasSetStream_v2(cublas.handle, cublas.context.stream.cast()), "queue")?;
            let workspace = cublas.workspace as *mut c_void;
            check(sys::cublasSetWorkspace_v2(cublas.handle, workspace, WORKSPACE), "workspace")?;
        }
        cublas.name = format!("cuBLAS {}.{}.{}", version / 10_000, version / 100 % 100, version % 100);
        Ok(cublas)
    }

    /// Queues a product: in f32 with f32 arithmetic throughout, never TF32; in bf16 with sums in f32.
    ///
    /// # Errors
    /// What cuBLAS says.
    ///
    /// # Safety
    /// The addresses are those of arrays of this device of these extents, which live until the product is done.
    pub unsafe fn product(&self, product: &Product) -> Result<()> {
        let Product { rows, c_in, c_out, x, w, y, dtype } = *product;
        let (dtype, arithmetic) = match dtype {
            Dtype::F32 => (sys::cudaDataType::CUDA_R_32F, sys::cublasComputeType_t::CUBLAS_COMPUTE_32F_PEDANTIC),
            Dtype::Bf16 => (sys::cudaDataType::CUDA_R_16BF, sys::cublasComputeType_t::CUBLAS_COMPUTE_32F),
        };
        let extent = |n: usize| c_int::try_from(n).map_err(|_| Error::Unsupported(format!("{n} rows for cuBLAS")));
        let (m, n, k) = (extent(c_out)?, extent(rows)?, extent(c_in)?);
        let (one, zero) = (1f32, 0f32);
        let [a, b, c] = [w, x, y].map(|address| address as *mut c_void);
        let pointer = |scalar: &f32| std::ptr::from_ref(scalar).cast::<c_void>();
        self.context.bind()?;
        // SAFETY: the handle is alive; the scalars are read during the call; the arrays are the caller's promise. Columns
        // come first there: it sees w (c_in, c_out), x (c_in, rows), y (c_out, rows), and makes y = wᵀ x.
        let status = unsafe {
            sys::cublasGemmEx(
                self.handle,
                sys::cublasOperation_t::CUBLAS_OP_T,
                sys::cublasOperation_t::CUBLAS_OP_N,
                m,
                n,
                k,
                pointer(&one),
                a,
                dtype,
                k,
                b,
                dtype,
                k,
                pointer(&zero),
                c,
                dtype,
                m,
                arithmetic,
                sys::cublasGemmAlgo_t::CUBLAS_GEMM_DEFAULT,
            )
        };
        check(status, &format!("product ({rows}, {c_in}) to ({rows}, {c_out})"))
    }
}

impl Drop for Cublas {
    fn drop(&mut self) {
        if self.context.synchronize().is_err() {
            return; // a lost device: nothing can be given back
        }
        // SAFETY: nothing runs any more; the handles are its own, and unused from here on.
        unsafe {
            if !self.handle.is_null() {
                let _ = sys::cublasDestroy_v2(self.handle);
            }
            if self.workspace != 0 {
                let _ = driver::cuMemFree_v2(self.workspace);
            }
        }
    }
}
