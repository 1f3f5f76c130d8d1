//! What one block of the convolution kernel computes.

use super::boxes::PixelBox;
use crate::backend::cuda::Cuda;

/// What tiles are to cover.
pub(super) struct Work {
    /// Extents (n, h, w) of the largest phase.
    pub pixels: [usize; 3],
    /// Channels.
    pub channels: usize,
    /// Phases.
    pub phases: usize,
    /// Rows more of a box that the taps of a column could share, for each input.
    pub shareable: [usize; 2],
}

/// Pixels x channels of a block. The order of a sum is the same in the three tiles by mma.sync, and in the two by wgmma, so that
/// the choice among them is about speed alone.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Tile {
    /// 128 x 128.
    Large,
    /// 128 x 64.
    Medium,
    /// 64 x 32.
    Small,
    /// 256 x 128, by wgmma.
    WgmmaLarge,
    /// 128 x 128, by wgmma.
    WgmmaMedium,
}

impl Tile {
    /// The one that should take least time: blocks are dealt out to the multiprocessors, and each takes the time of its
    /// products over the tile's efficiency, which is in products per clock of shared memory.
    pub fn best(cuda: &Cuda, work: &Work, wgmma: bool) -> Self {
        let multiprocessors = cuda.driver().properties().multiprocessors as usize;
        let time = |tile: &Self| {
            let (rows, columns) = tile.extents();
            let blocks = tile.blocks(work);
            let percent = [100, 64, 32, 175, 150][*tile as usize];
            blocks.div_ceil(multiprocessors) * rows * columns * 100 / percent
        };
        let tiles: &[Self] =
            if wgmma { &[Self::WgmmaLarge, Self::WgmmaMedium] } else { &[Self::Large, Self::Medium, Self::Small] };
        *tiles.iter().min_by_key(|tile| time(tile)).expect("some tiles")
    }
    /// Pixels and channels.
    pub fn extents(self) -> (usize, usize) {
        match self {
            Self::Large => (128, 128),
            Self::Medium => (128, 64),
            Self::Small => (64, 32),
            Self::WgmmaLarge => (256, 128),
            Self::WgmmaMedium => (128, 128),
        }
    }
    /// How many there are in all, of any pixels or of boxes.
    pub fn blocks(self, work: &Work) -> usize {
        let (rows, columns) = self.extents();
        let along_pixels = match self.wgmma() {
            true => self.pixel_box(work).count(work.pixels),
            false => work.pixels.iter().product::<usize>().div_ceil(rows),
        };
        along_pixels * work.channels.div_ceil(columns) * work.phases
    }
    /// The pixels of a tile by wgmma.
    pub fn pixel_box(self, work: &Work) -> PixelBox {
        PixelBox::best(self.extents().0, work.pixels, work.shareable.into_iter().max().unwrap_or(0))
    }
    /// Threads of a block: four warps, of 64 x 64, 64 x 32 and 16 x 32; or two warpgroups, and one that copies.
    pub fn threads(self) -> u32 {
        if self.wgmma() { 384 } else { 128 }
    }
    /// Bytes of shared memory: four stages of a step; or 216 KiB of them, with two mbarriers each.
    pub fn shared(self) -> u32 {
        let (rows, columns) = self.extents();
        if self.wgmma() { (216 << 10) + 192 } else { (4 * step_bytes(false) * (rows + columns)) as u32 }
    }
    /// Whether the products are made by wgmma.
    pub fn wgmma(self) -> bool {
        matches!(self, Self::WgmmaLarge | Self::WgmmaMedium)
    }
}

/// Bytes of a row of operands in one step of the products.
pub(super) fn step_bytes(wgmma: bool) -> usize {
    if wgmma { 128 } else { 64 }
}
