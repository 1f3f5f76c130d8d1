//! Copies that do not look at what they copy: in the largest units that extents allow.

use super::Dtype;

/// Bytes of the largest unit, of at most 16, that runs of these numbers of elements are made of.
pub(crate) fn unit(runs: &[usize], dtype: Dtype) -> usize {
    let fits = |unit: &usize| runs.iter().all(|run| (run * dtype.size()).is_multiple_of(*unit));
    [16, 8, 4].into_iter().find(fits).unwrap_or(dtype.size())
}

/// The name of a kernel that copies units of so many bytes: `unit_kernel!("patch_fold", unit)`.
macro_rules! unit_kernel {
    ($name:literal, $unit:expr) => {
        match $unit {
            16 => concat!($name, "_b128"),
            8 => concat!($name, "_b64"),
            4 => concat!($name, "_b32"),
            _ => concat!($name, "_b16"),
        }
    };
}
pub(crate) use unit_kernel;
