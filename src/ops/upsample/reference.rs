//! upsample: the f64 definition.
