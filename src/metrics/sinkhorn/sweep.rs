//! One iteration over the rows of C: the row sums of P, and the column sums that follow from them, with one exponential for
//! each pair.

use super::cost::Cost;
use crate::backend::cpu::simd::{Body, Isa, LANES, Simd, Sum, dispatch};
use rayon::prelude::*;

/// Rows of a task: their column sums are added up in float32, those of the tasks in f64. It fixes the order of all sums.
const TASK: usize = 64;

/// Row sums beyond these have lost digits, or all.
const SOUND: std::ops::Range<f64> = 1e-20..1e20;

/// The dual variables over λ, as P_ij = e^(f_i + g_j - C_ij/λ)/(N M).
pub struct Potentials {
    /// (N).
    pub f: Vec<f64>,
    /// (M).
    pub g: Vec<f64>,
}

/// What a sweep has seen of P, once its rows were scaled.
pub struct Sums {
    /// (N) N Σ_j P_ij before the rows were scaled: 1 where they were right.
    pub rows: Vec<f64>,
    /// (M) M Σ_i P_ij: 1 where the columns are right.
    pub columns: Vec<f64>,
    /// <P, C>.
    pub cost: f64,
}

/// Scales the rows of P: f_i becomes f_i - `omega` ln(row sum); 1 makes the sum right, more overshoots.
pub fn scale_rows(cost: &Cost, lambda: f64, potentials: &mut Potentials, omega: f64) -> Sums {
    let (n, m, isa) = (cost.rows, cost.cols, Isa::detect());
    let Potentials { f, g } = potentials;
    let tasks = cost.data.par_chunks(TASK * m).zip(f.par_chunks_mut(TASK));
    let tasks: Vec<Task> = tasks
        .map(|(cost, f)| {
            let mut task = Task { rows: vec![0.0; f.len()], columns: vec![0.0; m], cost: 0.0 };
            let exps = vec![0.0; m.next_multiple_of(LANES)];
            // SAFETY: the body has no pointers but those into its own slices.
            unsafe { dispatch(isa, Rows { cost, f, g, inverse: 1.0 / lambda, omega, exps, task: &mut task }) };
            task
        })
        .collect();
    let mut sums = Sums { rows: Vec::with_capacity(n), columns: vec![0.0; m], cost: 0.0 };
    for task in tasks {
        sums.rows.extend(task.rows);
        sums.cost += task.cost / (n * m) as f64;
        sums.columns.iter_mut().zip(task.columns).for_each(|(sum, part)| *sum += f64::from(part) / n as f64);
    }
    sums
}

/// Scales the columns of P, by the sums of a sweep: g_j becomes g_j - `omega` ln(column sum).
pub fn scale_columns(cost: &Cost, lambda: f64, potentials: &mut Potentials, columns: &[f64], omega: f64) {
    let Potentials { f, g } = potentials;
    g.par_iter_mut().zip(columns).enumerate().for_each(|(j, (g, sum))| {
        if SOUND.contains(sum) {
            *g -= omega * sum.ln();
        } else {
            let exponents = || f.iter().enumerate().map(|(i, f)| f - f64::from(cost.data[i * cost.cols + j]) / lambda);
            let largest = exponents().fold(f64::NEG_INFINITY, f64::max);
            let sum: f64 = exponents().map(|t| (t - largest).exp()).sum();
            *g = -largest - (sum / f.len() as f64).ln();
        }
    });
}

/// What some rows amount to.
struct Task {
    rows: Vec<f64>,    // (R)
    columns: Vec<f32>, // (M) N Σ_i M P_ij over these rows
    cost: f64,         // N M Σ_ij P_ij C_ij
}

/// The work of a task.
struct Rows<'a> {
    cost: &'a [f32],  // (R, M)
    f: &'a mut [f64], // (R)
    g: &'a [f64],     // (M)
    inverse: f64,     // 1/λ
    omega: f64,
    exps: Vec<f32>, // (M, padded)
    task: &'a mut Task,
}

impl Body for Rows<'_> {
    #[inline(always)]
    unsafe fn run<S: Simd, const MR: usize>(mut self) {
        let m = self.g.len();
        for (i, cost) in self.cost.chunks_exact(m).enumerate() {
            // SAFETY: as for this function.
            let mut sum = unsafe { self.exponentials::<S>(self.f[i], cost) } / m as f64;
            if !SOUND.contains(&sum) {
                let exponents = self.g.iter().zip(cost).map(|(g, c)| g - f64::from(*c) * self.inverse);
                self.f[i] = -exponents.fold(f64::NEG_INFINITY, f64::max);
                // SAFETY: as for this function. The largest exponent is 0 now, the sum at least 1.
                sum = unsafe { self.exponentials::<S>(self.f[i], cost) } / m as f64;
            }
            self.f[i] -= self.omega * sum.ln();
            let scale = sum.powf(-self.omega);
            let single = scale as f32;
            let exps = &self.exps[..m];
            self.task.columns.iter_mut().zip(exps).for_each(|(column, e)| *column += single * e);
            self.task.cost += scale * dot(exps, cost);
            self.task.rows[i] = sum;
        }
    }
}

impl Rows<'_> {
    /// exps_j = e^(f + g_j - C_j/λ), and their sum. The exponent is a small difference of large numbers: it is formed in f64.
    ///
    /// # Safety
    /// As for [`Simd`].
    #[inline(always)]
    unsafe fn exponentials<S: Simd>(&mut self, f: f64, cost: &[f32]) -> f64 {
        let (exps, padding) = self.exps.split_at_mut(cost.len());
        for ((e, g), c) in exps.iter_mut().zip(self.g).zip(cost) {
            *e = (f + (g - f64::from(*c) * self.inverse)) as f32;
        }
        padding.fill(f32::NEG_INFINITY);
        // SAFETY: every vector lies within the padded extent, a multiple of LANES.
        unsafe {
            let mut sum = Sum::<S>::zero();
            for block in self.exps.chunks_exact_mut(LANES) {
                for slot in 0..Sum::<S>::SLOTS {
                    let p = block.as_mut_ptr().add(slot * S::W);
                    let e = S::exp(S::load(p));
                    S::store(p, e);
                    sum.add(slot, e);
                }
            }
            f64::from(sum.total())
        }
    }
}

/// <x, y>, in f64 over 8 lanes, so that the compiler may vectorise it.
#[inline(always)]
fn dot(x: &[f32], y: &[f32]) -> f64 {
    let mut lanes = [0.0; 8];
    let ((x, x_rest), (y, y_rest)) = (x.as_chunks::<8>(), y.as_chunks::<8>());
    for (x, y) in x.iter().zip(y) {
        (0..8).for_each(|l| lanes[l] += f64::from(x[l]) * f64::from(y[l]));
    }
    let rest: f64 = x_rest.iter().zip(y_rest).map(|(x, y)| f64::from(*x) * f64::from(*y)).sum();
    lanes.iter().sum::<f64>() + rest
}
