//! Curves with bands, on linear or logarithmic axes.

use super::{COLOURS, FONT, TEXT, picture};
use crate::Result;
use image::RgbImage;
use plotters::prelude::*;

/// A curve of one colour, and what scatters around it.
pub struct Curve<'a> {
    /// In the legend.
    pub name: &'a str,
    /// x, and the low, middle and high y there, all of them above 0.
    pub points: Vec<(f64, [f64; 3])>,
}

/// A chart with both axes logarithmic.
///
/// # Errors
/// When it cannot be drawn.
pub fn logarithmic(title: &str, [x_label, y_label]: [&str; 2], curves: &[Curve<'_>]) -> Result<RgbImage> {
    let points = || curves.iter().flat_map(|curve| &curve.points);
    let span = |values: &mut dyn Iterator<Item = f64>| {
        let (low, high) = values.fold((f64::INFINITY, f64::NEG_INFINITY), |(l, h), v| (l.min(v), h.max(v)));
        if low <= high { low - 0.15..high + 0.15 } else { 0.0..1.0 }
    };
    let x = span(&mut points().map(|(x, _)| x.log10()));
    let y = span(&mut points().flat_map(|(_, y)| y.map(f64::log10)));
    picture(800, 560, |area| {
        let mut chart = ChartBuilder::on(area)
            .caption(title, (FONT, TEXT + 3))
            .margin(15)
            .x_label_area_size(45)
            .y_label_area_size(70)
            .build_cartesian_2d(x, y)?;
        let power = |v: &f64| format!("{:.1e}", 10f64.powf(*v));
        chart
            .configure_mesh()
            .label_style((FONT, TEXT))
            .x_desc(x_label)
            .y_desc(y_label)
            .x_label_formatter(&power)
            .y_label_formatter(&power)
            .light_line_style(TRANSPARENT)
            .draw()?;
        for (curve, colour) in curves.iter().zip(COLOURS.iter().cycle()) {
            let at = |k: usize| curve.points.iter().map(move |(x, y)| (x.log10(), y[k].log10()));
            let outline: Vec<_> = at(2).chain(at(0).rev()).collect();
            chart.draw_series([Polygon::new(outline, colour.mix(0.15))])?;
            chart.draw_series(at(1).map(|point| Circle::new(point, 3, colour.filled())))?;
            chart
                .draw_series(LineSeries::new(at(1), colour.stroke_width(2)))?
                .label(curve.name)
                .legend(move |(x, y)| PathElement::new([(x, y), (x + 18, y)], colour.stroke_width(2)));
        }
        chart
            .configure_series_labels()
            .position(SeriesLabelPosition::UpperLeft)
            .label_font((FONT, TEXT))
            .background_style(WHITE.mix(0.8))
            .border_style(BLACK.mix(0.3))
            .draw()?;
        Ok(())
    })
}
