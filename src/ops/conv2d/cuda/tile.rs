//! What one block of the convolution kernel computes.

use super::boxes::PixelBox;
use crate::backend::cuda::Cuda;

/// Pixels x channels of a block. The order of a sum is the same in the three tiles by mma.sync, and in the two by wgmma, so that
/// the choice among them is about speed alone.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Tile {
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
    pub fn best(cuda: &Cuda, pixels: [usize; 3], channels: usize, phases: usize, wgmma: bool) -> Self {
        let multiprocessors = cuda.driver().properties().multiprocessors as usize;
        let time = |tile: &Self| {
            let (rows, columns) = tile.extents();
            let blocks = tile.blocks(pixels) * channels.div_ceil(columns) * phases;
            let percent = [100, 64, 32, 156, 140][*tile as usize];
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
    /// Blocks along the pixels (n, h, w): of any pixels, or of boxes.
    pub fn blocks(self, pixels: [usize; 3]) -> usize {
        let rows = self.extents().0;
        if self.wgmma() {
            PixelBox::best(rows, pixels).count(pixels)
        } else {
            pixels.iter().product::<usize>().div_ceil(rows)
        }
    }
    /// Threads of a block: four warps, of 64 x 64, 64 x 32 and 16 x 32; or two warpgroups, and one that copies.
    pub fn threads(self) -> u32 {
        if self.wgmma() { 384 } else { 128 }
    }
    /// Bytes of shared memory: four stages of a step; or 192 KiB of them, with two mbarriers each.
    pub fn shared(self) -> u32 {
        let (rows, columns) = self.extents();
        if self.wgmma() { (192 << 10) + 128 } else { (4 * step_bytes(false) * (rows + columns)) as u32 }
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
