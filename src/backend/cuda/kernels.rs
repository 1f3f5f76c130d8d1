//! The kernels that this program carries, as `build.rs` compiled them.

/// How the kernels were made, and all of them.
#[derive(Debug)]
pub struct Build {
    /// The compiler, or why there was none.
    pub nvcc: Result<&'static str, &'static str>,
    /// What they were compiled for: "sm_80,sm_90a,compute_80".
    pub archs: &'static str,
    /// One for every file.
    pub modules: &'static [Module],
}

/// A file of kernels.
#[derive(Debug)]
pub struct Module {
    /// "vector.cu".
    pub file: &'static str,
    /// Its fat binary: code for every architecture; the driver takes what fits.
    pub image: &'static [u8],
    /// The names of its kernels.
    pub kernels: &'static [&'static str],
    /// What they take.
    pub resources: &'static [Resources],
}

/// What a kernel takes on one architecture, as ptxas says.
#[derive(Debug)]
pub struct Resources {
    /// Its name.
    pub kernel: &'static str,
    /// "sm_90a".
    pub arch: &'static str,
    /// Registers of a thread.
    pub registers: u32,
    /// Bytes of static shared memory.
    pub shared: u32,
    /// Bytes of a thread's stack frame.
    pub stack: u32,
    /// Bytes of spilled registers, stores and loads.
    pub spills: u32,
}

/// The kernels of this program.
pub static BUILD: Build = include!(concat!(env!("OUT_DIR"), "/kernels.rs"));

/// Why this program has no kernels, and what to do; `None` when it has.
pub fn missing() -> Option<String> {
    let why = BUILD.nvcc.err()?;
    Some(format!("this build has no CUDA kernels ({why}); tools/install_nvcc.sh gets a compiler, then build again"))
}
