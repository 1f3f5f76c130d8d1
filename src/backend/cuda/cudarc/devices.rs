//! The GPUs of a machine, and whether these kernels can run there.

use super::check;
use crate::backend::cuda::driver::Properties;
use crate::backend::cuda::kernels::{self, BUILD};
use crate::{Error, Result};
use cudarc::driver::sys::{self, CUdevice_attribute as Attribute};
use std::ffi::{CStr, c_int};

/// The number of GPUs.
///
/// # Errors
/// In one line: no kernels in this build, no driver, a driver that is too old, or none that works.
pub fn count() -> Result<usize> {
    if let Some(why) = kernels::missing() {
        return Err(Error::Unsupported(why));
    }
    // SAFETY: it only tries to open the library.
    if !unsafe { sys::is_culib_present() } {
        return Err(Error::Unsupported("no NVIDIA driver (libcuda) is installed".to_owned()));
    }
    let (mut version, mut count) = (0, 0);
    // SAFETY: the library is there; the pointers are to live numbers.
    unsafe {
        check(sys::cuDriverGetVersion(&mut version), "the driver's version")?;
        let (major, minor) = (version / 1000, version % 1000 / 10);
        if let Some(needed) = needed_version().filter(|needed| major < *needed) {
            let found = format!("the NVIDIA driver is for CUDA {major}.{minor}");
            return Err(Error::Unsupported(format!("{found}; these kernels need one for CUDA {needed}.0 or later")));
        }
        check(sys::cuInit(0), "the NVIDIA driver does not start")?;
        check(sys::cuDeviceGetCount(&mut count), "the number of devices")?;
    }
    if count == 0 { Err(Error::Unsupported("no GPU is there".to_owned())) } else { Ok(count as usize) }
}

/// GPU number `ordinal` of [`count`], for people.
///
/// # Errors
/// What the driver says.
pub fn describe(ordinal: usize) -> Result<String> {
    let mut device = 0;
    // SAFETY: the driver has been started; the pointer is to a live number.
    check(unsafe { sys::cuDeviceGet(&mut device, ordinal as c_int) }, "the device")?;
    let Properties { name, arch: (major, minor), multiprocessors, memory, .. } = properties(device)?;
    let gib = memory as f64 / (1u64 << 30) as f64;
    Ok(format!("cuda:{ordinal}, {name}, compute capability {major}.{minor}, {multiprocessors} SMs, {gib:.1} GiB"))
}

/// The major version of CUDA that the kernels were compiled with.
fn needed_version() -> Option<c_int> {
    BUILD.nvcc.ok()?.strip_prefix("nvcc ")?.split('.').next()?.parse().ok()
}

/// What its driver tells of a device.
pub(super) fn properties(device: sys::CUdevice) -> Result<Properties> {
    let attribute = |attribute: Attribute| {
        let mut value = 0;
        // SAFETY: the device exists; the pointer is to a live number.
        check(unsafe { sys::cuDeviceGetAttribute(&mut value, attribute, device) }, "a property of the device")?;
        Ok::<u32, Error>(value as u32)
    };
    let (mut name, mut memory) = ([0; 256], 0);
    // SAFETY: the name is written into at most 256 bytes and ended with zero.
    let name = unsafe {
        check(sys::cuDeviceGetName(name.as_mut_ptr(), name.len() as c_int, device), "the device's name")?;
        check(sys::cuDeviceTotalMem_v2(&mut memory, device), "the device's memory")?;
        CStr::from_ptr(name.as_ptr()).to_string_lossy().into_owned()
    };
    let arch = (
        attribute(Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR)?,
        attribute(Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR)?,
    );
    Ok(Properties {
        name,
        arch,
        wgmma: arch == (9, 0) && BUILD.archs.split(',').any(|arch| arch.trim() == "sm_90a"),
        multiprocessors: attribute(Attribute::CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT)?,
        shared_memory: attribute(Attribute::CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN)?,
        memory,
        cache: attribute(Attribute::CU_DEVICE_ATTRIBUTE_L2_CACHE_SIZE)? as usize,
    })
}
