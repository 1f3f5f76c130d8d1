//! What is learned from: samples in memory, or in a file that is read where it is needed.

use crate::backend::Shape;
use crate::data::npy::Header;
use crate::data::place::Place;
use crate::data::{DType, Samples};
use crate::prior::Rows;
use crate::{Error, Result};
use memmap2::Mmap;
use std::fs::File;
use std::path::Path;

/// Images (or vectors) to learn from, each by its number.
pub struct Data {
    /// (1, H, W, C)
    image: Shape,
    rows: Source,
    /// The rows that are there, where some are not.
    kept: Option<Vec<u32>>,
}

enum Source {
    Memory(Vec<f32>),
    /// The file, and the bytes before the first row.
    File(Mmap, usize),
}

impl Data {
    /// Samples in memory.
    pub fn new(samples: Samples<f32>) -> Self {
        Self { image: samples.shape.with_n(1), rows: Source::Memory(samples.data), kept: None }
    }

    /// The rows of a float32 `.npy`, (N, H, W, C) or (N, D), which stay in the file.
    ///
    /// # Errors
    /// [`Error::Io`]; a mismatch that names the file: not such an array, or one that is truncated.
    pub fn open(path: &Path) -> Result<Self> {
        let place = Place::file(path);
        let mut file = File::open(path).map_err(|e| Error::io(path, "open", e))?;
        let size = file.metadata().map_err(|e| place.read_error(e))?.len();
        let header = Header::read(&mut file, size, place, &[DType::F32])?;
        header.check_size(size, place)?;
        let image = match header.shape[..] {
            [n, h, w, c] if n > 0 => Shape::new(1, h, w, c),
            [n, d] if n > 0 => Shape::rows(1, d),
            _ => {
                return Err(
                    place.mismatch("rows (N, H, W, C) or (N, D)", crate::data::array::shape_text(&header.shape))
                );
            }
        };
        if header.offset % size_of::<f32>() as u64 != 0 {
            let found = format!("{} bytes", header.offset);
            return Err(place.mismatch("a header of a multiple of 4 bytes, as numpy writes", found));
        }
        // SAFETY: the map is only read. Another process that truncates the file meanwhile would end this one by a signal;
        // one that rewrites it gives other numbers, never an invalid value.
        let map = unsafe { Mmap::map(&file) }.map_err(|e| place.read_error(e))?;
        Ok(Self { image, rows: Source::File(map, header.offset as usize), kept: None })
    }

    /// Extents of a sample, (1, H, W, C).
    pub fn image(&self) -> Shape {
        self.image
    }
    /// The number of samples.
    pub fn len(&self) -> usize {
        self.kept.as_ref().map_or(self.values().len() / self.image.row(), Vec::len)
    }
    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
    /// The elements of sample number `n`.
    pub fn row(&self, n: usize) -> &[f32] {
        let (n, d) = (self.kept.as_ref().map_or(n, |kept| kept[n] as usize), self.image.row());
        &self.values()[n * d..(n + 1) * d]
    }
    /// Leaves out the samples that `keep` does not want, and says how many they are; the others are numbered anew.
    pub fn retain(&mut self, keep: impl Fn(&[f32]) -> bool) -> usize {
        let before = self.len();
        let number = |n: usize| self.kept.as_ref().map_or(n as u32, |kept| kept[n]);
        let kept: Vec<u32> = (0..before).filter(|&n| keep(self.row(n))).map(number).collect();
        let dropped = before - kept.len();
        self.kept = Some(kept);
        dropped
    }
    /// The last `count` samples, taken away from these.
    ///
    /// # Panics
    /// When there are not so many.
    pub fn split_off(&mut self, count: usize) -> Self {
        let rest = self.len() - count;
        let data = (rest..rest + count).flat_map(|n| self.row(n)).copied().collect();
        let all: Vec<u32> = self.kept.take().unwrap_or_else(|| (0..(rest + count) as u32).collect());
        self.kept = Some(all[..rest].to_vec());
        Self { image: self.image, rows: Source::Memory(data), kept: None }
    }

    fn values(&self) -> &[f32] {
        match &self.rows {
            Source::Memory(values) => values,
            Source::File(map, offset) => bytemuck::cast_slice(&map[*offset..]),
        }
    }
}

impl Rows for Data {
    fn count(&self) -> usize {
        self.len()
    }
    fn width(&self) -> usize {
        self.image.row()
    }
    fn read(&mut self, first: usize, x: &mut [f32]) -> Result<()> {
        x.chunks_exact_mut(self.image.row()).zip(first..).for_each(|(x, n)| x.copy_from_slice(self.row(n)));
        Ok(())
    }
}

/// The file holds little-endian numbers, which are read as they are.
const _: () = assert!(cfg!(target_endian = "little"), "Data::open reads little-endian numbers in place");
