//! noise_embedding: one generic form for the host backends.
