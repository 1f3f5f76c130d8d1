//! Entropic optimal transport between two samples, in the log domain, and the two divergences that are made of it.

mod cost;
mod solve;
mod sweep;

use crate::data::Samples;
use crate::{Error, Result};
use cost::Cost;

/// How precisely the transport is solved.
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize)]
pub struct Settings {
    /// λ, the weight of the entropy, in units of the squared distance.
    pub lambda: f64,
    /// The share of the mass that may be at the wrong place: Σ_j |Σ_i P_ij - 1/M| at most; the sums over j are exact.
    pub tolerance: f64,
    /// Iterations at λ at most, after those at larger ones.
    pub iterations: usize,
}

impl Default for Settings {
    fn default() -> Self {
        Self { lambda: 1e-3, tolerance: 1e-3, iterations: 1000 }
    }
}

/// The solution of min_P <P, C> + λ KL(P ‖ u ⊗ v), C_ij = ‖u_i - v_j‖², over couplings P of two samples of equal weights.
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize)]
pub struct Transport {
    /// <P, C>: what the transport costs, without the entropy.
    pub cost: f64,
    /// <P, C> + λ KL(P ‖ u ⊗ v), OT_λ: by duality the mean of f plus the mean of g.
    pub value: f64,
    /// The share of the mass at the wrong place.
    pub error: f64,
    /// Iterations in all.
    pub iterations: usize,
    /// Whether `error` is within the tolerance.
    pub converged: bool,
}

/// A number of several transports, and how well they were solved.
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Divergence {
    /// The number.
    pub value: f64,
    /// The largest share of the mass at the wrong place.
    pub error: f64,
    /// Whether every transport has converged.
    pub converged: bool,
}

impl Divergence {
    fn of(value: f64, parts: &[Transport]) -> Self {
        let error = parts.iter().map(|t| t.error).fold(0.0, f64::max);
        Self { value, error, converged: parts.iter().all(|t| t.converged) }
    }
}

/// The entropic transport between `u` and `v`.
///
/// Takes 4 N M bytes. The values of C are rounded to float32: a relative error of 6e-8 √D of each.
///
/// # Shapes
/// `u` (N, D), `v` (M, D).
///
/// # Errors
/// When the extents do not agree, a sample is not finite, or λ is not positive.
///
/// # Reference
/// Cuturi, Sinkhorn distances: lightspeed computation of optimal transport, 2013; Peyré and Cuturi, Computational optimal
/// transport, 2019, section 4.4.
pub fn transport(u: &Samples<f32>, v: &Samples<f32>, settings: Settings) -> Result<Transport> {
    check(u, v, settings)?;
    Ok(solve::transport(&Cost::new(u, v), settings))
}

/// The debiased Sinkhorn divergence OT_λ(u, v) - OT_λ(u, u)/2 - OT_λ(v, v)/2: 0 for equal samples, positive for others.
///
/// # Shapes
/// `u` (N, D), `v` (M, D).
///
/// # Errors
/// As [`transport`].
///
/// # Reference
/// Feydy, Séjourné, Vialard, Amari, Trouvé and Peyré, Interpolating between optimal transport and MMD using Sinkhorn
/// divergences, 2019, equation 3.
pub fn sinkhorn_divergence(u: &Samples<f32>, v: &Samples<f32>, settings: Settings) -> Result<Divergence> {
    check(u, v, settings)?;
    let across = solve::transport(&Cost::new(u, v), settings);
    let [own_u, own_v] = [u, v].map(|x| solve::own_transport(&Cost::new(x, x), settings));
    Ok(Divergence::of(across.value - 0.5 * (own_u.value + own_v.value), &[across, own_u, own_v]))
}

/// The figure of the paper's plots, max(OT(u₁, v) - OT(u₁, u₂), 1e-6), where OT is the cost <P, C> without the entropy, and `u_1`,
/// `u_2` are independent samples of the truth: their own distance is what two perfect samples would show.
///
/// # Shapes
/// `u_1` (N, D), `u_2` (M, D), `v` (L, D): M = L, else their sampling errors do not cancel.
///
/// # Errors
/// As [`transport`].
///
/// # Reference
/// Rozet, Andry, Lanusse and Louppe, NeurIPS 2024, section 5.1 and figure 2.
pub fn sinkhorn_authors(
    u_1: &Samples<f32>,
    u_2: &Samples<f32>,
    v: &Samples<f32>,
    settings: Settings,
) -> Result<Divergence> {
    let (found, floor) = (transport(u_1, v, settings)?, transport(u_1, u_2, settings)?);
    Ok(authors_figure(found, floor))
}

/// max(OT(u₁, v) - OT(u₁, u₂), 1e-6) of two transports.
pub fn authors_figure(found: Transport, floor: Transport) -> Divergence {
    Divergence::of((found.cost - floor.cost).max(1e-6), &[found, floor])
}

fn check(u: &Samples<f32>, v: &Samples<f32>, settings: Settings) -> Result<()> {
    if u.shape.row() != v.shape.row() || u.data.is_empty() || v.data.is_empty() {
        let found = format!("{:?} and {:?}", u.shape, v.shape);
        return Err(Error::mismatch("Sinkhorn", "samples with equal extents, not empty", found));
    }
    for (name, x) in [("first", u), ("second", v)] {
        if let Some(at) = x.data.iter().position(|x| !x.is_finite()) {
            return Err(Error::NonFinite { place: format!("Sinkhorn, {name} sample, row {}", at / x.shape.row()) });
        }
    }
    if !(settings.lambda > 0.0 && settings.lambda.is_finite()) {
        return Err(Error::mismatch("Sinkhorn, lambda", "a positive number", settings.lambda));
    }
    Ok(())
}
