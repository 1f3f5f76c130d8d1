//! Observations on a device.

use super::{Measured, Observations};
use crate::Result;
use crate::backend::Shape;
use crate::data::Samples;
use crate::operators::{DenseMatrix, FourierMask, Measurement, Operator, PeriodicFilter, PixelMask};
use crate::ops::MeasurementOps;
use std::sync::Arc;

impl Observations {
    /// The operator that all samples share, on the device, once for all batches; `None` where each has its own.
    ///
    /// # Errors
    /// As [`Observations::check_image`].
    pub fn shared_operator<B: MeasurementOps>(
        &self,
        backend: &B,
        image: Shape,
    ) -> Result<Option<Arc<dyn Operator<B>>>> {
        self.check_image(image)?;
        if self.measured.count() == 1 { self.operator(backend, &[0], image).map(Some) } else { Ok(None) }
    }

    /// The operator of samples `index`.
    fn operator<B: MeasurementOps>(&self, backend: &B, index: &[usize], image: Shape) -> Result<Arc<dyn Operator<B>>> {
        let upload = |mask: &Samples<u8>| {
            let mask = mask.gather_or_share(index);
            let values: Vec<f32> = mask.data.iter().map(|m| f32::from(*m)).collect();
            backend.upload(mask.shape, &values)
        };
        Ok(match &self.measured {
            Measured::Mask(mask) => Arc::new(PixelMask::new(upload(mask), image)?),
            Measured::Fourier(mask) => Arc::new(FourierMask::new(upload(mask), image)?),
            Measured::Blur(kernel) => {
                Arc::new(PeriodicFilter::blur(backend.upload(kernel.shape, &kernel.data), image)?)
            }
            Measured::Downsample(factor) => Arc::new(PeriodicFilter::downsample(backend, *factor, image)?),
            Measured::Dense(a) => {
                let a = a.gather_or_share(index);
                Arc::new(DenseMatrix::new(backend.upload(a.shape, &a.data), image)?)
            }
        })
    }

    /// The measurements of samples `index`, in that order, of images with the extents of `image`. An index may repeat. `shared` is
    /// what [`Observations::shared_operator`] gave.
    ///
    /// # Errors
    /// As [`Observations::check_image`]; [`Error::Device`].
    pub fn bind<B: MeasurementOps>(
        &self,
        backend: &B,
        index: &[usize],
        image: Shape,
        shared: Option<&Arc<dyn Operator<B>>>,
    ) -> Result<Measurement<B>> {
        self.check_image(image)?;
        let y = self.y.gather(index);
        let y = backend.upload(y.shape, &y.data);
        let noise = match self.noise.as_slice() {
            [shared] => vec![*shared],
            noise => index.iter().map(|n| noise[*n]).collect(),
        };
        let operator = shared.cloned().map_or_else(|| self.operator(backend, index, image), Ok)?;
        Measurement::of_shared(backend, &y, &noise, operator)
    }
}
