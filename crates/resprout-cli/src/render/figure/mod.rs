//! Figures as SVG, with the numbers behind them.

pub mod bars;
pub mod heatmap;
pub mod lines;
pub mod ranges;

use std::fmt::Write;

/// Colours that stay apart for the colour-blind, on light and on dark (Okabe and Ito, 2008; Tol, 2021).
const COLOURS: [&str; 9] = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#999933", "#aa4466", "#6f6fb5"];

fn colour(index: usize) -> &'static str {
    COLOURS[index % COLOURS.len()]
}

/// A picture, and its numbers as a table.
pub struct Figure {
    /// File name without ending.
    pub id: String,
    /// What it shows.
    pub title: String,
    /// An `<svg>` that takes its ink from the page.
    pub svg: String,
    /// Names of the numbers.
    pub columns: Vec<&'static str>,
    /// The numbers.
    pub rows: Vec<Vec<String>>,
}

impl Figure {
    /// In pixels.
    pub fn width(&self) -> f64 {
        let text = self.svg.split("width=\"").nth(1).and_then(|rest| rest.split('"').next());
        text.and_then(|text| text.parse().ok()).unwrap_or(0.0)
    }

    /// The picture as a file of its own, on white.
    pub fn file(&self) -> String {
        self.svg.replacen("<svg ", "<svg style=\"background:#fff;color:#222\" ", 1) + "\n"
    }

    /// The numbers as a file of comma-separated values.
    pub fn csv(&self) -> String {
        let line = |cells: &mut dyn Iterator<Item = &str>| cells.map(quoted).collect::<Vec<_>>().join(",") + "\n";
        let mut text = line(&mut self.columns.iter().copied());
        self.rows.iter().for_each(|row| text += &line(&mut row.iter().map(String::as_str)));
        text
    }
}

fn quoted(cell: &str) -> String {
    if cell.contains(['"', ',', '\n']) { format!("\"{}\"", cell.replace('"', "\"\"")) } else { cell.to_string() }
}

/// Text inside HTML or SVG, or inside an attribute.
pub fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

/// The beginning of an SVG.
fn open(width: f64, height: f64, title: &str) -> String {
    format!(
        "<svg viewBox=\"0 0 {width:.0} {height:.0}\" width=\"{width:.0}\" height=\"{height:.0}\" role=\"img\" aria-label=\"{}\" \
         xmlns=\"http://www.w3.org/2000/svg\" font-family=\"sans-serif\" font-size=\"11\" fill=\"currentColor\">\n",
        escape(title)
    )
}

fn text(svg: &mut String, x: f64, y: f64, anchor: &str, words: &str) {
    // Writing to a String cannot fail.
    let _ = writeln!(svg, "<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\">{}</text>", escape(words));
}

/// Names with their colours, in columns.
fn legend(svg: &mut String, left: f64, top: f64, columns: usize, width: f64, names: &[(String, &str, &str)]) {
    for (i, (name, colour, dash)) in names.iter().enumerate() {
        let (x, y) = (left + width * (i % columns) as f64, top + 16.0 * (i / columns) as f64);
        let _ = writeln!(
            svg,
            "<line x1=\"{x:.1}\" x2=\"{:.1}\" y1=\"{:.1}\" y2=\"{:.1}\" stroke=\"{colour}\" stroke-width=\"3\"{dash}/>",
            x + 18.0,
            y - 4.0,
            y - 4.0
        );
        text(svg, x + 23.0, y, "start", name);
    }
}

/// Lowest and highest value, apart from each other.
fn bounds(values: impl Iterator<Item = f64>) -> (f64, f64) {
    let (low, high) = values.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), v| (low.min(v), high.max(v)));
    match (low.is_finite(), high > low) {
        (true, true) => (low, high),
        (true, false) => (low - 0.5, high + 0.5),
        (false, _) => (0.0, 1.0),
    }
}

/// Three to eight round numbers between two others.
fn ticks(low: f64, high: f64) -> Vec<f64> {
    let widest = (high - low) / 3.0;
    let unit = 10f64.powf(widest.log10().floor());
    let step = [5.0, 2.0].into_iter().map(|factor| factor * unit).find(|&step| step <= widest).unwrap_or(unit);
    let first = (low / step).ceil() as i64;
    (first..).map(|i| i as f64 * step).take_while(|&tick| tick <= high + step * 1e-9).collect()
}

/// A number in few digits.
pub fn short(value: f64) -> String {
    let text = format!("{value:.4}");
    text.trim_end_matches('0').trim_end_matches('.').to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_round_and_inside() {
        assert_eq!(ticks(0.0, 1.0).iter().map(|&t| short(t)).collect::<Vec<_>>(), ["0", "0.2", "0.4", "0.6", "0.8", "1"]);
        assert_eq!(ticks(1.0, 10.0), [2.0, 4.0, 6.0, 8.0, 10.0]);
        assert_eq!(bounds([2.0, 2.0].into_iter()), (1.5, 2.5));
        assert_eq!(bounds(std::iter::empty()), (0.0, 1.0));
    }

    #[test]
    fn names_cannot_break_out() {
        let rows = vec![vec!["a \"b\", c".to_string(), "1".into()]];
        let figure =
            Figure { id: "x".into(), title: "t".into(), svg: "<svg width=\"30\">".into(), columns: vec!["name", "n"], rows };
        assert_eq!(figure.csv(), "name,n\n\"a \"\"b\"\", c\",1\n");
        assert!(figure.file().starts_with("<svg style=") && figure.width() == 30.0);
        assert_eq!(escape("<a b=\"c\">&"), "&lt;a b=&quot;c&quot;&gt;&amp;");
    }
}
