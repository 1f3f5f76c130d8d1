//! Charts as PNG: corner plots, curves, calibration. Text is drawn with a font of the project's own, so that every machine draws
//! the same.

pub mod calibration;
pub mod corner;
pub mod curves;

use crate::{Error, Result};
use image::RgbImage;
use plotters::coord::Shift;
use plotters::prelude::*;
use plotters::style::register_font;
use std::sync::LazyLock;

/// Where charts are drawn.
type Area<'a> = DrawingArea<BitMapBackend<'a>, Shift>;

/// What drawing may fail with: nothing that a file or a device does, as it is in memory.
type Drawn<T = ()> = std::result::Result<T, Box<dyn std::error::Error>>;

/// The family under which the font is registered.
const FONT: &str = "sans-serif";

/// Latin, Greek and some signs of DejaVu Sans (assets/README.md).
const GLYPHS: &[u8] = include_bytes!("../../assets/DejaVuSans-subset.ttf");

/// Height of text, in pixels.
const TEXT: u32 = 15;

/// Colours that differ in lightness too, for readers who see fewer (Okabe and Ito, 2008).
const COLOURS: [RGBColor; 6] = [
    RGBColor(0, 114, 178),
    RGBColor(213, 94, 0),
    RGBColor(0, 158, 115),
    RGBColor(204, 121, 167),
    RGBColor(86, 180, 233),
    RGBColor(90, 90, 90),
];

/// A white picture of `width` x `height` pixels with what `chart` draws.
fn picture(width: u32, height: u32, chart: impl FnOnce(&Area<'_>) -> Drawn) -> Result<RgbImage> {
    static REGISTERED: LazyLock<bool> = LazyLock::new(|| register_font(FONT, FontStyle::Normal, GLYPHS).is_ok());
    let failed = |why: &dyn std::fmt::Display| Error::Unsupported(format!("cannot draw a chart: {why}"));
    if !*REGISTERED {
        return Err(failed(&"the font is damaged"));
    }
    let mut bytes = vec![u8::MAX; (width * height * 3) as usize];
    let area = BitMapBackend::with_buffer(&mut bytes, (width, height)).into_drawing_area();
    chart(&area).and_then(|()| Ok(area.present()?)).map_err(|why| failed(&why))?;
    drop(area);
    Ok(RgbImage::from_raw(width, height, bytes).expect("three bytes for every pixel"))
}
