//! Whether a checkpoint has the tensors that its metadata calls for.

use super::{Checkpoint, Kind, PREFIX, Tensor};
use crate::{Error, Result};
use safetensors::Dtype;
use std::collections::HashSet;

impl Checkpoint {
    /// Checks names, types, shapes and values of all tensors.
    pub(super) fn check(&self) -> Result<()> {
        let layout = self.metadata.layout();
        let mut known: HashSet<String> = ["mean", "diag", "factor"].map(String::from).into();
        known.extend(layout.specs().iter().map(|spec| format!("{PREFIX}{}", spec.name)));
        for spec in layout.specs() {
            let name = format!("{PREFIX}{}", spec.name);
            self.check_tensor(&name, self.find(&name, &known)?, &spec.dims)?;
        }
        self.check_statistics(&known)?;
        match self.tensors.keys().filter(|name| !known.contains(*name)).min() {
            Some(name) => Err(self.mismatch(name, "no such tensor in this model", "one")),
            None => Ok(()),
        }
    }

    /// `mean` (D), `diag` (D) and `factor` (D, R): the last two come together, and with the mean.
    fn check_statistics(&self, known: &HashSet<String>) -> Result<()> {
        let gaussian = matches!(self.metadata.kind, Kind::Gaussian { .. });
        let covariance = gaussian || ["diag", "factor"].iter().any(|&name| self.tensors.contains_key(name));
        if !covariance && !self.tensors.contains_key("mean") {
            return Ok(());
        }
        let mean = self.find("mean", known)?;
        let channels = self.metadata.channels();
        let len = match (self.metadata.image(), mean.dims.as_slice()) {
            (Some(image), _) => image.row(),
            (None, &[len]) if len > 0 && len.is_multiple_of(channels) => len,
            (None, dims) => {
                let expected = format_args!("(D) with D a multiple of {channels} channels");
                return Err(self.mismatch("mean", expected, shape(dims)));
            }
        };
        self.check_tensor("mean", mean, &[len])?;
        if covariance {
            self.check_tensor("diag", self.find("diag", known)?, &[len])?;
            let factor = self.find("factor", known)?;
            let rank = factor.dims.get(1).copied().unwrap_or(0);
            if rank > len {
                return Err(self.mismatch(
                    "factor",
                    format_args!("({len}, R) with R up to {len}"),
                    shape(&factor.dims),
                ));
            }
            self.check_tensor("factor", factor, &[len, rank])?;
        }
        Ok(())
    }

    fn find(&self, name: &str, known: &HashSet<String>) -> Result<&Tensor> {
        self.tensors.get(name).ok_or_else(|| {
            let unknown = self.tensors.keys().filter(|found| !known.contains(*found));
            let closest = unknown.map(|found| (distance(name, found), found)).min();
            let found = match closest {
                Some((_, closest)) => format!("none (perhaps misnamed {})", closest.escape_debug()),
                None => "none".to_owned(),
            };
            self.mismatch(name, "a tensor", found)
        })
    }

    fn check_tensor(&self, name: &str, tensor: &Tensor, dims: &[usize]) -> Result<()> {
        if tensor.dtype != Dtype::F32 {
            return Err(self.mismatch(name, "float32 (F32)", format_args!("{:?}", tensor.dtype)));
        }
        if tensor.dims != dims {
            return Err(self.mismatch(name, format_args!("shape {}", shape(dims)), shape(&tensor.dims)));
        }
        let words = self.map[tensor.bytes.clone()].chunks_exact(4);
        // all bits of the exponent: infinite or not a number
        let finite = |b: &[u8]| u32::from_le_bytes([b[0], b[1], b[2], b[3]]) & 0x7f80_0000 != 0x7f80_0000;
        match words.enumerate().find(|(_, word)| !finite(word)) {
            Some((i, _)) => Err(Error::NonFinite { place: format!("{}, element {i}", self.place(name)) }),
            None => Ok(()),
        }
    }

    fn place(&self, tensor: &str) -> String {
        format!("{}: tensor {}", self.path.display(), tensor.escape_debug())
    }
    fn mismatch(&self, tensor: &str, expected: impl ToString, found: impl ToString) -> Error {
        Error::mismatch(self.place(tensor), expected, found)
    }
}

/// "(128, 3, 3, 3)".
fn shape(dims: &[usize]) -> String {
    let dims: Vec<String> = dims.iter().map(usize::to_string).collect();
    format!("({})", dims.join(", "))
}

/// Levenshtein's distance of two names, of which no more than the first 128 bytes count.
fn distance(a: &str, b: &str) -> usize {
    let (a, b) = (a.as_bytes(), b.as_bytes());
    let (a, b) = (&a[..a.len().min(128)], &b[..b.len().min(128)]);
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.iter().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], i + 1);
        for (j, y) in b.iter().enumerate() {
            let substituted = diagonal + usize::from(x != y);
            diagonal = row[j + 1];
            row[j + 1] = substituted.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::distance;

    #[test]
    fn distance_counts_edits() {
        for (a, b, expected) in [("", "abc", 3), ("kitten", "sitting", 3), ("net.stem", "stem", 4), ("a", "a", 0)] {
            assert_eq!(distance(a, b), expected, "{a} {b}");
            assert_eq!(distance(b, a), expected, "{b} {a}");
        }
    }
}
