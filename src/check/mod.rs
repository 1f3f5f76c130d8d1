//! The op registry: one case per op serves correctness (finite differences, other backends) and timing.
