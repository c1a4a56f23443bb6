//! Ranges on a common axis.

use super::drawing::{Anchor, Drawing, Paint, Shape};
use super::{bounds, colour, short, ticks};

const LETTER: f64 = 6.2;
const ROW: f64 = 18.0;
const PLOT: f64 = 420.0;

/// `rows`: name, colour's number, ranges. `axis`: lowest and highest value.
pub fn ranges(title: &str, x_name: &str, axis: [f64; 2], rows: &[(String, usize, Vec<[f64; 2]>)]) -> Drawing {
    let left = 12.0 + LETTER * rows.iter().map(|(name, _, _)| name.chars().count()).max().unwrap_or(0) as f64;
    let (low, high) = bounds(axis.into_iter());
    let x_at = |x: f64| left + (x - low) / (high - low) * PLOT;
    let bottom = 8.0 + ROW * rows.len() as f64;
    let mut sheet = Drawing::new(left + PLOT + 30.0, bottom + 36.0, title);
    for tick in ticks(low, high) {
        let x = x_at(tick);
        sheet.line(vec![(x, 8.0), (x, bottom)], Paint::grid());
        sheet.text(x, bottom + 14.0, Anchor::Middle, &short(tick));
    }
    for (r, (name, kind, ranges)) in rows.iter().enumerate() {
        let y = 8.0 + ROW * r as f64;
        sheet.text(left - 6.0, y + 13.0, Anchor::End, name);
        for &[from, to] in ranges {
            let (corner, size) = ((x_at(from), y + 3.0), ((x_at(to) - x_at(from)).max(2.0), ROW - 6.0));
            let hint = format!("{name}: {} to {}", short(from), short(to));
            sheet.shapes.push(Shape::Box { corner, size, paint: Paint::new(colour(*kind)), hint });
        }
    }
    sheet.text(left + PLOT, bottom + 30.0, Anchor::End, x_name);
    sheet
}
