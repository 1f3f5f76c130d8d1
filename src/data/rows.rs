//! A large float32 `.npy` row by row: written as a run goes on, read without loading all of it.

use super::array::shape_text;
use super::npy::Header;
use super::place::Place;
use super::{DType, Data, atomic};
use crate::{Error, Result};
use std::fs::{File, OpenOptions};
use std::io::{BufReader, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

/// A `.npy` of `count` rows, its header written for all of them at the start and the rows appended.
///
/// A run that was interrupted goes on with [`NpyWriter::resume`]; the finished file has the same bytes either way. Until all rows
/// are there, numpy and [`NpyReader`] refuse the file as truncated.
pub struct NpyWriter {
    path: PathBuf,
    file: File,
    /// Elements per row.
    row: usize,
    /// Rows written.
    rows: usize,
    /// Rows in all.
    count: usize,
}

impl NpyWriter {
    /// Starts a new file of shape (count, row..), over whatever `path` held.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn create(path: &Path, count: usize, row: &[usize]) -> Result<Self> {
        let file = File::create(path).map_err(|e| Error::io(path, "create", e))?;
        let mut writer = Self { path: path.to_owned(), file, row: row.iter().product(), rows: 0, count };
        let header = Header::encode(DType::F32, &full_shape(count, row));
        writer.file.write_all(&header).map_err(|e| Error::io(path, "write", e))?;
        writer.sync()?;
        atomic::sync_folder(path).map_err(|e| Error::io(path, "write", e))?;
        Ok(writer)
    }

    /// Goes on with a file of shape (count, row..) after its first `rows` rows, and drops what follows them. Rows that were
    /// appended but not yet synced may be lost or, after a power failure, zero: pass the number that the last
    /// [`NpyWriter::sync`] was known to cover.
    ///
    /// # Errors
    /// [`Error::Io`]; a mismatch when the file has another shape or fewer rows.
    pub fn resume(path: &Path, count: usize, row: &[usize], rows: usize) -> Result<Self> {
        let mut file = OpenOptions::new().read(true).write(true).open(path).map_err(|e| Error::io(path, "open", e))?;
        let place = Place::file(path);
        let size = file.metadata().map_err(|e| place.read_error(e))?.len();
        let header = Header::read(&mut file, size, place, &[DType::F32])?;
        let shape = full_shape(count, row);
        if header.shape != shape {
            return Err(place.mismatch(format_args!("shape {}", shape_text(&shape)), shape_text(&header.shape)));
        }
        let row: usize = row.iter().product();
        let bytes = (row * size_of::<f32>()) as u64;
        let present = (size - header.offset) / bytes.max(1);
        if present < rows as u64 || rows > count {
            return Err(place.mismatch(format_args!("{rows} rows of {count}"), format_args!("{present} rows")));
        }
        let end = header.offset + rows as u64 * bytes;
        file.set_len(end).and_then(|()| file.seek(SeekFrom::Start(end))).map_err(|e| Error::io(path, "write", e))?;
        Ok(Self { path: path.to_owned(), file, row, rows, count })
    }

    /// Appends whole rows.
    ///
    /// # Errors
    /// [`Error::Io`]; a full disk leaves part of a row, which [`NpyWriter::resume`] drops.
    ///
    /// # Panics
    /// When `x` is not a number of whole rows, or exceeds the count.
    pub fn append(&mut self, x: &[f32]) -> Result<()> {
        let added = x.len() / self.row.max(1);
        assert!(
            added * self.row == x.len() && self.rows + added <= self.count,
            "{} rows too many",
            self.path.display()
        );
        Data::write_f32(&mut self.file, x).map_err(|e| Error::io(&self.path, "write", e))?;
        self.rows += added;
        Ok(())
    }
    /// Makes the rows so far durable, and says how many they are.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn sync(&mut self) -> Result<usize> {
        self.file.sync_data().map_err(|e| Error::io(&self.path, "write", e))?;
        Ok(self.rows)
    }
    /// Rows written so far.
    pub fn rows(&self) -> usize {
        self.rows
    }
    /// Makes the file durable; all rows must be there.
    ///
    /// # Errors
    /// [`Error::Io`].
    ///
    /// # Panics
    /// When rows are missing.
    pub fn finish(self) -> Result<()> {
        assert_eq!(self.rows, self.count, "{}: rows are missing", self.path.display());
        self.file.sync_all().map_err(|e| Error::io(&self.path, "write", e))
    }
}

fn full_shape(count: usize, row: &[usize]) -> Vec<usize> {
    [&[count], row].concat()
}

/// A float32 `.npy` whose rows (the first extent) are read when they are asked for.
pub struct NpyReader {
    path: PathBuf,
    file: BufReader<File>,
    offset: u64,
    shape: Vec<usize>,
}

impl NpyReader {
    /// Opens a file and checks that it is whole.
    ///
    /// # Errors
    /// As [`super::npy::read`]; a mismatch for a scalar, which has no rows.
    pub fn open(path: &Path) -> Result<Self> {
        let mut file = BufReader::new(File::open(path).map_err(|e| Error::io(path, "open", e))?);
        let place = Place::file(path);
        let size = file.get_ref().metadata().map_err(|e| place.read_error(e))?.len();
        let header = Header::read(&mut file, size, place, &[DType::F32])?;
        header.check_size(size, place)?;
        if header.shape.is_empty() {
            return Err(place.mismatch("an array with rows", "a scalar"));
        }
        Ok(Self { path: path.to_owned(), file, offset: header.offset, shape: header.shape })
    }
    /// Extents, the number of rows first.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }
    /// The number of rows.
    pub fn rows(&self) -> usize {
        self.shape[0]
    }
    /// Elements per row.
    pub fn row(&self) -> usize {
        self.shape[1..].iter().product()
    }
    /// Reads rows from number `first` on into `x`, a whole number of rows.
    ///
    /// # Errors
    /// [`Error::Io`]; a mismatch when the file has been cut since it was opened.
    ///
    /// # Panics
    /// When there are not so many rows.
    pub fn read(&mut self, first: usize, x: &mut [f32]) -> Result<()> {
        let row = self.row();
        assert!(first * row + x.len() <= self.rows() * row, "{}: no such rows", self.path.display());
        let start = self.offset + (first * row * size_of::<f32>()) as u64;
        let place = Place::file(&self.path);
        self.file.seek(SeekFrom::Start(start)).map_err(|e| place.read_error(e))?;
        let bytes: &mut [u8] = bytemuck::cast_slice_mut(x);
        self.file.read_exact(bytes).map_err(|e| place.read_error(e))?;
        for v in x {
            *v = f32::from_bits(u32::from_le(v.to_bits()));
        }
        Ok(())
    }
}
