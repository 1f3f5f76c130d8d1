//! A trainer's state in a file: killed and started again, it goes on bit by bit.

use super::settings::Settings;
use super::trainer::{EpochMeans, Trainer};
use crate::data::atomic;
use crate::data::checkpoint::Metadata;
use crate::nn::Params;
use crate::ops::TrainingOps;
use crate::{Error, Result};
use memmap2::Mmap;
use safetensors::SafeTensors;
use safetensors::tensor::{Dtype, View};
use serde::{Deserialize, Serialize};
use std::borrow::Cow;
use std::cell::RefCell;
use std::collections::HashMap;
use std::fs::File;
use std::path::Path;

/// The key of the file's metadata that holds the JSON object.
const KEY: &str = "diem-training";

/// What a state belongs to, and how far it is.
#[derive(PartialEq, Debug, Serialize, Deserialize)]
struct Progress {
    step: u64,
    total: u64,
    means: EpochMeans,
    settings: Settings,
    model: Metadata,
}

impl<B: TrainingOps> Trainer<'_, B> {
    /// Writes everything that determines how training goes on; the file appears whole or not at all.
    ///
    /// # Errors
    /// When it cannot be written, or the device has failed.
    pub fn save(&self, path: &Path) -> Result<()> {
        let progress = Progress {
            step: self.step,
            total: self.total,
            means: self.means,
            settings: self.settings.clone(),
            model: self.metadata.clone(),
        };
        let json = serde_json::to_string(&progress).expect("plain numbers and strings");
        let failure = RefCell::new(Ok(()));
        let tensors = self.sets().into_iter().flat_map(|(set, params)| {
            let failure = &failure;
            params.layout().ids().map(move |id| {
                let dims = params.layout()[id].dims.clone();
                let name = format!("{set}.{}", params.layout()[id].name);
                (name, Stored { backend: self.backend, tensor: &params[id], dims, failure })
            })
        });
        let entries = HashMap::from([(KEY.to_owned(), json)]);
        let file = safetensors::serialize(tensors.collect::<Vec<_>>(), Some(entries));
        let file = file.map_err(|e| Error::mismatch(path.display(), "tensors that fit a safetensors file", e))?;
        failure.into_inner()?;
        atomic::write_bytes(path, &file)
    }

    /// Takes over the state in a file that a trainer of the same network, settings and number of steps has saved.
    ///
    /// # Errors
    /// When it cannot be read, is no such file, or another trainer's; then nothing has changed.
    pub fn load(&mut self, path: &Path) -> Result<()> {
        let read_error = |e| Error::io(path, "read", e);
        let file = File::open(path).map_err(read_error)?;
        // SAFETY: the map is only read. Another process that truncates the file meanwhile would end this one by a signal;
        // one that rewrites it gives other numbers, never an invalid value.
        let map = unsafe { Mmap::map(&file) }.map_err(read_error)?;
        let invalid = |e: &dyn std::fmt::Display| Error::mismatch(path.display(), "the state of a training run", e);
        let (_, info) = SafeTensors::read_metadata(&map).map_err(|e| invalid(&e))?;
        let json = info.metadata().as_ref().and_then(|entries| entries.get(KEY)).ok_or_else(|| invalid(&"none"))?;
        let found: Progress = serde_json::from_str(json).map_err(|e| invalid(&e))?;
        self.same_run(path, &found)?;
        let tensors = SafeTensors::deserialize(&map).map_err(|e| invalid(&e))?;
        let mut loaded = Vec::new();
        for (set, params) in self.sets() {
            let layout = params.layout().clone();
            for spec in layout.specs() {
                let name = format!("{set}.{}", spec.name);
                let tensor = tensors.tensor(&name).map_err(|e| invalid(&e))?;
                if (tensor.dtype(), tensor.shape()) != (dtype(self.backend), &spec.dims[..]) {
                    let expected = format!("{:?} {:?}", dtype(self.backend), spec.dims);
                    let found = format!("{:?} {:?}", tensor.dtype(), tensor.shape());
                    return Err(Error::mismatch(format!("{}: tensor {name}", path.display()), expected, found));
                }
                loaded.push(upload(self.backend, tensor.data(), spec.len()));
            }
        }
        let mut loaded = loaded.into_iter();
        for params in self.sets_mut() {
            for id in params.layout().clone().ids() {
                *params.get_mut(id) = loaded.next().expect("one for each");
            }
        }
        (self.step, self.means) = (found.step, found.means);
        Ok(())
    }

    /// Compares what a state belongs to, entry by entry, so that the message names what differs.
    fn same_run(&self, path: &Path, found: &Progress) -> Result<()> {
        let place = || format!("{}: belongs to another run", path.display());
        let differs = |name: &str, expected: String, found: String| {
            if expected == found {
                return Ok(());
            }
            Err(Error::mismatch(place(), format!("{name} {expected}"), format!("{name} {found}")))
        };
        differs("steps", self.total.to_string(), found.total.to_string())?;
        differs("model", json(&self.metadata), json(&found.model))?;
        differs("settings", json(&self.settings), json(&found.settings))
    }

    /// The arrays of a state by the name of their set.
    fn sets(&self) -> Vec<(&'static str, &Params<B>)> {
        let [m, v] = &self.moments;
        let average = self.average.as_ref().map(|average| ("average", average));
        [("weights", &self.weights), ("m", m), ("v", v)].into_iter().chain(average).collect()
    }
    fn sets_mut(&mut self) -> impl Iterator<Item = &mut Params<B>> {
        let [m, v] = &mut self.moments;
        [&mut self.weights, m, v].into_iter().chain(&mut self.average)
    }
}

fn json(x: &impl Serialize) -> String {
    serde_json::to_string(x).expect("plain numbers and strings")
}

/// What a backend's numbers are stored as, without loss.
fn dtype<B: TrainingOps>(backend: &B) -> Dtype {
    if backend.double() { Dtype::F64 } else { Dtype::F32 }
}

fn upload<B: TrainingOps>(backend: &B, bytes: &[u8], len: usize) -> B::Tensor {
    let shape = crate::backend::Shape::flat(len);
    if backend.double() {
        let values: Vec<f64> = bytes.chunks_exact(8).map(|b| f64::from_le_bytes(b.try_into().expect("8"))).collect();
        backend.upload(shape, &values)
    } else {
        let values: Vec<f32> = bytes.chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().expect("4"))).collect();
        backend.upload(shape, &values)
    }
}

/// A parameter on its way into the file; it leaves the device when its turn has come.
struct Stored<'a, B: TrainingOps> {
    backend: &'a B,
    tensor: &'a B::Tensor,
    dims: Vec<usize>,
    /// The first failure of the device.
    failure: &'a RefCell<Result<()>>,
}

impl<B: TrainingOps> View for Stored<'_, B> {
    fn dtype(&self) -> Dtype {
        dtype(self.backend)
    }
    fn shape(&self) -> &[usize] {
        &self.dims
    }
    fn data(&self) -> Cow<'_, [u8]> {
        let len = self.dims.iter().product();
        let downloaded = if self.backend.double() {
            let mut values = vec![0.0f64; len];
            let result = self.backend.download(self.tensor, &mut values);
            result.map(|()| values.iter().flat_map(|x| x.to_le_bytes()).collect())
        } else {
            let mut values = vec![0.0f32; len];
            let result = self.backend.download(self.tensor, &mut values);
            result.map(|()| values.iter().flat_map(|x| x.to_le_bytes()).collect())
        };
        downloaded.unwrap_or_else(|e| {
            let mut failure = self.failure.borrow_mut();
            if failure.is_ok() {
                *failure = Err(e);
            }
            vec![0; self.data_len()].into()
        })
    }
    fn data_len(&self) -> usize {
        let size = if self.backend.double() { size_of::<f64>() } else { size_of::<f32>() };
        self.dims.iter().product::<usize>() * size
    }
}
