//! Whether the samples of a run fit the disk, before it starts.

use crate::{Error, Result};
use std::path::Path;

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
}
