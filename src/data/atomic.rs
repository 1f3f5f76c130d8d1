//! Files that are either whole or not there.

use crate::{Error, Result};
use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

/// Writes `path` so that it is never seen half-written: `fill` writes a temporary file in the same folder, which is
/// synced and then renamed over `path`. Whatever fails, `path` is as it was and the temporary file is gone.
///
/// # Errors
/// [`Error::Io`] with `path`: no such folder, no permission, disk full; also when `path` is there and is not a plain
/// file, which a rename would replace.
pub fn write(path: &Path, fill: impl FnOnce(&mut BufWriter<&File>) -> io::Result<()>) -> Result<()> {
    stage(path, fill)?.commit()
}

/// The first half of [`write()`]: all is on disk, under another name until [`Staged::commit`]. Of several files that belong
/// together, each is staged before the first is committed, so that one that cannot be written leaves none of them.
///
/// # Errors
/// As [`write()`].
pub fn stage(path: &Path, fill: impl FnOnce(&mut BufWriter<&File>) -> io::Result<()>) -> Result<Staged> {
    let staged = replaceable(path).and_then(|()| fill_temporary(path, fill));
    let temporary = staged.map_err(|e| Error::io(path, "write", e))?;
    Ok(Staged { path: path.to_owned(), temporary })
}

/// A whole file that waits for its name; dropped, it is gone.
#[must_use = "it is removed unless it is committed"]
pub struct Staged {
    path: PathBuf,
    temporary: Temporary,
}

impl Staged {
    /// Gives the file its name.
    ///
    /// # Errors
    /// [`Error::Io`]: the folder has changed since the file was staged.
    pub fn commit(self) -> Result<()> {
        let renamed = fs::rename(&self.temporary.0, &self.path).and_then(|()| sync_folder(&self.path));
        renamed.map_err(|e| Error::io(&self.path, "write", e))
    }
}

/// As [`write()`], for contents that are in memory.
///
/// # Errors
/// As [`write()`].
pub fn write_bytes(path: &Path, bytes: &[u8]) -> Result<()> {
    write(path, |w| w.write_all(bytes))
}

/// Makes a rename or a new file in the folder of `path` durable.
pub(crate) fn sync_folder(path: &Path) -> io::Result<()> {
    // Elsewhere a folder cannot be opened as a file, and renames are durable by the file system's journal.
    if cfg!(unix) { File::open(folder(path))?.sync_all() } else { Ok(()) }
}

fn folder(path: &Path) -> &Path {
    path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

fn replaceable(path: &Path) -> io::Result<()> {
    match fs::metadata(path) {
        Ok(m) if !m.is_file() => Err(io::Error::other("it is not a plain file")),
        _ => Ok(()),
    }
}

fn fill_temporary(path: &Path, fill: impl FnOnce(&mut BufWriter<&File>) -> io::Result<()>) -> io::Result<Temporary> {
    let temporary = Temporary::beside(path)?;
    let file = File::create(&temporary.0)?;
    let mut w = BufWriter::with_capacity(1 << 18, &file);
    fill(&mut w)?;
    w.flush()?;
    drop(w);
    file.sync_all()?;
    Ok(temporary)
}

/// A file that is removed when dropped, unless it has been renamed.
struct Temporary(PathBuf);

impl Temporary {
    /// Named after this process, so that two runs into one folder do not share it.
    fn beside(path: &Path) -> io::Result<Self> {
        let name = path.file_name().ok_or_else(|| io::Error::other("it names no file"))?;
        let mut hidden = OsString::from(".");
        hidden.push(name);
        hidden.push(format!(".{}.tmp", std::process::id()));
        Ok(Self(path.with_file_name(hidden)))
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0); // gone already after the rename
    }
}
