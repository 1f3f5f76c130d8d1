//! The roof of the CPU: how many floating point operations its workers can do at all.

use super::Cpu;
use super::simd::{Body, Simd, dispatch};
use std::time::Instant;

/// Independent multiply-adds in flight: two units of latency 4 need 8; with two operands they still fit 16 registers.
const CHAINS: usize = 10;

/// Iterations of a measurement: about 10 ms.
const ITERATIONS: usize = 2_000_000;

/// Floating point operations per second of all workers at once, with the instruction set in use: nothing but
/// multiply-adds in registers. The best of several runs.
pub fn flops(cpu: &Cpu) -> f64 {
    let run = || {
        let start = Instant::now();
        cpu.each_worker(CHAINS * cpu.isa().lanes(), |sink| {
            let chains = MultiplyAdds { sink };
            // SAFETY: the body writes through no pointer but to its own slice, whose length it asserts.
            unsafe { dispatch(cpu.isa(), chains) };
        });
        start.elapsed().as_secs_f64()
    };
    let seconds = (0..7).map(|_| run()).fold(f64::INFINITY, f64::min);
    (2 * CHAINS * cpu.isa().lanes() * ITERATIONS * cpu.threads()) as f64 / seconds
}

struct MultiplyAdds<'a> {
    sink: &'a mut [f32],
}

impl Body for MultiplyAdds<'_> {
    #[inline(always)]
    unsafe fn run<S: Simd, const MR: usize>(self) {
        assert!(self.sink.len() >= CHAINS * S::W);
        // SAFETY: the caller runs this where `S` is available; stores end within `sink` by the assertion.
        unsafe {
            let (scale, shift) = (S::splat(0.999), S::splat(1e-3));
            let mut chains = [S::zero(); CHAINS];
            for _ in 0..ITERATIONS {
                for chain in &mut chains {
                    *chain = S::fma(*chain, scale, shift);
                }
            }
            for (i, chain) in chains.into_iter().enumerate() {
                S::store(self.sink.as_mut_ptr().add(i * S::W), chain);
            }
        }
    }
}
