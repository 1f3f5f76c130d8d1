//! The definition: every op as plain f64 loops, the oracle of all other backends. Never optimised.

use super::host::{HostBackend, Pool};
use std::sync::Arc;

/// The f64 reference backend.
pub struct Reference {
    pool: Arc<Pool<f64>>,
}

impl Reference {
    /// A reference backend whose fresh arrays are NaN.
    pub fn new() -> Self {
        Self { pool: Pool::new(true) }
    }
}

impl Default for Reference {
    fn default() -> Self {
        Self::new()
    }
}

impl HostBackend for Reference {
    type Elem = f64;
    const NAME: &'static str = "reference";
    fn pool(&self) -> &Arc<Pool<f64>> {
        &self.pool
    }
}
