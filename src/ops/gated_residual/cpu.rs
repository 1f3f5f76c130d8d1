//! gated_residual: the fast CPU form.
