//! Philox4x32-10, a counter-based random number generator.
//!
//! # Reference
//! Salmon, Moraes, Dror and Shaw, *Parallel random numbers: as easy as 1, 2, 3*, SC 2011.

use super::Stream;
use super::normal::box_muller;

const MULTIPLIERS: [u32; 2] = [0xd251_1f53, 0xcd9e_8d57];
const WEYL: [u32; 2] = [0x9e37_79b9, 0xbb67_ae85];

/// Ten rounds: four random words for each counter and key.
#[inline]
pub fn philox4x32(counter: [u32; 4], key: [u32; 2]) -> [u32; 4] {
    let ([mut x0, mut x1, mut x2, mut x3], [mut k0, mut k1]) = (counter, key);
    for _ in 0..10 {
        let p0 = u64::from(MULTIPLIERS[0]) * u64::from(x0);
        let p1 = u64::from(MULTIPLIERS[1]) * u64::from(x2);
        (x0, x1, x2, x3) = ((p1 >> 32) as u32 ^ x1 ^ k0, p1 as u32, (p0 >> 32) as u32 ^ x3 ^ k1, p0 as u32);
        (k0, k1) = (k0.wrapping_add(WEYL[0]), k1.wrapping_add(WEYL[1]));
    }
    [x0, x1, x2, x3]
}

impl Stream {
    /// The words of elements 4 `block` .. 4 `block` + 3 of a sample.
    #[inline]
    pub fn words(&self, sample: u32, block: u32) -> [u32; 4] {
        let [step, purpose] = self.counter_words();
        philox4x32([block, sample, step, purpose], [self.seed as u32, (self.seed >> 32) as u32])
    }

    /// The last two words of the counter: step with correction, purpose with EM iteration and epoch.
    #[inline]
    pub(crate) fn counter_words(&self) -> [u32; 2] {
        [self.step | self.correction << 16, self.purpose as u32 | self.iteration << 8 | self.epoch << 20]
    }

    /// Uniform numbers in [0, 1), multiples of 2⁻³², one for each element of a sample.
    pub fn uniforms(self, sample: u32) -> impl Iterator<Item = f64> {
        (0..=u32::MAX).flat_map(move |block| self.words(sample, block)).map(|word| f64::from(word) * 2f64.powi(-32))
    }

    /// Standard normal numbers, one for each element of a sample.
    pub fn each_normal(self, sample: u32) -> impl Iterator<Item = f64> {
        (0..=u32::MAX).flat_map(move |block| self.normals(sample, block))
    }

    /// Standard normal numbers of elements 4 `block` .. 4 `block` + 3 of a sample.
    #[inline]
    pub fn normals(&self, sample: u32, block: u32) -> [f64; 4] {
        let [w0, w1, w2, w3] = self.words(sample, block);
        let ([z0, z1], [z2, z3]) = (box_muller(w0, w1), box_muller(w2, w3));
        [z0, z1, z2, z3]
    }
}
