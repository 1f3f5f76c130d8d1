//! What one block of the convolution kernel computes.

use crate::backend::cuda::Cuda;

/// Pixels x channels of a block. The order of a sum is the same in all of them, so that the choice is about speed alone.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Tile {
    /// 128 x 128.
    Large,
    /// 128 x 64.
    Medium,
    /// 64 x 32.
    Small,
}

impl Tile {
    /// The one that should take least time: blocks are dealt out to the multiprocessors, and each takes the time of its
    /// products over the tile's efficiency, which is in products per clock of shared memory.
    pub fn best(cuda: &Cuda, pixels: usize, channels: usize, phases: usize) -> Self {
        let multiprocessors = cuda.driver().properties().multiprocessors as usize;
        let time = |tile: &Self| {
            let (rows, columns) = tile.extents();
            let blocks = pixels.div_ceil(rows) * channels.div_ceil(columns) * phases;
            let percent = [100, 64, 32][*tile as usize];
            blocks.div_ceil(multiprocessors) * rows * columns * 100 / percent
        };
        [Self::Large, Self::Medium, Self::Small].into_iter().min_by_key(time).expect("three tiles")
    }
    /// Pixels and channels.
    pub fn extents(self) -> (usize, usize) {
        match self {
            Self::Large => (128, 128),
            Self::Medium => (128, 64),
            Self::Small => (64, 32),
        }
    }
    /// Threads of a block: four warps, of 64 x 64, 64 x 32 and 16 x 32.
    pub fn threads(self) -> u32 {
        128
    }
    /// Bytes of shared memory: four stages of 64 bytes per row.
    pub fn shared(self) -> u32 {
        let (rows, columns) = self.extents();
        (4 * 64 * (rows + columns)) as u32
    }
}
