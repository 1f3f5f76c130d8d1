//! linear: the fast CPU form.
