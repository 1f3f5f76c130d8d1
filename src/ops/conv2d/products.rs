//! The matrix products of a Winograd convolution, and when their weights are asked for.

use crate::backend::cpu::micro::{self, PANEL, row_blocks, with_rows};
use crate::backend::cpu::simd::{Body, Simd};
use std::array::from_fn;
use std::ops::Range;

/// M = V U for every entry of the tiles: (tiles, c_in) by (c_in, panels).
pub(super) struct Products<'a> {
    pub entries: usize,
    /// V of entry xi in slab xi + 1, M in slab xi.
    pub scratch: *mut f32,
    pub slab: usize,
    pub tiles: usize,
    pub c_in: usize,
    /// (entries, all_panels, c_in, width)
    pub u: &'a [f32],
    pub panels: Range<usize>,
    pub all_panels: usize,
}

impl Body for Products<'_> {
    #[inline(always)]
    unsafe fn run<S: Simd, const MR: usize>(self) {
        let Self { c_in, slab, .. } = self;
        let width = PANEL * S::W;
        let ldm = self.panels.len() * width;
        let panel_at =
            |xi: usize, panel: usize| &self.u[(xi * self.all_panels + panel) * c_in * width..][..c_in * width];
        let blocks = self.tiles.div_ceil(MR);
        // Each of the first blocks fetches some lines of the next panel every four channels, the others none.
        let lines = (width / 4).div_ceil(blocks);
        let fetching = (width / 4).div_ceil(lines);
        for xi in 0..self.entries {
            for (p, panel) in self.panels.clone().enumerate() {
                let u = panel_at(xi, panel).as_ptr();
                let next = if panel + 1 < self.panels.end {
                    (xi, panel + 1)
                } else {
                    ((xi + 1) % self.entries, self.panels.start)
                };
                let next = panel_at(next.0, next.1).as_ptr();
                for (block, (row, rows)) in row_blocks(self.tiles, MR).enumerate() {
                    let ahead = next.wrapping_add(block * c_in * 4 * lines);
                    let lines = if block < fetching { lines } else { 0 };
                    // SAFETY: V of entry xi has `tiles` rows in slab xi + 1, M in slab xi.
                    unsafe {
                        let v = self.scratch.add((xi + 1) * slab + row * c_in);
                        let m = self.scratch.add(xi * slab + row * ldm + p * width);
                        with_rows!(rows, MR, M => {
                            let mut acc = [[S::zero(); PANEL]; M];
                            let rows = from_fn(|i| v.add(i * c_in).cast_const());
                            micro::multiply_add_ahead::<S, M>(&mut acc, c_in, &rows, u, ahead, lines);
                            micro::store::<S, M>(&acc, m, ldm);
                        });
                    }
                }
            }
        }
    }
}
