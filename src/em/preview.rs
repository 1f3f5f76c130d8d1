//! Pictures of a lap.

use super::Run;
use crate::Result;
use crate::data::{NpyReader, picture};
use crate::ops::TrainingOps;
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

    /// `prior.png`: samples of the prior. Vectors have none.
    pub(super) fn write_prior_pictures(&self) -> Result<()> {
        if self.problem.image.pixels() == 1 {
            return Ok(());
        }
        let lap = self.lap()?;
        let grid = results::sample_grid(&mut NpyReader::open(&lap.prior())?, self.problem.image)?;
        picture::write(&lap.file("prior.png"), &grid)
    }
}
