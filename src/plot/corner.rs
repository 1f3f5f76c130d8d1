//! Corner plots: the marginals of every coordinate, and of every pair.

use super::{Area, COLOURS, Drawn, FONT, TEXT, picture};
use crate::data::{Samples, picture as pictures};
use crate::{Error, Result};
use plotters::prelude::*;
use std::path::Path;

/// Coordinates that are drawn at most.
const MOST: usize = 8;

/// Samples that are drawn at most, from the first.
const POINTS: usize = 4096;

/// Pixels of a panel's side.
const PANEL: u32 = 180;

/// Bins of a histogram.
const BINS: usize = 48;

/// Writes a picture of the marginals of `samples`, in blue, over those of the truth, in orange: histograms on the diagonal, pairs of
/// coordinates below. Panels span the truth and a tenth more; what lies beyond is not drawn.
///
/// # Shapes
/// `samples` (N, D), `truth` (M, D); of more than 8 coordinates the first 8 are drawn.
///
/// # Errors
/// When the extents do not agree, or the file cannot be written.
pub fn write(path: &Path, samples: &Samples<f32>, truth: &Samples<f32>) -> Result<()> {
    let d = samples.shape.row();
    if truth.shape.row() != d || truth.data.is_empty() {
        return Err(Error::mismatch("corner plot, truth", format!("(N, {d})"), format!("{:?}", truth.shape)));
    }
    let shown = d.min(MOST);
    let ranges: Vec<Span> = (0..shown).map(|j| Span::of(truth, j)).collect();
    let side = shown as u32 * PANEL + 2 * TEXT;
    let sets = [(truth, COLOURS[1]), (samples, COLOURS[0])];
    let drawn = picture(side, side, |area| {
        let panels = area.margin(TEXT, TEXT, TEXT, TEXT).split_evenly((shown, shown));
        for (row, column) in (0..shown).flat_map(|row| (0..=row).map(move |column| (row, column))) {
            let panel = &panels[row * shown + column];
            if row == column {
                histogram(panel, &sets, row, &ranges[row])?;
            } else {
                pairs(panel, &sets, (column, row), (&ranges[column], &ranges[row]))?;
            }
        }
        Ok(())
    });
    pictures::write(path, &drawn?)
}

/// The values of a coordinate that a panel shows.
struct Span {
    low: f64,
    high: f64,
}

impl Span {
    fn of(truth: &Samples<f32>, j: usize) -> Self {
        let values = column(truth, j).filter(|x| x.is_finite());
        let (low, high) = values.fold((f64::INFINITY, f64::NEG_INFINITY), |(l, h), x| (l.min(x), h.max(x)));
        let margin = 0.1 * (high - low).max(1e-6);
        if low <= high { Self { low: low - margin, high: high + margin } } else { Self { low: -1.0, high: 1.0 } }
    }
    fn contains(&self, x: f64) -> bool {
        (self.low..self.high).contains(&x)
    }
}

fn column(samples: &Samples<f32>, j: usize) -> impl Iterator<Item = f64> {
    samples.data.iter().skip(j).step_by(samples.shape.row()).map(|x| f64::from(*x))
}

/// The density of coordinate `j` of both sets.
fn histogram(panel: &Area<'_>, sets: &[(&Samples<f32>, RGBColor)], j: usize, span: &Span) -> Drawn {
    let width = (span.high - span.low) / BINS as f64;
    let density = |samples: &Samples<f32>| {
        let mut counts = vec![0.0; BINS];
        let inside = column(samples, j).filter(|x| span.contains(*x));
        inside.for_each(|x| counts[(((x - span.low) / width) as usize).min(BINS - 1)] += 1.0 / samples.shape.n as f64);
        counts
    };
    let densities: Vec<Vec<f64>> = sets.iter().map(|(samples, _)| density(samples)).collect();
    let top = densities.iter().flatten().copied().fold(1e-9, f64::max);
    let mut chart = ChartBuilder::on(panel).margin(4).build_cartesian_2d(span.low..span.high, 0.0..1.1 * top)?;
    chart.configure_mesh().disable_mesh().x_labels(0).y_labels(0).draw()?;
    for ((_, colour), counts) in sets.iter().zip(&densities) {
        let steps = counts.iter().enumerate().flat_map(|(i, count)| {
            let left = span.low + i as f64 * width;
            [(left, *count), (left + width, *count)]
        });
        chart.draw_series(LineSeries::new(steps, colour.stroke_width(2)))?;
    }
    panel.draw(&Text::new(format!("x{j}"), (12, 10), (FONT, TEXT)))?;
    Ok(())
}

/// Coordinates `i` and `j` of both sets as points.
fn pairs(
    panel: &Area<'_>,
    sets: &[(&Samples<f32>, RGBColor)],
    (i, j): (usize, usize),
    (horizontal, vertical): (&Span, &Span),
) -> Drawn {
    let mut chart = ChartBuilder::on(panel)
        .margin(4)
        .build_cartesian_2d(horizontal.low..horizontal.high, vertical.low..vertical.high)?;
    chart.configure_mesh().disable_mesh().x_labels(0).y_labels(0).draw()?;
    for (samples, colour) in sets {
        let points = column(samples, i).zip(column(samples, j)).take(POINTS);
        let inside = points.filter(|(x, y)| horizontal.contains(*x) && vertical.contains(*y));
        chart.draw_series(inside.map(|point| Circle::new(point, 1, colour.mix(0.35).filled())))?;
    }
    Ok(())
}
