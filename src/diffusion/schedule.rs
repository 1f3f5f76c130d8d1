//! The noise schedule: σ_t and the time grid.
