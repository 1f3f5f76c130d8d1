//! Files: arrays (npy, npz), observations, checkpoints, images, pictures.

pub mod array;
pub mod atomic;
pub mod checkpoint;
pub mod npy;
pub mod npz;
pub mod rows;

mod place;

pub use array::{Array, DType, Data};
pub use checkpoint::Checkpoint;
pub use npz::{Npz, NpzWriter};
pub use rows::{NpyReader, NpyWriter};
