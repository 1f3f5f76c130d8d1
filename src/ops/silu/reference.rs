//! silu: the f64 definition.
