//! Whether the samples of a run fit the disk, before it starts.

use crate::{Error, Result};
use std::path::{Path, PathBuf};

/// What an interrupted run has on the disk of that which it needs.
pub struct Written {
    /// Samples of laps before the one that is under way.
    pub earlier: usize,
    /// Bytes of the lap that is under way, and of its trainer.
    pub bytes: u64,
}

impl Written {
    /// In the run directory `path`, when `lap` is under way; nothing where it cannot be read.
    pub fn of(path: &Path, lap: usize) -> Self {
        let has_samples = |lap: &usize| path.join(format!("lap-{lap:03}/samples.npy")).is_file();
        let is_trainer =
            |path: &Path| path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"training-"));
        let trainers = entries(path).filter(|path| is_trainer(path)).map(|path| bytes(&path)).sum::<u64>();
        let bytes = trainers + bytes(&path.join(format!("lap-{lap:03}")));
        Self { earlier: (0..lap).filter(has_samples).count(), bytes }
    }
}

fn entries(path: &Path) -> impl Iterator<Item = PathBuf> {
    std::fs::read_dir(path).into_iter().flatten().flatten().map(|entry| entry.path())
}

/// Those of a file, or of all files of a folder.
fn bytes(path: &Path) -> u64 {
    match std::fs::symlink_metadata(path) {
        Ok(about) if about.is_dir() => entries(path).map(|path| bytes(&path)).sum(),
        Ok(about) => about.len(),
        Err(_) => 0,
    }
}

/// Refuses to start where fewer than `need` bytes are free for the files in `path`, which need not be there yet.
///
/// # Errors
/// Says what is needed and what is free.
pub fn check(path: &Path, need: u64) -> Result<()> {
    let absolute = std::path::absolute(path).map_err(|e| Error::io(path, "find", e))?;
    let existing = absolute.ancestors().find(|p| p.exists()).unwrap_or(Path::new("/"));
    match free(existing)? {
        Some(free) if free < need => Err(Error::mismatch(
            format_args!("--out {}", path.display()),
            format_args!("{} free for samples and weights", size(need)),
            size(free),
        )),
        _ => Ok(()),
    }
}

/// Bytes that are free on the disk of `path`, where the system tells.
#[cfg(unix)]
fn free(path: &Path) -> Result<Option<u64>> {
    let about = rustix::fs::statvfs(path).map_err(|e| Error::io(path, "look up the free space of", e.into()))?;
    Ok(Some(about.f_bavail.saturating_mul(about.f_frsize)))
}

#[cfg(not(unix))]
fn free(_: &Path) -> Result<Option<u64>> {
    Ok(None)
}

fn size(bytes: u64) -> String {
    let (unit, shift) = if bytes >= 1 << 30 { ("GiB", 30) } else { ("MiB", 20) };
    format!("{:.1} {unit}", bytes as f64 / f64::from(1u32 << shift))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn too_little_is_told_with_both_numbers() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("not/yet");
        check(&path, 0).unwrap();
        let line = check(&path, u64::MAX).unwrap_err().to_string();
        assert!(line.contains("GiB") && line.contains("found"), "{line}");
        assert!(!path.exists());
    }

    #[test]
    fn what_an_interrupted_run_has_written_is_found() {
        let home = tempfile::tempdir().unwrap();
        let file = |name: &str, bytes: usize| {
            let path = home.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, vec![0; bytes]).unwrap();
        };
        file("lap-000/samples.npy", 7);
        file("lap-001/prior.npy", 11);
        file("lap-002/samples.npy", 13);
        file("lap-003/.samples/samples.npy", 17);
        file("lap-003/model.safetensors", 19);
        file("training-5.safetensors", 23);
        file("gaussian.safetensors", 29);
        let Written { earlier, bytes } = Written::of(home.path(), 3);
        assert_eq!((earlier, bytes), (2, 17 + 19 + 23));
        assert_eq!(Written::of(&home.path().join("none"), 3).bytes, 0);
    }
}
