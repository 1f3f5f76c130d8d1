//! Features of garments: the fixed space in which the Frechet distance of images is taken.

use crate::backend::{Keep, Shape};
use crate::data::Samples;
use crate::ops::conv2d::Conv2dSpec;
use crate::ops::{Conv2d, Linear, Silu};
use crate::{Error, Result};
use safetensors::SafeTensors;

/// What a distance in these features is called; never "FID", which has another network.
pub const FD_GARMENTS: &str = "FD-garments";

/// Trained by tools/train_garments.py (assets/README.md).
const WEIGHTS: &[u8] = include_bytes!("../../assets/garments.safetensors");
/// Channels before, between and after the convolutions.
const CHANNELS: [usize; 4] = [1, 16, 32, 64];
/// Pixels on a side.
const SIDE: usize = 32;
/// Images at a time: small enough for any memory.
const BATCH: usize = 64;

/// The number of features.
pub const FEATURES: usize = 64;

/// A small classifier of Fashion-MNIST's ten kinds of garments, up to its last hidden layer: three convolutions of stride 2, each
/// followed by SiLU, and a linear layer.
pub struct Garments<'a, B: Conv2d + Linear> {
    backend: &'a B,
    convs: Vec<B::Conv2d>,
    features: B::Linear,
}

impl<'a, B: Conv2d + Linear + Silu> Garments<'a, B> {
    /// The network with its own weights.
    pub fn new(backend: &'a B) -> Self {
        let file = SafeTensors::deserialize(WEIGHTS).expect("a safetensors file, which the tests read");
        let load = |name: String| {
            let tensor = file.tensor(&name).unwrap_or_else(|e| panic!("{name}: {e}"));
            let words = tensor.data().as_chunks().0.iter();
            let values: Vec<f32> = words.map(|b| f32::from_le_bytes(*b)).collect();
            backend.upload(Shape::flat(values.len()), &values)
        };
        let convs = (0..CHANNELS.len() - 1).map(|i| {
            let spec = Conv2dSpec { c_in: CHANNELS[i], c_out: CHANNELS[i + 1], stride: 2 };
            let (w, b) = (load(format!("convs.{i}.weight")), load(format!("convs.{i}.bias")));
            backend.conv2d(spec, &w, &b, Shape::new(BATCH, SIDE >> i, SIDE >> i, spec.c_in), false)
        });
        let convs = convs.collect();
        let (w, b) = (load("features.weight".to_owned()), load("features.bias".to_owned()));
        Self { backend, convs, features: backend.linear(flat(BATCH).row(), FEATURES, &w, Some(&b)) }
    }

    /// Whether images of these extents have features.
    pub fn takes(image: Shape) -> bool {
        image.with_n(1) == Shape::new(1, SIDE, SIDE, 1)
    }

    /// The features of every image.
    ///
    /// # Shapes
    /// `images` (N, 32, 32, 1) to (N, 64).
    ///
    /// # Units
    /// Images in [-2, 2].
    ///
    /// # Errors
    /// A mismatch for other extents; when the device has failed.
    pub fn features(&self, images: &Samples<f32>) -> Result<Samples<f32>> {
        let shape = images.shape;
        if !Self::takes(shape) {
            let found = format!("{} x {} x {}", shape.h, shape.w, shape.c);
            return Err(Error::mismatch(FD_GARMENTS, "images of 32 x 32 x 1", found));
        }
        let mut features = vec![f32::NAN; shape.n * FEATURES];
        for (images, features) in images.data.chunks(BATCH * shape.row()).zip(features.chunks_mut(BATCH * FEATURES)) {
            let x = self.backend.upload(shape.with_n(images.len() / shape.row()), images);
            self.backend.download(&self.forward(x), features)?;
        }
        Ok(Samples::new(Shape::rows(shape.n, FEATURES), features))
    }

    fn forward(&self, mut x: B::Tensor) -> B::Tensor {
        use crate::backend::Array;
        for conv in &self.convs {
            x = self.backend.silu_forward(&self.backend.conv2d_forward(conv, &x), Keep::Nothing).0;
        }
        let n = x.shape().n;
        self.backend.linear_forward(&self.features, &x.reshape(flat(n)))
    }
}

/// What the linear layer reads: the last convolution's output, as rows.
fn flat(n: usize) -> Shape {
    let side = SIDE >> (CHANNELS.len() - 1);
    Shape::rows(n, side * side * CHANNELS[CHANNELS.len() - 1])
}
