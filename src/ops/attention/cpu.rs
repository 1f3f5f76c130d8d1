//! attention: the fast CPU form.
