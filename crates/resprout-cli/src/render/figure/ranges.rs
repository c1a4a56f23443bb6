//! Ranges on a common axis.

use super::{bounds, colour, escape, open, short, text, ticks};
use std::fmt::Write;

const LETTER: f64 = 6.2;
const ROW: f64 = 18.0;
const PLOT: f64 = 420.0;

/// `rows`: name, colour's number, ranges. `axis`: lowest and highest value.
pub fn ranges(title: &str, x_name: &str, axis: [f64; 2], rows: &[(String, usize, Vec<[f64; 2]>)]) -> String {
    let left = 12.0 + LETTER * rows.iter().map(|(name, _, _)| name.chars().count()).max().unwrap_or(0) as f64;
    let (low, high) = bounds(axis.into_iter());
    let x_at = |x: f64| left + (x - low) / (high - low) * PLOT;
    let bottom = 8.0 + ROW * rows.len() as f64;
    let mut svg = open(left + PLOT + 30.0, bottom + 36.0, title);
    for tick in ticks(low, high) {
        let x = x_at(tick);
        let _ = writeln!(
            svg,
            "<line x1=\"{x:.1}\" x2=\"{x:.1}\" y1=\"8\" y2=\"{bottom:.1}\" stroke=\"currentColor\" opacity=\"0.15\"/>"
        );
        text(&mut svg, x, bottom + 14.0, "middle", &short(tick));
    }
    for (r, (name, kind, ranges)) in rows.iter().enumerate() {
        let y = 8.0 + ROW * r as f64;
        text(&mut svg, left - 6.0, y + 13.0, "end", name);
        for &[from, to] in ranges {
            let _ = writeln!(
                svg,
                "<rect x=\"{:.1}\" y=\"{:.1}\" width=\"{:.1}\" height=\"{:.1}\" rx=\"3\" fill=\"{}\"><title>{}: {} to {}</title></rect>",
                x_at(from),
                y + 3.0,
                (x_at(to) - x_at(from)).max(2.0),
                ROW - 6.0,
                colour(*kind),
                escape(name),
                short(from),
                short(to)
            );
        }
    }
    text(&mut svg, left + PLOT, bottom + 30.0, "end", x_name);
    svg + "</svg>"
}
