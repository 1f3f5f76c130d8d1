//! 3x3 stride 1 convolution on the CPU by Winograd's minimal filtering.
//!
//! A task is some tiles by some output panels: the input transform V = Bᵀ d B, one small matrix product M = V U for
//! each of the `INPUTS`² entries of a tile, and the output transform Aᵀ M A with the epilogue, all in one worker's
//! scratch. A sum over input channels is never split, so blocking and threads do not change a bit of the result.

use super::epilogue::{At, Epilogue, Store};
use super::image::Image;
use super::products::Products;
pub(crate) use super::transform::LARGEST;
use super::transform::{LONGEST, Transform};
use crate::backend::cpu::micro::{LINE, PANEL};
use crate::backend::cpu::simd::{Body, LANES, Simd, dispatch};
use crate::backend::cpu::{Cpu, SharedMut, Tasks};
use crate::backend::host::HostTensor;
use crate::backend::{Backend, Shape};
use std::marker::PhantomData;
use std::ops::Range;

/// Packed weights.
pub(crate) struct Winograd<T> {
    c_in: usize,
    c_out: usize,
    /// (INPUTS², panels, c_in, panel width): U = G g Gᵀ.
    u: HostTensor<f32>,
    /// (c_in): what lies outside the image.
    zeros: Vec<f32>,
    transform: PhantomData<T>,
}

/// Tiles of a task at most: enough that a panel of weights, which comes from memory, is used often while it is in L1.
const TILES: usize = 36;

impl<T: Transform> Winograd<T> {
    /// Packs the weights; `tap(o, c)` gives the nine weights of an output and an input channel, which are multiples of 16.
    pub fn new(cpu: &Cpu, c_in: usize, c_out: usize, tap: impl Fn(usize, usize) -> [f32; 9] + Sync) -> Self {
        let width = PANEL * cpu.isa().lanes();
        let panels = c_out.div_ceil(width);
        let mut u = cpu.alloc(Shape::flat(T::INPUTS * T::INPUTS * panels * c_in * width));
        let (tasks, out) = (Tasks::new(panels * c_in.div_ceil(LANES)), SharedMut::new(&mut u));
        cpu.each_worker(T::INPUTS * T::INPUTS * LANES * width, |scratch| {
            let pack = Pack {
                extents: (c_in, c_out),
                panels,
                tap: &tap,
                u: out,
                tasks: &tasks,
                scratch,
                transform: PhantomData::<T>,
            };
            // SAFETY: the array has the extents of the layer, and each panel of some input channels is one task's.
            unsafe { dispatch(cpu.isa(), pack) };
        });
        Self { c_in, c_out, u, zeros: vec![0.0; c_in], transform: PhantomData }
    }

    /// Convolves `x` and gives the output tiles to `sink`.
    pub fn run(&self, cpu: &Cpu, x: &Image<'_>, sink: impl Sink) {
        assert_eq!(x.shape.c, self.c_in, "convolution of {:?}", x.shape);
        assert!(x.parts().iter().all(|part| part.c.is_multiple_of(LANES)), "parts of whole vectors of {:?}", x.shape);
        let width = PANEL * cpu.isa().lanes();
        let (rows, columns) = (x.shape.h.div_ceil(T::OUTPUTS), x.shape.w.div_ceil(T::OUTPUTS));
        let plan = Plan::new(rows * columns * x.shape.n, self.c_out.div_ceil(width), cpu.threads());
        // An odd number of cache lines, so that the streams of a tile do not share a cache set.
        let longest_row = self.c_in.max(plan.task_panels * width);
        let slab = ((plan.task_tiles * longest_row).div_ceil(16) | 1) * 16;
        let tasks = Tasks::new(plan.tile_blocks() * plan.panel_blocks());
        cpu.each_worker((T::INPUTS * T::INPUTS + 1) * slab, |scratch| {
            let scratch = scratch.as_mut_ptr();
            let run = Run { k: self, x, sink: &sink, plan, rows, columns, slab, tasks: &tasks, scratch };
            // SAFETY: the scratch holds one slab more than products; the image and the sink have the extents of `run`.
            unsafe { dispatch(cpu.isa(), run) };
        });
    }
}

/// U = G g Gᵀ, in f64, for 16 input channels and a panel of output channels at a time; then as many rows for each entry are
/// together in U.
struct Pack<'a, T, F> {
    /// (c_in, c_out)
    extents: (usize, usize),
    panels: usize,
    tap: &'a F,
    u: SharedMut<'a>,
    tasks: &'a Tasks,
    /// (INPUTS², 16, panel width)
    scratch: &'a mut [f32],
    transform: PhantomData<T>,
}

/// A number for each output channel of a panel.
type Wide = [f64; PANEL * LANES];

impl<T: Transform, F: Fn(usize, usize) -> [f32; 9] + Sync> Body for Pack<'_, T, F> {
    #[inline(always)]
    unsafe fn run<S: Simd, const MR: usize>(self) {
        let (width, (c_in, c_out), g) = (PANEL * S::W, self.extents, T::filter());
        while let Some(task) = self.tasks.take() {
            let (panel, first) = (task % self.panels, task / self.panels * LANES);
            for c in 0..LANES {
                let mut w: [Wide; 9] = [[0.0; PANEL * LANES]; 9];
                for o in (panel * width..c_out).take(width) {
                    let taps = (self.tap)(o, first + c);
                    (0..9).for_each(|k| w[k][o % width] = f64::from(taps[k]));
                }
                for i in 0..T::INPUTS {
                    let mut half: [Wide; 3] = [[0.0; PANEL * LANES]; 3]; // half[s]: (G g)[i][s]
                    for s in 0..3 {
                        for o in 0..width {
                            half[s][o] = g[i][0] * w[s][o] + g[i][1] * w[3 + s][o] + g[i][2] * w[6 + s][o];
                        }
                    }
                    for j in 0..T::INPUTS {
                        let u = &mut self.scratch[((i * T::INPUTS + j) * LANES + c) * width..][..width];
                        for o in 0..width {
                            u[o] = (half[0][o] * g[j][0] + half[1][o] * g[j][1] + half[2][o] * g[j][2]) as f32;
                        }
                    }
                }
            }
            for (xi, rows) in self.scratch.chunks_exact(LANES * width).enumerate() {
                // SAFETY: 16 rows from (xi, panel, first) on are inside the array, aligned as rows are, and this task's alone.
                unsafe {
                    let u = self.u.ptr().add(((xi * self.panels + panel) * c_in + first) * width);
                    for k in (0..rows.len()).step_by(S::W) {
                        S::stream(u.add(k), S::load(rows.as_ptr().add(k)));
                    }
                }
            }
        }
        // SAFETY: `dispatch` has checked the instruction set.
        unsafe { S::fence() };
    }
}

/// How the work is cut into tasks.
#[derive(Clone, Copy)]
struct Plan {
    tiles: usize,
    panels: usize,
    task_tiles: usize,
    task_panels: usize,
}

impl Plan {
    /// As many tiles as fit, the same number of blocks for each worker; if they are too few for all workers the output
    /// panels are split, which costs a second input transform but streams the weights once.
    fn new(tiles: usize, panels: usize, workers: usize) -> Self {
        let blocks = tiles.div_ceil(TILES);
        let blocks = if blocks > 1 { blocks.next_multiple_of(workers) } else { blocks };
        let task_tiles = tiles.div_ceil(blocks.max(1));
        let parts = workers.div_ceil(blocks.max(1)).min(panels);
        Self { tiles, panels, task_tiles, task_panels: panels.div_ceil(parts) }
    }
    fn tile_blocks(self) -> usize {
        self.tiles.div_ceil(self.task_tiles.max(1))
    }
    fn panel_blocks(self) -> usize {
        self.panels.div_ceil(self.task_panels)
    }
    fn task(self, task: usize) -> (Range<usize>, Range<usize>) {
        let part = |i: usize, len: usize, total: usize| i * len..((i + 1) * len).min(total);
        let blocks = self.panel_blocks();
        (part(task / blocks, self.task_tiles, self.tiles), part(task % blocks, self.task_panels, self.panels))
    }
}

/// Where output tiles go.
pub(crate) trait Sink: Sync {
    /// Takes W channels from `c` of the `m` x `m` tile whose first pixel is (n, i, j); the tile may cross the image's edge.
    ///
    /// # Safety
    /// As for [`Simd`]; the place is in the output and this worker's alone.
    unsafe fn tile<S: Simd>(&self, tile: &[[S::V; LARGEST]; LARGEST], m: usize, place: (usize, usize, usize), c: usize);
    /// Asks for the cache lines that such a tile will touch.
    ///
    /// # Safety
    /// As for [`Simd`].
    #[inline(always)]
    unsafe fn prefetch<S: Simd>(&self, _m: usize, _place: (usize, usize, usize), _c: usize) {}
}

impl<E: Epilogue> Sink for Store<'_, E> {
    #[inline(always)]
    unsafe fn tile<S: Simd>(
        &self,
        tile: &[[S::V; LARGEST]; LARGEST],
        m: usize,
        (n, i0, j0): (usize, usize, usize),
        c: usize,
    ) {
        let (rows, columns) = (m.min(self.shape.h - i0), m.min(self.shape.w - j0));
        let start = self.offset(n, i0, j0) + c;
        for i in 0..LARGEST {
            for j in 0..LARGEST {
                if i < rows && j < columns {
                    let at = At { n, offset: start + (i * self.shape.w + j) * self.shape.c, c, lanes: S::W };
                    // SAFETY: the caller's obligation, and the pixel is inside.
                    unsafe { self.put::<S>(tile[i][j], at) };
                }
            }
        }
    }

    #[inline(always)]
    unsafe fn prefetch<S: Simd>(&self, m: usize, (n, i, j): (usize, usize, usize), c: usize) {
        let start = self.offset(n, i, j) + c;
        for i in 0..m {
            for j in 0..m {
                // SAFETY: as for this function; what is asked for need not exist.
                unsafe { self.ask::<S>(start + (i * self.shape.w + j) * self.shape.c) };
            }
        }
    }
}

/// One worker's share of a convolution.
struct Run<'a, T, K> {
    k: &'a Winograd<T>,
    x: &'a Image<'a>,
    sink: &'a K,
    plan: Plan,
    /// Rows and columns of tiles in an image.
    rows: usize,
    columns: usize,
    /// Floats between the matrices of two entries of a tile.
    slab: usize,
    tasks: &'a Tasks,
    /// INPUTS² + 1 slabs. V of entry xi lies in slab xi + 1, and M in slab xi, whose V is no longer needed.
    scratch: *mut f32,
}

impl<T: Transform, K: Sink> Body for Run<'_, T, K> {
    #[inline(always)]
    unsafe fn run<S: Simd, const MR: usize>(self) {
        let Winograd { c_in, ref u, .. } = *self.k;
        while let Some(task) = self.tasks.take() {
            let (tiles, panels) = self.plan.task(task);
            // SAFETY: tiles and panels are within the plan, which the scratch was made for.
            unsafe {
                match self.x.scale {
                    None => self.transform_input::<S, false>(tiles.clone()),
                    Some(_) => self.transform_input::<S, true>(tiles.clone()),
                }
                S::call(Products {
                    entries: T::INPUTS * T::INPUTS,
                    scratch: self.scratch,
                    slab: self.slab,
                    tiles: tiles.len(),
                    c_in,
                    u,
                    panels: panels.clone(),
                    all_panels: self.plan.panels,
                });
                self.transform_output::<S>(tiles, panels);
            }
        }
    }
}

impl<T: Transform, K: Sink> Run<'_, T, K> {
    /// Sample and first output pixel of a tile.
    #[inline(always)]
    fn place(&self, tile: usize) -> (usize, usize, usize) {
        let (n, t) = (tile / (self.rows * self.columns), tile % (self.rows * self.columns));
        (n, t / self.columns * T::OUTPUTS, t % self.columns * T::OUTPUTS)
    }

    /// V, (tiles, c_in) for each entry, of the image or its scaled version.
    #[inline(always)]
    unsafe fn transform_input<S: Simd, const SCALED: bool>(&self, tiles: Range<usize>) {
        let (slab, c_in, zeros) = (self.slab, self.k.c_in, self.k.zeros.as_ptr());
        let window = |part, tile| -> (usize, [[*const f32; LONGEST]; LONGEST]) {
            let (n, i, j) = self.place(tile);
            (n, self.x.window(part, n, (i as isize - 1, j as isize - 1), zeros))
        };
        let mut first = 0;
        for part in self.x.parts() {
            let mut next = window(part, tiles.start);
            for (t, tile) in tiles.clone().enumerate() {
                let (n, pixels) = next;
                next = window(part, (tile + 1).min(tiles.end - 1));
                for c in (0..part.c).step_by(S::W) {
                    // SAFETY: a pixel has the part's channels, a multiple of W; so has row t of a slab.
                    unsafe {
                        if c % LINE == 0 {
                            for i in 0..T::INPUTS {
                                for j in 0..T::INPUTS {
                                    S::prefetch(next.1[i][j].wrapping_add(c));
                                }
                            }
                        }
                        let v = self.scratch.add(slab + t * c_in + first + c);
                        let scale = match self.x.scale {
                            Some(scale) if SCALED => S::load(scale.values().as_ptr().add(scale.at(n, first + c))),
                            _ => S::zero(),
                        };
                        let mut half = [[S::zero(); LONGEST]; LONGEST]; // half[i][j]: (Bᵀ d)[i][j]
                        for j in 0..T::INPUTS {
                            let mut d = [S::zero(); LONGEST];
                            for i in 0..T::INPUTS {
                                d[i] = S::load(pixels[i][j].add(c));
                                if SCALED {
                                    d[i] = S::mul(d[i], scale);
                                }
                            }
                            let column = T::input::<S>(&d);
                            for i in 0..T::INPUTS {
                                half[i][j] = column[i];
                            }
                        }
                        for i in 0..T::INPUTS {
                            let row = T::input::<S>(&half[i]);
                            for j in 0..T::INPUTS {
                                S::store(v.add((i * T::INPUTS + j) * slab), row[j]);
                            }
                        }
                    }
                }
            }
            first += part.c;
        }
    }

    /// Aᵀ M A, to the sink.
    #[inline(always)]
    unsafe fn transform_output<S: Simd>(&self, tiles: Range<usize>, panels: Range<usize>) {
        let width = PANEL * S::W;
        let (first, ldm) = (panels.start * width, panels.len() * width);
        let channels = first..(panels.end * width).min(self.k.c_out);
        let last = tiles.end - 1;
        for (t, tile) in tiles.enumerate() {
            let (place, next) = (self.place(tile), self.place((tile + 1).min(last)));
            for c in channels.clone().step_by(S::W) {
                // SAFETY: row t of a slab has the task's panels; the tile and channels are this task's alone.
                unsafe {
                    if c % LINE == 0 {
                        self.sink.prefetch::<S>(T::OUTPUTS, next, c);
                    }
                    let m = self.scratch.add(t * ldm + c - first);
                    let mut half = [[S::zero(); LONGEST]; LARGEST]; // half[i][j]: (Aᵀ M)[i][j]
                    for j in 0..T::INPUTS {
                        let mut d = [S::zero(); LONGEST];
                        for i in 0..T::INPUTS {
                            d[i] = S::load(m.add((i * T::INPUTS + j) * self.slab));
                        }
                        let column = T::output::<S>(&d);
                        for i in 0..T::OUTPUTS {
                            half[i][j] = column[i];
                        }
                    }
                    let mut tile = [[S::zero(); LARGEST]; LARGEST];
                    for i in 0..T::OUTPUTS {
                        tile[i] = T::output::<S>(&half[i]);
                    }
                    self.sink.tile::<S>(&tile, T::OUTPUTS, place, c);
                }
            }
        }
    }
}
