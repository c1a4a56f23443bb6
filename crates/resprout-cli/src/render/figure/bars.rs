//! Bars side by side, one group per name.

use super::drawing::{Anchor, Drawing, Paint, Shape};
use super::{bounds, colour, short, ticks};

const HEIGHT: f64 = 200.0;
const LEFT: f64 = 48.0;
const TOP: f64 = 12.0;
const LETTER: f64 = 5.6;

/// `series`: name and one value per group.
pub fn bars(title: &str, y_name: &str, groups: &[String], series: &[(String, Vec<f64>)]) -> Drawing {
    let bar = (900.0 / (groups.len() * (series.len() + 1)).max(1) as f64).clamp(1.5, 18.0);
    let group = bar * (series.len() as f64 + 1.0);
    let width = group * groups.len() as f64;
    // Names are written upwards.
    let below = 10.0 + LETTER * groups.iter().map(|name| name.chars().count()).max().unwrap_or(0) as f64;
    let (_, high) = bounds(series.iter().flat_map(|(_, values)| values.iter().copied()).chain([0.0]));
    let y_at = |value: f64| HEIGHT - (value / high) * (HEIGHT - TOP);
    let mut sheet = Drawing::new((LEFT + width + 12.0).max(480.0), HEIGHT + below + 24.0, title);
    for tick in ticks(0.0, high) {
        let y = y_at(tick);
        sheet.line(vec![(LEFT, y), (LEFT + width, y)], Paint::grid());
        sheet.text(LEFT - 6.0, y + 4.0, Anchor::End, &short(tick));
    }
    sheet.upwards(10.0, TOP, None, y_name);
    for (g, name) in groups.iter().enumerate() {
        let x = LEFT + group * g as f64;
        for (s, (series, values)) in series.iter().enumerate() {
            let Some(value) = values.get(g).filter(|value| value.is_finite()) else { continue };
            let y = y_at(*value);
            let hint = format!("{name}, {series}: {}", short(*value));
            let (corner, size) = ((x + bar * s as f64, y), (bar, HEIGHT - y));
            sheet.shapes.push(Shape::Box { corner, size, paint: Paint::new(colour(s)), hint });
        }
        sheet.upwards(x + group / 2.0, HEIGHT + 6.0, Some(9.0), name);
    }
    let names: Vec<(String, Paint)> =
        series.iter().enumerate().map(|(i, (name, _))| (name.clone(), Paint::new(colour(i)))).collect();
    sheet.legend(LEFT, HEIGHT + below + 16.0, names.len().max(1), 110.0, &names);
    sheet
}
