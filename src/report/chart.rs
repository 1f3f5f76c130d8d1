//! Line charts as inline SVG, in the colours of the page.

use super::html::{Node, element, plain, text};
use super::scale::{Scale, number};

/// Extents of a chart, in units of about a pixel.
const WIDTH: f64 = 420.0;
const HEIGHT: f64 = 240.0;
/// Around the plot: room for the labels.
const LEFT: f64 = 62.0;
const RIGHT: f64 = 12.0;
const TOP: f64 = 10.0;
const BOTTOM: f64 = 44.0;
/// Points beyond these are a line without marks.
const MARKS: usize = 40;
/// Colours and dashes that style.css has.
const STYLES: usize = 4;

/// A curve: points in the order of x.
#[derive(Clone, Debug, PartialEq)]
pub struct Series {
    /// What the legend calls it.
    pub name: String,
    /// (x, y); a y that is not finite breaks the line.
    pub points: Vec<(f64, f64)>,
}

/// One chart.
#[derive(Clone, Debug, PartialEq)]
pub struct Chart {
    /// What is shown.
    pub title: String,
    /// What it means, in a sentence; may be empty.
    pub note: String,
    /// What is counted to the right: laps, iterations.
    pub x: String,
    /// Label of the vertical axis, with its unit.
    pub y: String,
    /// The curves.
    pub series: Vec<Series>,
}

impl Chart {
    /// The figure; nothing where no point is finite.
    pub fn node(&self) -> Option<Node> {
        let points = || self.series.iter().flat_map(|s| &s.points).filter(|(_, y)| y.is_finite());
        points().next()?;
        let x = Scale::whole(points().map(|p| p.0), 6);
        let y = Scale::fitting(points().map(|p| p.1), 5);
        let plot = Plot { x, y };
        let label = format!("{}: {} over {}. {}", self.title, self.y, self.x, self.summary());
        let curves = self.series.iter().enumerate().map(|(i, s)| plot.curve(i % STYLES, s, &self.x)).collect();
        let view = format!("0 0 {WIDTH} {HEIGHT}");
        let svg = element(
            "svg",
            &[("viewBox", &view), ("role", &"img"), ("aria-label", &label)],
            [plot.axes(&self.x, &self.y), curves],
        );
        let mut caption = vec![plain("strong", text(&self.title))];
        if !self.note.is_empty() {
            caption.push(text(format_args!(" {}", self.note)));
        }
        caption.push(self.missing());
        caption.push(self.legend());
        Some(plain("figure", [plain("figcaption", caption.into_iter().collect::<Node>()), svg]))
    }

    /// The last value of each curve, for those who do not see it.
    fn summary(&self) -> String {
        let last = |s: &Series| s.points.iter().rev().find(|(_, y)| y.is_finite()).map(|(_, y)| number(*y));
        let values = self.series.iter().filter_map(|s| last(s).map(|y| format!("{}: {y} at the end.", s.name)));
        values.collect::<Vec<_>>().join(" ")
    }

    fn missing(&self) -> Node {
        let missing = self.series.iter().flat_map(|s| &s.points).filter(|(_, y)| !y.is_finite()).count();
        if missing == 0 {
            return Node::default();
        }
        element("span", &[("class", &"warning")], text(format_args!(" {missing} values are not finite.")))
    }

    fn legend(&self) -> Node {
        if self.series.len() < 2 {
            return Node::default();
        }
        let entry = |(i, s): (usize, &Series)| {
            let line =
                element("line", &[("x2", &28), ("y1", &5), ("y2", &5), ("class", &style(i % STYLES))], Node::default());
            let swatch =
                element("svg", &[("viewBox", &"0 0 28 10"), ("class", &"swatch"), ("aria-hidden", &true)], line);
            plain("li", [swatch, text(&s.name)])
        };
        element("ul", &[("class", &"legend")], self.series.iter().enumerate().map(entry).collect::<Node>())
    }
}

/// A curve's class in style.css.
fn style(i: usize) -> String {
    format!("curve curve-{i}")
}

/// Where values are on the paper.
struct Plot {
    x: Scale,
    y: Scale,
}

impl Plot {
    fn at(&self, (x, y): (f64, f64)) -> (f64, f64) {
        let (right, bottom) = (WIDTH - RIGHT, HEIGHT - BOTTOM);
        (LEFT + self.x.share(x) * (right - LEFT), bottom - self.y.share(y) * (bottom - TOP))
    }

    fn axes(&self, x_label: &str, y_label: &str) -> Node {
        let (right, bottom) = (WIDTH - RIGHT, HEIGHT - BOTTOM);
        let mut nodes = Vec::new();
        for &tick in self.y.ticks() {
            let y = coordinate(self.at((0.0, tick)).1);
            nodes.push(line("grid", [LEFT, right].map(coordinate), [y, y]));
            nodes.push(label("tick", "end", (LEFT - 6.0, y + 4.0), &number(tick)));
        }
        nodes.push(line("axis", [LEFT, right].map(coordinate), [bottom, bottom]));
        for &tick in self.x.ticks() {
            let x = coordinate(self.at((tick, 0.0)).0);
            nodes.push(line("axis", [x, x], [bottom, bottom + 4.0]));
            nodes.push(label("tick", "middle", (x, bottom + 17.0), &number(tick)));
        }
        nodes.push(label("label", "middle", ((LEFT + right) / 2.0, HEIGHT - 8.0), x_label));
        let middle = (TOP + bottom) / 2.0;
        let turn = format!("rotate(-90 14 {middle})");
        let attributes: &[(_, &dyn std::fmt::Display)] =
            &[("class", &"label"), ("text-anchor", &"middle"), ("x", &14), ("y", &middle), ("transform", &turn)];
        nodes.push(element("text", attributes, text(y_label)));
        nodes.into_iter().collect()
    }

    fn curve(&self, i: usize, series: &Series, x_label: &str) -> Node {
        let marked = series.points.len() <= MARKS;
        let class = style(i);
        let pieces = series.points.split(|(_, y)| !y.is_finite()).filter(|piece| !piece.is_empty());
        let mut nodes: Vec<Node> = pieces
            .map(|piece| {
                let points: Vec<String> =
                    self.thinned(piece).iter().map(|(x, y)| format!("{},{}", coordinate(*x), coordinate(*y))).collect();
                element("polyline", &[("class", &class), ("points", &points.join(" "))], Node::default())
            })
            .collect();
        for &(x, y) in series.points.iter().filter(|(_, y)| marked && y.is_finite()) {
            let (left, top) = self.at((x, y));
            let (left, top) = (coordinate(left), coordinate(top));
            let tip = format!("{}: {} at {x_label} {}", series.name, number(y), number(x));
            let attributes: &[(_, &dyn std::fmt::Display)] =
                &[("class", &format!("mark mark-{i}")), ("cx", &left), ("cy", &top), ("r", &2.6)];
            nodes.push(element("circle", attributes, plain("title", text(tip))));
        }
        nodes.into_iter().collect()
    }

    /// Of the points in one column of pixels, the first, the lowest, the highest and the last: they look the same.
    fn thinned(&self, points: &[(f64, f64)]) -> Vec<(f64, f64)> {
        let points: Vec<_> = points.iter().map(|p| self.at(*p)).collect();
        let columns = points.chunk_by(|a, b| a.0.floor() == b.0.floor());
        let keep = |column: &[(f64, f64)]| {
            let by_height = |a: &usize, b: &usize| column[*a].1.total_cmp(&column[*b].1);
            let all = 0..column.len();
            let mut kept = vec![0, column.len() - 1];
            kept.extend(all.clone().min_by(by_height));
            kept.extend(all.max_by(by_height));
            kept.sort_unstable();
            kept.dedup();
            kept.into_iter().map(|k| column[k]).collect::<Vec<_>>()
        };
        columns.flat_map(keep).collect()
    }
}

fn line(class: &str, [x1, x2]: [f64; 2], [y1, y2]: [f64; 2]) -> Node {
    let attributes: &[(_, &dyn std::fmt::Display)] =
        &[("class", &class), ("x1", &x1), ("x2", &x2), ("y1", &y1), ("y2", &y2)];
    element("line", attributes, Node::default())
}

fn label(class: &str, anchor: &str, (x, y): (f64, f64), what: &str) -> Node {
    let attributes: &[(_, &dyn std::fmt::Display)] =
        &[("class", &class), ("text-anchor", &anchor), ("x", &x), ("y", &y)];
    element("text", attributes, text(what))
}

/// A tenth of a pixel is finer than any screen.
fn coordinate(v: f64) -> f64 {
    (v * 10.0).round() / 10.0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chart(points: Vec<(f64, f64)>) -> Chart {
        let series = vec![Series { name: "<loss>".to_owned(), points }];
        Chart { title: "Loss".into(), note: String::new(), x: "lap".into(), y: "nats".into(), series }
    }

    #[test]
    fn a_value_that_is_not_finite_breaks_the_line_and_is_told() {
        let html = chart(vec![(0.0, 1.0), (1.0, f64::NAN), (2.0, 3.0)]).node().unwrap();
        assert_eq!(html.as_str().matches("<polyline").count(), 2);
        assert!(html.as_str().contains("1 values are not finite"));
        assert!(html.as_str().contains("&lt;loss&gt;") && !html.as_str().contains("<loss>"));
        assert!(!html.as_str().contains("NaN"));
    }

    #[test]
    fn nothing_finite_is_no_chart() {
        assert!(chart(vec![]).node().is_none());
        assert!(chart(vec![(0.0, f64::INFINITY)]).node().is_none());
    }

    #[test]
    fn many_points_keep_their_extremes() {
        let mut points: Vec<_> = (0..100_000).map(|i| (f64::from(i), 0.0)).collect();
        points[54_321].1 = 7.0;
        let html = chart(points).node().unwrap();
        let drawn = html.as_str().split("points=\"").nth(1).unwrap().split('"').next().unwrap();
        assert!(drawn.split(' ').count() < 2000);
        assert!(drawn.split(' ').any(|p| p.split(',').nth(1).unwrap().parse::<f64>().unwrap() < TOP + 40.0));
    }
}
