//! Where nvcc is, and how it is called.

use std::path::{Path, PathBuf};
use std::process::Command;

/// The oldest release that compiles for sm_90a.
const OLDEST: (u32, u32) = (12, 0);

/// A CUDA compiler.
pub struct Nvcc {
    path: PathBuf,
    version: (u32, u32),
}

/// An environment variable that the build depends on.
pub fn variable(name: &str) -> Option<String> {
    println!("cargo::rerun-if-env-changed={name}");
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

impl Nvcc {
    /// The first that works, of all places where one may be; otherwise why there is none, in one line.
    pub fn find(target: &Path) -> Result<Self, String> {
        if let Some(path) = variable("DIEM_NVCC") {
            return if path == "none" { Err("DIEM_NVCC=none".to_owned()) } else { Self::at(Path::new(&path)) };
        }
        let mut why = "no nvcc was found when it was built".to_owned();
        for path in candidates(target) {
            match Self::at(&path) {
                Ok(nvcc) => return Ok(nvcc),
                Err(reason) => why = reason,
            }
        }
        Err(why)
    }

    fn at(path: &Path) -> Result<Self, String> {
        let output = Command::new(path).arg("--version").output().map_err(|e| format!("{}: {e}", path.display()))?;
        let text = String::from_utf8_lossy(&output.stdout);
        let number = |text: &str| text.split(',').next()?.trim().parse().ok();
        let release = text.split("release ").nth(1).and_then(|rest| rest.split_once('.'));
        let version = release.and_then(|(major, rest)| Some((number(major)?, number(rest)?)));
        let version = version.ok_or_else(|| format!("{} does not say its version", path.display()))?;
        if version < OLDEST {
            let (major, minor) = version;
            return Err(format!("{} is nvcc {major}.{minor}; 12.0 or later is needed", path.display()));
        }
        Ok(Self { path: path.to_owned(), version })
    }

    /// "nvcc 13.0".
    pub fn description(&self) -> String {
        format!("nvcc {}.{}", self.version.0, self.version.1)
    }

    /// Compiles `source` to `output`; what ptxas says about it.
    pub fn run(&self, flags: &[String], source: &Path, output: &Path) -> Result<String, String> {
        let mut command = Command::new(&self.path);
        command.args(flags).arg(source).arg("-o").arg(output);
        let done = command.output().map_err(|e| format!("{}: {e}", self.path.display()))?;
        let text = format!("{}{}", String::from_utf8_lossy(&done.stdout), String::from_utf8_lossy(&done.stderr));
        if done.status.success() { Ok(text) } else { Err(format!("{command:?}\n{text}")) }
    }
}

/// Where nvcc may be: CUDA's own variables, the search path, the toolkit's folder, what `tools/install_nvcc.sh` made, and
/// Python environments.
fn candidates(target: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for root in ["CUDA_HOME", "CUDA_PATH"].into_iter().filter_map(variable) {
        found.push(Path::new(&root).join("bin/nvcc"));
    }
    found.extend(variable("PATH").iter().flat_map(std::env::split_paths).map(|folder| folder.join("nvcc")));
    found.push("/usr/local/cuda/bin/nvcc".into());
    // the script touches this file: a build without nvcc runs again after it
    let stamp = target.join("nvcc.stamp");
    if !stamp.exists() {
        let _ = std::fs::write(&stamp, ""); // without it the next change of a kernel looks again
    }
    println!("cargo::rerun-if-changed={}", stamp.display());
    found.push(target.join("nvcc/nvidia/cu13/bin/nvcc"));
    for root in ["VIRTUAL_ENV", "CONDA_PREFIX"].into_iter().filter_map(variable) {
        let versions = std::fs::read_dir(Path::new(&root).join("lib")).into_iter().flatten().flatten();
        found.extend(versions.map(|python| python.path().join("site-packages/nvidia/cu13/bin/nvcc")));
    }
    found.retain(|path| path.exists());
    found
}

/// The options for "sm_80,sm_90a,compute_80".
pub fn gencode(archs: &str) -> Result<Vec<String>, String> {
    let option = |arch: &str| {
        let number = arch.strip_prefix("sm_").or_else(|| arch.strip_prefix("compute_"));
        let number = number.ok_or_else(|| format!("DIEM_CUDA_ARCHS: expected sm_NN or compute_NN, found {arch:?}"))?;
        Ok(format!("-gencode=arch=compute_{number},code={arch}"))
    };
    archs.split(',').map(str::trim).map(option).collect()
}
