//! The random numbers of training: which samples a step takes, their noise levels, and the streams of the rest.

use crate::ops::noise::{Purpose, Stream};

/// The stream of `purpose` in an epoch of the run (seed and lap of EM) `run`. An epoch has 28 bits: 12 of its own in the
/// counter, and those of the sampler's step, of which training has none.
pub fn stream(run: Stream, purpose: Purpose, epoch: u64) -> Stream {
    assert!(epoch < 1 << 28, "epoch {epoch}: 28 bits");
    let (high, low) = ((epoch >> 12) as u32, (epoch & 0xfff) as u32);
    Stream { purpose, step: high, correction: 0, epoch: low, ..run }
}

/// The order of `count` samples in an epoch: that of a random word of each, and among equals of their numbers.
pub fn order(run: Stream, epoch: u64, count: usize) -> Vec<u32> {
    let stream = stream(run, Purpose::Order, epoch);
    let words = (0..count.div_ceil(4) as u32).flat_map(|block| stream.words(0, block));
    let mut keys: Vec<(u32, u32)> = words.zip(0..count as u32).collect();
    keys.sort_unstable();
    keys.into_iter().map(|(_, sample)| sample).collect()
}

/// t ~ Beta(3, 3) of a sample: the median of five uniform numbers.
pub fn time(stream: Stream, sample: u32) -> f64 {
    let mut u: Vec<f64> = stream.uniforms(sample).take(5).collect();
    u.sort_unstable_by(f64::total_cmp);
    u[2]
}

#[cfg(test)]
mod tests {
    use super::*;

    const RUN: Stream = Stream { seed: 3, purpose: Purpose::Test, step: 0, correction: 0, iteration: 2, epoch: 0 };

    #[test]
    fn an_order_is_a_permutation_of_its_own() {
        for count in [1, 2, 5, 1000] {
            let mut found = order(RUN, 7, count);
            if count == 1000 {
                assert_ne!(found, order(RUN, 8, count));
                assert_ne!(found, order(Stream { iteration: 3, ..RUN }, 7, count));
                // how many stay in place is about Poisson(1)
                assert!(found.iter().zip(0..).filter(|(a, b)| *a == b).count() < 10);
            }
            found.sort_unstable();
            assert_eq!(found, (0..count as u32).collect::<Vec<_>>());
        }
    }

    #[test]
    fn times_have_the_moments_of_beta_3_3() {
        let stream = stream(RUN, Purpose::Time, 0);
        let n = 20_000;
        let t: Vec<f64> = (0..n).map(|sample| time(stream, sample)).collect();
        let mean = t.iter().sum::<f64>() / f64::from(n);
        let variance = t.iter().map(|t| (t - 0.5).powi(2)).sum::<f64>() / f64::from(n);
        let fourth = t.iter().map(|t| (t - 0.5).powi(4)).sum::<f64>() / f64::from(n);
        // variance 1/28, fourth central moment 1/336; five standard errors
        let (v, m4) = (1.0 / 28.0, 1.0 / 336.0);
        assert!((mean - 0.5).abs() < 5.0 * (v / f64::from(n)).sqrt(), "{mean}");
        assert!((variance - v).abs() < 5.0 * ((m4 - v * v) / f64::from(n)).sqrt(), "{variance}");
        assert!((fourth - m4).abs() < 0.05 * m4, "{fourth}");
    }

    #[test]
    fn epochs_beyond_twelve_bits_have_streams_of_their_own() {
        let words = |epoch| stream(RUN, Purpose::Time, epoch).words(5, 0);
        assert_ne!(words(0), words(1 << 12));
        assert_ne!(words(1), words((1 << 12) + 1));
        assert_eq!(words(77), stream(RUN, Purpose::Time, 77).words(5, 0));
    }
}
