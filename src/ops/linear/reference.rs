//! linear: the f64 definition.
