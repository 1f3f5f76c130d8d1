//! The Gaussian prior: N(μ, D + U Uᵀ), fitted to observations by expectation maximization, exactly conditioned on them.
//!
//! It starts the learner: [`fit()`] climbs the exact log-evidence from N(0, I), [`draw_posterior`] fills in what was not
//! observed, and [`ppca`] is also what every later lap refits to the draws of the network. All algebra is in f64 on the
//! host; observations are spread over rayon's threads, and no result depends on how many there are.

mod ddim;
mod dense;
mod draw;
mod evidence;
mod factors;
mod fit;
mod mask;
mod moments;
mod ppca;
mod problem;
mod rows;
mod save;
mod spectral;
mod system;
mod woodbury;

pub use ddim::draw_posterior_ddim;
pub use draw::{draw_posterior, draw_prior};
pub use evidence::log_evidence;
pub use fit::{Fit, Settings, Update, fit};
pub use ppca::ppca;
pub use rows::{MemoryRows, Rows};
pub use save::write_gaussian;
