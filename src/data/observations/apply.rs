//! What operators do to images, on the host.

use super::{Measured, OperatorKind};
use crate::backend::reference::Reference;
use crate::backend::{Backend, Shape};
use crate::data::Samples;
use crate::ops::Filter;
use crate::ops::filter::{FilterSpec, bicubic, square};
use crate::ops::fourier::Transform;

impl Measured {
    /// What kind of operator it is of.
    pub fn kind(&self) -> OperatorKind {
        match self {
            Self::Mask(_) => OperatorKind::Mask,
            Self::Dense(_) => OperatorKind::Dense,
            Self::Fourier(_) => OperatorKind::Fourier,
            Self::Blur(_) => OperatorKind::Blur,
            Self::Downsample(_) => OperatorKind::Downsample,
        }
    }
    /// How many operators there are: 1 where one stands for all samples.
    pub fn count(&self) -> usize {
        match self {
            Self::Mask(mask) | Self::Fourier(mask) => mask.shape.n,
            Self::Dense(a) => a.shape.n,
            Self::Blur(_) | Self::Downsample(_) => 1,
        }
    }
    /// The extents of `y` for images of extents `images`.
    pub fn extents(&self, images: Shape) -> Shape {
        match self {
            Self::Mask(_) | Self::Blur(_) => images,
            Self::Downsample(factor) => Shape { h: images.h / factor, w: images.w / factor, ..images },
            Self::Dense(a) => Shape::rows(images.n, a.shape.w),
            Self::Fourier(_) => images.with_c(2),
        }
    }
    /// Whether element `i` of a sample's y was measured, in sample `n`; `y` are the extents of y.
    pub fn observed(&self, n: usize, y: Shape, i: usize) -> bool {
        match self {
            Self::Mask(mask) => mask.row(n)[i / y.c] == 1,
            Self::Dense(_) | Self::Blur(_) | Self::Downsample(_) => true,
            Self::Fourier(mask) => mask.row(n)[i / y.c % y.w] == 1,
        }
    }
}

/// A x on the host, in f64: what observations are made of, and measured against.
pub(crate) enum Applied<'a> {
    /// Of pixel masks.
    Mask(&'a Samples<u8>),
    /// Of matrices.
    Dense(&'a Samples<f32>),
    /// Of masks of columns of k-space.
    Fourier(&'a Samples<u8>, Transform<f64>),
    /// Of blur and downsampling.
    Filter(FilterF64),
}

impl<'a> Applied<'a> {
    /// The operators `measured` of images with the extents of `image`.
    pub fn new(measured: &'a Measured, image: Shape) -> Self {
        match measured {
            Measured::Mask(mask) => Self::Mask(mask),
            Measured::Dense(a) => Self::Dense(a),
            Measured::Fourier(mask) => Self::Fourier(mask, Transform::new(image.h, image.w)),
            Measured::Blur(kernel) => {
                let spec = FilterSpec::blur(kernel.shape.h, kernel.shape.w);
                let values = kernel.data.iter().map(|k| f64::from(*k)).collect();
                Self::Filter(FilterF64 { kernel: (kernel.shape, values), spec, image: image.with_n(1) })
            }
            Measured::Downsample(factor) => {
                let (kernel, spec) = bicubic(*factor);
                Self::Filter(FilterF64 { kernel: (square(&kernel), kernel), spec, image: image.with_n(1) })
            }
        }
    }
    /// A x of sample `n`; where a mask is 0, it may be anything.
    pub fn forward(&self, n: usize, x: &[f32]) -> Vec<f64> {
        let wide = || x.iter().map(|x| f64::from(*x)).collect::<Vec<f64>>();
        match self {
            Self::Mask(_) => wide(),
            Self::Dense(a) => a.row(n).chunks_exact(x.len()).map(|a| dot(a, x)).collect(),
            Self::Fourier(mask, transform) => {
                let mut y = vec![0.0; 2 * x.len()];
                transform.forward(|column| mask.row(n)[column] == 1, &wide(), &mut y);
                y
            }
            Self::Filter(filter) => filter.forward(&wide()),
        }
    }

    /// Aᵀ y of sample `n`, whatever y is where a mask is 0.
    pub fn adjoint(&self, n: usize, y: &[f64]) -> Vec<f64> {
        match self {
            Self::Mask(mask) => {
                let c = y.len() / mask.shape.row();
                y.iter().enumerate().map(|(i, y)| if mask.row(n)[i / c] == 1 { *y } else { 0.0 }).collect()
            }
            Self::Dense(a) => {
                let mut x = vec![0.0; a.shape.c];
                for (y, a) in y.iter().zip(a.row(n).chunks_exact(x.len())).filter(|(y, _)| **y != 0.0) {
                    x.iter_mut().zip(a).for_each(|(x, a)| *x += y * f64::from(*a));
                }
                x
            }
            Self::Fourier(mask, transform) => {
                let mut x = vec![0.0; y.len() / 2];
                transform.adjoint(|column| mask.row(n)[column] == 1, y, &mut x);
                x
            }
            Self::Filter(filter) => filter.adjoint(y),
        }
    }
}

/// A periodic filter in f64, by the definition.
pub(crate) struct FilterF64 {
    kernel: (Shape, Vec<f64>),
    spec: FilterSpec,
    image: Shape, // (1, H, W, C)
}

impl FilterF64 {
    /// A x.
    pub fn forward(&self, x: &[f64]) -> Vec<f64> {
        let backend = Reference::new();
        let (kernel, x) = (backend.upload(self.kernel.0, &self.kernel.1), backend.upload(self.image, x));
        backend.filter_forward(&kernel, self.spec, &x).to_vec()
    }
    /// Aᵀ y.
    pub fn adjoint(&self, y: &[f64]) -> Vec<f64> {
        let backend = Reference::new();
        let (kernel, y) =
            (backend.upload(self.kernel.0, &self.kernel.1), backend.upload(self.spec.filtered(self.image), y));
        backend.filter_adjoint(&kernel, self.spec, &y).to_vec()
    }
}

fn dot(a: &[f32], x: &[f32]) -> f64 {
    a.iter().zip(x).map(|(a, x)| f64::from(*a) * f64::from(*x)).sum()
}
