//! Random inputs for the tests of the CPU backend.

/// `len` reproducible values in [-scale, scale], exact in f32.
pub fn random(seed: u64, len: usize, scale: f64) -> Vec<f64> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ 0xD1B5_4A32_D192_ED03;
    (0..len)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            ((scale * ((state >> 11) as f64 / (1u64 << 52) as f64 - 1.0)) as f32) as f64
        })
        .collect()
}
