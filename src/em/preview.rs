//! Pictures of a lap.

use super::Run;
use crate::Result;
use crate::data::{NpyReader, Samples, picture};
use crate::ops::TrainingOps;
use crate::plot::corner;
use crate::run::results;

impl<B: TrainingOps> Run<'_, B> {
    /// `preview.png`: observations, and the draws of each. Vectors have none.
    pub(super) fn write_previews(&self) -> Result<()> {
        if self.problem.image.pixels() == 1 {
            return Ok(());
        }
        let lap = self.lap()?;
        let mut samples = NpyReader::open(&lap.samples())?;
        let (observations, draws) = (&self.problem.observations, self.config.sample.draws);
        let grid = results::posterior_grid(&mut samples, self.problem.image, observations, draws)?;
        picture::write(&lap.file("preview.png"), &grid)
    }

    /// `prior.png`: samples of the prior; of vectors `corner.png`: their marginals over the truth's, where it is known.
    pub(super) fn write_prior_pictures(&self, prior: &Samples<f32>) -> Result<()> {
        let lap = self.lap()?;
        match &self.problem.truth {
            _ if self.problem.image.pixels() > 1 => {
                let grid = results::sample_grid(&mut NpyReader::open(&lap.prior())?, self.problem.image)?;
                picture::write(&lap.file("prior.png"), &grid)
            }
            Some(truth) => corner::write(&lap.file("corner.png"), prior, truth),
            None => Ok(()),
        }
    }
}
