//! Bars side by side, one group per name.

use super::{bounds, colour, escape, legend, open, short, text, ticks};
use std::fmt::Write;

const HEIGHT: f64 = 200.0;
const LEFT: f64 = 48.0;
const TOP: f64 = 12.0;
const LETTER: f64 = 5.6;

/// `series`: name and one value per group.
pub fn bars(title: &str, y_name: &str, groups: &[String], series: &[(String, Vec<f64>)]) -> String {
    let bar = (900.0 / (groups.len() * (series.len() + 1)).max(1) as f64).clamp(1.5, 18.0);
    let group = bar * (series.len() as f64 + 1.0);
    let width = group * groups.len() as f64;
    // Names are written upwards.
    let below = 10.0 + LETTER * groups.iter().map(|name| name.chars().count()).max().unwrap_or(0) as f64;
    let (_, high) = bounds(series.iter().flat_map(|(_, values)| values.iter().copied()).chain([0.0]));
    let y_at = |value: f64| HEIGHT - (value / high) * (HEIGHT - TOP);
    let mut svg = open((LEFT + width + 12.0).max(480.0), HEIGHT + below + 24.0, title);
    for tick in ticks(0.0, high) {
        let y = y_at(tick);
        let _ = writeln!(
            svg,
            "<line x1=\"{LEFT}\" x2=\"{:.1}\" y1=\"{y:.1}\" y2=\"{y:.1}\" stroke=\"currentColor\" opacity=\"0.15\"/>",
            LEFT + width
        );
        text(&mut svg, LEFT - 6.0, y + 4.0, "end", &short(tick));
    }
    let _ =
        writeln!(svg, "<text transform=\"rotate(-90)\" x=\"{:.1}\" y=\"10\" text-anchor=\"end\">{}</text>", -TOP, escape(y_name));
    for (g, name) in groups.iter().enumerate() {
        let x = LEFT + group * g as f64;
        for (s, (series, values)) in series.iter().enumerate() {
            let Some(value) = values.get(g).filter(|value| value.is_finite()) else { continue };
            let y = y_at(*value);
            let _ = writeln!(
                svg,
                "<rect x=\"{:.1}\" y=\"{y:.1}\" width=\"{bar:.1}\" height=\"{:.1}\" fill=\"{}\"><title>{}, {}: {}</title></rect>",
                x + bar * s as f64,
                HEIGHT - y,
                colour(s),
                escape(name),
                escape(series),
                short(*value)
            );
        }
        let _ = writeln!(
            svg,
            "<text transform=\"translate({:.1} {:.1}) rotate(-90)\" text-anchor=\"end\" font-size=\"9\">{}</text>",
            x + group / 2.0,
            HEIGHT + 6.0,
            escape(name)
        );
    }
    let names: Vec<(String, &str, &str)> =
        series.iter().enumerate().map(|(i, (name, _))| (name.clone(), colour(i), "")).collect();
    legend(&mut svg, LEFT, HEIGHT + below + 16.0, names.len().max(1), 110.0, &names);
    svg + "</svg>"
}
