//! silu: the fast CPU form.
