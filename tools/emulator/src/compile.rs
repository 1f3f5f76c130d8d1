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
        match self {
            Build::Plain => [&["-O2", "-g1"], &[], &["-static-libstdc++", "-static-libgcc"]],
            // Only the kernels are instrumented; the runtime serves the hooks, and libtsan is never linked.
            Build::Race => {
                [&["-O2", "-g1", "-DEMU_RACE"], &["-fsanitize=thread"], &["-static-libstdc++", "-static-libgcc"]]
            }
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
}

impl Compiler {
    /// Links `library` from the emulator and these kernel files. Objects are kept in `objects`, and only what is older than
    /// its sources is compiled again.
    ///
    /// # Errors
    /// The compiler's message.
    pub fn library(
        &self,
        build: Build,
        kernels: &[PathBuf],
        defines: &[String],
        objects: &Path,
        library: &Path,
    ) -> Result<(), String> {
        std::fs::create_dir_all(objects).map_err(|e| format!("{}: {e}", objects.display()))?;
        let runtime = files(&self.emulator, "cpp")?;
        let sources: Vec<(&PathBuf, bool)> =
            runtime.iter().map(|f| (f, false)).chain(kernels.iter().map(|f| (f, true))).collect();
        let outputs: Vec<PathBuf> = sources.iter().map(|(f, _)| objects.join(object_name(f))).collect();
        let next = AtomicUsize::new(0);
        let failures = Mutex::new(Vec::new());
        std::thread::scope(|scope| {
            let work = || {
                loop {
                    let i = next.fetch_add(1, Ordering::Relaxed);
                    let Some(&(source, kernel)) = sources.get(i) else { break };
                    if let Err(e) = self.object(build, source, kernel, defines, &outputs[i]) {
                        failures.lock().expect("no holder panics").push(e);
                    }
                }
            };
            for _ in 0..std::thread::available_parallelism().map_or(1, usize::from) {
                scope.spawn(work);
            }
        });
        let failures = failures.into_inner().expect("no holder panics");
        if !failures.is_empty() {
            return Err(failures.join("\n"));
        }
        let mut link = self.command();
        link.args(["-shared", "-pthread", "-Wl,-Bsymbolic"])
            .args(build.flags()[2])
            .args(&outputs)
            .arg("-o")
            .arg(library);
        run(link)
    }

    /// Compiles one file, unless its object is newer than everything it was made from.
    fn object(
        &self,
        build: Build,
        source: &Path,
        kernel: bool,
        defines: &[String],
        object: &Path,
    ) -> Result<(), String> {
        let depends = object.with_extension("d");
        if up_to_date(object, &depends) {
            return Ok(());
        }
        let [all, kernels, _] = build.flags();
        let mut compile = self.command();
        compile.args(["-std=c++17", "-fPIC", "-fvisibility=hidden", "-Wall", "-Wextra", "-Wno-psabi"]).args(all);
        if kernel {
            // Kernels pun types as nvcc allows, and carry `#pragma unroll`. Big frames must not jump over the guard page.
            compile.args(["-fno-strict-aliasing", "-fstack-clash-protection", "-Wno-unknown-pragmas"]).args(kernels);
            compile.args(defines);
        }
        compile.arg("-I").arg(&self.emulator).arg("-I").arg(&self.headers);
        compile.arg("-MMD").arg("-MF").arg(&depends);
        compile.args(["-x", "c++", "-c"]).arg(source).arg("-o").arg(object);
        run(compile)
    }

    fn command(&self) -> Command {
        let mut command = Command::new(&self.command[0]);
        command.args(&self.command[1..]);
        command
    }
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

fn object_name(source: &Path) -> String {
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

fn run(mut command: Command) -> Result<(), String> {
    let output = command.output().map_err(|e| format!("{}: {e}", command.get_program().to_string_lossy()))?;
    let message = String::from_utf8_lossy(&output.stderr);
    if !output.status.success() {
        return Err(format!("{command:?}\n{message}"));
    }
    if !message.trim().is_empty() {
        eprintln!("{message}");
    }
    Ok(())
}
