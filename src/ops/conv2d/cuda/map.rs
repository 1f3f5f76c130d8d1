//! A linear map on pixels with its packed weights, and its launch: `kernels/conv2d.cuh`.

use super::boxes::PixelBox;
use super::epilogue::Epilogue;
use super::packing::{PackedPhase, Packing, Part, Phase};
use super::tile::{Tile, Work};
use super::view::View;
use crate::backend::Array;
use crate::backend::cuda::{Args, Cuda, CudaTensor, Dtype, Launch, TensorMap};
use bytemuck::NoUninit;
use std::ops::Range;

/// A layer's weights as PyTorch has them: w\[o, c, r, s\].
#[derive(Clone, Copy)]
pub(crate) struct Layer<'a> {
    /// Flat (c_out, c_in, width, width), f32.
    pub w: &'a CudaTensor,
    /// Input channels.
    pub c_in: usize,
    /// Output channels.
    pub c_out: usize,
    /// Taps along an axis: 1 or 3.
    pub width: usize,
}

impl Layer<'_> {
    /// The layer itself, on an image whose channels are split into `parts`, each read in its own way.
    pub fn forward(&self, cuda: &Cuda, dtype: Dtype, parts: &[(usize, View)]) -> Map {
        assert_eq!(parts.iter().map(|part| part.0).sum::<usize>(), self.c_in, "parts of a layer's input");
        let taps = self.width * self.width;
        let mut first = 0;
        let parts = parts.iter().map(|&(channels, view)| {
            first += channels * taps;
            Part { first: first - channels * taps, channels, view }
        });
        Map::new(cuda, dtype, *self, self.c_out, [self.c_in * taps, taps], &parts.collect::<Vec<_>>())
    }
    /// Its gradient for some of the input's channels.
    pub fn vjp(&self, cuda: &Cuda, dtype: Dtype, channels: Range<usize>, view: View) -> Map {
        let taps = self.width * self.width;
        let part = Part { first: channels.start * taps, channels: self.c_out, view };
        Map::new(cuda, dtype, *self, channels.len(), [taps, self.c_in * taps], &[part])
    }
}

/// From the pixels of one or two arrays to those of another.
pub(crate) struct Map {
    dtype: Dtype,
    /// Whether channels are read one by one, for want of whole 16-byte chunks.
    gathered: bool,
    /// Whether the products are made by wgmma.
    wgmma: bool,
    /// Channels of each array that is read.
    channels: Vec<usize>,
    /// Channels that are written.
    outputs: usize,
    /// Output pixels from one p to the next.
    step: usize,
    phases: Vec<PackedPhase>,
}

#[derive(Clone, Copy, NoUninit)]
#[repr(C)]
struct Conv2dArgs {
    phases: [Phase; 4],
    y: u64,
    n: i32,
    h: i32,
    w: i32,
    c: i32,
    step: i32,
    blocks_n: i32,
}

/// `Conv2dMaps`, as in the kernel.
#[derive(Clone, Copy, Default, NoUninit)]
#[repr(C)]
struct Maps {
    x: [TensorMap; 2],
    weights: [TensorMap; 4],
}

impl Map {
    fn new(cuda: &Cuda, dtype: Dtype, layer: Layer<'_>, outputs: usize, strides: [usize; 2], parts: &[Part]) -> Self {
        let packing = Packing::new(cuda, dtype, layer, outputs, strides, parts);
        let step = parts[0].view.phases.len();
        let places = (0..step).flat_map(|i| (0..step).map(move |j| (i, j)));
        let phases = places.map(|place| packing.phase(cuda, place)).collect();
        let channels = parts.iter().map(|part| part.channels).collect();
        Self { dtype, gathered: packing.gathered(), wgmma: packing.wgmma(), channels, outputs, step, phases }
    }

    /// Channels that are written.
    pub fn outputs(&self) -> usize {
        self.outputs
    }

    /// The packed weights of a map that reads one pixel: \[channels / BK\]\[outputs, rounded up to 32\]\[BK\], see
    /// `conv2d_pack.cu`.
    pub fn point_weights(&self) -> &CudaTensor {
        let [phase] = &self.phases[..] else { panic!("weights in {} phases", self.phases.len()) };
        phase.weights()
    }

    /// The same map of an image whose channels are multiplied by those of `factor`, one row of f32, from `first` on; for
    /// maps of one array in one phase.
    pub fn scaled(&self, cuda: &Cuda, factor: &CudaTensor, first: usize) -> Self {
        let ([channels], [phase]) = (&self.channels[..], &self.phases[..]) else {
            panic!("scaling of {:?} channels in {} phases", self.channels, self.phases.len())
        };
        let phases = vec![phase.scaled(cuda, factor.address() + 4 * first as u64, self.outputs)];
        Self { channels: vec![*channels], phases, ..*self }
    }

    /// `y`, (N, H, W, outputs), from the arrays `x`, finished by `epilogue`.
    pub fn run(&self, cuda: &Cuda, x: &[&CudaTensor], y: &CudaTensor, epilogue: &Epilogue<'_>) {
        let s = y.shape();
        assert_eq!((y.dtype(), s.c), (self.dtype, self.outputs), "output of a convolution");
        assert_eq!(x.len(), self.channels.len(), "inputs of a convolution");
        let work = Work {
            pixels: [s.n, s.h.div_ceil(self.step), s.w.div_ceil(self.step)],
            channels: self.outputs,
            phases: self.phases.len(),
            shareable: [0, 1].map(|i| self.phases.iter().map(|phase| phase.shareable(i)).max().unwrap_or(0)),
        };
        let tile = if self.gathered { Tile::Small } else { Tile::best(cuda, &work, self.wgmma) };

        let blocks_n = self.outputs.div_ceil(tile.extents().1);
        let mut phases = [Phase::default(); 4];
        for (to, phase) in phases.iter_mut().zip(&self.phases) {
            *to = phase.args(x, s, self.step);
        }
        let args = Conv2dArgs {
            phases,
            y: y.address(),
            n: int(s.n),
            h: int(s.h),
            w: int(s.w),
            c: int(s.c),
            step: int(self.step),
            blocks_n: int(blocks_n),
        };
        assert!(s.len() < 1 << 31 && x.iter().all(|x| x.shape().len() < 1 << 31), "a convolution to {s:?}");
        let args = Args::new().arg(args).arg(epilogue.args(s));
        let blocks = int(tile.blocks(&work)) as u32;
        let (grid, args) = if tile.wgmma() {
            let pixel_box = tile.pixel_box(&work);
            let (maps, tiles) = (self.maps(cuda, x, tile, pixel_box, work.shareable), pixel_box.tiles(&work, blocks));
            ([blocks.min(cuda.driver().properties().multiprocessors), 1, 1], args.arg(maps).arg(tiles))
        } else {
            let phases = work.phases as u32;
            ([blocks / phases, 1, phases], args)
        };
        cuda.launch(Launch {
            kernel: epilogue.kernel(tile, x.len(), self.gathered, self.dtype),
            grid,
            block: [tile.threads(), 1, 1],
            shared: tile.shared(),
            args,
        });
    }

    /// What TMA reads in boxes: the arrays, by tiles of pixels, and the weights of each phase, by those of channels.
    fn maps(&self, cuda: &Cuda, x: &[&CudaTensor], tile: Tile, pixels: PixelBox, shareable: [usize; 2]) -> Maps {
        let mut maps = Maps::default();
        for (i, (to, x)) in maps.x.iter_mut().zip(x).enumerate() {
            let [n, h, w] = pixels.extents();
            let extents = [n, h + pixels.more(shareable[i]), w];
            *to = self.phases[0].input_map(cuda, i, x, extents); // all phases have the same strides
        }
        for (to, phase) in maps.weights.iter_mut().zip(&self.phases) {
            *to = phase.weights_map(cuda, self.outputs, tile.extents().1);
        }
        maps
    }
}

/// An extent as kernels take it.
pub(super) fn int(extent: usize) -> i32 {
    i32::try_from(extent).expect("extents below 2^31")
}
