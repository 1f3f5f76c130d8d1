//! Checkpoints: safetensors files with a network under `net.` or a Gaussian prior, and metadata that says which.

mod metadata;
mod tensors;

pub use metadata::{Kind, Metadata};

use super::atomic;
use crate::backend::{Backend, Limits, Shape};
use crate::nn::ParamSpec;
use crate::{Error, Result};
use memmap2::Mmap;
use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};
use std::collections::HashMap;
use std::ops::Range;
use std::path::{Path, PathBuf};

/// The key of the file's metadata that holds the JSON object.
const KEY: &str = "diem";
/// What the names of a network's parameters begin with.
const PREFIX: &str = "net.";

/// A checkpoint that has been checked as a whole: every tensor is there, has its shape and is finite.
pub struct Checkpoint {
    path: PathBuf,
    map: Mmap,
    metadata: Metadata,
    tensors: HashMap<String, Tensor>,
}

/// A tensor of the file.
struct Tensor {
    dims: Vec<usize>,
    dtype: Dtype,
    /// Where its bytes are in the file.
    bytes: Range<usize>,
}

impl Checkpoint {
    /// Opens and checks the file.
    ///
    /// # Errors
    /// One line with the file, the tensor or entry, what was expected and what was found: no file, a truncated or other
    /// one, no or wrong metadata; a tensor that is missing, misnamed, unknown, of another shape or type, or not finite.
    pub fn open(path: &Path) -> Result<Self> {
        let map = map(path)?;
        let (header, info) = SafeTensors::read_metadata(&map).map_err(|e| not_safetensors(path, map.len(), &e))?;
        let metadata = info.metadata().as_ref().and_then(|entries| entries.get(KEY));
        let metadata = parse(path, metadata.map(String::as_str))?;
        let data = header + size_of::<u64>();
        let tensors = info.tensors().into_iter().map(|(name, info)| {
            let bytes = data + info.data_offsets.0..data + info.data_offsets.1;
            (name, Tensor { dims: info.shape.clone(), dtype: info.dtype, bytes })
        });
        let checkpoint = Self { path: path.to_owned(), tensors: tensors.collect(), metadata, map };
        checkpoint.check()?;
        Ok(checkpoint)
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }
    /// What the model is.
    pub fn metadata(&self) -> &Metadata {
        &self.metadata
    }
    /// Whether the model takes samples of the extents of `x`, whatever their number.
    ///
    /// # Errors
    /// Names the file and the extent that does not fit.
    pub fn check_image(&self, x: Shape) -> Result<()> {
        self.within(self.metadata.check_image(x))
    }
    /// Whether a device with these limits computes the model for a sample of the extents of `x`.
    ///
    /// # Errors
    /// Names the file and the entry, the tensor or the image that is too large.
    pub fn check_limits(&self, limits: Limits, x: Shape) -> Result<()> {
        self.within(self.metadata.check_limits(limits, x))
    }
    fn within(&self, result: Result<()>) -> Result<()> {
        result.map_err(|e| e.within(self.path.display()))
    }
    /// The values of a parameter of the network, on a device, flat.
    pub fn parameter<B: Backend>(&self, backend: &B, spec: &ParamSpec) -> B::Tensor {
        let values = self.values(&format!("{PREFIX}{}", spec.name)).expect("all were found when it was opened");
        backend.upload(Shape::flat(values.len()), &values)
    }
    /// `mean` (D), where it is stored: what the reverse process starts around.
    pub fn mean(&self) -> Option<Vec<f32>> {
        self.values("mean")
    }
    /// `diag` (D) and `factor` (D, R), where they are stored.
    pub fn covariance(&self) -> Option<(Vec<f32>, Vec<f32>)> {
        Some((self.values("diag")?, self.values("factor")?))
    }

    fn values(&self, name: &str) -> Option<Vec<f32>> {
        let bytes = &self.map[self.tensors.get(name)?.bytes.clone()];
        Some(bytes.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect())
    }

    /// Writes a checkpoint: the file appears whole or not at all.
    ///
    /// # Errors
    /// When the file is there already and `overwrite` is not set, or cannot be written.
    pub fn write<'a>(
        path: &Path,
        metadata: &Metadata,
        tensors: impl IntoIterator<Item = (String, Vec<usize>, &'a [f32])>,
        overwrite: bool,
    ) -> Result<()> {
        if path.exists() && !overwrite {
            return Err(Error::mismatch(path.display(), "no file, or leave to overwrite it", "a file"));
        }
        let tensors: Vec<(String, Vec<usize>, Vec<u8>)> = tensors
            .into_iter()
            .map(|(name, dims, values)| (name, dims, values.iter().flat_map(|v| v.to_le_bytes()).collect()))
            .collect();
        let invalid = |e| Error::mismatch(path.display(), "tensors whose extents fit their values", e);
        let views = tensors.iter().map(|(name, dims, bytes)| {
            TensorView::new(Dtype::F32, dims.clone(), bytes).map(|view| (name, view)).map_err(invalid)
        });
        let json = serde_json::to_string(metadata).expect("plain numbers and strings");
        let entries = HashMap::from([(KEY.to_owned(), json)]);
        let file = safetensors::serialize(views.collect::<Result<Vec<_>>>()?, Some(entries)).map_err(invalid)?;
        atomic::write_bytes(path, &file)
    }
}

/// The file's bytes.
fn map(path: &Path) -> Result<Mmap> {
    let read_error = |e| Error::io(path, "read", e);
    let about = std::fs::metadata(path).map_err(read_error)?;
    if !about.is_file() {
        return Err(Error::mismatch(path.display(), "a checkpoint file", "something that is not a file"));
    }
    let file = std::fs::File::open(path).map_err(read_error)?;
    // SAFETY: the map is only read. Another process that truncates the file meanwhile would end this one by a signal;
    // one that rewrites it gives other numbers, never an invalid value: every bit pattern of a byte is one.
    unsafe { Mmap::map(&file) }.map_err(read_error)
}

fn not_safetensors(path: &Path, len: usize, e: &safetensors::SafeTensorError) -> Error {
    use safetensors::SafeTensorError as E;
    let found = match e {
        E::HeaderTooSmall | E::InvalidHeaderLength | E::MetadataIncompleteBuffer => {
            format!("{len} bytes that do not agree with its header: truncated, or another format")
        }
        e => format!("another format or a damaged file ({})", e.to_string().escape_debug()),
    };
    Error::mismatch(path.display(), "a safetensors file", found)
}

fn parse(path: &Path, json: Option<&str>) -> Result<Metadata> {
    let place = || format!("{}: metadata key {KEY}", path.display());
    let expected = r#"a JSON object such as {"kind": "unet", "in_channels": 3, ..}"#;
    let json = json.ok_or_else(|| Error::mismatch(place(), expected, "none (tools/export_torch.py writes it)"))?;
    let metadata: Metadata =
        serde_json::from_str(json).map_err(|e| Error::mismatch(place(), expected, e.to_string().escape_debug()))?;
    metadata.validate().map_err(|e| e.within(place()))?;
    Ok(metadata)
}
