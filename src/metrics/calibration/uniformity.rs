//! Tests of whether numbers are uniform: what ranks of the truth are when a posterior is right.

/// A test's statistic, and how probable so large a one is by chance.
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize)]
pub struct Test {
    /// The statistic.
    pub statistic: f64,
    /// The probability, under uniformity, of one as large.
    pub p_value: f64,
}

/// Bins of a histogram at most. An odd number leaves the χ² distribution an even number of degrees of freedom, and its tail a
/// closed form.
const BINS: usize = 9;

/// Expected ranks of a bin at least: below, χ² is no longer the distribution of the statistic.
const EXPECTED: usize = 5;

/// Ranks at least, for a histogram of more than one bin.
pub const FEWEST_RANKS: usize = 3 * EXPECTED;

/// The histogram of ranks in 0 ..= K, as many of them as there are bins.
pub fn histogram(ranks: &[usize], k: usize) -> Vec<usize> {
    let bins = BINS.min(k + 1).min(ranks.len() / EXPECTED).max(1);
    let bins = bins - usize::from(bins.is_multiple_of(2));
    let mut counts = vec![0; bins];
    ranks.iter().for_each(|rank| counts[bin(*rank, bins, k)] += 1);
    counts
}

fn bin(rank: usize, bins: usize, k: usize) -> usize {
    rank * bins / (k + 1)
}

/// The probability of each of a number of bins: some may hold one rank more than others.
pub fn expected(bins: usize, k: usize) -> Vec<f64> {
    let mut expected = vec![0.0; bins];
    (0..=k).for_each(|rank| expected[bin(rank, bins, k)] += 1.0 / (k + 1) as f64);
    expected
}

/// Pearson's χ² test of ranks in 0 ..= K, all of which are as probable.
pub fn chi_square(ranks: &[usize], k: usize) -> Test {
    let (counts, total) = (histogram(ranks, k), ranks.len() as f64);
    let expected = expected(counts.len(), k).into_iter().map(|share| share * total);
    let statistic = counts.iter().zip(expected).map(|(n, e)| (*n as f64 - e).powi(2) / e).sum();
    Test { statistic, p_value: chi_square_tail(statistic, counts.len() - 1) }
}

/// P(χ² > x) for an even number of degrees of freedom: e^(-x/2) Σ_{i < n/2} (x/2)^i / i!.
fn chi_square_tail(x: f64, degrees: usize) -> f64 {
    let (mut term, mut sum) = (1.0, if degrees == 0 { 0.0 } else { 1.0 });
    for i in 1..degrees / 2 {
        term *= 0.5 * x / i as f64;
        sum += term;
    }
    if degrees == 0 { 1.0 } else { (-0.5 * x).exp() * sum }
}

/// The Kolmogorov-Smirnov test of numbers in \[0, 1\]: the largest distance of their distribution function from the diagonal.
///
/// # Reference
/// Stephens, Use of the Kolmogorov-Smirnov, Cramér-von Mises and related statistics without extensive tables, 1970: the
/// correction of the asymptotic distribution for small samples.
pub fn kolmogorov_smirnov(numbers: &[f64]) -> Test {
    let mut sorted = numbers.to_vec();
    sorted.sort_unstable_by(f64::total_cmp);
    let n = sorted.len() as f64;
    let distances = sorted.iter().enumerate().map(|(i, u)| (u - i as f64 / n).max((i + 1) as f64 / n - u));
    let statistic = distances.fold(0.0, f64::max);
    Test { statistic, p_value: kolmogorov_tail((n.sqrt() + 0.12 + 0.11 / n.sqrt()) * statistic) }
}

/// 2 Σ_k (-1)^(k-1) e^(-2 k² x²).
fn kolmogorov_tail(x: f64) -> f64 {
    if x < 0.2 {
        return 1.0; // to 1e-12, where the series converges slowly
    }
    let term = |k: i32| f64::from(1 - 2 * (1 - k % 2)) * (-2.0 * (f64::from(k) * x).powi(2)).exp();
    (2.0 * (1..=20).map(term).sum::<f64>()).clamp(0.0, 1.0)
}

/// The half-width of the band around the diagonal that the distribution function of `n` uniform numbers leaves with probability
/// `p`: √(ln(2/p)/2n), the inequality of Dvoretzky, Kiefer, Wolfowitz and Massart.
pub fn band(n: usize, p: f64) -> f64 {
    ((2.0 / p).ln() / (2.0 * n as f64)).sqrt()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tails_are_those_of_the_tables() {
        // critical values of the usual tables, given to their last digit
        for (x, degrees, p) in [(5.991, 2, 0.05), (13.277, 4, 0.01), (15.507, 8, 0.05), (26.124, 8, 0.001)] {
            assert!((chi_square_tail(x, degrees) - p).abs() < 1e-3 * p, "{x} {degrees}");
        }
        assert_eq!(chi_square_tail(0.0, 0), 1.0);
        for (x, p) in [(1.224, 0.1), (1.358, 0.05), (1.628, 0.01), (1.949, 0.001)] {
            assert!((kolmogorov_tail(x) / p - 1.0).abs() < 5e-3, "{x}");
        }
        assert!((kolmogorov_tail(0.2) - 1.0).abs() < 1e-10);
    }

    #[test]
    fn uneven_bins_have_uneven_expectations() {
        // 8 ranks in 7 bins; every rank as often as the others is exactly uniform
        let ranks: Vec<usize> = (0..80).map(|i| i % 8).collect();
        assert_eq!(histogram(&ranks, 7).iter().sum::<usize>(), 80);
        assert_eq!(chi_square(&ranks, 7), Test { statistic: 0.0, p_value: 1.0 });
        let low: Vec<usize> = (0..80).map(|i| i % 4).collect();
        assert!(chi_square(&low, 7).p_value < 1e-10);
    }

    #[test]
    fn distances_of_distribution_functions() {
        let test = kolmogorov_smirnov(&[0.1, 0.9, 0.5]);
        assert!((test.statistic - (1.0 / 3.0 - 0.1)).abs() < 1e-12 && test.p_value > 0.9, "{test:?}");
        assert!(kolmogorov_smirnov(&vec![0.5; 100]).p_value < 1e-10);
        // the largest deviation that 95% of samples of 1,000 stay below: 1.358/√1000
        assert!((band(1000, 0.05) - 0.0429).abs() < 1e-4);
    }
}
