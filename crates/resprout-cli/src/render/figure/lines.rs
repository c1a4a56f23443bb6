//! Line charts.

use super::{bounds, colour, escape, legend, open, short, text, ticks};
use std::fmt::Write;

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
pub fn chart(title: &str, x_name: &str, y_name: &str, lines: &[Line]) -> String {
    let rows = lines.len().div_ceil(COLUMNS);
    let plot = HEIGHT - BOTTOM;
    let all = || lines.iter().flat_map(|line| &line.points).filter(|(x, y)| x.is_finite() && y.is_finite());
    let (x_low, x_high) = bounds(all().map(|point| point.0));
    let (y_low, y_high) = bounds(all().map(|point| point.1));
    let x_at = |x: f64| LEFT + (x - x_low) / (x_high - x_low) * (WIDTH - LEFT - RIGHT);
    let y_at = |y: f64| plot - (y.clamp(y_low, y_high) - y_low) / (y_high - y_low) * (plot - TOP);
    let mut svg = open(WIDTH, HEIGHT + 16.0 * rows as f64, title);
    for tick in ticks(y_low, y_high) {
        let y = y_at(tick);
        let _ = writeln!(
            svg,
            "<line x1=\"{LEFT}\" x2=\"{:.1}\" y1=\"{y:.1}\" y2=\"{y:.1}\" stroke=\"currentColor\" opacity=\"0.15\"/>",
            WIDTH - RIGHT
        );
        text(&mut svg, LEFT - 6.0, y + 4.0, "end", &short(tick));
    }
    for tick in ticks(x_low, x_high) {
        text(&mut svg, x_at(tick), plot + 16.0, "middle", &short(tick));
    }
    text(&mut svg, WIDTH - RIGHT, plot + 30.0, "end", x_name);
    let _ =
        writeln!(svg, "<text transform=\"rotate(-90)\" x=\"{:.1}\" y=\"12\" text-anchor=\"end\">{}</text>", -TOP, escape(y_name));
    let mut names = Vec::new();
    let mut solid = 0;
    for line in lines {
        let (colour, dash, width) = match line.reference {
            true => ("currentColor", " stroke-dasharray=\"2 4\"", 1.0),
            false => {
                solid += 1;
                // Beyond four lines dashes help where colours do not.
                (colour(solid - 1), if solid > 4 { " stroke-dasharray=\"7 3\"" } else { "" }, 2.0)
            }
        };
        names.push((line.name.clone(), colour, dash));
        band(&mut svg, line, colour, &x_at, &y_at);
        let points: Vec<(f64, f64)> = line.points.iter().filter(|(x, y)| x.is_finite() && y.is_finite()).copied().collect();
        let joined: Vec<String> = points.iter().map(|&(x, y)| format!("{:.1},{:.1}", x_at(x), y_at(y))).collect();
        let _ = writeln!(
            svg,
            "<polyline fill=\"none\" stroke=\"{colour}\" stroke-width=\"{width}\"{dash} points=\"{}\"/>",
            joined.join(" ")
        );
        // Where points are few, each can be pointed at.
        for &(x, y) in points.iter().filter(|_| points.len() <= 24 && !line.reference) {
            let _ = writeln!(
                svg,
                "<circle cx=\"{:.1}\" cy=\"{:.1}\" r=\"2.5\" fill=\"{colour}\"><title>{}: {}, {}</title></circle>",
                x_at(x),
                y_at(y),
                escape(&line.name),
                short(x),
                short(y)
            );
        }
    }
    legend(&mut svg, LEFT, HEIGHT + 10.0, COLUMNS, (WIDTH - LEFT) / COLUMNS as f64, &names);
    svg + "</svg>"
}

fn band(svg: &mut String, line: &Line, colour: &str, x_at: &dyn Fn(f64) -> f64, y_at: &dyn Fn(f64) -> f64) {
    if line.band.len() < 2 {
        return;
    }
    let upper = line.band.iter().map(|&(x, _, high)| (x, high));
    let lower = line.band.iter().rev().map(|&(x, low, _)| (x, low));
    let points: Vec<String> = upper.chain(lower).map(|(x, y)| format!("{:.1},{:.1}", x_at(x), y_at(y))).collect();
    let _ = writeln!(svg, "<polygon fill=\"{colour}\" opacity=\"0.12\" points=\"{}\"/>", points.join(" "));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn broken_points_are_left_out() {
        let line = Line { name: "a".into(), points: vec![(1.0, 2.0), (2.0, f64::NAN), (3.0, 4.0)], ..Line::default() };
        let svg = chart("t", "x", "y", &[line]);
        let points = svg.split("points=\"").nth(1).unwrap().split('"').next().unwrap();
        assert_eq!(points.split(' ').count(), 2);
        assert!(!svg.contains("NaN") && !svg.contains("inf"));
    }
}
