//! merge: the fast CPU form.
