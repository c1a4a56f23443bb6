//! Line charts.

use super::drawing::{Anchor, Drawing, Ink, Paint, Shape};
use super::{bounds, colour, short, ticks};

const WIDTH: f64 = 640.0;
const HEIGHT: f64 = 250.0;
const LEFT: f64 = 56.0;
const RIGHT: f64 = 12.0;
const TOP: f64 = 12.0;
const BOTTOM: f64 = 36.0;
const COLUMNS: usize = 4;

/// One line: its name and its points.
#[derive(Clone, Debug, Default)]
pub struct Line {
    /// Shown in the legend.
    pub name: String,
    /// `x` and `y`.
    pub points: Vec<(f64, f64)>,
    /// `x`, lower and upper end of an interval.
    pub band: Vec<(f64, f64, f64)>,
    /// A line to compare with: thin, dashed, in the colour of the text.
    pub reference: bool,
}

/// A chart with axes and a legend. Points that are not finite are left out.
pub fn chart(title: &str, x_name: &str, y_name: &str, lines: &[Line]) -> Drawing {
    let rows = lines.len().div_ceil(COLUMNS);
    let plot = HEIGHT - BOTTOM;
    let all = || lines.iter().flat_map(|line| &line.points).filter(|(x, y)| x.is_finite() && y.is_finite());
    let (x_low, x_high) = bounds(all().map(|point| point.0));
    let (y_low, y_high) = bounds(all().map(|point| point.1));
    let x_at = |x: f64| LEFT + (x - x_low) / (x_high - x_low) * (WIDTH - LEFT - RIGHT);
    let y_at = |y: f64| plot - (y.clamp(y_low, y_high) - y_low) / (y_high - y_low) * (plot - TOP);
    let place = |&(x, y): &(f64, f64)| (x_at(x), y_at(y));
    let mut sheet = Drawing::new(WIDTH, HEIGHT + 16.0 * rows as f64, title);
    for tick in ticks(y_low, y_high) {
        let y = y_at(tick);
        sheet.line(vec![(LEFT, y), (WIDTH - RIGHT, y)], Paint::grid());
        sheet.text(LEFT - 6.0, y + 4.0, Anchor::End, &short(tick));
    }
    for tick in ticks(x_low, x_high) {
        sheet.text(x_at(tick), plot + 16.0, Anchor::Middle, &short(tick));
    }
    sheet.text(WIDTH - RIGHT, plot + 30.0, Anchor::End, x_name);
    sheet.upwards(12.0, TOP, None, y_name);
    let paints = paints(lines);
    for (line, &paint) in lines.iter().zip(&paints) {
        if line.band.len() > 1 {
            let upper = line.band.iter().map(|&(x, _, high)| (x, high));
            let lower = line.band.iter().rev().map(|&(x, low, _)| (x, low));
            let points = upper.chain(lower).map(|point| place(&point)).collect();
            sheet.shapes.push(Shape::Area { points, paint: Paint { opacity: 0.12, ..paint } });
        }
        let points: Vec<(f64, f64)> = line.points.iter().filter(|(x, y)| x.is_finite() && y.is_finite()).copied().collect();
        sheet.line(points.iter().map(place).collect(), paint);
        // Where points are few, each can be pointed at.
        for point in points.iter().filter(|_| points.len() <= 24 && !line.reference) {
            let hint = format!("{}: {}, {}", line.name, short(point.0), short(point.1));
            sheet.shapes.push(Shape::Dot { centre: place(point), radius: 2.5, paint, hint });
        }
    }
    let names: Vec<(String, Paint)> = lines.iter().zip(paints).map(|(line, paint)| (line.name.clone(), paint)).collect();
    sheet.legend(LEFT, HEIGHT + 10.0, COLUMNS, (WIDTH - LEFT) / COLUMNS as f64, &names);
    sheet
}

fn paints(lines: &[Line]) -> Vec<Paint> {
    let mut solid = 0;
    let paint = |line: &Line| {
        if line.reference {
            return Paint { dash: Some([2.0, 4.0]), ..Paint::new(Ink::Text) };
        }
        solid += 1;
        // Beyond four lines dashes help where colours do not.
        let dash = (solid > 4).then_some([7.0, 3.0]);
        Paint { width: 2.0, dash, ..Paint::new(colour(solid - 1)) }
    };
    lines.iter().map(paint).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::render::figure::svg;

    #[test]
    fn broken_points_are_left_out() {
        let line = Line { name: "a".into(), points: vec![(1.0, 2.0), (2.0, f64::NAN), (3.0, 4.0)], ..Line::default() };
        let sheet = chart("t", "x", "y", &[line]);
        let dots = sheet.shapes.iter().filter(|shape| matches!(shape, Shape::Dot { .. })).count();
        let svg = svg(&sheet);
        assert!(dots == 2 && !svg.contains("NaN") && !svg.contains("inf"), "{svg}");
    }
}
