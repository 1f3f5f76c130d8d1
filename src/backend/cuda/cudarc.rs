//! CUDA's driver API, loaded when the program runs: it starts without a GPU, and works with any driver that is new enough.

mod context;
mod cublas;
mod devices;
mod events;
mod graph;

use super::driver::{Boxes, Counters, Driver, Graph, Launch, Product, Properties, TensorMap};
use super::kernels::{self, BUILD};
use crate::{Error, Result};
use context::Context;
use cublas::Cublas;
use cudarc::driver::sys::{self, CUfunction_attribute, CUresult};
use devices::properties;
pub use devices::{count, describe};
use std::collections::HashMap;
use std::ffi::{CStr, CString, c_int, c_void};
use std::ptr::{null, null_mut};
use std::sync::atomic::Ordering;
use std::sync::{Arc, OnceLock};

/// The oldest architecture that the kernels are written for.
const OLDEST_ARCH: (u32, u32) = (8, 0);

/// One GPU.
pub struct Gpu {
    context: Arc<Context>,
    ordinal: usize,
    properties: Properties,
    functions: HashMap<&'static str, sys::CUfunction>,
    modules: Vec<sys::CUmodule>,
    cublas: OnceLock<std::result::Result<Cublas, String>>, // from when it is asked for
}

// SAFETY: functions and modules are handles of the context, never changed after `open`.
unsafe impl Send for Gpu {}
// SAFETY: as above.
unsafe impl Sync for Gpu {}

/// Succeeds when CUDA has: every return code goes through here.
fn check(result: CUresult, what: &str) -> Result<()> {
    if result == CUresult::CUDA_SUCCESS {
        return Ok(());
    }
    let mut text = null();
    // SAFETY: the driver is loaded, since it has given a result; it writes a pointer to a constant string, or null.
    let known = unsafe { sys::cuGetErrorString(result, &mut text) } == CUresult::CUDA_SUCCESS && !text.is_null();
    // SAFETY: a constant string of the driver.
    let text = if known { unsafe { CStr::from_ptr(text) }.to_string_lossy() } else { "unknown error".into() };
    Err(Error::Device(format!("{what}: {text} ({result:?})")))
}

impl Gpu {
    /// GPU number `ordinal`, with all kernels loaded.
    ///
    /// # Errors
    /// In one line: as of [`count`], or no such GPU, one that is too old, kernels that do not load.
    pub fn open(ordinal: usize) -> Result<Self> {
        let count = count()?;
        if ordinal >= count {
            return Err(Error::mismatch("--device", format!("a GPU number below {count}"), ordinal));
        }
        let mut device = 0;
        // SAFETY: the driver has been started; the pointer is to a live number.
        check(unsafe { sys::cuDeviceGet(&mut device, ordinal as c_int) }, "the device")?;
        let properties = properties(device)?;
        if properties.arch < OLDEST_ARCH {
            let ((major, minor), name) = (properties.arch, &properties.name);
            let found = format!("{name} has compute capability {major}.{minor}");
            return Err(Error::Unsupported(format!("{found}; the kernels need 8.0 or later")));
        }
        let context = Arc::new(Context::new(device)?);
        let mut gpu = Self {
            context,
            ordinal,
            properties,
            functions: HashMap::new(),
            modules: Vec::new(),
            cublas: OnceLock::new(),
        };
        for module in BUILD.modules {
            gpu.load(module)?;
        }
        Ok(gpu)
    }

    /// The same GPU with other properties for those who ask (tests: small arrays take every kind of tile).
    pub fn seen_as(mut self, change: impl FnOnce(&mut Properties)) -> Self {
        change(&mut self.properties);
        self
    }

    fn load(&mut self, module: &'static kernels::Module) -> Result<()> {
        self.context.bind()?;
        let mut handle = null_mut();
        // SAFETY: the image is a fat binary, which says its own length, and lives as long as the program.
        let loaded = unsafe { sys::cuModuleLoadData(&mut handle, module.image.as_ptr().cast()) };
        let (major, minor) = self.properties.arch;
        check(
            loaded,
            &format!("{}, compiled for {}, on compute capability {major}.{minor}", module.file, BUILD.archs),
        )?;
        self.modules.push(handle);
        for &name in module.kernels {
            let symbol = CString::new(name).expect("a name without zeros");
            let mut function = null_mut();
            // SAFETY: the module is loaded, the name ends with zero.
            check(unsafe { sys::cuModuleGetFunction(&mut function, handle, symbol.as_ptr()) }, name)?;
            let mut fixed = 0;
            // SAFETY: the function is that of a loaded module. What a block may have beyond 48 KiB must be asked for.
            unsafe {
                use CUfunction_attribute::*;
                check(sys::cuFuncGetAttribute(&mut fixed, CU_FUNC_ATTRIBUTE_SHARED_SIZE_BYTES, function), name)?;
                let dynamic = self.properties.shared_memory as c_int - fixed;
                let attribute = CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES;
                check(sys::cuFuncSetAttribute(function, attribute, dynamic), name)?;
            }
            self.functions.insert(name, function);
        }
        Ok(())
    }

    fn cublas(&self) -> Result<&Cublas> {
        let opened = self.cublas.get_or_init(|| Cublas::open(self.context.clone()).map_err(|error| error.to_string()));
        opened.as_ref().map_err(|why| Error::Unsupported(why.clone()))
    }
    fn function(&self, kernel: &str) -> Result<sys::CUfunction> {
        let unknown = || Error::Device(format!("no module has the kernel {kernel}"));
        self.functions.get(kernel).copied().ok_or_else(unknown)
    }
}

impl Drop for Gpu {
    fn drop(&mut self) {
        if self.context.synchronize().is_ok() {
            for &module in &self.modules {
                // SAFETY: nothing runs any more, and the functions go with `self`.
                let _ = unsafe { sys::cuModuleUnload(module) };
            }
        }
    }
}

/// The addresses of the arguments, as CUDA wants them; it copies from them during the call.
fn parameters(launch: &Launch) -> Vec<*mut c_void> {
    launch.args.bytes().map(|bytes| bytes.as_ptr().cast_mut().cast()).collect()
}

impl Driver for Gpu {
    fn name(&self) -> String {
        format!("cuda:{}", self.ordinal)
    }
    fn properties(&self) -> &Properties {
        &self.properties
    }
    fn free_memory(&self) -> Result<usize> {
        self.context.bind()?;
        let (mut free, mut total) = (0, 0);
        // SAFETY: the context is current; the pointers are to live numbers.
        check(unsafe { sys::cuMemGetInfo_v2(&mut free, &mut total) }, "the free memory")?;
        Ok(free)
    }
    fn alloc(&self, bytes: usize) -> Result<u64> {
        self.context.count().allocations += 1;
        self.context.bind()?;
        let mut address = 0;
        // SAFETY: the context is current; the pointer is to a live number.
        let result = unsafe { sys::cuMemAlloc_v2(&mut address, bytes) };
        if result == CUresult::CUDA_ERROR_OUT_OF_MEMORY {
            let mib = |bytes: usize| bytes as f64 / (1 << 20) as f64;
            let (wanted, free, all) = (mib(bytes), mib(self.free_memory()?), mib(self.properties.memory));
            return Err(Error::OutOfMemory(format!("{wanted:.1} MiB wanted, {free:.1} of {all:.0} MiB free")));
        }
        check(result, "memory of the device")?;
        Ok(address)
    }
    fn free(&self, address: u64) -> Result<()> {
        self.context.bind()?;
        // SAFETY: the address is one that `alloc` gave; CUDA finishes queued work first.
        check(unsafe { sys::cuMemFree_v2(address) }, "memory of the device")
    }
    fn upload(&self, address: u64, host: &[u8]) -> Result<()> {
        self.context.bind()?;
        let source: *const c_void = host.as_ptr().cast();
        // SAFETY: the target is an array of at least this length; the source is borrowed until the copy is done.
        check(
            unsafe { sys::cuMemcpyHtoDAsync_v2(address, source, host.len(), self.context.stream) },
            "a copy to the device",
        )?;
        self.context.synchronize()
    }
    fn download(&self, address: u64, host: &mut [u8]) -> Result<()> {
        self.context.bind()?;
        let target: *mut c_void = host.as_mut_ptr().cast();
        // SAFETY: the source is an array of at least this length; the target is borrowed until the copy is done.
        check(
            unsafe { sys::cuMemcpyDtoHAsync_v2(target, address, host.len(), self.context.stream) },
            "a copy from the device",
        )?;
        self.context.synchronize()
    }
    fn tensor_map(&self, boxes: &Boxes) -> Result<TensorMap> {
        let (mut map, address) = (sys::CUtensorMap { opaque: [0; 16] }, boxes.address as *mut c_void);
        let (array, strides) = (boxes.array.map(|extent| extent as u64), boxes.strides());
        let steps = boxes.steps.map(|step| step as u32);
        let span: [u32; 4] = std::array::from_fn(|i| (boxes.extents[i] * boxes.steps[i]) as u32);
        // SAFETY: four extents, spans and steps, and three strides, those of the outer dimensions, are live; so is the map.
        let result = unsafe {
            sys::cuTensorMapEncodeTiled(
                &mut map,
                sys::CUtensorMapDataType::CU_TENSOR_MAP_DATA_TYPE_BFLOAT16,
                4,
                address,
                array.as_ptr(),
                strides[1..].as_ptr(),
                span.as_ptr(),
                steps.as_ptr(),
                sys::CUtensorMapInterleave::CU_TENSOR_MAP_INTERLEAVE_NONE,
                sys::CUtensorMapSwizzle::CU_TENSOR_MAP_SWIZZLE_128B,
                sys::CUtensorMapL2promotion::CU_TENSOR_MAP_L2_PROMOTION_L2_128B,
                sys::CUtensorMapFloatOOBfill::CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE,
            )
        };
        check(result, "a tensor map")?;
        Ok(map.opaque)
    }
    unsafe fn launch(&self, launch: &Launch) -> Result<()> {
        self.context.count().launches += 1;
        self.context.bind()?;
        let function = self.function(launch.kernel)?;
        let ([gx, gy, gz], [bx, by, bz], shared) = (launch.grid, launch.block, launch.shared);
        let (mut args, stream) = (parameters(launch), self.context.stream);
        // SAFETY: `args` are as many values as the kernel takes, alive during the call; the rest is the caller's promise.
        let result = unsafe {
            sys::cuLaunchKernel(function, gx, gy, gz, bx, by, bz, shared, stream, args.as_mut_ptr(), null_mut())
        };
        check(result, "launch")
    }
    fn graph(&self, launches: &[Launch]) -> Result<Box<dyn Graph>> {
        self.context.bind()?;
        let mut graph = null_mut();
        // SAFETY: the context is current; the handle is written to a live variable.
        check(unsafe { sys::cuGraphCreate(&mut graph, 0) }, "a graph")?;
        let chain = self.chain(graph, launches);
        // SAFETY: the graph is not used any more; what was made of it is independent.
        let destroyed = check(unsafe { sys::cuGraphDestroy(graph) }, "a graph");
        let chain = chain?;
        destroyed?;
        Ok(Box::new(chain))
    }
    fn pace(&self) -> Result<()> {
        self.context.bind()?;
        let turn = self.context.turn.fetch_xor(1, Ordering::Relaxed);
        let [now, before] = [self.context.paces[turn], self.context.paces[1 - turn]];
        // SAFETY: events and stream are the context's; an event that was never recorded counts as done.
        unsafe {
            check(sys::cuEventRecord(now, self.context.stream), "an event of the device")?;
            check(sys::cuEventSynchronize(before), "the work of the device")
        }
    }
    fn library(&self) -> Result<String> {
        self.cublas().map(|cublas| cublas.name.clone())
    }
    unsafe fn library_product(&self, product: &Product) -> Result<()> {
        // SAFETY: the caller's promise.
        unsafe { self.cublas()?.product(product) }
    }
    fn laps(&self, count: usize, lap: &mut dyn FnMut() -> Result<()>) -> Result<Vec<f64>> {
        events::laps(&self.context, count, lap)
    }
    fn synchronize(&self) -> Result<()> {
        self.context.synchronize()
    }
    fn counters(&self) -> Counters {
        *self.context.count()
    }
}
