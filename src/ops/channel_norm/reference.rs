//! channel_norm: the f64 definition.
