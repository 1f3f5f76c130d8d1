//! Many vectors, read a few at a time.

use crate::Result;
use crate::data::NpyReader;

/// N rows of D numbers.
pub trait Rows {
    /// N.
    fn count(&self) -> usize;
    /// D.
    fn width(&self) -> usize;
    /// Reads rows from number `first` on into `x`, a whole number of rows.
    ///
    /// # Errors
    /// When the file cannot be read.
    fn read(&mut self, first: usize, x: &mut [f32]) -> Result<()>;
}

/// Rows in memory.
pub struct MemoryRows<'a> {
    data: &'a [f32],
    width: usize,
}

impl<'a> MemoryRows<'a> {
    /// The rows of `data` (N, D), D = `width`.
    ///
    /// # Panics
    /// When `data` is not a whole number of rows.
    pub fn new(data: &'a [f32], width: usize) -> Self {
        assert!(width > 0 && data.len().is_multiple_of(width), "{} numbers in rows of {width}", data.len());
        Self { data, width }
    }
}

impl Rows for MemoryRows<'_> {
    fn count(&self) -> usize {
        self.data.len() / self.width
    }
    fn width(&self) -> usize {
        self.width
    }
    fn read(&mut self, first: usize, x: &mut [f32]) -> Result<()> {
        x.copy_from_slice(&self.data[first * self.width..][..x.len()]);
        Ok(())
    }
}

impl Rows for NpyReader {
    fn count(&self) -> usize {
        self.rows()
    }
    fn width(&self) -> usize {
        self.row()
    }
    fn read(&mut self, first: usize, x: &mut [f32]) -> Result<()> {
        NpyReader::read(self, first, x)
    }
}
