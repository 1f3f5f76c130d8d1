//! What one run is: its samples batch by batch, or its steps of training; a folder that survives interruption; results to
//! look at.

pub mod batch_size;
mod digest;
pub mod folder;
pub mod moments;
pub mod results;
pub mod sampling;
pub mod summary;
pub mod training;

pub use digest::digest;
pub use folder::{Batch, Claim, Failure, Folder};
pub use sampling::{PosteriorOf, Sampling};
pub use summary::Summary;
