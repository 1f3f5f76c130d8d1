//! What the arrays of an observation file must be.

use crate::backend::Shape;
use crate::data::Samples;
use crate::data::array::{Array, Data};
use crate::data::place::Place;
use crate::{Error, Result};

/// Sets y to 0 where the mask, of pixels or of columns, is 0, whatever it is there.
pub(super) fn zero_unobserved(y: &mut Samples<f32>, mask: &Samples<u8>) {
    for (sample, row) in y.data.chunks_exact_mut(y.shape.row()).enumerate() {
        let pixels = row.chunks_exact_mut(y.shape.c).zip(mask.row(sample).iter().cycle());
        pixels.filter(|(_, m)| **m == 0).for_each(|(pixel, _)| pixel.fill(0.0));
    }
}

/// The extents of `array`, as many as `form` shows, and none of them 0.
pub(super) fn extents<const R: usize>(place: Place<'_>, form: &str, array: &Array) -> Result<[usize; R]> {
    match <[usize; R]>::try_from(array.shape.as_slice()) {
        Ok(extents) if !extents.contains(&0) => Ok(extents),
        _ => Err(place.mismatch(format_args!("shape {form} with nothing empty"), array.shape_text())),
    }
}

/// Refuses extents `found` that are not those `expected`, whose leading one may also be 1, because of the array `other`.
pub(super) fn check_extents(place: Place<'_>, form: &str, found: Shape, expected: Shape, other: &str) -> Result<()> {
    if found == expected || found == expected.with_n(1) {
        return Ok(());
    }
    let expected = format!("{form} = {expected:?} to go with {other}");
    Err(place.mismatch(expected, format_args!("{found:?}")))
}

/// Refuses values that are neither 0 nor 1.
pub(super) fn check_bits(place: Place<'_>, mask: &Samples<u8>) -> Result<()> {
    mask.data.iter().find(|v| **v > 1).map_or(Ok(()), |v| Err(place.mismatch("only 0 and 1", v)))
}

/// Refuses values that are not finite.
pub(super) fn check_finite(place: Place<'_>, x: &Samples<f32>) -> Result<()> {
    let Some(at) = x.data.iter().position(|v| !v.is_finite()) else { return Ok(()) };
    let (sample, element) = (at / x.shape.row(), at % x.shape.row());
    Err(Error::NonFinite { place: format!("{place}, sample {sample}, element {element}") })
}

/// The elements as 0 and 1, or the first that is neither.
pub(super) fn binary(data: Data) -> std::result::Result<Vec<u8>, f32> {
    let bit = |v: f32| if v == 0.0 || v == 1.0 { Ok(v as u8) } else { Err(v) };
    match data {
        Data::Bool(v) => Ok(v.into_iter().map(u8::from).collect()),
        data => data.into_f32().into_iter().map(bit).collect(),
    }
}
