//! The weight gradient of a convolution or linear layer on the CPU.
//!
//! dw\[o, c, tap\] = Σ_pixels dy\[pixel, o\] x\[pixel + tap, c\]: for each tap and panel of output channels a matrix product
//! whose inner dimension is pixels. Sums run over blocks of pixels in order, so their bits do not depend on the threads.

use super::direct::Tap;
use super::image::Image;
use crate::backend::Array;
use crate::backend::cpu::micro::{PANEL, row_blocks, with_rows};
use crate::backend::cpu::simd::{Body, LANES, Simd, dispatch};
use crate::backend::cpu::{Cpu, SharedMut, Tasks};
use crate::backend::host::HostTensor;
use rayon::prelude::*;

/// Pixels of a block: few enough that the block's input stays in L2 for all output panels.
const PIXELS: usize = 64;

/// Adds the gradients to `dw`, (c_out, c_in, taps), and `db`, (c_out).
pub(crate) fn accumulate(
    cpu: &Cpu,
    taps: &[Tap],
    stride: usize,
    x: &Image<'_>,
    dy: &HostTensor<f32>,
    dw: &mut [f32],
    db: Option<&mut [f32]>,
) {
    let (c_in, c_out) = (x.shape.c, dy.shape().c);
    assert_eq!(dw.len(), c_out * c_in * taps.len(), "weight gradient of {c_in} to {c_out} channels");
    let width = PANEL * cpu.isa().lanes();
    let (dw, db) = (SharedMut::new(dw), db.map(SharedMut::new));
    let (zeros, tasks) = (vec![0.0; c_in], Tasks::new(c_out.div_ceil(width) * taps.len()));
    cpu.each_worker((c_in + 1 + PIXELS) * width, |scratch| {
        let run = Run { taps, stride, x, dy, dw, db, zeros: &zeros, tasks: &tasks, scratch };
        // SAFETY: the gradients have the extents checked above, and each (panel, tap) is one task's.
        unsafe { dispatch(cpu.isa(), run) };
    });
}

/// Adds the sum of `dy` over its pixels to `db`, (c_out).
pub(crate) fn accumulate_bias(cpu: &Cpu, dy: &HostTensor<f32>, db: &mut [f32]) {
    let c = db.len();
    cpu.install(|| {
        db.par_chunks_mut(LANES).enumerate().for_each(|(block, db)| {
            let mut sums = [0.0f64; LANES];
            for pixel in dy.chunks_exact(c) {
                sums.iter_mut().zip(&pixel[block * LANES..]).for_each(|(sum, dy)| *sum += f64::from(*dy));
            }
            db.iter_mut().zip(sums).for_each(|(db, sum)| *db += sum as f32);
        });
    });
}

struct Run<'a> {
    taps: &'a [Tap],
    stride: usize,
    x: &'a Image<'a>,
    dy: &'a HostTensor<f32>,
    dw: SharedMut<'a>,
    db: Option<SharedMut<'a>>,
    /// (c_in)
    zeros: &'a [f32],
    tasks: &'a Tasks,
    /// (c_in + 1, width) sums, the last row those of the bias; (PIXELS, width) the panel of dy.
    scratch: &'a mut [f32],
}

impl Body for Run<'_> {
    #[inline(always)]
    unsafe fn run<S: Simd, const MR: usize>(self) {
        let width = PANEL * S::W;
        let (c_in, y) = (self.x.shape.c, self.dy.shape());
        let (sums, panel) = self.scratch.split_at_mut((c_in + 1) * width);
        let mut pixels = Vec::with_capacity(PIXELS);
        while let Some(task) = self.tasks.take() {
            let (tap, o) = (&self.taps[task % self.taps.len()], task / self.taps.len() * width);
            let lanes = width.min(y.c - o);
            sums.fill(0.0);
            panel.fill(0.0);
            for start in (0..y.n * y.pixels()).step_by(PIXELS) {
                let block = start..(start + PIXELS).min(y.n * y.pixels());
                for (row, pixel) in block.clone().enumerate() {
                    panel[row * width..][..lanes].copy_from_slice(&self.dy[pixel * y.c + o..][..lanes]);
                }
                let mut first = 0;
                for part in self.x.parts() {
                    pixels.clear();
                    pixels.extend(block.clone().map(|pixel| {
                        let (n, p) = (pixel / y.pixels(), pixel % y.pixels());
                        let (i, j) = (p / y.w * self.stride, p % y.w * self.stride);
                        self.x.pixel(part, n, i as isize + tap.di, j as isize + tap.dj, self.zeros.as_ptr())
                    }));
                    // SAFETY: the sums have a row for each channel, the pixels the channels of the part.
                    unsafe {
                        let sums = sums.as_mut_ptr().add(first * width);
                        outer_products::<S, MR>(&pixels, part.c, panel.as_ptr(), sums);
                    }
                    first += part.c;
                }
                let bias = &mut sums[c_in * width..];
                for row in 0..block.len() {
                    bias.iter_mut().zip(&panel[row * width..]).for_each(|(b, dy)| *b += dy);
                }
            }
            for lane in 0..lanes {
                for c in 0..c_in {
                    let at = ((o + lane) * c_in + c) * self.taps.len() + tap.weight;
                    // SAFETY: the element is inside dw, and its panel and tap are this task's alone.
                    unsafe { *self.dw.ptr().add(at) += sums[c * width + lane] };
                }
                if let (Some(db), 0) = (self.db, task % self.taps.len()) {
                    // SAFETY: as above; only the first tap's task of a panel adds to it.
                    unsafe { *db.ptr().add(o + lane) += sums[c_in * width + lane] };
                }
            }
        }
    }
}

/// sums\[c\] += Σ_k pixels\[k\]\[c\] panel\[k\], for all c < `channels`.
#[inline(always)]
unsafe fn outer_products<S: Simd, const MR: usize>(
    pixels: &[*const f32],
    channels: usize,
    panel: *const f32,
    sums: *mut f32,
) {
    let width = PANEL * S::W;
    for (c, rows) in row_blocks(channels, MR) {
        with_rows!(rows, MR, M => {
            // SAFETY: the caller's arrays have these rows and channels.
            unsafe {
                let mut acc = [[S::zero(); PANEL]; M];
                for (k, pixel) in pixels.iter().enumerate() {
                    let b = panel.add(k * width);
                    let b = [S::load(b), S::load(b.add(S::W))];
                    for i in 0..M {
                        let a = S::splat(*pixel.add(c + i));
                        for j in 0..PANEL {
                            acc[i][j] = S::fma(a, b[j], acc[i][j]);
                        }
                    }
                }
                let sums = sums.add(c * width);
                for i in 0..M {
                    for j in 0..PANEL {
                        let sum = sums.add(i * width + j * S::W);
                        S::store(sum, S::add(S::load(sum), acc[i][j]));
                    }
                }
            }
        });
    }
}
