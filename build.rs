//! Compiles `kernels/*.cu` for the GPU where nvcc is found, and embeds them; without nvcc the program has the CPU only.
//!
//! - `DIEM_NVCC`: the nvcc to use, or `none`.
//! - `DIEM_CUDA_ARCHS`: what to compile for, `sm_80,sm_90a,compute_80` by default (`compute_` is PTX, for later GPUs).
//! - `DIEM_CUDA_STRICT=1`: a kernel that spills or has a stack frame is an error, unless its file says
//!   `// allow-stack: KERNEL why`.

#[path = "build/nvcc.rs"]
mod nvcc;
#[path = "build/resources.rs"]
mod resources;

use nvcc::Nvcc;
use resources::Resources;
use sha2::{Digest, Sha256};
use std::collections::BTreeSet;
use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

const FLAGS: [&str; 6] = ["-std=c++17", "-O3", "-fatbin", "-Xptxas", "-v", "-Ikernels"];
const DEFAULT_ARCHS: &str = "sm_80,sm_90a,compute_80";

fn main() -> ExitCode {
    println!("cargo::rerun-if-changed=kernels");
    println!("cargo::rerun-if-changed=build");
    println!("cargo::rerun-if-env-changed=DIEM_CUDA_STRICT");
    let generated = variable("OUT_DIR").join("kernels.rs");
    match kernels().and_then(|text| fs::write(&generated, text).map_err(|e| format!("{}: {e}", generated.display()))) {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            message.lines().for_each(|line| println!("cargo::error={line}"));
            ExitCode::FAILURE
        }
    }
}

/// What `src/backend/cuda/kernels.rs` includes: the modules, and how they were made.
fn kernels() -> Result<String, String> {
    let target = target_folder();
    let nvcc = match Nvcc::find(&target) {
        Ok(nvcc) => nvcc,
        Err(why) => return Ok(format!("Build {{ nvcc: Err({why:?}), archs: \"\", modules: &[] }}\n")),
    };
    let archs = nvcc::variable("DIEM_CUDA_ARCHS").unwrap_or_else(|| DEFAULT_ARCHS.to_owned());
    let cache = target.join("kernels");
    fs::create_dir_all(&cache).map_err(|e| format!("{}: {e}", cache.display()))?;
    let modules = compile(&nvcc, &archs, &cache)?;
    if nvcc::variable("DIEM_CUDA_STRICT").is_some_and(|strict| strict == "1") {
        let faults: Vec<String> =
            modules.iter().flat_map(|module| resources::faults(&module.source, &module.log)).collect();
        if !faults.is_empty() {
            return Err(faults.join("\n"));
        }
    }
    let mut text = format!("Build {{ nvcc: Ok({:?}), archs: {archs:?}, modules: &[\n", nvcc.description());
    for module in &modules {
        let (name, image) = (module.source.file_name().expect("a file").display().to_string(), &module.image);
        let resources: Vec<Resources> = resources::parse(&module.log);
        let names: BTreeSet<&str> = resources.iter().map(|r| r.kernel.as_str()).collect();
        let names = Vec::from_iter(names);
        writeln!(text, "Module {{ file: {name:?}, image: include_bytes!({image:?}),").expect("a string");
        writeln!(text, "  kernels: &{names:?}, resources: &[").expect("a string");
        for r in &resources {
            writeln!(text, "    {r:?},").expect("a string");
        }
        writeln!(text, "  ] }},").expect("a string");
    }
    Ok(text + "] }\n")
}

/// A compiled file.
struct Module {
    source: PathBuf,
    image: PathBuf,
    log: String, // of ptxas
}

/// Compiles what the cache does not have, on as many threads as cargo grants.
fn compile(nvcc: &Nvcc, archs: &str, cache: &Path) -> Result<Vec<Module>, String> {
    let sources = files(Path::new("kernels"), "cu")?;
    let flags: Vec<String> = FLAGS.iter().map(|f| f.to_string()).chain(nvcc::gencode(archs)?).collect();
    let (next, done, failures) = (AtomicUsize::new(0), Mutex::new(Vec::new()), Mutex::new(Vec::new()));
    let work = || {
        while let Some(source) = sources.get(next.fetch_add(1, Ordering::Relaxed)) {
            match compile_one(nvcc, &flags, source, cache) {
                Ok(module) => done.lock().expect("no holder panics").push(module),
                Err(message) => failures.lock().expect("no holder panics").push(message),
            }
        }
    };
    let jobs = nvcc::variable("NUM_JOBS").and_then(|n| n.parse().ok()).unwrap_or(1);
    std::thread::scope(|scope| (0..jobs).for_each(|_| drop(scope.spawn(work))));
    let failures = failures.into_inner().expect("no holder panics");
    let mut modules = done.into_inner().expect("no holder panics");
    modules.sort_by(|a, b| a.source.cmp(&b.source));
    if failures.is_empty() { Ok(modules) } else { Err(failures.join("\n")) }
}

/// The fat binary of one file; its name in the cache tells the compiler, the flags and all text that it was made from.
fn compile_one(nvcc: &Nvcc, flags: &[String], source: &Path, cache: &Path) -> Result<Module, String> {
    let mut hash = Sha256::new();
    hash.update(nvcc.description());
    hash.update(flags.join(" "));
    for file in with_headers(source)? {
        hash.update(read(&file)?);
    }
    let hash: String = hash.finalize().iter().take(12).map(|byte| format!("{byte:02x}")).collect();
    let name = source.file_stem().expect("a file").display().to_string();
    let (image, log) = (cache.join(format!("{name}-{hash}.fatbin")), cache.join(format!("{name}-{hash}.log")));
    if !(image.exists() && log.exists()) {
        let of_this =
            |path: &PathBuf| path.file_name().is_some_and(|f| f.to_string_lossy().starts_with(&format!("{name}-")));
        let stale = ["fatbin", "log"].map(|extension| files(cache, extension)).into_iter().flatten().flatten();
        stale.filter(of_this).for_each(|path| drop(fs::remove_file(path)));
        let text = nvcc.run(flags, source, &image)?;
        fs::write(&log, text).map_err(|e| format!("{}: {e}", log.display()))?;
    }
    let log = read(&log)?;
    Ok(Module { source: source.to_owned(), image, log })
}

/// `source` and the headers of its folder that it includes, directly or not.
fn with_headers(source: &Path) -> Result<Vec<PathBuf>, String> {
    let mut found = vec![source.to_owned()];
    let mut next = 0;
    while next < found.len() {
        for line in read(&found[next])?.lines() {
            let included = line.trim().strip_prefix("#include \"").and_then(|rest| rest.strip_suffix('"'));
            let header = included.map(|name| source.with_file_name(name)).filter(|header| header.exists());
            found.extend(header.filter(|header| !found.contains(header)));
        }
        next += 1;
    }
    Ok(found)
}

fn files(folder: &Path, extension: &str) -> Result<Vec<PathBuf>, String> {
    let listing = fs::read_dir(folder).map_err(|e| format!("{}: {e}", folder.display()))?;
    let paths = listing.filter_map(|entry| Some(entry.ok()?.path()));
    let mut found: Vec<PathBuf> = paths.filter(|path| path.extension().is_some_and(|e| e == extension)).collect();
    found.sort();
    Ok(found)
}

fn read(path: &Path) -> Result<String, String> {
    fs::read_to_string(path).map_err(|e| format!("{}: {e}", path.display()))
}

fn variable(name: &str) -> PathBuf {
    std::env::var_os(name).expect("cargo sets it").into()
}

/// Cargo's target folder: the one with the cache tag above `OUT_DIR`.
fn target_folder() -> PathBuf {
    let out = variable("OUT_DIR");
    out.ancestors().find(|folder| folder.join("CACHEDIR.TAG").exists()).unwrap_or(&out).to_owned()
}
