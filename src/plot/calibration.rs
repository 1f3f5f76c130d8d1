//! The tests of a posterior's calibration as pictures: TARP's curve, and the histograms of the ranks.

use super::{Area, COLOURS, Drawn, FONT, TEXT, picture};
use crate::Result;
use crate::metrics::calibration::{Calibration, Ranks, band};
use image::RgbImage;
use plotters::prelude::*;

/// Histograms in a row.
const COLUMNS: usize = 6;

/// Probability with which a calibrated posterior leaves a band.
const OUTSIDE: f64 = 0.01;

/// TARP's expected coverage over the credibility with its 99% band, and below it the histogram of each quantity's ranks with the
/// band of three standard deviations.
///
/// # Errors
/// When it cannot be drawn.
pub fn draw(calibration: &Calibration) -> Result<RgbImage> {
    let rows = calibration.ranks.len().div_ceil(COLUMNS) as u32;
    picture(900, 420 + 150 * rows, |area| {
        let (upper, lower) = area.split_vertically(420);
        tarp(&upper.margin(5, 5, 230, 230), calibration)?;
        let panels = lower.split_evenly((rows as usize, COLUMNS));
        panels.iter().zip(&calibration.ranks).try_for_each(|(panel, ranks)| histogram(panel, ranks, calibration.draws))
    })
}

fn tarp(area: &Area<'_>, calibration: &Calibration) -> Drawn {
    let k = calibration.tarp.coverage.len() - 1;
    let mut chart = ChartBuilder::on(area)
        .caption("TARP", (FONT, TEXT + 3))
        .margin(8)
        .x_label_area_size(40)
        .y_label_area_size(50)
        .build_cartesian_2d(0.0..1.0, 0.0..1.0)?;
    let style = (FONT, TEXT);
    let mesh = &mut chart.configure_mesh();
    mesh.label_style(style).x_desc("credibility").y_desc("expected coverage").light_line_style(TRANSPARENT).draw()?;
    let width = band(calibration.observations, OUTSIDE);
    let outline = [(0.0, width), (1.0 - width, 1.0), (1.0, 1.0), (1.0, 1.0 - width), (width, 0.0), (0.0, 0.0)];
    chart.draw_series([Polygon::new(outline, BLACK.mix(0.12))])?;
    chart.draw_series(LineSeries::new([(0.0, 0.0), (1.0, 1.0)], BLACK.mix(0.5)))?;
    let points = calibration.tarp.coverage.iter().enumerate().map(|(i, c)| (i as f64 / k as f64, *c));
    chart.draw_series(LineSeries::new(points, COLOURS[0].stroke_width(2)))?;
    Ok(())
}

/// Counts over what uniform ranks lead to; the bins of a histogram may hold one rank more or less than the others.
fn histogram(panel: &Area<'_>, ranks: &Ranks, k: usize) -> Drawn {
    let total: usize = ranks.histogram.iter().sum();
    let shares = ranks.expected(k);
    let bars = ranks.histogram.iter().zip(&shares).map(|(count, share)| *count as f64 / (share * total as f64));
    let bars: Vec<f64> = bars.collect();
    let top = bars.iter().copied().fold(2.0, f64::max);
    let mut chart = ChartBuilder::on(panel)
        .caption(&ranks.quantity, (FONT, TEXT))
        .margin(6)
        .build_cartesian_2d(0.0..bars.len() as f64, 0.0..top)?;
    chart.configure_mesh().disable_mesh().x_labels(0).y_labels(0).draw()?;
    chart.draw_series(
        bars.iter()
            .enumerate()
            .map(|(i, bar)| Rectangle::new([(i as f64 + 0.05, 0.0), (i as f64 + 0.95, *bar)], COLOURS[4].filled())),
    )?;
    let share = 1.0 / bars.len() as f64;
    let width = 3.0 * ((1.0 - share) / (share * total as f64)).sqrt();
    let inside = [(0.0, (1.0 - width).max(0.0)), (bars.len() as f64, 1.0 + width)];
    chart.draw_series([Rectangle::new(inside, BLACK.mix(0.12).filled())])?;
    Ok(())
}
