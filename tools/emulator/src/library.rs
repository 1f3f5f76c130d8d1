//! The C interface of an emulator library: loading, and the functions that `emu/` exports.

use crate::Tensor;
use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::fs::File;
use std::io::Write;
use std::os::fd::{AsRawFd, FromRawFd};
use std::path::Path;

/// `emu_config` of `emu/block.h`.
#[repr(C)]
pub(crate) struct RawConfig {
    pub policy: u32,
    pub os_threads: u32,
    pub seed: u64,
    pub async_late: u32,
}

type Launch = unsafe extern "C" fn(
    name: *const c_char,
    grid: *const u32,
    block: *const u32,
    shared: u32,
    args: *const *const c_void,
    sizes: *const u32,
    count: u32,
    config: *const RawConfig,
    error: *mut c_char,
    error_size: usize,
) -> c_int;
type TensorMap = unsafe extern "C" fn(map: *mut u8, tensor: *const Tensor);
type Each = unsafe extern "C" fn(context: *mut c_void, name: *const c_char);

/// A loaded library: kernels and the runtime that runs them. Never unloaded, because its signal handler stays installed.
pub(crate) struct Library {
    launch: Launch,
    alloc: unsafe extern "C" fn(usize) -> u64,
    free: unsafe extern "C" fn(u64) -> c_int,
    owns: unsafe extern "C" fn(u64, usize) -> c_int,
    tensor_map: TensorMap,
    kernels: Vec<String>,
}

impl Library {
    /// Loads the bytes of a shared library, through a file that exists in memory only.
    pub fn embedded(name: &CStr, bytes: &[u8]) -> Result<Self, String> {
        // SAFETY: `name` is a C string; the call returns a new descriptor or -1.
        let fd = unsafe { libc::memfd_create(name.as_ptr(), 0) };
        if fd < 0 {
            return Err(format!("memfd_create: {}", std::io::Error::last_os_error()));
        }
        // SAFETY: the descriptor is new and belongs to nobody else.
        let mut file = unsafe { File::from_raw_fd(fd) };
        file.write_all(bytes).map_err(|e| format!("the emulator's library: {e}"))?;
        let library = Self::open(Path::new(&format!("/proc/self/fd/{}", file.as_raw_fd())));
        std::mem::forget(file); // the loader knows a library by its path, so the number must not come again
        library
    }

    /// Loads a shared library that [`crate::compile`] made.
    pub fn open(path: &Path) -> Result<Self, String> {
        let message = |e: libloading::Error| format!("{}: {e}", path.display());
        // SAFETY: the library's initialisers only build its list of kernels.
        let library = unsafe { libloading::Library::new(path) }.map_err(message)?;
        // SAFETY: the names and types are those of `emu/`; the library is never unloaded, so the addresses stay valid.
        unsafe {
            let each_kernel =
                *library.get::<unsafe extern "C" fn(Each, *mut c_void)>(b"emu_kernels\0").map_err(message)?;
            let mut kernels = Vec::new();
            each_kernel(collect, (&raw mut kernels).cast());
            kernels.sort();
            let loaded = Library {
                launch: *library.get(b"emu_launch\0").map_err(message)?,
                alloc: *library.get(b"emu_alloc\0").map_err(message)?,
                free: *library.get(b"emu_free\0").map_err(message)?,
                owns: *library.get(b"emu_owns\0").map_err(message)?,
                tensor_map: *library.get(b"emu_tensor_map\0").map_err(message)?,
                kernels,
            };
            std::mem::forget(library);
            Ok(loaded)
        }
    }

    pub fn kernels(&self) -> &[String] {
        &self.kernels
    }

    /// 0 where memory is exhausted.
    pub fn alloc(&self, bytes: usize) -> u64 {
        // SAFETY: takes any size.
        unsafe { (self.alloc)(bytes) }
    }

    /// Whether `address` was a buffer.
    pub fn free(&self, address: u64) -> bool {
        // SAFETY: any value may be passed; only the start of a live buffer is accepted.
        unsafe { (self.free)(address) == 0 }
    }

    /// Whether these bytes lie in one buffer.
    pub fn owns(&self, address: u64, bytes: usize) -> bool {
        // SAFETY: takes any values; nothing is dereferenced.
        unsafe { (self.owns)(address, bytes) != 0 }
    }

    pub fn tensor_map(&self, tensor: &Tensor) -> [u8; 128] {
        let mut map = [0; 128];
        // SAFETY: the map has the 128 bytes of a `TensorMap`; the tensor is a live `emu_tensor`.
        unsafe { (self.tensor_map)(map.as_mut_ptr(), tensor) };
        map
    }

    /// # Safety
    /// See [`crate::Emulator::launch`].
    pub unsafe fn launch(
        &self,
        name: &str,
        grid: [u32; 3],
        block: [u32; 3],
        shared: u32,
        args: &[&[u8]],
        config: &RawConfig,
    ) -> Result<(), String> {
        let name = CString::new(name).map_err(|_| format!("no kernel is named {name:?}"))?;
        // Arguments are read as their own types, so each starts at an address fit for any (a TensorMap wants 64 bytes).
        #[derive(Clone, Copy)]
        #[repr(align(64))]
        struct Aligned([u8; 64]);
        let mut storage = Vec::new();
        let mut starts = Vec::new();
        for arg in args {
            starts.push(storage.len());
            storage.extend(arg.chunks(64).map(|chunk| {
                let mut piece = Aligned([0; 64]);
                piece.0[..chunk.len()].copy_from_slice(chunk);
                piece
            }));
        }
        let pointers: Vec<*const c_void> = starts.iter().map(|&i| storage.as_ptr().wrapping_add(i).cast()).collect();
        let sizes: Vec<u32> = args.iter().map(|a| a.len() as u32).collect();
        let mut error = [0 as c_char; 600];
        // SAFETY: the arrays live through the call and have the lengths given; the rest is the caller's promise.
        let failed = unsafe {
            (self.launch)(
                name.as_ptr(),
                grid.as_ptr(),
                block.as_ptr(),
                shared,
                pointers.as_ptr(),
                sizes.as_ptr(),
                sizes.len() as u32,
                config,
                error.as_mut_ptr(),
                error.len(),
            )
        };
        if failed == 0 {
            return Ok(());
        }
        // SAFETY: a failed launch leaves a message that ends with 0 inside the array.
        Err(unsafe { CStr::from_ptr(error.as_ptr()) }.to_string_lossy().into_owned())
    }
}

unsafe extern "C" fn collect(context: *mut c_void, name: *const c_char) {
    // SAFETY: `context` is the vector that `open` passes, and `name` is a C string of the library.
    unsafe { (*context.cast::<Vec<String>>()).push(CStr::from_ptr(name).to_string_lossy().into_owned()) }
}
