//! The paper's comparisons that need no trained network.

pub mod figure2;
