//! numpy's `.npz`: a zip file of `.npy` arrays, stored or deflated.

use super::place::Place;
use super::{Array, DType, atomic, npy};
use crate::{Error, Result};
use std::fs::File;
use std::io::{self, BufReader, BufWriter, Read, Write};
use std::path::{Path, PathBuf};
use zip::result::ZipError;
use zip::write::{SimpleFileOptions, StreamWriter, ZipWriter};
use zip::{CompressionMethod, DateTime, ZipArchive};

/// The most that deflate expands: 258 bytes from 2 bits.
pub(super) const MAX_EXPANSION: u64 = 1032;

/// The largest array that is read from a compressed member unless [`Npz::limit`] says otherwise.
const DEFAULT_LIMIT: u64 = 16 << 30;

/// An `.npz` that is open for reading. Each array is read when asked for.
pub struct Npz {
    path: PathBuf,
    archive: ZipArchive<BufReader<File>>,
    /// Size of the file in bytes.
    size: u64,
    /// Largest member in bytes.
    limit: u64,
}

impl Npz {
    /// Opens a file and reads its directory.
    ///
    /// # Errors
    /// [`Error::Io`]; a mismatch when it is not a zip file.
    pub fn open(path: &Path) -> Result<Self> {
        let file = File::open(path).map_err(|e| Error::io(path, "open", e))?;
        let size = file.metadata().map_err(|e| Error::io(path, "read", e))?.len();
        let archive =
            ZipArchive::new(BufReader::new(file)).map_err(|e| zip_error(Place::file(path), "a .npz (zip) file", e))?;
        Ok(Self { path: path.to_owned(), archive, size, limit: DEFAULT_LIMIT })
    }
    /// Sets the largest array, in bytes, that will be read: what a small file may decompress to.
    pub fn limit(self, bytes: u64) -> Self {
        Self { limit: bytes, ..self }
    }
    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }
    /// Names of the arrays, sorted.
    pub fn names(&self) -> Vec<String> {
        let mut names: Vec<_> =
            self.archive.file_names().filter_map(|n| n.strip_suffix(".npy")).map(str::to_owned).collect();
        names.sort_unstable();
        names
    }
    /// Reads array `name`, whose elements must have one of the `allowed` types.
    ///
    /// # Errors
    /// [`Error::Io`]; a mismatch that names the file and the array: missing (and what is there), damaged, too large, another
    /// type or order.
    pub fn read(&mut self, name: &str, allowed: &[DType]) -> Result<Array> {
        let place = Place::array(&self.path, name);
        let Some(index) = self.archive.index_for_name(&format!("{name}.npy")) else {
            return Err(Place::file(&self.path).mismatch(format_args!("an array {name}"), listing(&self.names())));
        };
        let mut member = self.archive.by_index(index).map_err(|e| zip_error(place, "a readable array", e))?;
        // What the directory says of sizes is a claim. A member cannot hold more than its file, or expand by more than deflate can.
        let most = match member.compression() {
            CompressionMethod::Stored => self.size,
            _ => member.compressed_size().min(self.size).saturating_mul(MAX_EXPANSION).min(self.limit),
        };
        let size = member.size();
        if size > most {
            return Err(place.mismatch(format_args!("at most {most} bytes"), format_args!("{size} bytes")));
        }
        let array = npy::read_from(&mut member, size, place, allowed)?;
        // The end must follow, and reading it checks the sum of what was read.
        match member.read(&mut [0]) {
            Ok(0) => Ok(array),
            Ok(_) => Err(place.mismatch(format_args!("{size} bytes"), "more")),
            Err(e) => Err(place.read_error(e)),
        }
    }
}

fn listing(names: &[String]) -> String {
    if names.is_empty() { "no array".to_owned() } else { format!("arrays {}", names.join(", ")) }
}

fn zip_error(place: Place<'_>, expected: &str, e: ZipError) -> Error {
    match e {
        ZipError::Io(e) => place.read_error(e),
        e => place.mismatch(expected, e),
    }
}

/// Writes the arrays of an `.npz`; the bytes depend on nothing but the arrays.
pub struct NpzWriter<W: Write>(ZipWriter<StreamWriter<FailsOnce<W>>>);

impl<W: Write> NpzWriter<W> {
    /// Adds an array.
    ///
    /// # Errors
    /// The writer's.
    pub fn add(&mut self, name: &str, array: &Array) -> io::Result<()> {
        // Floats do not deflate, masks do.
        let method = match array.data.dtype().size() {
            1 => CompressionMethod::Deflated,
            _ => CompressionMethod::Stored,
        };
        let options = SimpleFileOptions::default()
            .compression_method(method)
            .last_modified_time(DateTime::DEFAULT)
            .large_file(array.data.len() * array.data.dtype().size() >= u32::MAX as usize / 2);
        self.0.start_file(format!("{name}.npy"), options)?;
        npy::write_to(&mut self.0, array)
    }
}

/// Writes an `.npz`, atomically: `fill` adds its arrays.
///
/// # Errors
/// [`Error::Io`].
pub fn write(path: &Path, fill: impl FnOnce(&mut NpzWriter<&mut BufWriter<&File>>) -> io::Result<()>) -> Result<()> {
    stage(path, fill)?.commit()
}

/// As [`write()`], but the file waits for its name.
///
/// # Errors
/// [`Error::Io`].
pub fn stage(
    path: &Path,
    fill: impl FnOnce(&mut NpzWriter<&mut BufWriter<&File>>) -> io::Result<()>,
) -> Result<atomic::Staged> {
    atomic::stage(path, |w| {
        let mut npz = NpzWriter(ZipWriter::new_stream(FailsOnce { inner: w, failed: false }));
        fill(&mut npz)?;
        npz.0.finish()?;
        Ok(())
    })
}

/// Passes on the first error of a writer, and swallows what follows: `ZipWriter` writes once more when it is dropped, and
/// prints it if that fails too.
struct FailsOnce<W> {
    inner: W,
    failed: bool,
}

impl<W: Write> FailsOnce<W> {
    fn unless_failed<T>(&mut self, otherwise: T, f: impl FnOnce(&mut W) -> io::Result<T>) -> io::Result<T> {
        if self.failed {
            return Ok(otherwise);
        }
        f(&mut self.inner).inspect_err(|_| self.failed = true)
    }
}

impl<W: Write> Write for FailsOnce<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.unless_failed(bytes.len(), |w| w.write(bytes))
    }
    fn flush(&mut self) -> io::Result<()> {
        self.unless_failed((), W::flush)
    }
}
