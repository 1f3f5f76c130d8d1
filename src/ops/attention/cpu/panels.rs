//! The small matrix products of attention: one storage for all operands, one register-blocked kernel.
//!
//! A matrix (rows, columns) is stored as column panels \[columns / NR\]\[rows\]\[NR\], NR = 2 vectors, with zeros for
//! missing columns. A panel is the right operand of a product as it is, and the left one either plain ([`product`]: a row
//! of a panel is NR consecutive k) or transposed ([`product_transposed`]: a row of a panel is one k). So p, as the softmax
//! leaves it, serves o = p v and dv = pᵀ do without a copy.
//!
//! Every element is one chain of fused multiply-adds in the order of k, for any block shape: the bits depend neither on
//! the instruction set (as long as it has FMA) nor on how a product is cut into tasks.

use crate::backend::cpu::lanes::{get, put};
use crate::backend::cpu::simd::Simd;
use std::ops::Range;

/// Columns of a panel.
pub(super) const fn panel_width<S: Simd>() -> usize {
    2 * S::W
}

/// What happens to the tiles of a product: rows `row` .. `row + MR` of one panel, or its first vector only (`NV` = 1).
///
/// # Safety
/// The CPU has the instructions of `S`.
pub(super) trait Tiles<S: Simd> {
    /// What the products are added to.
    #[inline(always)]
    unsafe fn start<const MR: usize, const NV: usize>(&self, _row: usize) -> [[S::V; NV]; MR] {
        // SAFETY: as for this trait.
        [[unsafe { S::zero() }; NV]; MR]
    }
    /// Takes the sums.
    unsafe fn finish<const MR: usize, const NV: usize>(&mut self, row: usize, acc: [[S::V; NV]; MR]);
}

/// acc\[i\] += Σ_kk a(i, kk) b\[kk\], a(i, kk) at `a[i * row + kk * column]`.
#[inline(always)]
unsafe fn accumulate<S: Simd, const MR: usize, const NV: usize>(
    acc: &mut [[S::V; NV]; MR],
    k: usize,
    a: *const f32,
    (row, column): (usize, usize),
    b: *const f32,
) {
    // SAFETY: the callers have checked that the operands hold `k` rows and columns.
    unsafe {
        for kk in 0..k {
            let mut right = [S::zero(); NV];
            for (j, right) in right.iter_mut().enumerate() {
                *right = S::load(b.add(kk * panel_width::<S>() + j * S::W));
            }
            for (i, acc) in acc.iter_mut().enumerate() {
                let left = S::splat(*a.add(i * row + kk * column));
                for (acc, right) in acc.iter_mut().zip(right) {
                    *acc = S::fma(left, right, *acc);
                }
            }
        }
    }
}

/// A B for the rows `rows` of A, panels `stride` apart, and one panel B of `k` rows.
///
/// # Safety
/// The CPU has the instructions of `S`.
#[inline(always)]
pub(super) unsafe fn product<S: Simd, const MR: usize, const NV: usize>(
    rows: Range<usize>,
    k: usize,
    (a, stride): (&[f32], usize),
    b: &[f32],
    tiles: &mut impl Tiles<S>,
) {
    let nr = panel_width::<S>();
    assert!(rows.len().is_multiple_of(MR) && rows.end * nr <= stride, "{rows:?} of a panel of {stride}");
    assert!(k.div_ceil(nr) * stride <= a.len() && k * nr <= b.len(), "k = {k}: {} x {}", a.len(), b.len());
    for row in rows.step_by(MR) {
        // SAFETY: the assertions above; the instruction set as the caller promises.
        unsafe {
            let mut acc = tiles.start::<MR, NV>(row);
            for (panel, kk) in (0..k).step_by(nr).enumerate() {
                let a = a.as_ptr().add(panel * stride + row * nr);
                accumulate::<S, MR, NV>(&mut acc, nr.min(k - kk), a, (nr, 1), b.as_ptr().add(kk * nr));
            }
            tiles.finish(row, acc);
        }
    }
}

/// Rows of a tile of [`product_transposed`]: they divide every panel width.
const TRANSPOSED_ROWS: usize = 4;

/// Aᵀ B for one panel A and one panel B of `k` rows: the first `rows` of it, and up to three more.
///
/// # Safety
/// The CPU has the instructions of `S`.
#[inline(always)]
pub(super) unsafe fn product_transposed<S: Simd, const NV: usize>(
    rows: usize,
    k: usize,
    a: &[f32],
    b: &[f32],
    tiles: &mut impl Tiles<S>,
) {
    let nr = panel_width::<S>();
    assert!(rows <= nr && k * nr <= a.len().min(b.len()), "{rows} rows, k = {k}: {} x {}", a.len(), b.len());
    for row in (0..rows).step_by(TRANSPOSED_ROWS) {
        // SAFETY: the assertion above; the instruction set as the caller promises.
        unsafe {
            let mut acc = tiles.start::<TRANSPOSED_ROWS, NV>(row);
            accumulate::<S, TRANSPOSED_ROWS, NV>(&mut acc, k, a.as_ptr().add(row), (1, nr), b.as_ptr());
            tiles.finish(row, acc);
        }
    }
}

/// Adds the product to a panel.
pub(super) struct Add<'a>(pub &'a mut [f32]);

impl<S: Simd> Tiles<S> for Add<'_> {
    #[inline(always)]
    unsafe fn start<const MR: usize, const NV: usize>(&self, row: usize) -> [[S::V; NV]; MR] {
        // SAFETY: the slice ends where the tile does.
        unsafe {
            let tile = self.0[row * panel_width::<S>()..][..MR * panel_width::<S>()].as_ptr();
            let mut acc = [[S::zero(); NV]; MR];
            for (i, acc) in acc.iter_mut().enumerate() {
                for (j, acc) in acc.iter_mut().enumerate() {
                    *acc = S::load(tile.add(i * panel_width::<S>() + j * S::W));
                }
            }
            acc
        }
    }
    #[inline(always)]
    unsafe fn finish<const MR: usize, const NV: usize>(&mut self, row: usize, acc: [[S::V; NV]; MR]) {
        // SAFETY: as for the trait.
        unsafe { store_tile::<S, MR, NV>(self.0, row, acc) };
    }
}

/// Stores a tile in its panel.
///
/// # Safety
/// The CPU has the instructions of `S`.
#[inline(always)]
pub(super) unsafe fn store_tile<S: Simd, const MR: usize, const NV: usize>(
    panel: &mut [f32],
    row: usize,
    acc: [[S::V; NV]; MR],
) {
    // SAFETY: the slice ends where the tile does.
    unsafe {
        let tile = panel[row * panel_width::<S>()..][..MR * panel_width::<S>()].as_mut_ptr();
        for (i, acc) in acc.into_iter().enumerate() {
            for (j, acc) in acc.into_iter().enumerate() {
                S::store(tile.add(i * panel_width::<S>() + j * S::W), acc);
            }
        }
    }
}

/// Copies `cols` columns of the rows `x[r * ld..]`, times `factor(r)`, into panels of `height` rows; the rest is zero.
///
/// # Safety
/// The CPU has the instructions of `S`.
#[inline(always)]
pub(super) unsafe fn pack<S: Simd>(
    (x, ld): (&[f32], usize),
    rows: usize,
    cols: usize,
    height: usize,
    factor: impl Fn(usize) -> f32,
    out: &mut [f32],
) {
    let nr = panel_width::<S>();
    for (first, panel) in (0..cols).step_by(nr).zip(out.chunks_exact_mut(height * nr)) {
        let (kept, padding) = panel.split_at_mut(rows * nr);
        for (r, out) in kept.chunks_exact_mut(nr).enumerate() {
            let row = &x[r * ld..][..cols];
            // SAFETY: as the caller promises.
            unsafe {
                let factor = S::splat(factor(r));
                for j in 0..2 {
                    put::<S>(out, j * S::W, S::mul(factor, get::<S>(row, first + j * S::W, 0.0)));
                }
            }
        }
        padding.fill(0.0);
    }
}

/// Copies the transpose of the rows `x[r * ld..]`, times `factor(r)`, into one panel of `cols` rows; the rest is zero.
#[inline(always)]
pub(super) fn pack_transposed<S: Simd>(
    (x, ld): (&[f32], usize),
    rows: usize,
    cols: usize,
    factor: impl Fn(usize) -> f32,
    out: &mut [f32],
) {
    let nr = panel_width::<S>();
    for lane in 0..rows {
        let factor = factor(lane);
        for (out, x) in out.chunks_exact_mut(nr).zip(&x[lane * ld..][..cols]) {
            out[lane] = factor * x;
        }
    }
    for out in out.chunks_exact_mut(nr).take(cols) {
        out[rows..].fill(0.0);
    }
}
