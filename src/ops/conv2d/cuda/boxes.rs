//! Boxes of pixels: what a block of the wgmma kernel owns, because TMA copies boxes. `kernels/conv2d_sm90.cu`.

use super::map::int;
use super::tile::Work;
use bytemuck::NoUninit;
use std::cmp::Reverse;

/// 2^n images x 2^h rows x 2^w columns.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct PixelBox {
    log: [u32; 3],
    /// Whether the taps of a column may read one box with some rows more.
    shared: bool,
}

/// `Conv2dTiles`, as in the kernel.
#[derive(Clone, Copy, NoUninit)]
#[repr(C)]
pub(super) struct Tiles {
    count: i32,
    n: i32,
    h: i32,
    w: i32,
    log_h: i32,
    log_w: i32,
    more: [i32; 2],
}

impl PixelBox {
    /// The box of `pixels` pixels that should cover images of these extents (n, h, w) in least time, for windows whose taps
    /// could share boxes of up to `more` rows more; among equals the widest, then the highest, since neighbours share the
    /// most. No sum depends on it.
    pub fn best(pixels: usize, extents: [usize; 3], more: usize) -> Self {
        let all = pixels.ilog2();
        let longest = all.min(7); // a box may span 256 elements, and the stride may be 2
        let shape = |h, w| {
            // a tap starts whole groups of 8 rows of shared memory after another, and a stage has room for a quarter more
            let shared = more > 0 && w >= 3 && h + w >= 6 && 4 * more <= 1usize << h;
            Self { log: [all - h - w, h, w], shared }
        };
        let boxes = (0..=longest).flat_map(|h| (0..=longest.min(all - h)).map(move |w| shape(h, w)));
        // shared or not, 100% and 81% of the matrix peak bound the products: docs/kernels.md
        let time = |b: &Self| b.count(extents) * if b.shared || more == 0 { 81 } else { 100 };
        boxes.min_by_key(|b| (time(b), Reverse([b.log[2], b.log[1]]))).expect("some box")
    }
    /// Images, rows, columns.
    pub fn extents(self) -> [usize; 3] {
        self.log.map(|log| 1 << log)
    }
    /// The rows more that the boxes of a window have, when its taps could share so many.
    pub fn more(self, shareable: usize) -> usize {
        if self.shared { shareable } else { 0 }
    }
    /// How many cover images of these extents.
    pub fn count(self, extents: [usize; 3]) -> usize {
        self.along(extents).iter().product()
    }
    /// The kernel's argument for `count` tiles.
    pub fn tiles(self, work: &Work, count: u32) -> Tiles {
        let ([n, h, w], [_, log_h, log_w]) = (self.along(work.pixels).map(int), self.log.map(|log| log as i32));
        Tiles { count: count as i32, n, h, w, log_h, log_w, more: work.shareable.map(|rows| int(self.more(rows))) }
    }
    fn along(self, extents: [usize; 3]) -> [usize; 3] {
        std::array::from_fn(|i| extents[i].div_ceil(1 << self.log[i]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn boxes_waste_as_little_as_powers_of_two_can() {
        let found = |pixels, extents, more| {
            let b = PixelBox::best(pixels, extents, more);
            (b.extents(), b.count(extents), b.shared)
        };
        // the levels of cifar and of MRI at batch 256: no pixel is wasted
        assert_eq!(found(256, [256, 32, 32], 2), ([1, 8, 32], 1024, true));
        assert_eq!(found(128, [256, 8, 8], 2), ([2, 8, 8], 128, true));
        assert_eq!(found(256, [256, 80, 80], 2), ([1, 16, 16], 6400, true));
        assert_eq!(found(256, [256, 40, 40], 2), ([4, 8, 8], 1600, true));
        assert_eq!(found(256, [256, 20, 20], 2), ([16, 4, 4], 400, false));
        assert_eq!(found(256, [256, 10, 10], 2), ([64, 2, 2], 100, false));
        // one image of odd extents; and vectors
        assert_eq!(found(128, [1, 9, 7], 2), ([1, 16, 8], 1, true));
        assert_eq!(found(256, [1000, 1, 1], 0), ([256, 1, 1], 4, false));
    }
}
