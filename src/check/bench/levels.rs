//! The time of each level of a U-Net: of its blocks, and of what leads into it on the way down and on the way up.

use super::{BenchRow, Call, time};
use crate::Result;
use crate::backend::timed::{Roofline, Timed};
use crate::backend::{Keep, Shape};
use crate::check::Case;
use crate::check::cases::{AttnBlock, ChannelNorm, Conv2d, Linear, Merge, ResBlock};
use crate::nn::UNetConfig;
use crate::ops::TrainingOps;

/// Times the parts of a network on images `x`, each once and counted as often as it occurs, with one noise level for all
/// samples and random weights: forward, and VJP with respect to the input. After the parts of a level comes their sum, and
/// at the end that of all levels. What is not there is the sum of the two gradients of a level's features.
///
/// # Errors
/// When the device has failed.
pub fn run<B: TrainingOps + Timed>(
    backend: &B,
    config: &UNetConfig,
    x: Shape,
    roof: &Roofline,
    row: impl FnMut(BenchRow),
) -> Result<()> {
    let mut levels = Levels { backend, roof, name: String::new(), extents: String::new(), sums: Vec::new(), row };
    let folded = config.patch * config.patch;
    let (c, n) = (&config.channels, config.levels());
    let at = |i: usize| Shape::new(x.n, (x.h / config.patch) >> i, (x.w / config.patch) >> i, c[i]);
    let mut all = Vec::new();
    for i in 0..n {
        let x = at(i);
        levels.begin(i, x);
        let blocks = 2 * config.blocks[i];
        levels.part(blocks, &ResBlock { x, rows: 1 })?;
        if config.heads(i) > 0 {
            levels.part(blocks, &AttnBlock { x, heads: config.heads(i), rows: 1 })?;
        }
        if i == 0 {
            levels.part(1, &Conv2d::new(x.with_c(config.in_channels * folded), x.c, 1))?;
            levels.part(1, &Linear::new(x, config.out_channels * folded, true))?;
        } else {
            levels.part(1, &Conv2d::new(at(i - 1), x.c, 2))?;
            levels.part(2, &ChannelNorm::new(x, None))?;
        }
        if i + 1 < n {
            levels.part(1, &Merge { x: at(i + 1), c_skip: x.c, c_out: x.c })?;
        }
        all.extend(levels.end());
    }
    levels.name = "all levels".to_owned();
    levels.extents.clear();
    levels.sums = all;
    levels.end();
    Ok(())
}

/// (call, (flops, bytes), seconds) of a level or a part of it.
type Sum = (&'static str, (f64, f64), f64);

struct Levels<'a, B, F> {
    backend: &'a B,
    roof: &'a Roofline,
    /// "level 0", "32 px, 128 ch".
    name: String,
    extents: String,
    /// Of the parts of this level so far.
    sums: Vec<Sum>,
    row: F,
}

impl<B: TrainingOps + Timed, F: FnMut(BenchRow)> Levels<'_, B, F> {
    fn begin(&mut self, i: usize, Shape { h, w, c, .. }: Shape) {
        let pixels = if h == w { format!("{h} px") } else { format!("{h}x{w} px") };
        (self.name, self.extents) = (format!("level {i}"), format!("{pixels}, {c} ch"));
    }
    /// A row for each call of `case`, of which there are `count`; none where there is none.
    fn part(&mut self, count: usize, case: &impl Case) -> Result<()> {
        if count == 0 {
            return Ok(());
        }
        let many = count as f64;
        for Call { what, work, seconds } in time(case, self.backend, &[Keep::Input])? {
            let (flops, bytes) = work.costs(self.backend);
            let sum = (what, (many * flops, many * bytes), many * seconds);
            self.sums.push(sum);
            self.row(format!("{}: {count} {}", self.extents, case.op()), sum);
        }
        Ok(())
    }
    /// A row for the sum of all forwards, one for that of all VJPs; gives both.
    fn end(&mut self) -> Vec<Sum> {
        let parts = std::mem::take(&mut self.sums);
        let total = |call| {
            let of_call = parts.iter().filter(|part| part.0 == call);
            of_call.fold((call, (0.0, 0.0), 0.0), |(call, (flops, bytes), seconds), (_, work, s)| {
                (call, (flops + work.0, bytes + work.1), seconds + s)
            })
        };
        let totals = ["forward", "vjp"].map(total);
        totals.iter().for_each(|total| self.row(self.extents.clone(), *total));
        totals.into()
    }
    fn row(&mut self, size: String, (call, work, seconds): Sum) {
        (self.row)(BenchRow::new(&self.name, size, call, work, seconds, self.roof));
    }
}
