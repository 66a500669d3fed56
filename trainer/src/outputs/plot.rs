//! Plots as SVG, to stand in an HTML page: lines over a white ground, in colours that the colour-blind tell apart (Okabe
//! and Ito, "Color universal design").

use std::ops::Range;

use plotters::prelude::*;

/// The colours of a plot's series, in their order.
const COLOURS: [RGBColor; 4] =
    [RGBColor(0, 114, 178), RGBColor(213, 94, 0), RGBColor(0, 158, 115), RGBColor(204, 121, 167)];
/// Width and height, in pixels.
const SIZE: (u32, u32) = (640, 360);
/// Most points of a line that are marked one by one.
const MARKED: usize = 40;

/// A line of a plot.
pub(super) struct Series {
    /// Its name in the legend.
    pub name: String,
    /// Its points, from left to right.
    pub points: Vec<Point>,
}

/// A point of a line.
#[derive(Clone, Copy)]
pub(super) struct Point {
    pub x: f64,
    pub y: f64,
    /// Its confidence interval, where it is shown.
    pub interval: Option<(f64, f64)>,
}

/// A plot with its title, axes and legend.
pub(super) struct Plot<'a> {
    pub title: &'a str,
    /// What stands along the horizontal axis.
    pub x: &'a str,
    /// What stands along the vertical axis.
    pub y: &'a str,
    /// Whether the vertical axis is in percent, from 0 to 100; else it ends above the largest value.
    pub percent: bool,
    /// Whether the horizontal axis counts: it is then marked at whole numbers alone.
    pub whole: bool,
    pub series: Vec<Series>,
}

/// A drawn plot, with its title and legend as plain text.
pub(super) struct Chart {
    pub title: String,
    pub legend: Vec<LegendEntry>,
    /// Markup that is safe to embed in HTML.
    pub svg: String,
}

/// A line of a chart's legend.
pub(super) struct LegendEntry {
    /// The colour of the series, as CSS.
    pub colour: String,
    pub name: String,
}

impl Plot<'_> {
    /// Draws the plot. `None` if it has no point.
    pub(super) fn draw(&self) -> Result<Option<Chart>, String> {
        let points = || self.series.iter().flat_map(|series| &series.points);
        if points().next().is_none() {
            return Ok(None);
        }
        let x = range(points().map(|point| point.x), self.whole);
        let top = points().map(|point| point.y).fold(0.0, f64::max);
        let y = if self.percent { 0.0..100.0 } else { 0.0..(top * 1.08).max(f64::MIN_POSITIVE) };
        let svg = self.svg(x, y).map_err(|error| error.to_string())?;
        let colours = COLOURS.iter().cycle();
        let legend = self.series.iter().zip(colours).map(|(series, RGBColor(r, g, b))| LegendEntry {
            colour: format!("rgb({r},{g},{b})"),
            name: series.name.clone(),
        });
        Ok(Some(Chart { title: self.title.to_owned(), legend: legend.collect(), svg }))
    }

    fn svg(&self, x: Range<f64>, y: Range<f64>) -> Result<String, DrawingAreaErrorKind<std::io::Error>> {
        let mut svg = String::new();
        let area = SVGBackend::with_string(&mut svg, SIZE).into_drawing_area();
        area.fill(&WHITE)?;
        let mut chart = ChartBuilder::on(&area)
            .margin(12)
            .margin_right(24)
            .x_label_area_size(44)
            .y_label_area_size(64)
            .build_cartesian_2d(x, y)?;
        let across = |value: &f64| match (self.whole, value.fract() == 0.0) {
            (true, false) => String::new(),
            _ => number(*value),
        };
        let up = |value: &f64| number(*value) + if self.percent { " %" } else { "" };
        chart
            .configure_mesh()
            .disable_x_mesh()
            .light_line_style(TRANSPARENT)
            .bold_line_style(RGBColor(225, 225, 225))
            .axis_style(RGBColor(90, 90, 90))
            .label_style(("sans-serif", 14).into_font().color(&RGBColor(60, 60, 60)))
            .axis_desc_style(("sans-serif", 15))
            .x_labels(10)
            .y_labels(6)
            .x_label_formatter(&across)
            .y_label_formatter(&up)
            .x_desc(self.x)
            .y_desc(self.y)
            .draw()?;
        for (series, colour) in self.series.iter().zip(COLOURS.iter().cycle()) {
            let line = series.points.iter().map(|point| (point.x, point.y));
            chart.draw_series(LineSeries::new(line.clone(), colour.stroke_width(2)))?;
            if series.points.len() <= MARKED {
                chart.draw_series(line.map(|at| Circle::new(at, 3, colour.filled())))?;
            }
            let intervals = series.points.iter().filter_map(|point| Some((point.x, point.interval?)));
            chart.draw_series(
                intervals.map(|(x, (low, high))| PathElement::new(vec![(x, low), (x, high)], colour)),
            )?;
        }
        area.present()?;
        drop(chart);
        drop(area);
        Ok(svg)
    }
}

/// From the smallest to the largest, with some room where they are one.
fn range(values: impl Iterator<Item = f64>, whole: bool) -> Range<f64> {
    let (low, high) = values.fold((f64::MAX, f64::MIN), |(low, high), x| (low.min(x), high.max(x)));
    let room = match high > low {
        true => (high - low) * 0.02,
        false if whole => 1.0,
        false => low.abs().max(1e-3),
    };
    low - room..high + room
}

/// A number with as many digits as tell it from its neighbours on an axis.
fn number(value: f64) -> String {
    if value != 0.0 && value.abs() < 1e-3 {
        return format!("{value:.1e}");
    }
    let text = format!("{value:.4}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plot(points: &[(f64, f64)]) -> Option<Chart> {
        let point = |&(x, y): &(f64, f64)| Point { x, y, interval: Some((y - 1.0, y + 1.0)) };
        let series = vec![Series { name: "clean".into(), points: points.iter().map(point).collect() }];
        let plot =
            Plot { title: "Accuracy", x: "<epoch>", y: "accuracy", percent: true, whole: true, series };
        plot.draw().unwrap()
    }

    #[test]
    fn a_plot_has_its_title_axes_and_legend() {
        let Chart { title, legend, svg } = plot(&[(1.0, 10.0), (2.0, 30.0), (3.0, 40.0)]).unwrap();
        assert_eq!(title, "Accuracy");
        let legend: Vec<_> = legend.iter().map(|line| (&*line.name, &*line.colour)).collect();
        assert_eq!(legend, [("clean", "rgb(0,114,178)")]);
        for part in ["100 %", "&lt;epoch&gt;", "accuracy", "polyline", "<circle"] {
            assert!(svg.contains(part), "{part}: {svg}");
        }
        assert_eq!(svg.matches("<circle").count(), 3);
        assert!(!svg.contains("<script") && !svg.contains("href"));
    }

    #[test]
    fn numbers_are_as_long_as_they_must_be() {
        let texts = [0.0, 0.15, 20.0, 0.000_02, 100.0].map(number);
        assert_eq!(texts, ["0", "0.15", "20", "2.0e-5", "100"]);
    }

    #[test]
    fn one_point_is_a_plot_and_none_is_nothing() {
        assert!(plot(&[(1.0, 10.0)]).unwrap().svg.contains("<circle"));
        assert!(plot(&[]).is_none());
    }
}
