//! conv2d: the fast CPU form.
