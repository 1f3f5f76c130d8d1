//! The Gaussian prior: PPCA, exact posteriors, the evidence, and EM.

mod draws;
mod evidence;
mod fit;
mod frequencies;
mod oracle;
mod ppca;
mod refusals;
