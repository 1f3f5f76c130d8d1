//! Boxes of pixels: what a block of the wgmma kernel owns, because TMA copies boxes. `kernels/conv2d_sm90.cu`.

use super::map::int;
use bytemuck::NoUninit;

/// 2^n images x 2^h rows x 2^w columns.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct PixelBox {
    log: [u32; 3],
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
}

impl PixelBox {
    /// The box of `pixels` pixels of which fewest cover images of these extents (n, h, w); among those the widest, then the
    /// highest, since neighbours share the most. No sum depends on it.
    pub fn best(pixels: usize, extents: [usize; 3]) -> Self {
        let all = pixels.ilog2();
        let longest = all.min(7); // a box may span 256 elements, and the stride may be 2
        let boxes =
            (0..=longest).flat_map(|h| (0..=longest.min(all - h)).map(move |w| Self { log: [all - h - w, h, w] }));
        let rank = |b: &Self| (b.count(extents), std::cmp::Reverse([b.log[2], b.log[1]]));
        boxes.min_by_key(rank).expect("some box")
    }
    /// Images, rows, columns.
    pub fn extents(self) -> [usize; 3] {
        self.log.map(|log| 1 << log)
    }
    /// How many cover images of these extents.
    pub fn count(self, extents: [usize; 3]) -> usize {
        self.along(extents).iter().product()
    }
    /// The kernel's argument for `count` tiles of images of these extents.
    pub fn tiles(self, extents: [usize; 3], count: usize) -> Tiles {
        let ([n, h, w], [_, log_h, log_w]) = (self.along(extents).map(int), self.log.map(|log| log as i32));
        Tiles { count: int(count), n, h, w, log_h, log_w }
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
        let found = |pixels, extents| {
            let b = PixelBox::best(pixels, extents);
            (b.extents(), b.count(extents))
        };
        // the levels of cifar and of MRI at batch 256: no pixel is wasted
        assert_eq!(found(256, [256, 32, 32]), ([1, 8, 32], 1024));
        assert_eq!(found(128, [256, 8, 8]), ([2, 8, 8], 128));
        assert_eq!(found(256, [256, 80, 80]), ([1, 16, 16], 6400));
        assert_eq!(found(256, [256, 20, 20]), ([16, 4, 4], 400));
        assert_eq!(found(256, [256, 10, 10]), ([64, 2, 2], 100));
        // one image of odd extents; and vectors
        assert_eq!(found(128, [1, 9, 7]), ([1, 16, 8], 1));
        assert_eq!(found(256, [1000, 1, 1]), ([256, 1, 1], 4));
    }
}
