//! The conditions of all noise levels of a run, made at once.

use super::denoiser::Denoiser;
use super::samplers::Plan;
use crate::Result;
use crate::backend::{Backend, Keep};
use crate::nn::NonFinite;
use std::collections::HashMap;

/// A denoiser whose conditions can be rows of a table.
pub trait Tabulate<B: Backend>: Denoiser<B> {
    /// Elements that [`Tabulate::pick`] copies; 0 where a table would save nothing.
    fn picked(&self) -> usize;
    /// The condition of noise level `i` of those of `all`, for values and VJPs with respect to the input.
    fn pick(&self, backend: &B, all: &Self::Condition, i: usize) -> Self::Condition;
}

/// A table may take this many bytes: the cifar network's at 256 steps takes 53 MB.
const LARGEST: usize = 256 << 20;

/// A denoiser that picks its condition from a table: a step would else send its noise level through the modulation of each of a
/// U-Net's blocks, which is four launches on a GPU, and on a CPU reading weights, 31 MB in the cifar network, for one row.
pub struct Tabulated<'a, B: Backend, D: Denoiser<B>> {
    denoiser: &'a D,
    table: Option<Table<D::Condition>>,
}

struct Table<C> {
    rows: HashMap<u64, usize>, // by the bits of σ
    conditions: C,
}

impl<'a, B: Backend, D: Tabulate<B>> Tabulated<'a, B, D> {
    /// `denoiser` with a table for the noise levels of `plan`.
    pub fn new(backend: &B, denoiser: &'a D, plan: &Plan) -> Self {
        let mut rows = HashMap::new();
        let mut sigma = Vec::new();
        for level in plan.updates.iter().map(|update| update.sigma).chain([plan.sigma_end]) {
            rows.entry(level.to_bits()).or_insert_with(|| {
                sigma.push(level);
                sigma.len() - 1
            });
        }
        let bytes = sigma.len() * denoiser.picked() * size_of::<f32>();
        let table = (1..=LARGEST)
            .contains(&bytes)
            .then(|| Table { rows, conditions: denoiser.condition(backend, &sigma, Keep::Input) });
        Self { denoiser, table }
    }
    /// The denoiser itself.
    pub fn denoiser(&self) -> &'a D {
        self.denoiser
    }
}

impl<B: Backend, D: Tabulate<B>> Denoiser<B> for Tabulated<'_, B, D> {
    type Condition = D::Condition;
    type Saved = D::Saved;

    fn condition(&self, backend: &B, sigma: &[f64], keep: Keep) -> Self::Condition {
        if let (Some(Table { rows, conditions }), [sigma]) = (&self.table, sigma)
            && let Some(&row) = rows.get(&sigma.to_bits()).filter(|_| keep != Keep::All)
        {
            return self.denoiser.pick(backend, conditions, row);
        }
        self.denoiser.condition(backend, sigma, keep)
    }
    fn forward(
        &self,
        backend: &B,
        x_t: &B::Tensor,
        condition: &Self::Condition,
        keep: Keep,
    ) -> (B::Tensor, Option<Self::Saved>) {
        self.denoiser.forward(backend, x_t, condition, keep)
    }
    fn vjp(&self, backend: &B, condition: &Self::Condition, saved: &Self::Saved, u: &B::Tensor) -> B::Tensor {
        self.denoiser.vjp(backend, condition, saved, u)
    }
    fn locate_nonfinite(&self, backend: &B, x_t: &B::Tensor, condition: &Self::Condition) -> Result<Option<NonFinite>> {
        self.denoiser.locate_nonfinite(backend, x_t, condition)
    }
}
