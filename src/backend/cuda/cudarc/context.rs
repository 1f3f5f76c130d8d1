//! A device's context.

use super::check;
use crate::Result;
use crate::backend::cuda::driver::Counters;
use cudarc::driver::sys;
use std::ffi::c_uint;
use std::ptr::null_mut;
use std::sync::atomic::AtomicUsize;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// A device's primary context, with the one queue of all work.
pub(super) struct Context {
    pub device: sys::CUdevice,
    pub raw: sys::CUcontext,
    pub stream: sys::CUstream,
    pub paces: [sys::CUevent; 2], // after the last graph, and after the one before
    pub turn: AtomicUsize,
    pub counters: Mutex<Counters>,
}

// SAFETY: CUDA's driver API may be called from any thread; every call makes the context current first.
unsafe impl Send for Context {}
// SAFETY: as above.
unsafe impl Sync for Context {}

impl Context {
    pub fn new(device: sys::CUdevice) -> Result<Self> {
        let mut raw = null_mut();
        // SAFETY: the device exists; handles are written to live variables, in the order in which they are needed.
        check(unsafe { sys::cuDevicePrimaryCtxRetain(&mut raw, device) }, "the device's context")?;
        let mut context = Self {
            device,
            raw,
            stream: null_mut(),
            paces: [null_mut(); 2],
            turn: AtomicUsize::new(0),
            counters: Mutex::default(),
        };
        context.bind()?;
        let untimed = sys::CUevent_flags::CU_EVENT_DISABLE_TIMING as c_uint;
        let own_queue = sys::CUstream_flags::CU_STREAM_NON_BLOCKING as c_uint;
        // SAFETY: the context is current.
        unsafe {
            check(sys::cuStreamCreate(&mut context.stream, own_queue), "a queue of the device")?;
            for event in &mut context.paces {
                check(sys::cuEventCreate(event, untimed), "an event of the device")?;
            }
        }
        Ok(context)
    }
    pub fn bind(&self) -> Result<()> {
        // SAFETY: the context is retained as long as `self` lives.
        check(unsafe { sys::cuCtxSetCurrent(self.raw) }, "the device's context")
    }
    pub fn count(&self) -> MutexGuard<'_, Counters> {
        self.counters.lock().unwrap_or_else(PoisonError::into_inner)
    }
    pub fn synchronize(&self) -> Result<()> {
        self.count().synchronizations += 1;
        self.bind()?;
        // SAFETY: the stream is that of the context.
        check(unsafe { sys::cuStreamSynchronize(self.stream) }, "the work of the device")
    }
}

impl Drop for Context {
    fn drop(&mut self) {
        if self.bind().is_err() {
            return; // a lost device: nothing can be given back
        }
        // SAFETY: the handles are the context's own, and unused from here on; a null handle is refused and harmless.
        unsafe {
            let _ = sys::cuStreamSynchronize(self.stream);
            for event in self.paces.into_iter().filter(|event| !event.is_null()) {
                let _ = sys::cuEventDestroy_v2(event);
            }
            if !self.stream.is_null() {
                let _ = sys::cuStreamDestroy_v2(self.stream);
            }
            let _ = sys::cuDevicePrimaryCtxRelease_v2(self.device);
        }
    }
}
