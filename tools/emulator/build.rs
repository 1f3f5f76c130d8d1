//! Compiles every `kernels/*.cu` with the host's C++ compiler and the emulator into two shared libraries, plain and race,
//! which the crate embeds.

#[allow(dead_code, reason = "the tests use the rest")]
#[path = "src/compile.rs"]
mod compile;

use compile::{Build, Compiler, files};
use std::path::PathBuf;

fn main() {
    if let Err(message) = build() {
        for line in message.lines() {
            println!("cargo::error={line}");
        }
    }
}

fn build() -> Result<(), String> {
    let variable = |name: &str| std::env::var(name).map_err(|e| format!("{name}: {e}"));
    let (os, arch) = (variable("CARGO_CFG_TARGET_OS")?, variable("CARGO_CFG_TARGET_ARCH")?);
    if os != "linux" || !["x86_64", "aarch64"].contains(&arch.as_str()) {
        return Err(format!("the emulator runs on Linux, on x86-64 and aarch64; the target is {os}, {arch}"));
    }
    let root = PathBuf::from(variable("CARGO_MANIFEST_DIR")?);
    let out = PathBuf::from(variable("OUT_DIR")?);
    let headers = root.join("../../kernels").canonicalize().map_err(|e| format!("kernels/: {e}"))?;
    let emulator = root.join("emu");
    println!("cargo::rerun-if-changed={}", headers.display());
    println!("cargo::rerun-if-changed={}", emulator.display());
    println!("cargo::rerun-if-changed=src/compile.rs");

    let tool = cc::Build::new()
        .cpp(true)
        .no_default_flags(true)
        .try_get_compiler()
        .map_err(|e| format!("the emulator needs a C++17 compiler: {e}"))?;
    let mut command = vec![tool.path().display().to_string()];
    command.extend(tool.args().iter().map(|a| a.to_string_lossy().into_owned()));
    println!("cargo::rustc-env=EMULATOR_CXX={}", command.join("\x1f"));
    println!("cargo::rustc-env=EMULATOR_KERNELS={}", headers.display());

    let compiler = Compiler { command, emulator, headers, runtime: out.clone() };
    let kernels = files(&compiler.headers, "cu")?;
    for build in [Build::Plain, Build::Race] {
        let library = out.join(format!("{}.so", build.name()));
        if build == Build::Race && !tool.is_like_gnu() {
            // clang turns copies of vectors into memcpy, which the race checker's hooks do not see.
            println!("cargo::warning=the emulator's race checker needs g++; this build has none");
            std::fs::write(&library, []).map_err(|e| format!("{}: {e}", library.display()))?;
        } else {
            let warnings = compiler.library(build, &kernels, &out.join(build.name()), &library)?;
            for line in warnings.lines() {
                println!("cargo::warning={line}");
            }
        }
    }
    Ok(())
}
