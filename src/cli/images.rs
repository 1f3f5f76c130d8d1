//! Options of how images are read, which `observe` and `train` share.

use super::options::count;
use crate::data::Samples;
use crate::data::images::{self, Selection};
use crate::{Error, Result};
use std::path::Path;

/// Which images are read, and what is done to them.
#[derive(clap::Args, Debug)]
pub struct ImageOptions {
    /// At most so many, from the first [default: all]
    #[arg(long, value_name = "N", value_parser = count)]
    pub count: Option<usize>,
    /// Crops pictures to a centred square and scales them to this many pixels a side
    #[arg(long, value_name = "PIXELS", value_parser = clap::value_parser!(u32).range(1..=4096))]
    size: Option<u32>,
    /// Black pixels to add around every image: 2 makes 32x32 of 28x28
    #[arg(long, value_name = "PIXELS", default_value_t = 0, value_parser = pad)]
    pad: usize,
}

/// Pixels around an image: as many as a picture may have a side.
pub fn pad(text: &str) -> std::result::Result<usize, String> {
    text.parse().ok().filter(|&n| n <= 4096).ok_or_else(|| "a whole number from 0 to 4096".to_owned())
}

impl ImageOptions {
    /// The images (or vectors) in `path`.
    ///
    /// # Errors
    /// As [`images::read`]; where vectors are to be padded.
    pub fn read(&self, path: &Path) -> Result<Samples<f32>> {
        let images = images::read(path, Selection { count: self.count, size: self.size })?;
        if self.pad > 0 && images.shape.pixels() == 1 {
            return Err(Error::mismatch("--pad", "images", format!("vectors in {}", path.display())));
        }
        Ok(if self.pad > 0 { images::pad(&images, self.pad) } else { images })
    }
}
