//! The register block of every matrix product: up to `MR` rows by one panel of two vectors.

use super::simd::Simd;

/// Vectors of a panel: the width of the register block.
pub(crate) const PANEL: usize = 2;
/// Floats of a cache line.
pub(crate) const LINE: usize = 16;

/// acc\[i\] += Σ_k rows\[i\]\[k\] b\[k\], one fused multiply-add per k and lane in the order of k, whatever `M` is.
///
/// # Safety
/// As for [`Simd`]; each row is valid for `k` values, `b` for `k` panels.
#[inline(always)]
pub(crate) unsafe fn multiply_add<S: Simd, const M: usize>(
    acc: &mut [[S::V; PANEL]; M],
    k: usize,
    rows: &[*const f32; M],
    b: *const f32,
) {
    for k in 0..k {
        // SAFETY: k is in range of each row and of the panels.
        unsafe {
            let b = b.add(k * PANEL * S::W);
            let b = [S::load(b), S::load(b.add(S::W))];
            for i in 0..M {
                let a = S::splat(*rows[i].add(k));
                for j in 0..PANEL {
                    acc[i][j] = S::fma(a, b[j], acc[i][j]);
                }
            }
        }
    }
}

/// As [`multiply_add`], and asks meanwhile for `lines` cache lines from `ahead` every four k: the next products' weights.
///
/// # Safety
/// As for [`multiply_add`]; `k` is a multiple of 4. `ahead` may be any address.
#[inline(always)]
pub(crate) unsafe fn multiply_add_ahead<S: Simd, const M: usize>(
    acc: &mut [[S::V; PANEL]; M],
    k: usize,
    rows: &[*const f32; M],
    b: *const f32,
    ahead: *const f32,
    lines: usize,
) {
    let (mut ahead, mut b, mut rows) = (ahead, b, *rows);
    for _ in (0..k).step_by(4) {
        // SAFETY: four more values are in each row, and four more panels.
        unsafe {
            for _ in 0..lines {
                S::prefetch(ahead);
                ahead = ahead.wrapping_add(LINE);
            }
            multiply_add::<S, M>(acc, 4, &rows, b);
            for row in &mut rows {
                *row = row.add(4);
            }
            b = b.add(4 * PANEL * S::W);
        }
    }
}

/// Stores a register block, row i at `c + i ldc`.
///
/// # Safety
/// As for [`Simd`]; `c` is valid for `M` rows of one panel.
#[inline(always)]
pub(crate) unsafe fn store<S: Simd, const M: usize>(acc: &[[S::V; PANEL]; M], c: *mut f32, ldc: usize) {
    for (i, row) in acc.iter().enumerate() {
        for (j, v) in row.iter().enumerate() {
            // SAFETY: the caller's `c` holds row i and vector j.
            unsafe { S::store(c.add(i * ldc + j * S::W), *v) };
        }
    }
}

/// `rows` split into the fewest blocks of at most `mr`, of nearly equal height: (first row, height) of each.
#[inline(always)]
pub(crate) fn row_blocks(rows: usize, mr: usize) -> impl Iterator<Item = (usize, usize)> {
    let blocks = rows.div_ceil(mr);
    let height = rows.checked_div(blocks).unwrap_or(0);
    let extra = rows - height * blocks;
    (0..blocks).map(move |i| (i * height + i.min(extra), height + usize::from(i < extra)))
}

/// Runs `$body` with `$m` as the constant `$M`, 1 ..= `$mr`: the height of a register block must be known when compiling.
macro_rules! with_rows {
    ($m:expr, $mr:expr, $M:ident => $body:expr) => {
        with_rows!(@ $m, $mr, $M => $body; 1 2 3 4 5 6 7 8)
    };
    (@ $m:expr, $mr:expr, $M:ident => $body:expr; $($i:literal)+) => {
        match $m {
            $($i if $i <= $mr => { const $M: usize = $i; $body })+
            _ => unreachable!("a register block has at most {} rows", $mr),
        }
    };
}
pub(crate) use with_rows;
