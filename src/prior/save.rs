//! The Gaussian prior as a checkpoint.

use crate::backend::Shape;
use crate::data::Checkpoint;
use crate::data::checkpoint::{Kind, Metadata};
use crate::diffusion::Gaussian;
use crate::{Error, Result};
use std::path::Path;

/// Writes a checkpoint of kind "gaussian" for images with the extents of `image`: `mean` (D), `diag` (D), `factor` (D, R), in
/// f32. A file that is there is replaced, whole or not at all.
///
/// # Errors
/// When the prior is not of such images, a value exceeds f32, or the file cannot be written.
pub fn write_gaussian(path: &Path, gaussian: &Gaussian, image: Shape) -> Result<()> {
    let d = image.row();
    if gaussian.mean().len() != d {
        let expected = format!("a Gaussian prior of {d} elements, as the images have");
        return Err(Error::mismatch(path.display(), expected, gaussian.mean().len()));
    }
    let mut metadata = Metadata::new(Kind::Gaussian { channels: image.c });
    (metadata.height, metadata.width) = (Some(image.h), Some(image.w));
    let tensor = |name: &str, values: &[f64]| {
        let values: Vec<f32> = values.iter().map(|v| *v as f32).collect();
        let bad = values.iter().position(|v| !v.is_finite());
        bad.map_or(Ok(values), |i| Err(Error::NonFinite { place: format!("{}: {name}[{i}]", path.display()) }))
    };
    let (mean, diag) = (tensor("mean", gaussian.mean())?, tensor("diag", gaussian.diag())?);
    let factor = tensor("factor", gaussian.factor().as_slice())?;
    let tensors = [
        ("mean".to_owned(), vec![d], mean.as_slice()),
        ("diag".to_owned(), vec![d], &diag),
        ("factor".to_owned(), vec![d, gaussian.factor().cols()], &factor),
    ];
    Checkpoint::write(path, &metadata, tensors, true)
}
