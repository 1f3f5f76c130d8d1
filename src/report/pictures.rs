//! Pictures inside a page.

use super::html::{Node, element, plain, text};
use super::scale::number;
use crate::backend::Shape;
use crate::data::NpyReader;
use crate::data::picture::{self, Tile};
use crate::run::moments::Moments;
use crate::{Error, Result};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use std::path::Path;

/// Larger files are named instead of shown.
const MAX_BYTES: usize = 8 << 20;
/// Samples that maps of mean and standard deviation are made of at most: enough for three digits.
const MAX_SAMPLES: usize = 4096;
/// What every PNG begins with.
const SIGNATURE: &[u8] = b"\x89PNG\r\n\x1a\n";

/// A PNG file as a figure.
///
/// # Errors
/// A sentence that says why it is not shown.
pub fn figure(path: &Path, title: &str, caption: &str) -> std::result::Result<Node, String> {
    let name = path.display();
    let bytes = std::fs::read(path).map_err(|e| format!("{name}: {e}"))?;
    if !bytes.starts_with(SIGNATURE) {
        return Err(format!("{name}: expected a PNG picture, found something else"));
    }
    if bytes.len() > MAX_BYTES {
        return Err(format!("{name}: {} MB are too much to be shown here", bytes.len() >> 20));
    }
    Ok(embedded(&bytes, title, caption))
}

fn embedded(png: &[u8], title: &str, caption: &str) -> Node {
    let source = format!("data:image/png;base64,{}", STANDARD.encode(png));
    let alt = format!("{title}. {caption}");
    let image = element("img", &[("src", &source), ("alt", &alt), ("loading", &"lazy")], Node::default());
    element(
        "figure",
        &[("class", &"picture")],
        [plain("figcaption", [plain("strong", text(title)), text(format_args!(" {caption}"))]), image],
    )
}

/// Mean and standard deviation of every pixel over the samples in a `.npy` (N, H, W, C), as two figures; `None` for vectors, whose
/// moments are no pictures.
///
/// # Errors
/// When the file cannot be read.
pub fn moment_maps(path: &Path, what: &str) -> Result<Option<Node>> {
    let mut samples = NpyReader::open(path)?;
    let &[n, h, w, c] = samples.shape() else { return Ok(None) };
    let count = n.min(MAX_SAMPLES);
    let image = Shape::new(1, h, w, c);
    if image.pixels() <= 1 {
        return Ok(None);
    }
    let mut moments = Moments::new(image.row());
    let mut x = vec![0.0; image.row()];
    for i in 0..count {
        samples.read(i, &mut x)?;
        if x.iter().all(|v| v.is_finite()) {
            moments.add(&x);
        }
    }
    let finite = moments.count();
    if finite < 2 {
        return Err(Error::mismatch(path.display(), "at least two samples that are finite", finite));
    }
    let mean: Vec<f32> = moments.mean().map(|m| m as f32).collect();
    let std: Vec<f32> = moments.std().map(|s| s as f32).collect();
    let largest = std.iter().copied().fold(f32::MIN_POSITIVE, f32::max);
    let of = if finite < n { format!("{finite} of {n} {what}") } else { format!("{n} {what}") };
    let spread = format!("over {of}; from 0, dark, to {}, bright.", number(f64::from(largest)));
    Ok(Some(Node::from([
        tile(image, Tile::Image(&mean), "Mean of every pixel", &format!("over {of}."))?,
        tile(image, Tile::Magnitude(&std, largest), "Standard deviation of every pixel", &spread)?,
    ])))
}

fn tile(image: Shape, tile: Tile<'_>, title: &str, caption: &str) -> Result<Node> {
    let mut png = Vec::new();
    picture::encode(&mut png, &picture::grid(image, &[vec![tile]])).map_err(|e| Error::io(title, "draw", e))?;
    Ok(embedded(&png, title, caption))
}
