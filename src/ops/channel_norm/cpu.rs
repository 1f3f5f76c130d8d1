//! channel_norm: the fast CPU form.
