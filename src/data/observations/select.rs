//! Parts of observations, and several together.

use super::{Measured, Observations};
use crate::Result;
use crate::data::Samples;
use std::ops::Range;

impl Observations {
    /// Those of samples number `range`.
    ///
    /// # Panics
    /// When there are no such samples, or none is asked for.
    pub fn rows(&self, range: Range<usize>) -> Self {
        assert!(!range.is_empty() && range.end <= self.len(), "observations {range:?} of {}", self.len());
        let index: Vec<usize> = range.clone().collect();
        let noise = if self.noise.len() == 1 { self.noise.clone() } else { self.noise[range].to_vec() };
        let measured = match &self.measured {
            Measured::Mask(mask) => Measured::Mask(mask.gather_or_share(&index)),
            Measured::Dense(a) => Measured::Dense(a.gather_or_share(&index)),
            Measured::Fourier(mask) => Measured::Fourier(mask.gather_or_share(&index)),
            shared @ (Measured::Blur(_) | Measured::Downsample(_)) => shared.clone(),
        };
        Self { path: self.path.clone(), y: self.y.gather(&index), noise, measured }
    }

    /// These, then `other`.
    ///
    /// # Errors
    /// A mismatch that names the other's file, when their extents or operators differ.
    pub fn join(&self, other: &Self) -> Result<Self> {
        let [these, those] = [self, other].map(|o| o.y.shape);
        let extents = |o: &Self| match &o.measured {
            Measured::Mask(mask) => format!("y {:?} with masks {:?}", o.y.shape.with_n(1), mask.shape.with_n(1)),
            Measured::Dense(a) => format!("y {:?} with matrices {:?}", o.y.shape.with_n(1), a.shape.with_n(1)),
            Measured::Fourier(_) => format!("y {:?} of k-space", o.y.shape.with_n(1)),
            Measured::Blur(kernel) => format!("y {:?} with a kernel {:?}", o.y.shape.with_n(1), kernel.shape),
            Measured::Downsample(factor) => format!("y {:?} with factor {factor}", o.y.shape.with_n(1)),
        };
        if extents(self) != extents(other) {
            let expected = format!("the extents of {}: {}", self.path.display(), extents(self));
            return Err(crate::Error::mismatch(other.path.display(), expected, extents(other)));
        }
        let measured = match (&self.measured, &other.measured) {
            (Measured::Mask(a), Measured::Mask(b)) => Measured::Mask(join(a, these.n, b, those.n)),
            (Measured::Dense(a), Measured::Dense(b)) => Measured::Dense(join(a, these.n, b, those.n)),
            (Measured::Fourier(a), Measured::Fourier(b)) => Measured::Fourier(join(a, these.n, b, those.n)),
            (Measured::Blur(a), Measured::Blur(b)) if a.data != b.data => {
                let place = format!("{}: array kernel", other.path.display());
                return Err(crate::Error::mismatch(place, format_args!("that of {}", self.path.display()), "another"));
            }
            (shared @ (Measured::Blur(_) | Measured::Downsample(_)), _) => shared.clone(),
            _ => unreachable!("compared above"),
        };
        let noise = match (self.noise.as_slice(), other.noise.as_slice()) {
            ([a], [b]) if a == b => vec![*a],
            _ => [self, other].iter().flat_map(|o| (0..o.len()).map(|n| o.noise[n % o.noise.len()])).collect(),
        };
        Self::new(&self.path, join(&self.y, these.n, &other.y, those.n), noise, measured)
    }
}

/// `a` for `n` samples, then `b` for `m`; one row where one stands for all of both.
fn join<T: Copy + PartialEq>(a: &Samples<T>, n: usize, b: &Samples<T>, m: usize) -> Samples<T> {
    if (a.shape.n, b.shape.n) == (1, 1) && n + m > 2 && a.data == b.data {
        return a.clone();
    }
    let rows = (0..n).flat_map(|i| a.row(i)).chain((0..m).flat_map(|i| b.row(i)));
    Samples::new(a.shape.with_n(n + m), rows.copied().collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::Shape;
    use std::path::Path;

    fn observations(first: usize, n: usize, noise: Vec<f64>, masks: usize) -> Observations {
        let y = (0..2 * n).map(|i| (2 * first + i) as f32).collect();
        let mask = Samples::new(
            Shape::new(masks, 1, 2, 1),
            (0..2 * masks).map(|i| u8::from((first + i / 2) % 2 == i % 2)).collect(),
        );
        Observations::new(Path::new("y.npz"), Samples::new(Shape::new(n, 1, 2, 1), y), noise, Measured::Mask(mask))
            .unwrap()
    }

    #[test]
    fn parts_together_are_the_whole() {
        let whole = observations(0, 5, (1..6).map(f64::from).collect(), 5);
        let (left, right) = (whole.rows(0..2), whole.rows(2..5));
        assert_eq!((left.len(), right.noise()), (2, &[3.0, 4.0, 5.0][..]));
        assert_eq!(left.join(&right).unwrap(), whole);
    }

    #[test]
    fn what_is_shared_is_spread_where_the_other_differs() {
        let shared = observations(0, 3, vec![0.1], 1);
        let joined = shared.join(&observations(3, 2, vec![0.2], 2)).unwrap();
        assert_eq!(joined.noise(), [0.1, 0.1, 0.1, 0.2, 0.2]);
        let Measured::Mask(mask) = joined.measured() else { panic!("masks") };
        assert_eq!(mask.data, [1, 0, 1, 0, 1, 0, 0, 1, 1, 0]);
        assert_eq!(shared.join(&shared).unwrap().rows(0..3), shared);
        let other = Observations::new(
            Path::new("other.npz"),
            Samples::new(Shape::new(1, 2, 2, 1), vec![0.0; 4]),
            vec![1.0],
            Measured::Mask(Samples::new(Shape::new(1, 2, 2, 1), vec![1; 4])),
        );
        let line = shared.join(&other.unwrap()).unwrap_err().to_string();
        assert!(line.contains("other.npz") && line.contains("(1, 2, 2, 1)"), "{line}");
    }
}
