//! Compiles kernels and the emulator into one shared library per build: used by the build script, and by the tests that
//! seed bugs into kernels.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::SystemTime;

/// How kernels are compiled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Build {
    /// Optimised.
    Plain,
    /// Every memory access of a kernel goes through the race checker (g++ only).
    Race,
    /// Address and undefined-behaviour sanitizers; the process needs libasan preloaded.
    Asan,
}

impl Build {
    /// The name of the build's folder and library.
    pub fn name(self) -> &'static str {
        match self {
            Build::Plain => "plain",
            Build::Race => "race",
            Build::Asan => "asan",
        }
    }

    /// Flags of every file, of kernels only, and of the linker.
    fn flags(self) -> [&'static [&'static str]; 3] {
        const ASAN: &[&str] = &["-O1", "-g", "-fsanitize=address,undefined", "-fno-sanitize-recover=undefined"];
        // Nothing may be missing at run time, whatever else the process has loaded.
        const CLOSED: &[&str] = &["-Wl,-z,defs", "-static-libstdc++", "-static-libgcc"];
        match self {
            Build::Plain => [&["-O2", "-g1"], &[], CLOSED],
            // Only the kernels are instrumented; the runtime serves the hooks, and libtsan is never linked.
            Build::Race => [&["-O2", "-g1", "-DEMU_RACE"], &["-fsanitize=thread"], CLOSED],
            Build::Asan => [ASAN, &[], &["-fsanitize=address,undefined"]],
        }
    }
}

/// A C++ compiler and where its input lies.
#[derive(Clone, Debug)]
pub struct Compiler {
    /// The compiler and the arguments that choose the target.
    pub command: Vec<String>,
    /// The emulator's C++ sources.
    pub emulator: PathBuf,
    /// Where `gpu.cuh` and the other kernel headers lie.
    pub headers: PathBuf,
    /// Where the emulator's objects are kept, a folder per build.
    pub runtime: PathBuf,
}

impl Compiler {
    /// Links `library` from the emulator and these kernel files. Objects are kept in `objects`, and only what is older than
    /// its sources is compiled again. Returns the compiler's warnings.
    ///
    /// # Errors
    /// The compiler's messages.
    pub fn library(&self, build: Build, kernels: &[PathBuf], objects: &Path, library: &Path) -> Result<String, String> {
        let runtime = files(&self.emulator, "cpp")?;
        let jobs: Vec<(&PathBuf, bool, PathBuf)> = runtime
            .iter()
            .map(|f| (f, false, self.runtime.join(build.name()).join(object_name(f))))
            .chain(kernels.iter().map(|f| (f, true, objects.join(object_name(f)))))
            .collect();
        let results = in_parallel(&jobs, |(source, kernel, object)| self.object(build, *kernel, source, object));
        let (warnings, errors): (Vec<_>, Vec<_>) = results.into_iter().partition(Result::is_ok);
        if !errors.is_empty() {
            return Err(errors.into_iter().filter_map(Result::err).collect::<Vec<_>>().join("\n"));
        }
        let all: Vec<PathBuf> = jobs.into_iter().map(|(_, _, object)| object).collect();
        Ok(warnings.into_iter().flatten().collect::<String>() + &self.link(build, &all, library)?)
    }

    /// Compiles one file of the emulator, or one kernel, unless its object is newer than everything it was made from.
    /// Returns the compiler's warnings.
    ///
    /// # Errors
    /// The compiler's message.
    pub fn object(&self, build: Build, kernel: bool, source: &Path, object: &Path) -> Result<String, String> {
        let depends = object.with_extension("d");
        if up_to_date(object, &depends) {
            return Ok(String::new());
        }
        let folder = object.parent().unwrap_or(Path::new("."));
        std::fs::create_dir_all(folder).map_err(|e| format!("{}: {e}", folder.display()))?;
        let [all, kernels, _] = build.flags();
        let mut compile = self.command();
        compile.args(["-std=c++17", "-fPIC", "-fvisibility=hidden", "-Wall", "-Wextra", "-Wno-psabi"]).args(all);
        if kernel {
            // Kernels pun types as nvcc allows, and carry `#pragma unroll`; bounds are checked when they run. Big frames
            // must not jump over the guard page.
            compile.args([
                "-fno-strict-aliasing",
                "-Wno-unknown-pragmas",
                "-Wno-array-bounds",
                "-Wno-maybe-uninitialized",
            ]);
            compile.arg("-fstack-clash-protection").args(kernels);
        }
        compile.arg("-I").arg(&self.emulator).arg("-I").arg(&self.headers);
        compile.arg("-MMD").arg("-MF").arg(&depends);
        compile.args(["-x", "c++", "-c"]).arg(source).arg("-o").arg(object);
        run(compile)
    }

    /// The objects of the emulator itself in this build, as [`Compiler::library`] leaves them.
    ///
    /// # Errors
    /// The sources cannot be listed.
    pub fn runtime_objects(&self, build: Build) -> Result<Vec<PathBuf>, String> {
        let folder = self.runtime.join(build.name());
        Ok(files(&self.emulator, "cpp")?.iter().map(|f| folder.join(object_name(f))).collect())
    }

    /// Links objects to a library. Returns the linker's warnings.
    ///
    /// # Errors
    /// The linker's message.
    pub fn link(&self, build: Build, objects: &[PathBuf], library: &Path) -> Result<String, String> {
        let mut link = self.command();
        link.args(["-shared", "-pthread", "-Wl,-Bsymbolic"])
            .args(build.flags()[2])
            .args(objects)
            .arg("-o")
            .arg(library);
        run(link)
    }

    /// Prepares a program to load a library of [`Build::Asan`]: libasan must be there from the start.
    ///
    /// # Errors
    /// The compiler has no libasan (clang keeps it elsewhere).
    pub fn preload_asan(&self, program: &mut Command) -> Result<(), String> {
        let mut question = self.command();
        let answer = question.arg("-print-file-name=libasan.so").output().map_err(|e| e.to_string())?;
        let path = String::from_utf8_lossy(&answer.stdout).trim().to_string();
        if !path.contains('/') {
            return Err("the C++ compiler has no libasan.so".into());
        }
        // Rust's leaks are none of its business, and fibers are not on the stack that it follows.
        program.env("LD_PRELOAD", path).env("ASAN_OPTIONS", "detect_leaks=0:detect_stack_use_after_return=0");
        Ok(())
    }

    fn command(&self) -> Command {
        let mut command = Command::new(&self.command[0]);
        command.args(&self.command[1..]);
        command
    }
}

/// `work` on every item, on all cores; results in the items' order.
pub fn in_parallel<T: Sync, R: Send>(items: &[T], work: impl Fn(&T) -> R + Sync) -> Vec<R> {
    let next = AtomicUsize::new(0);
    let results = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(|| {
                loop {
                    let i = next.fetch_add(1, Ordering::Relaxed);
                    let Some(item) = items.get(i) else { break };
                    let result = work(item);
                    results.lock().expect("no holder panics").push((i, result));
                }
            });
        }
    });
    let mut results = results.into_inner().expect("no holder panics");
    results.sort_by_key(|&(i, _)| i);
    results.into_iter().map(|(_, result)| result).collect()
}

/// The files of a folder with this extension, sorted.
///
/// # Errors
/// The folder cannot be read.
pub fn files(folder: &Path, extension: &str) -> Result<Vec<PathBuf>, String> {
    let listing = std::fs::read_dir(folder).map_err(|e| format!("{}: {e}", folder.display()))?;
    let mut found: Vec<PathBuf> = listing
        .filter_map(|f| Some(f.ok()?.path()))
        .filter(|f| f.extension().is_some_and(|e| e == extension))
        .collect();
    found.sort();
    Ok(found)
}

/// The name of a source file's object.
pub fn object_name(source: &Path) -> String {
    let name = source.file_name().expect("a source file has a name");
    format!("{}.o", name.to_string_lossy())
}

/// Whether `object` is newer than every file of its dependency list.
fn up_to_date(object: &Path, depends: &Path) -> bool {
    let modified = |f: &Path| std::fs::metadata(f).and_then(|m| m.modified()).ok();
    let (Some(made), Ok(list)) = (modified(object), std::fs::read_to_string(depends)) else { return false };
    let newer = |t: Option<SystemTime>| t.is_none_or(|t| t >= made);
    // "object: source header \" with line continuations; a path with a space reads as missing files, so is compiled again.
    let mut inputs = list.split_whitespace().skip(1).filter(|w| *w != "\\");
    !inputs.any(|f| newer(modified(Path::new(f))))
}

/// The program's warnings, or its error.
fn run(mut command: Command) -> Result<String, String> {
    let output = command.output().map_err(|e| format!("{}: {e}", command.get_program().to_string_lossy()))?;
    let message = String::from_utf8_lossy(&output.stderr).into_owned();
    if output.status.success() { Ok(message) } else { Err(format!("{command:?}\n{message}")) }
}
