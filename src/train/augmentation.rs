//! Random changes of an image that leave it an image of the same kind.

use crate::backend::Shape;
use crate::ops::noise::Stream;
use crate::{Error, Result};
use serde::{Deserialize, Serialize};

/// What is done to each image of a batch; by default nothing.
#[derive(Clone, Copy, PartialEq, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Augmentation {
    /// Every other image is mirrored, left and right.
    pub flip: bool,
    /// Colours are turned by up to this part of the colour circle, either way: 0.01 in the paper.
    pub hue: f64,
    /// Colours are moved away from gray, or towards it, by up to this part of their distance: 0.05 in the paper.
    pub saturation: f64,
    /// The image is moved by up to so many pixels in each direction; what comes into view is reflected: 4 in the paper.
    pub shift: usize,
}

/// The numbers that an image's changes are made from: uniform in [0, 1).
struct Uniforms {
    flip: f64,
    hue: f64,
    saturation: f64,
    shift: [f64; 2],
}

impl Augmentation {
    /// Whether images of the extents of `image` can be changed so.
    ///
    /// # Errors
    /// Names the setting, what it may be and what it is.
    pub fn validate(&self, image: Shape) -> Result<()> {
        let refuse = |name: &str, expected: String, found: f64| {
            Err(Error::mismatch(format_args!("augmentation.{name}"), expected, found))
        };
        for (name, value, most) in [("hue", self.hue, 0.5), ("saturation", self.saturation, 1.0)] {
            if !(0.0..=most).contains(&value) {
                return refuse(name, format!("0 to {most}"), value);
            }
            if value > 0.0 && image.c != 3 {
                return refuse(name, format!("0 for images of {} channels", image.c), value);
            }
        }
        let (changes, most) = (self.flip || self.shift > 0, image.h.min(image.w) - 1);
        if changes && image.pixels() == 1 {
            return Err(Error::mismatch("augmentation", "none for vectors", "flip or shift"));
        }
        if self.shift > most {
            return refuse(
                "shift",
                format!("at most {most} for images of {} x {}", image.h, image.w),
                self.shift as f64,
            );
        }
        Ok(())
    }

    /// Changes the `image` (H, W, C) of sample number `sample`, as `stream` says.
    pub fn apply(&self, image: &mut [f32], shape: Shape, stream: Stream, sample: u32) {
        if *self == Self::default() {
            return;
        }
        let mut u = stream.uniforms(sample);
        let mut next = || u.next().unwrap_or(0.0);
        let [flip, hue, saturation, down, right] = std::array::from_fn(|_| next());
        let u = Uniforms { flip, hue, saturation, shift: [down, right] };
        let symmetric = |u: f64| 2.0 * u - 1.0;
        if self.hue > 0.0 || self.saturation > 0.0 {
            let (saturation, turn) = (1.0 + self.saturation * symmetric(u.saturation), self.hue * symmetric(u.hue));
            for pixel in image.chunks_exact_mut(3) {
                let rgb = saturate([0, 1, 2].map(|c| f64::from(pixel[c])), saturation);
                let rgb = turn_hue(rgb, turn);
                [0, 1, 2].into_iter().for_each(|c| pixel[c] = rgb[c] as f32);
            }
        }
        let mirrored = self.flip && u.flip < 0.5;
        let offset = u.shift.map(|u| (u * (2 * self.shift + 1) as f64) as isize - self.shift as isize);
        if mirrored || offset != [0, 0] {
            move_pixels(image, shape, mirrored, offset);
        }
    }
}

/// s rgb + (1 - s) gray, gray = 0.2989 r + 0.587 g + 0.114 b: torchvision's `adjust_saturation`, but not clamped: draws of a
/// posterior may be darker than black.
fn saturate(rgb: [f64; 3], s: f64) -> [f64; 3] {
    let gray = 0.2989 * rgb[0] + 0.587 * rgb[1] + 0.114 * rgb[2];
    rgb.map(|x| s * x + (1.0 - s) * gray)
}

/// Turns the hue by `turn` of the circle, as HSV does: the largest and the smallest of the three stay what they are. HSV's
/// formulas only use differences, so they hold in [-2, 2] and beyond as they do in [0, 1].
fn turn_hue(rgb: [f64; 3], turn: f64) -> [f64; 3] {
    let [r, g, b] = rgb;
    let (max, min) = (r.max(g).max(b), r.min(g).min(b));
    let chroma = max - min;
    if chroma <= 0.0 {
        return rgb;
    }
    let hue = if max == r {
        (g - b) / chroma
    } else if max == g {
        (b - r) / chroma + 2.0
    } else {
        (r - g) / chroma + 4.0
    };
    let hue = hue + 6.0 * turn;
    [5.0, 3.0, 1.0].map(|n| {
        let k = (n + hue).rem_euclid(6.0);
        max - chroma * k.min(4.0 - k).clamp(0.0, 1.0)
    })
}

/// y\[i, j\] = x\[i - down, j - right\], mirrored left and right first; outside, the image goes on as its reflection.
fn move_pixels(image: &mut [f32], shape: Shape, mirrored: bool, [down, right]: [isize; 2]) {
    let Shape { h, w, c, .. } = shape;
    let source = image.to_vec();
    for (i, line) in image.chunks_exact_mut(w * c).enumerate() {
        let row = reflect(i as isize - down, h);
        for (j, pixel) in line.chunks_exact_mut(c).enumerate() {
            let column = reflect(j as isize - right, w);
            let column = if mirrored { w - 1 - column } else { column };
            pixel.copy_from_slice(&source[(row * w + column) * c..][..c]);
        }
    }
}

/// ... 2 1 | 0 1 2 .. n - 1 | n - 2 ..: the edge itself is not repeated.
fn reflect(i: isize, n: usize) -> usize {
    let last = n as isize - 1;
    (last - (last - i.abs()).abs()) as usize
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::noise::Purpose;

    #[test]
    fn reflection_does_not_repeat_the_edge() {
        let found: Vec<usize> = (-3..8).map(|i| reflect(i, 5)).collect();
        assert_eq!(found, [3, 2, 1, 0, 1, 2, 3, 4, 3, 2, 1]);
    }

    #[test]
    fn a_third_of_the_circle_exchanges_the_colours() {
        let rgb = [-1.7, 0.3, 2.4];
        for (turn, expected) in [(1.0 / 3.0, [2.4, -1.7, 0.3]), (-1.0 / 3.0, [0.3, 2.4, -1.7]), (0.0, rgb), (1.0, rgb)]
        {
            for (found, expected) in turn_hue(rgb, turn).iter().zip(expected) {
                assert!((found - expected).abs() < 1e-14, "{turn}: {found} {expected}");
            }
        }
        assert_eq!(turn_hue([0.5; 3], 0.3), [0.5; 3]);
    }

    #[test]
    fn hue_is_that_of_hsv_and_saturation_that_of_torchvision() {
        // Python: h, s, v = colorsys.rgb_to_hsv(0.2, 0.5, 0.9); colorsys.hsv_to_rgb((h + 0.07) % 1, s, v)
        for (found, expected) in turn_hue([0.2, 0.5, 0.9], 0.07).iter().zip([0.2, 0.206, 0.9]) {
            assert!((found - expected).abs() < 1e-12, "{found} {expected}");
        }
        let gray = 0.2989 * 0.2 + 0.587 * 0.5 + 0.114 * 0.9;
        for (found, x) in saturate([0.2, 0.5, 0.9], 1.3).iter().zip([0.2, 0.5, 0.9]) {
            assert!((found - (1.3 * x - 0.3 * gray)).abs() < 1e-15);
        }
    }

    #[test]
    fn an_image_depends_on_seed_epoch_and_sample_alone() {
        let shape = Shape::new(1, 6, 5, 3);
        let original: Vec<f32> = (0..shape.len()).map(|i| (i as f32 * 0.37).sin()).collect();
        let augmentation = Augmentation { flip: true, hue: 0.1, saturation: 0.2, shift: 2 };
        augmentation.validate(shape).unwrap();
        let stream = Stream::new(4, Purpose::Test);
        let image = |stream: Stream, sample: u32| {
            let mut image = original.clone();
            augmentation.apply(&mut image, shape, stream, sample);
            image
        };
        assert_eq!(image(stream, 3), image(stream, 3));
        assert_ne!(image(stream, 3), image(stream, 4));
        assert_ne!(image(stream, 3), image(Stream { epoch: 1, ..stream }, 3));
        let kinds: std::collections::HashSet<Vec<u32>> =
            (0..500).map(|i| image(stream, i).iter().map(|x| x.to_bits()).collect()).collect();
        assert_eq!(kinds.len(), 500, "hue and saturation are continuous");
    }

    #[test]
    fn every_shift_and_both_mirror_images_occur_alike() {
        let shape = Shape::new(1, 9, 9, 1);
        let original: Vec<f32> = (0..81).map(|i| i as f32).collect();
        let augmentation = Augmentation { flip: true, shift: 2, ..Augmentation::default() };
        let mut counts = std::collections::HashMap::new();
        let trials = 10_000;
        for sample in 0..trials {
            let mut image = original.clone();
            augmentation.apply(&mut image, shape, Stream::new(5, Purpose::Test), sample);
            *counts.entry((image[40] as u32, image[41] as u32)).or_insert(0u32) += 1;
        }
        assert_eq!(counts.len(), 50);
        let expected = f64::from(trials) / 50.0;
        // five standard deviations of a count
        assert!(counts.values().all(|n| (f64::from(*n) - expected).abs() < 5.0 * expected.sqrt()), "{counts:?}");
    }

    #[test]
    fn what_an_image_cannot_do_is_refused() {
        let refused = |augmentation: Augmentation, image| augmentation.validate(image).unwrap_err().to_string();
        let none = Augmentation::default();
        let (gray, vector) = (Shape::new(1, 4, 8, 1), Shape::rows(1, 5));
        assert_eq!(
            refused(Augmentation { hue: 0.1, ..none }, gray),
            "augmentation.hue: expected 0 for images of 1 channels, found 0.1"
        );
        assert!(refused(Augmentation { shift: 4, ..none }, gray).starts_with("augmentation.shift: expected at most 3"));
        assert!(refused(Augmentation { flip: true, ..none }, vector).contains("none for vectors"));
        assert!(refused(Augmentation { saturation: f64::NAN, ..none }, gray).contains("0 to 1"));
        none.validate(vector).unwrap();
    }
}
