//! attention: the f64 definition.
