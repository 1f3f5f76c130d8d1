//! cg: one generic form for the host backends.
