//! CIFAR-10's binary files, as they are distributed (cs.toronto.edu/~kriz/cifar.html).
//!
//! A file has records of 3,073 bytes: the label, 0 to 9, then 32 x 32 pixels of red, of green and of blue. `data_batch_1.bin` to
//! `data_batch_5.bin` are to learn from, `test_batch.bin` is not.

use super::Samples;
use super::images::from_byte;
use super::npz::MAX_EXPANSION;
use super::place::Place;
use crate::backend::Shape;
use crate::{Error, Result};
use flate2::bufread::GzDecoder;
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, BufReader, Read};
use std::path::{Path, PathBuf};

const SIDE: usize = 32;
const CHANNELS: usize = 3;
/// Bytes of a record.
const RECORD: usize = 1 + CHANNELS * SIDE * SIDE;
const CLASSES: u8 = 10;

/// Whether a path is read as such a file, an archive of them, or a folder of them.
pub(super) fn is_cifar(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy().to_lowercase();
    if path.is_dir() { !batches_in(path).is_empty() } else { name.ends_with(".bin") || name.ends_with(".tar.gz") }
}

/// The first `count` images of a `.bin`, or of the batches to learn from in a folder or a `.tar.gz`, in the order of their names.
///
/// # Errors
/// [`Error::Io`]; a mismatch that names the file: no such batches, records that are not whole, another label.
pub(super) fn read(path: &Path, count: usize) -> Result<Samples<f32>> {
    let mut images = Vec::new();
    if path.is_dir() {
        for file in batches_in(path) {
            let left = count - images.len() / (RECORD - 1);
            append(Place::file(&file), &read_file(&file, left)?, left, &mut images)?;
        }
    } else if path.extension().is_some_and(|e| e.eq_ignore_ascii_case("bin")) {
        append(Place::file(path), &read_file(path, count)?, count, &mut images)?;
    } else {
        for (name, bytes) in unpack(path)? {
            let left = count - images.len() / (RECORD - 1);
            append(Place::array(path, &name), &bytes, left, &mut images)?;
        }
    }
    Ok(Samples::new(Shape::new(images.len() / (RECORD - 1), SIDE, SIDE, CHANNELS), images))
}

fn is_batch(name: &str) -> bool {
    name.starts_with("data_batch_") && name.ends_with(".bin")
}

fn batches_in(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
    let mut batches: Vec<_> =
        entries.filter(|path| path.file_name().is_some_and(|name| is_batch(&name.to_string_lossy()))).collect();
    batches.sort_unstable();
    batches
}

/// The bytes of a file, of at most its first `count` records; a file that is not one of whole records is refused.
fn read_file(path: &Path, count: usize) -> Result<Vec<u8>> {
    let place = Place::file(path);
    let file = File::open(path).map_err(|e| Error::io(path, "open", e))?;
    let size = file.metadata().map_err(|e| place.read_error(e))?.len();
    check_size(place, size)?;
    let mut bytes = Vec::new();
    file.take(size.min((count as u64).saturating_mul(RECORD as u64)))
        .read_to_end(&mut bytes)
        .map_err(|e| place.read_error(e))?;
    Ok(bytes)
}

/// The batches of an archive, by name.
fn unpack(path: &Path) -> Result<BTreeMap<String, Vec<u8>>> {
    let place = Place::file(path);
    let file = File::open(path).map_err(|e| Error::io(path, "open", e))?;
    let most = file.metadata().map_err(|e| place.read_error(e))?.len().saturating_mul(MAX_EXPANSION);
    let mut archive = tar::Archive::new(GzDecoder::new(BufReader::new(file)));
    let mut batches = BTreeMap::new();
    let broken = |e: io::Error| place.mismatch("an intact .tar.gz", e);
    for entry in archive.entries().map_err(broken)? {
        let mut entry = entry.map_err(broken)?;
        let name = entry.path().map_err(broken)?.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if !entry.header().entry_type().is_file() || !is_batch(&name) {
            continue;
        }
        let (size, mut bytes) = (entry.size(), Vec::new());
        if size > most {
            return Err(place.mismatch(format_args!("at most {most} bytes"), format_args!("{size} in {name}")));
        }
        entry.read_to_end(&mut bytes).map_err(broken)?;
        check_size(Place::array(path, &name), bytes.len() as u64)?;
        if batches.insert(name.clone(), bytes).is_some() {
            return Err(place.mismatch("every batch once", format_args!("{name} twice")));
        }
    }
    io::copy(&mut archive.into_inner(), &mut io::sink()).map_err(broken)?; // reading it to its end checks the sum
    if batches.is_empty() {
        return Err(place.mismatch("data_batch_1.bin .. data_batch_5.bin (CIFAR-10's binary version)", "none in it"));
    }
    Ok(batches)
}

fn check_size(place: Place<'_>, size: u64) -> Result<()> {
    if size > 0 && size.is_multiple_of(RECORD as u64) {
        return Ok(());
    }
    Err(place.mismatch("CIFAR-10's records of 3073 bytes", format_args!("{size} bytes")))
}

/// Appends at most `count` images of the records in `bytes`.
fn append(place: Place<'_>, bytes: &[u8], count: usize, images: &mut Vec<f32>) -> Result<()> {
    for (i, record) in bytes.chunks_exact(RECORD).take(count).enumerate() {
        let (label, planes) = (record[0], &record[1..]);
        if label >= CLASSES {
            return Err(place.mismatch("labels of 0 to 9", format_args!("{label} of image {i}")));
        }
        let pixel = |p: usize| (0..CHANNELS).map(move |c| from_byte(planes[c * SIDE * SIDE + p]));
        images.extend((0..SIDE * SIDE).flat_map(pixel));
    }
    Ok(())
}
