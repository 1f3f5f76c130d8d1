//! Files: arrays (npy, npz), observations, checkpoints, images, pictures.

pub mod array;
pub mod atomic;
pub mod checkpoint;
mod cifar;
pub mod corruption;
pub mod images;
pub mod manifold;
pub mod npy;
pub mod npz;
pub mod observations;
pub mod picture;
pub mod rows;
pub mod samples;

pub(crate) mod place;

pub use array::{Array, DType, Data};
pub use checkpoint::Checkpoint;
pub use npz::{Npz, NpzWriter};
pub use observations::{Measured, Observations, OperatorKind};
pub use rows::{NpyReader, NpyWriter};
pub use samples::Samples;
