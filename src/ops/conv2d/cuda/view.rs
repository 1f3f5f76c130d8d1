//! How the output pixels of a linear map read an array of pixels.

/// Along one axis: the output pixels step p + a read the input pixels stride p + origin + i through tap i, which is the sum
/// of the layer's taps whose bits are set.
#[derive(Clone, Copy)]
pub(crate) struct Axis {
    /// Which of `step` output pixels.
    pub a: i32,
    /// The first input pixel of p = 0.
    pub origin: i32,
    /// Sets of the layer's taps, as bits.
    pub taps: &'static [u8],
}

/// Both axes alike; their product is one phase of the output, or four.
#[derive(Clone, Copy)]
pub(crate) struct View {
    /// Input pixels from one p to the next.
    pub stride: i32,
    /// The phases along an axis: `step` of them.
    pub phases: &'static [Axis],
}

const fn axis(a: i32, origin: i32, taps: &'static [u8]) -> Axis {
    Axis { a, origin, taps }
}

/// The pixel itself: 1x1.
pub(crate) const POINT: View = View { stride: 1, phases: &[axis(0, 0, &[0b001])] };
/// 3x3, stride 1.
pub(crate) const WINDOW: View = View { stride: 1, phases: &[axis(0, -1, &[0b001, 0b010, 0b100])] };
/// 3x3, stride 2.
pub(crate) const STRIDED: View = View { stride: 2, ..WINDOW };
/// The gradient of [`WINDOW`] for its input.
pub(crate) const FLIPPED: View = View { stride: 1, phases: &[axis(0, -1, &[0b100, 0b010, 0b001])] };
/// The gradient of [`STRIDED`] for its input: odd pixels were read through taps 2 and 0, even ones through tap 1. The phase
/// with most to do comes first.
pub(crate) const DILATED: View = View { stride: 1, phases: &[axis(1, 0, &[0b100, 0b001]), axis(0, 0, &[0b010])] };
/// [`WINDOW`] on an image upsampled by 2, from the image itself: of three neighbours two are one pixel.
pub(crate) const UPSAMPLED: View =
    View { stride: 1, phases: &[axis(0, -1, &[0b001, 0b110]), axis(1, 0, &[0b011, 0b100])] };
/// [`WINDOW`] in the phases of [`UPSAMPLED`].
pub(crate) const PHASED: View =
    View { stride: 2, phases: &[axis(0, -1, &[0b001, 0b010, 0b100]), axis(1, 0, &[0b001, 0b010, 0b100])] };
/// The gradient of [`UPSAMPLED`] for the image: that of [`WINDOW`], summed over 2 x 2 pixels.
pub(crate) const POOLED: View = View { stride: 2, phases: &[axis(0, -1, &[0b100, 0b110, 0b011, 0b001])] };
