//! The weight gradient of a 3x3 stride 1 convolution on the CPU by Winograd's minimal filtering.
//!
//! A tile of outputs Aᵀ ((G w Gᵀ) ⊙ (Bᵀ d B)) A is linear in the weights w, so the gradient of theirs is
//!
//! dw = Gᵀ (Σ_tiles (A dy Aᵀ) ⊙ (Bᵀ d B)) G:
//!
//! as many products as the forward, a quarter of the direct form's with F(4x4), summed over tiles instead of channels. Tiles
//! are taken in blocks: first both transforms of all of a block, then each worker's (input channels) x (output channels)
//! for every entry of a tile. A sum over tiles is in their order, so its bits do not depend on the threads.

use super::image::Image;
use super::transform::{LONGEST, Transform};
use crate::backend::cpu::micro::{self, PANEL, row_blocks, with_rows};
use crate::backend::cpu::simd::{Body, LANES, Simd, dispatch};
use crate::backend::cpu::{Cpu, SharedMut, Tasks};
use crate::backend::host::HostTensor;
use crate::backend::{Array, Backend, Shape};
use std::marker::PhantomData;
use std::ops::Range;

/// Floats of both transforms of a block of tiles: few enough for the third-level cache.
const BLOCK: usize = 4 << 20;
/// Tiles that a worker transforms at a time.
const TILES: usize = 8;
/// Input channels of a worker's products at most: with a panel of output channels, for every entry of a tile, they fill a part
/// of the second-level cache.
const CHANNELS: usize = 64;

/// Adds the gradient to `dw`, (c_out, c_in, 3, 3); the channels of every part of `x`, and those of `dy`, are multiples of 16.
pub(crate) fn accumulate<T: Transform>(cpu: &Cpu, x: &Image<'_>, dy: &HostTensor<f32>, dw: &mut [f32]) {
    let (c_in, y) = (x.shape.c, dy.shape());
    assert_eq!(dw.len(), 9 * c_in * y.c, "weight gradient of {c_in} to {} channels", y.c);
    assert!(x.parts().iter().all(|part| part.c.is_multiple_of(LANES)) && y.c.is_multiple_of(LANES), "{:?}", x.shape);
    let (entries, width) = (T::INPUTS * T::INPUTS, PANEL * cpu.isa().lanes());
    let (rows, columns) = (y.h.div_ceil(T::OUTPUTS), y.w.div_ceil(T::OUTPUTS));
    let tiles = y.n * rows * columns;
    let panels = y.c.div_ceil(width);
    // by the layer's extents alone: the gradient is a sum over blocks
    let block = (BLOCK / (entries * (c_in + y.c))).clamp(TILES, tiles.max(TILES));
    // an odd number of cache lines, so that the streams of a tile do not share a cache set
    let (v_slab, z_slab) = ((block | 1) * LANES, block * width + LANES);
    let mut v = cpu.alloc(Shape::flat(c_in / LANES * entries * v_slab));
    let mut z = cpu.alloc(Shape::flat(panels * entries * z_slab));
    let zeros = vec![0.0; c_in.max(y.c)];
    for first in (0..tiles).step_by(block) {
        let tiles = first..(first + block).min(tiles);
        let tasks = Tasks::new(tiles.len().div_ceil(TILES));
        let (v_out, z_out) = (SharedMut::new(&mut v), SharedMut::new(&mut z));
        cpu.each_worker(0, |_| {
            let run = Transforms::<T> {
                x,
                dy: &Image::new(dy),
                grid: (rows, columns),
                tiles: tiles.clone(),
                v: (v_out, v_slab),
                z: (z_out, z_slab),
                zeros: &zeros,
                tasks: &tasks,
                transform: PhantomData,
            };
            // SAFETY: both arrays have a place for each tile of a block, and each tile is one task's.
            unsafe { dispatch(cpu.isa(), run) };
        });
        // smaller blocks of channels where there are too few for all workers
        let channels = (CHANNELS / LANES).min((c_in / LANES * panels).div_ceil(2 * cpu.threads())) * LANES;
        let tasks = Tasks::new(c_in.div_ceil(channels) * panels);
        let dw = SharedMut::new(dw);
        cpu.each_worker((entries * channels + 9) * width, |scratch| {
            let run = Products::<T> {
                tiles: tiles.len(),
                extents: (c_in, y.c),
                channels,
                v: (&v, v_slab),
                z: (&z, z_slab),
                dw,
                tasks: &tasks,
                scratch,
                transform: PhantomData,
            };
            // SAFETY: the arrays are those that the transforms filled; each (channels, panel) is one task's.
            unsafe { dispatch(cpu.isa(), run) };
        });
    }
}

/// V = Bᵀ d B of the input's tiles and Z = A dy Aᵀ of the output's.
struct Transforms<'a, T> {
    x: &'a Image<'a>,
    dy: &'a Image<'a>,
    /// Rows and columns of tiles in an image.
    grid: (usize, usize),
    tiles: Range<usize>,
    /// (c_in / 16, entries, tiles, 16), and the floats between two entries.
    v: (SharedMut<'a>, usize),
    /// (panels, entries, tiles, panel width), likewise.
    z: (SharedMut<'a>, usize),
    /// What lies outside an image.
    zeros: &'a [f32],
    tasks: &'a Tasks,
    transform: PhantomData<T>,
}

impl<T: Transform> Body for Transforms<'_, T> {
    #[inline(always)]
    unsafe fn run<S: Simd, const MR: usize>(self) {
        let ((rows, columns), width) = (self.grid, PANEL * S::W);
        let entries = T::INPUTS * T::INPUTS;
        while let Some(task) = self.tasks.take() {
            let first = self.tiles.start + task * TILES;
            for tile in first..(first + TILES).min(self.tiles.end) {
                let (n, place) = (tile / (rows * columns), tile % (rows * columns));
                let (i, j) = (place / columns * T::OUTPUTS, place % columns * T::OUTPUTS);
                let (t, zeros) = (tile - self.tiles.start, self.zeros.as_ptr());
                let mut start = 0;
                for part in self.x.parts() {
                    let window: [[*const f32; LONGEST]; LONGEST] =
                        self.x.window(part, n, (i as isize - 1, j as isize - 1), zeros);
                    for c in (0..part.c).step_by(S::W) {
                        let (block, lane) = ((start + c) / LANES, (start + c) % LANES);
                        // SAFETY: a pixel has the part's channels, a multiple of W; so has row t of a slab.
                        unsafe {
                            let v = self.v.0.ptr().add(block * entries * self.v.1 + t * LANES + lane);
                            transform::<S, T, false>(&window, c, v, self.v.1);
                        }
                    }
                    start += part.c;
                }
                for part in self.dy.parts() {
                    let window: [[*const f32; LONGEST]; LONGEST] =
                        self.dy.window(part, n, (i as isize, j as isize), zeros);
                    for c in (0..part.c).step_by(S::W) {
                        let (panel, lane) = (c / width, c % width);
                        // SAFETY: as above.
                        unsafe {
                            let z = self.z.0.ptr().add(panel * entries * self.z.1 + t * width + lane);
                            transform::<S, T, true>(&window, c, z, self.z.1);
                        }
                    }
                }
            }
        }
    }
}

/// Bᵀ d B of W channels from `c` of the window, or with `ADJOINT` A d Aᵀ; entry xi goes to `out + xi slab`.
#[inline(always)]
unsafe fn transform<S: Simd, T: Transform, const ADJOINT: bool>(
    window: &[[*const f32; LONGEST]; LONGEST],
    c: usize,
    out: *mut f32,
    slab: usize,
) {
    let count = if ADJOINT { T::OUTPUTS } else { T::INPUTS };
    // SAFETY: the caller's pixels have these channels, and its slabs this row.
    unsafe {
        let mut half = [[S::zero(); LONGEST]; LONGEST]; // half[i][j]: (Bᵀ d)[i][j] or (A d)[i][j]
        for j in 0..count {
            let mut d = [S::zero(); LONGEST];
            for i in 0..count {
                d[i] = S::load(window[i][j].add(c));
            }
            let column = if ADJOINT { T::output_adjoint::<S>(&d) } else { T::input::<S>(&d) };
            for i in 0..T::INPUTS {
                half[i][j] = column[i];
            }
        }
        for i in 0..T::INPUTS {
            let row = if ADJOINT { T::output_adjoint::<S>(&half[i]) } else { T::input::<S>(&half[i]) };
            for j in 0..T::INPUTS {
                S::store(out.add((i * T::INPUTS + j) * slab), row[j]);
            }
        }
    }
}

/// The sums Σ_tiles V Z of some input channels and a panel of output channels, and what they add to the gradient.
struct Products<'a, T> {
    /// Tiles of this block.
    tiles: usize,
    /// (c_in, c_out)
    extents: (usize, usize),
    /// Input channels of a task.
    channels: usize,
    v: (&'a [f32], usize),
    z: (&'a [f32], usize),
    /// (c_out, c_in, 3, 3)
    dw: SharedMut<'a>,
    tasks: &'a Tasks,
    /// (entries, channels, panel width) sums; 9 vectors of the gradient.
    scratch: &'a mut [f32],
    transform: PhantomData<T>,
}

impl<T: Transform> Body for Products<'_, T> {
    #[inline(always)]
    unsafe fn run<S: Simd, const MR: usize>(self) {
        let (entries, width, blocks) = (T::INPUTS * T::INPUTS, PANEL * S::W, self.extents.0.div_ceil(self.channels));
        let (sums, taps) = self.scratch.split_at_mut(entries * self.channels * width);
        while let Some(task) = self.tasks.take() {
            let (panel, first) = (task / blocks, task % blocks * self.channels);
            let channels = first..(first + self.channels).min(self.extents.0);
            for xi in 0..entries {
                let z = self.z.0[(panel * entries + xi) * self.z.1..].as_ptr();
                for c in channels.clone().step_by(LANES) {
                    let v = self.v.0[(c / LANES * entries + xi) * self.v.1..].as_ptr();
                    let sums = sums[(xi * self.channels + c - first) * width..][..LANES * width].as_mut_ptr();
                    // SAFETY: both slabs have the block's tiles, and the sums 16 channels of a panel.
                    unsafe { multiply::<S, MR>(self.tiles, v, z, sums) };
                }
            }
            for c in channels {
                for o in (panel * width..self.extents.1).step_by(S::W).take(PANEL) {
                    let sums = sums[(c - first) * width + o - panel * width..].as_ptr();
                    // SAFETY: the sums have W channels from here for every entry; the gradient is this task's alone.
                    unsafe {
                        gradient::<S, T>(sums, self.channels * width, taps.as_mut_ptr());
                        for lane in 0..S::W {
                            let dw = self.dw.ptr().add(((o + lane) * self.extents.0 + c) * 9);
                            for tap in 0..9 {
                                *dw.add(tap) += taps[tap * S::W + lane];
                            }
                        }
                    }
                }
            }
        }
    }
}

/// sums\[c\] = Σ_t v\[t\]\[c\] z\[t\] for 16 channels c, over the tiles t in order.
#[inline(always)]
unsafe fn multiply<S: Simd, const MR: usize>(tiles: usize, v: *const f32, z: *const f32, sums: *mut f32) {
    let width = PANEL * S::W;
    for (c, rows) in row_blocks(LANES, MR) {
        with_rows!(rows, MR, M => {
            // SAFETY: as for this function.
            unsafe {
                let mut acc = [[S::zero(); PANEL]; M];
                for t in 0..tiles {
                    let (v, z) = (v.add(t * LANES + c), z.add(t * width));
                    let z = [S::load(z), S::load(z.add(S::W))];
                    for i in 0..M {
                        let a = S::splat(*v.add(i));
                        for j in 0..PANEL {
                            acc[i][j] = S::fma(a, z[j], acc[i][j]);
                        }
                    }
                }
                micro::store::<S, M>(&acc, sums.add(c * width), width);
            }
        });
    }
}

/// Gᵀ M G of W channels: M's entry xi at `sums + xi slab`; the nine vectors go to `taps`.
#[inline(always)]
unsafe fn gradient<S: Simd, T: Transform>(sums: *const f32, slab: usize, taps: *mut f32) {
    let g = T::filter();
    // SAFETY: the caller's arrays have these entries and vectors.
    unsafe {
        let mut half = [[S::zero(); LONGEST]; 3]; // half[r][j]: (Gᵀ M)[r][j]
        for j in 0..T::INPUTS {
            for i in 0..T::INPUTS {
                let m = S::load(sums.add((i * T::INPUTS + j) * slab));
                for r in 0..3 {
                    half[r][j] = S::fma(S::splat(g[i][r] as f32), m, half[r][j]);
                }
            }
        }
        for r in 0..3 {
            for s in 0..3 {
                let mut sum = S::zero();
                for j in 0..T::INPUTS {
                    sum = S::fma(S::splat(g[j][s] as f32), half[r][j], sum);
                }
                S::store(taps.add((3 * r + s) * S::W), sum);
            }
        }
    }
}
