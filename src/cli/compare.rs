//! `diem compare`: the paper's comparisons, one subcommand for each.

use super::options::{count, positive};
use super::progress::Progress;
use super::{Outcome, chart_beside, refuse_existing, say};
use crate::compare::figure2::{HEURISTICS, Level, Scene};
use crate::data::{atomic, picture};
use crate::metrics::SinkhornSettings;
use crate::plot::curves::{Curve, logarithmic};
use crate::{Error, Result};
use clap::{Subcommand, ValueEnum};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::fs;
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::time::Instant;

/// Options of `diem compare`.
#[derive(clap::Args, Debug)]
pub struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand, Debug)]
enum What {
    /// The paper's figure 2: how far the posterior of each covariance heuristic is from the exact one, over σ_t, for priors on
    /// random curves in R³
    Figure2(Figure2),
}

/// Options of `diem compare figure2`.
#[derive(clap::Args, Debug)]
struct Figure2 {
    /// Curves, each with a projection of its own
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = count)]
    seeds: usize,
    /// Samples of each posterior
    #[arg(long, value_name = "N", default_value_t = 4096, value_parser = count)]
    points: usize,
    /// Noise levels σ_t
    #[arg(long, value_name = "SIGMA", num_args = 1.., value_parser = positive,
        default_values = ["0.01", "0.02", "0.05", "0.1", "0.2", "0.5", "1", "2", "5", "10"])]
    sigmas: Vec<f64>,
    /// Weight of the entropy in the optimal transport
    #[arg(long, default_value_t = 1e-3, value_parser = positive)]
    lambda: f64,
    /// File to write; a chart is written beside it, .png. After an interruption the same command goes on
    #[arg(long, value_name = "FIGURE.json", default_value = "figure2.json")]
    out: PathBuf,
    /// Writes over files that are there
    #[arg(long)]
    force: bool,
}

/// What an interrupted comparison has found so far.
#[derive(Serialize, Deserialize)]
struct Part {
    /// The options that the levels depend on.
    of: Value,
    /// Those of the first curve, then of the next.
    levels: Vec<Level>,
}

impl Part {
    fn new(of: Value) -> Self {
        Self { of, levels: Vec::new() }
    }
    /// What is there of the comparison `of`, if anything is.
    fn read(path: &Path, of: &Value) -> Result<Option<Self>> {
        let text = match fs::read_to_string(path) {
            Err(e) if e.kind() == ErrorKind::NotFound => return Ok(None),
            text => text.map_err(|e| Error::io(path, "read", e))?,
        };
        let part: Self = serde_json::from_str(&text)
            .map_err(|e| Error::mismatch(path.display(), "a part of a comparison (or --force)", e))?;
        if part.of != *of {
            return Err(Error::mismatch(path.display(), format_args!("a part of {of} (or --force)"), part.of));
        }
        Ok(Some(part))
    }
}

/// What the numbers are.
const FIGURE: &str = "max(OT(u1, v) - OT(u1, u2), 1e-6)";

impl Args {
    /// Runs the comparison, and writes its numbers and its chart.
    ///
    /// # Errors
    /// In one line: files that are there already or cannot be written.
    pub fn run(&self, out: &mut dyn Write) -> Result<Outcome> {
        match &self.what {
            What::Figure2(figure) => figure.run(out),
        }
    }
}

impl Figure2 {
    fn run(&self, out: &mut dyn Write) -> Result<Outcome> {
        let chart = chart_beside(&self.out)?;
        if !self.force {
            [&self.out, &chart].into_iter().try_for_each(|path| refuse_existing(path))?;
        }
        let settings = SinkhornSettings { lambda: self.lambda, ..SinkhornSettings::default() };
        let of = json!({"points": self.points, "sigmas": self.sigmas, "sinkhorn": settings});
        let path = self.out.with_extension("part.json");
        let mut part = if self.force { None } else { Part::read(&path, &of)? }.unwrap_or_else(|| Part::new(of));
        let (start, before, total) = (Instant::now(), part.levels.len(), self.seeds * self.sigmas.len());
        let mut progress = Progress::of(total, before, String::new(), "noise levels", "levels/s");
        for i in before..total {
            let (scene, level) = (Scene::new((i / self.sigmas.len()) as u64)?, i % self.sigmas.len());
            part.levels.push(scene.compare(level, self.sigmas[level], self.points, settings)?);
            atomic::write(&path, |w| serde_json::to_writer(w, &part).map_err(Into::into))?;
            progress.update((i + 1) as f64);
        }
        progress.finish();
        let levels = &part.levels[..total];
        self.tell(levels, out)?;
        let all = || levels.iter().flat_map(|level| level.divergences).flatten();
        let open = all().filter(|divergence| !divergence.converged).count();
        let worst = all().map(|divergence| divergence.error).fold(0.0, f64::max);
        say(
            out,
            format_args!(
                "{open} of {} not solved to {:e} of the mass, the worst to {worst:.1e}",
                all().count(),
                settings.tolerance
            ),
        )?;
        let seconds = start.elapsed().as_secs_f64();
        say(out, format_args!("{} of {total} noise levels took {seconds:.0} s", total - before.min(total)))?;
        let report = json!({
            "command": "compare figure2", "figure": FIGURE, "seeds": self.seeds, "points": self.points, "sinkhorn": settings,
            "heuristics": HEURISTICS, "levels": levels,
        });
        picture::write(&chart, &self.chart(levels)?)?;
        atomic::write(&self.out, |w| writeln!(w, "{report:#}"))?;
        fs::remove_file(&path)
            .or_else(|e| if e.kind() == ErrorKind::NotFound { Ok(()) } else { Err(e) })
            .map_err(|e| Error::io(&path, "remove", e))?;
        Ok(Outcome::Done)
    }

    /// The quartiles over the curves, where at least half of them have a posterior.
    fn quartiles(&self, levels: &[Level], heuristic: usize, sigma: f64) -> Option<[f64; 3]> {
        let at = levels.iter().filter(|level| level.sigma == sigma);
        let mut values: Vec<f64> = at.filter_map(|level| level.divergences[heuristic]).map(|d| d.value).collect();
        values.sort_unstable_by(f64::total_cmp);
        let rank = |share: f64| values[(share * (values.len() - 1) as f64).round() as usize];
        (2 * values.len() >= self.seeds.max(1)).then(|| [0.25, 0.5, 0.75].map(rank))
    }

    fn tell(&self, levels: &[Level], out: &mut dyn Write) -> Result<()> {
        say(
            out,
            format_args!(
                "{FIGURE}, lambda {:e}, {} points: median over {} curves",
                self.lambda, self.points, self.seeds
            ),
        )?;
        let names: String = HEURISTICS.iter().map(|kind| format!(" {:>10}", name(*kind))).collect();
        say(out, format_args!("{:>8}{names}", "sigma_t"))?;
        for sigma in &self.sigmas {
            let cell =
                |h| self.quartiles(levels, h, *sigma).map_or("-".to_owned(), |[_, median, _]| format!("{median:.2e}"));
            let cells: String = (0..HEURISTICS.len()).map(|h| format!(" {:>10}", cell(h))).collect();
            say(out, format_args!("{sigma:>8}{cells}"))?;
        }
        say(out, "- where a heuristic's posterior has no mass under p(x_t)")
    }

    fn chart(&self, levels: &[Level]) -> Result<image::RgbImage> {
        let names: Vec<String> = HEURISTICS.iter().map(|kind| name(*kind)).collect();
        let curve = |h: usize| Curve {
            name: &names[h],
            points: self.sigmas.iter().filter_map(|s| Some((*s, self.quartiles(levels, h, *s)?))).collect(),
        };
        let curves: Vec<_> = (0..HEURISTICS.len()).map(curve).collect();
        logarithmic(
            "posteriors of covariance heuristics against the exact one: quartiles over curves",
            ["σ_t", FIGURE],
            &curves,
        )
    }
}

/// As on the command line.
fn name(kind: crate::posterior::CovarianceKind) -> String {
    kind.to_possible_value().map_or(String::new(), |value| value.get_name().to_owned())
}
