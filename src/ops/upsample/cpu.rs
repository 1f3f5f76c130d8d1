//! upsample: the fast CPU form.
