//! Convolution on the CPU by its definition: for each output pixel a list of input pixels, by pointer.
//!
//! It covers what Winograd does not: any channels, 1x1 (linear layers), stride 2, and the VJP of stride 2, which is four
//! convolutions, one for each parity of the output's row and column.

use super::epilogue::{At, Epilogue, Store};
use super::image::Image;
use crate::backend::cpu::micro::{self, PANEL, row_blocks, with_rows};
use crate::backend::cpu::simd::{Body, Simd, dispatch};
use crate::backend::cpu::{Cpu, SharedMut, Tasks};
use crate::backend::host::HostTensor;
use crate::backend::{Backend, Shape};
use std::array::from_fn;
use std::ops::Range;

/// A tap: an input pixel relative to the output's, and the row and column of its weight.
#[derive(Clone, Copy)]
pub(crate) struct Tap {
    /// Rows down.
    pub di: isize,
    /// Columns right.
    pub dj: isize,
    /// Index of the weight, row-major.
    pub weight: usize,
}

/// Some of the output pixels, (first + step i, first + step j), and how they are computed.
struct Class {
    taps: Vec<Tap>,
    first: (usize, usize),
    /// (panels, taps, c_in, panel width)
    w: HostTensor<f32>,
}

/// Packed weights.
pub(crate) struct Direct {
    c_in: usize,
    c_out: usize,
    /// Output pixel i of a class is around input pixel stride · i.
    stride: usize,
    /// Output pixels between two of a class.
    step: usize,
    classes: Vec<Class>,
    /// (c_in): what lies outside the image.
    zeros: Vec<f32>,
}

/// The taps of a 3x3 window with padding 1.
pub(crate) fn window() -> Vec<Tap> {
    (0..9).map(|k| Tap { di: k as isize / 3 - 1, dj: k as isize % 3 - 1, weight: k }).collect()
}

/// The only tap of a linear layer.
pub(crate) fn point() -> Vec<Tap> {
    vec![Tap { di: 0, dj: 0, weight: 0 }]
}

impl Direct {
    /// A layer with the given taps; `tap(o, c, weight)` gives a weight.
    pub fn new(
        cpu: &Cpu,
        c_in: usize,
        c_out: usize,
        stride: usize,
        taps: Vec<Tap>,
        weight: impl Fn(usize, usize, usize) -> f32 + Sync,
    ) -> Self {
        let class = Class { first: (0, 0), w: pack(cpu, c_in, c_out, &taps, weight), taps };
        Self { c_in, c_out, stride, step: 1, classes: vec![class], zeros: vec![0.0; c_in] }
    }

    /// The VJP of a 3x3 layer with stride 2: here `c_in` are the channels of dy and `c_out` those of dx.
    ///
    /// dx\[i\] = Σ w\[r\] dy\[p\] over 2 p + r - 1 = i: for i = 2 a only r = 1, p = a; for i = 2 a + 1 r = 0, p = a + 1 and
    /// r = 2, p = a.
    pub fn vjp_of_stride_2(
        cpu: &Cpu,
        c_in: usize,
        c_out: usize,
        weight: impl Fn(usize, usize, usize) -> f32 + Sync,
    ) -> Self {
        let terms = |parity: usize| if parity == 0 { &[(1, 0)][..] } else { &[(0, 1), (2, 0)] };
        let classes = [(0, 0), (0, 1), (1, 0), (1, 1)].map(|first| {
            let rows = terms(first.0).iter();
            let taps: Vec<Tap> = rows
                .flat_map(|&(r, di)| terms(first.1).iter().map(move |&(s, dj)| Tap { di, dj, weight: 3 * r + s }))
                .collect();
            Class { first, w: pack(cpu, c_in, c_out, &taps, &weight), taps }
        });
        Self { c_in, c_out, stride: 1, step: 2, classes: classes.into(), zeros: vec![0.0; c_in] }
    }

    /// Convolves `x` into `y`.
    pub fn run<E: Epilogue>(&self, cpu: &Cpu, x: &Image<'_>, y: Store<'_, E>) {
        assert_eq!((x.shape.c, y.shape.c), (self.c_in, self.c_out), "convolution of {:?} to {:?}", x.shape, y.shape);
        assert!(x.scale.is_none(), "the direct form does not scale its input");
        let width = PANEL * cpu.isa().lanes();
        let plans: Vec<Plan> = self.classes.iter().map(|class| Plan::new(self, class, cpu, y.shape)).collect();
        let (tasks, rows) = (Tasks::new(plans.iter().map(Plan::tasks).sum()), plans.iter().map(|p| p.task_rows).max());
        cpu.each_worker(rows.unwrap_or(0) * width, |scratch| {
            let run = Run { k: self, x, y, plans: &plans, tasks: &tasks, scratch: scratch.as_mut_ptr() };
            // SAFETY: the scratch holds a panel of a task's rows; weights, image and output agree in their extents.
            unsafe { dispatch(cpu.isa(), run) };
        });
    }
}

/// The weights of some taps, (panels, taps, c_in, panel width).
fn pack(
    cpu: &Cpu,
    c_in: usize,
    c_out: usize,
    taps: &[Tap],
    weight: impl Fn(usize, usize, usize) -> f32 + Sync,
) -> HostTensor<f32> {
    let width = PANEL * cpu.isa().lanes();
    let panels = c_out.div_ceil(width);
    let mut packed = cpu.alloc(Shape::flat(panels * taps.len() * c_in * width));
    let (tasks, out) = (Tasks::new(panels), SharedMut::new(&mut packed));
    cpu.each_worker(0, |_| {
        while let Some(panel) = tasks.take() {
            for (t, tap) in taps.iter().enumerate() {
                for c in 0..c_in {
                    for lane in 0..width {
                        let o = panel * width + lane;
                        let value = if o < c_out { weight(o, c, tap.weight) } else { 0.0 };
                        // SAFETY: the element is inside the array, and its panel this task's alone.
                        unsafe { out.ptr().add(((panel * taps.len() + t) * c_in + c) * width + lane).write(value) };
                    }
                }
            }
        }
    });
    packed
}

/// How the pixels of a class are cut into tasks.
struct Plan {
    /// Rows and columns of pixels of the class in one image, and pixels in all images.
    rows: usize,
    columns: usize,
    pixels: usize,
    task_rows: usize,
    panels: usize,
    task_panels: usize,
}

/// Pixels of a task at most.
const PIXELS: usize = 64;

impl Plan {
    fn new(k: &Direct, class: &Class, cpu: &Cpu, y: Shape) -> Self {
        let (mr, width) = (cpu.isa().block_rows(), PANEL * cpu.isa().lanes());
        let count = |total: usize, first: usize| total.saturating_sub(first).div_ceil(k.step);
        let (rows, columns) = (count(y.h, class.first.0), count(y.w, class.first.1));
        let pixels = y.n * rows * columns;
        // The same number of blocks for each worker, of two register blocks or more; then panels are split as well.
        let blocks = pixels.div_ceil(PIXELS).next_multiple_of(cpu.threads()).clamp(1, pixels.div_ceil(2 * mr).max(1));
        let panels = y.c.div_ceil(width);
        let parts = (2 * cpu.threads()).div_ceil(blocks * k.classes.len()).min(panels);
        Self { rows, columns, pixels, task_rows: pixels.div_ceil(blocks), panels, task_panels: panels.div_ceil(parts) }
    }
    fn tasks(&self) -> usize {
        self.pixels.div_ceil(self.task_rows.max(1)) * self.panel_blocks()
    }
    fn panel_blocks(&self) -> usize {
        self.panels.div_ceil(self.task_panels)
    }
    fn task(&self, task: usize) -> (Range<usize>, Range<usize>) {
        let part = |i: usize, len: usize, total: usize| i * len..((i + 1) * len).min(total);
        let blocks = self.panel_blocks();
        (part(task / blocks, self.task_rows, self.pixels), part(task % blocks, self.task_panels, self.panels))
    }
    /// Sample, row and column in the class of a pixel.
    #[inline(always)]
    fn place(&self, pixel: usize) -> (usize, usize, usize) {
        let (n, p) = (pixel / (self.rows * self.columns), pixel % (self.rows * self.columns));
        (n, p / self.columns, p % self.columns)
    }
}

/// One worker's share of a convolution.
struct Run<'a, E> {
    k: &'a Direct,
    x: &'a Image<'a>,
    y: Store<'a, E>,
    plans: &'a [Plan],
    tasks: &'a Tasks,
    scratch: *mut f32,
}

impl<E: Epilogue> Body for Run<'_, E> {
    #[inline(always)]
    unsafe fn run<S: Simd, const MR: usize>(self) {
        let (mut table, mut places) = (Vec::new(), Vec::new());
        while let Some(mut task) = self.tasks.take() {
            let mut class = 0;
            while task >= self.plans[class].tasks() {
                task -= self.plans[class].tasks();
                class += 1;
            }
            let (class, plan) = (&self.k.classes[class], &self.plans[class]);
            let (pixels, panels) = plan.task(task);
            self.point(&mut table, class, plan, pixels.clone());
            places.clear();
            places.extend(pixels.clone().map(|pixel| {
                let (n, i, j) = plan.place(pixel);
                (n, self.y.offset(n, class.first.0 + self.k.step * i, class.first.1 + self.k.step * j))
            }));
            for panel in panels {
                // SAFETY: the table has the pixels' pointers, and the scratch a panel for each pixel.
                unsafe {
                    for (_, offset) in &places {
                        self.y.ask::<S>(offset + panel * PANEL * S::W);
                    }
                    let sums = Sums {
                        table: &table,
                        x: self.x,
                        class,
                        panel,
                        rows: pixels.len(),
                        c_in: self.k.c_in,
                        scratch: self.scratch,
                    };
                    S::call(sums);
                    self.finish::<S>(&places, panel);
                }
            }
        }
    }
}

impl<E: Epilogue> Run<'_, E> {
    /// Fills the table, (taps, parts, pixels), with the input pixels of each output pixel.
    fn point(&self, table: &mut Vec<*const f32>, class: &Class, plan: &Plan, pixels: Range<usize>) {
        table.clear();
        for tap in &class.taps {
            for part in self.x.parts() {
                table.extend(pixels.clone().map(|pixel| {
                    let (n, i, j) = plan.place(pixel);
                    let (i, j) = ((i * self.k.stride) as isize + tap.di, (j * self.k.stride) as isize + tap.dj);
                    self.x.pixel(part, n, i, j, self.k.zeros.as_ptr())
                }));
            }
        }
    }
    /// Stores the sums of one panel at the places, (sample, offset), of the pixels.
    #[inline(always)]
    unsafe fn finish<S: Simd>(&self, places: &[(usize, usize)], panel: usize) {
        let width = PANEL * S::W;
        for (row, &(n, offset)) in places.iter().enumerate() {
            for c in (panel * width..self.k.c_out).step_by(S::W).take(PANEL) {
                let at = At { n, offset: offset + c, c, lanes: S::W.min(self.k.c_out - c) };
                // SAFETY: the scratch has this row; the pixel is inside and this task's alone.
                unsafe { self.y.put::<S>(S::load(self.scratch.add(row * width + c - panel * width)), at) };
            }
        }
    }
}

/// The sums of one panel of output channels for some pixels: scratch (rows, panel width).
struct Sums<'a> {
    /// (taps, parts, rows)
    table: &'a [*const f32],
    x: &'a Image<'a>,
    class: &'a Class,
    panel: usize,
    rows: usize,
    c_in: usize,
    scratch: *mut f32,
}

impl Body for Sums<'_> {
    #[inline(always)]
    unsafe fn run<S: Simd, const MR: usize>(self) {
        let width = PANEL * S::W;
        let len = self.class.taps.len() * self.c_in * width;
        let w = self.class.w[self.panel * len..][..len].as_ptr();
        for (row, rows) in row_blocks(self.rows, MR) {
            with_rows!(rows, MR, M => {
                // SAFETY: the table points to pixels with the channels of their part; the scratch has the rows.
                unsafe {
                    let mut acc = [[S::zero(); PANEL]; M];
                    let (mut w, mut pointers) = (w, self.table.as_ptr().add(row));
                    for _ in &self.class.taps {
                        for part in self.x.parts() {
                            let pixels: [*const f32; M] = from_fn(|i| *pointers.add(i));
                            micro::multiply_add::<S, M>(&mut acc, part.c, &pixels, w);
                            w = w.add(part.c * width);
                            pointers = pointers.add(self.rows);
                        }
                    }
                    micro::store::<S, M>(&acc, self.scratch.add(row * width), width);
                }
            });
        }
    }
}
