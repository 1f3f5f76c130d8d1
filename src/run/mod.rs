//! What one sampling run leaves behind: a folder that survives interruption, per-pixel moments, a report.

pub mod folder;
pub mod moments;

pub use folder::{Batch, Claim, Failure, Folder};
