//! Drawings as SVG.

use super::drawing::{Anchor, Drawing, Ink, Paint, Shape};
use super::escape;
use std::fmt::Write;

/// An `<svg>` that takes its ink from the page.
pub fn svg(drawing: &Drawing) -> String {
    let Drawing { title, width, height, shapes } = drawing;
    let mut text = format!(
        "<svg viewBox=\"0 0 {width:.0} {height:.0}\" width=\"{width:.0}\" height=\"{height:.0}\" role=\"img\" aria-label=\"{}\" \
         xmlns=\"http://www.w3.org/2000/svg\" font-family=\"sans-serif\" font-size=\"11\" fill=\"currentColor\">\n",
        escape(title)
    );
    shapes.iter().for_each(|shape| write(&mut text, shape));
    text + "</svg>"
}

fn write(svg: &mut String, shape: &Shape) {
    // Writing to a String cannot fail.
    let _ = match shape {
        Shape::Line { points, paint } => {
            writeln!(svg, "<polyline fill=\"none\"{} points=\"{}\"/>", stroke(paint), joined(points))
        }
        Shape::Area { points, paint } => writeln!(svg, "<polygon{} points=\"{}\"/>", fill(paint), joined(points)),
        Shape::Box { corner: (x, y), size: (width, height), paint, hint } => writeln!(
            svg,
            "<rect x=\"{x:.1}\" y=\"{y:.1}\" width=\"{width:.1}\" height=\"{height:.1}\"{}><title>{}</title></rect>",
            fill(paint),
            escape(hint)
        ),
        Shape::Dot { centre: (x, y), radius, paint, hint } => {
            let (fill, hint) = (fill(paint), escape(hint));
            writeln!(svg, "<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"{radius}\"{fill}><title>{hint}</title></circle>")
        }
        Shape::Words { at: (x, y), anchor, size, upwards, words } => {
            let anchor = match anchor {
                Anchor::Start => "start",
                Anchor::Middle => "middle",
                Anchor::End => "end",
            };
            let place = match upwards {
                true => format!("transform=\"translate({x:.1} {y:.1}) rotate(-90)\""),
                false => format!("x=\"{x:.1}\" y=\"{y:.1}\""),
            };
            writeln!(svg, "<text {place} text-anchor=\"{anchor}\" font-size=\"{size}\">{}</text>", escape(words))
        }
    };
}

fn joined(points: &[(f64, f64)]) -> String {
    points.iter().map(|(x, y)| format!("{x:.1},{y:.1}")).collect::<Vec<_>>().join(" ")
}

fn ink(ink: Ink) -> String {
    match ink {
        Ink::Text => "currentColor".into(),
        Ink::Rgb([r, g, b]) => format!("#{r:02x}{g:02x}{b:02x}"),
    }
}

fn opacity(paint: &Paint) -> String {
    if paint.opacity < 1.0 { format!(" opacity=\"{:.2}\"", paint.opacity) } else { String::new() }
}

fn fill(paint: &Paint) -> String {
    format!(" fill=\"{}\"{}", ink(paint.ink), opacity(paint))
}

fn stroke(paint: &Paint) -> String {
    let dash = paint.dash.map_or(String::new(), |[line, gap]| format!(" stroke-dasharray=\"{line} {gap}\""));
    format!(" stroke=\"{}\" stroke-width=\"{}\"{dash}{}", ink(paint.ink), paint.width, opacity(paint))
}
