//! conv2d: the f64 definition.
