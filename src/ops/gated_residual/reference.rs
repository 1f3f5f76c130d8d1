//! gated_residual: the f64 definition.
