//! The input of a CPU convolution: pixels by pointer, so that padding, upsampling and concatenation cost no copy.

use crate::backend::host::HostTensor;
use crate::backend::{Array, Shape};

/// Some of the channels of an image.
#[derive(Clone, Copy)]
pub(crate) struct Part<'a> {
    /// (N, H >> shift, W >> shift, c)
    pub x: &'a [f32],
    /// Channels.
    pub c: usize,
    /// Nearest upsampling by 2^shift.
    shift: u32,
}

/// A batch of images, (N, H, W, C): one array, or two concatenated along channels, the first upsampled by 2.
#[derive(Clone, Copy)]
pub(crate) struct Image<'a> {
    /// Its extents, C being the sum over the parts.
    pub shape: Shape,
    parts: [Part<'a>; 2],
    count: usize,
    /// (R, C): what each channel is multiplied by.
    pub scale: Option<PerSample<'a>>,
}

impl<'a> Image<'a> {
    /// The array itself.
    pub fn new(x: &'a HostTensor<f32>) -> Self {
        let part = Part { x, c: x.shape().c, shift: 0 };
        Self { shape: x.shape(), parts: [part; 2], count: 1, scale: None }
    }
    /// concat(upsample(x), skip).
    pub fn merged(x: &'a HostTensor<f32>, skip: &'a HostTensor<f32>) -> Self {
        let (s, x_s) = (skip.shape(), x.shape());
        assert_eq!((x_s.n, 2 * x_s.h, 2 * x_s.w), (s.n, s.h, s.w), "merge of {x_s:?} with {s:?}");
        let parts = [Part { x, c: x_s.c, shift: 1 }, Part { x: skip, c: s.c, shift: 0 }];
        Self { shape: s.with_c(x_s.c + s.c), parts, count: 2, scale: None }
    }
    /// The same image with its channels multiplied by `scale`.
    pub fn scaled(self, scale: PerSample<'a>) -> Self {
        Self { scale: Some(scale), ..self }
    }
    /// Its parts, in the order of their channels.
    #[inline(always)]
    pub fn parts(&self) -> &[Part<'a>] {
        &self.parts[..self.count]
    }
    /// The channels of `part` at pixel (n, y, x), or `outside` where there is no such pixel.
    #[inline(always)]
    pub fn pixel(&self, part: &Part<'a>, n: usize, y: isize, x: isize, outside: *const f32) -> *const f32 {
        let Shape { h, w, .. } = self.shape;
        if y < 0 || x < 0 || y >= h as isize || x >= w as isize {
            return outside;
        }
        let (h, w) = (h >> part.shift, w >> part.shift);
        let (y, x) = (y as usize >> part.shift, x as usize >> part.shift);
        part.x[((n * h + y) * w + x) * part.c..].as_ptr()
    }
    /// The same for the K x K pixels from (n, y, x) on.
    #[inline(always)]
    pub fn window<const K: usize>(
        &self,
        part: &Part<'a>,
        n: usize,
        (y, x): (isize, isize),
        outside: *const f32,
    ) -> [[*const f32; K]; K] {
        let (h, w) = (self.shape.h >> part.shift, self.shape.w >> part.shift);
        let mut window = [[outside; K]; K];
        for i in 0..K {
            let y = y + i as isize;
            if y < 0 || y >= self.shape.h as isize {
                continue;
            }
            let row = &part.x[(n * h + (y as usize >> part.shift)) * w * part.c..][..w * part.c];
            for j in 0..K {
                let x = x + j as isize;
                if x >= 0 && x < self.shape.w as isize {
                    window[i][j] = row[(x as usize >> part.shift) * part.c..].as_ptr();
                }
            }
        }
        window
    }
}

/// Values per channel, one row for each sample or one for all.
#[derive(Clone, Copy)]
pub(crate) struct PerSample<'a> {
    values: &'a [f32],
    stride: usize,
}

impl<'a> PerSample<'a> {
    /// Channels from `first` of the rows of `x`, (R, 1, 1, ..).
    pub fn new(x: &'a HostTensor<f32>, first: usize) -> Self {
        let s = x.shape();
        Self { values: &x[first..], stride: if s.n == 1 { 0 } else { s.row() } }
    }
    /// All of them.
    #[inline(always)]
    pub fn values(&self) -> &'a [f32] {
        self.values
    }
    /// Where among them channel `c` of sample `n` is.
    #[inline(always)]
    pub fn at(&self, n: usize, c: usize) -> usize {
        n * self.stride + c
    }
}
