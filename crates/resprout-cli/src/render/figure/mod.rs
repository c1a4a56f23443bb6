//! Figures as SVG and PDF, with the numbers behind them.

pub mod bars;
mod drawing;
pub mod heatmap;
pub mod lines;
mod pdf;
pub mod ranges;
mod svg;

pub use drawing::Drawing;
use drawing::Ink;
use resprout::Result;
use resprout::formats::atomic;
use std::path::Path;
pub use svg::svg;

/// Colours that stay apart for the colour-blind, on light and on dark (Okabe and Ito, 2008; Tol, 2021).
const COLOURS: [[u8; 3]; 9] = [
    [0x00, 0x72, 0xb2],
    [0xd5, 0x5e, 0x00],
    [0x00, 0x9e, 0x73],
    [0xcc, 0x79, 0xa7],
    [0xe6, 0x9f, 0x00],
    [0x56, 0xb4, 0xe9],
    [0x99, 0x99, 0x33],
    [0xaa, 0x44, 0x66],
    [0x6f, 0x6f, 0xb5],
];

fn colour(index: usize) -> Ink {
    Ink::Rgb(COLOURS[index % COLOURS.len()])
}

/// A picture, and its numbers as a table.
pub struct Figure {
    /// File name without ending.
    pub id: String,
    pub drawing: Drawing,
    /// Names of the numbers.
    pub columns: Vec<&'static str>,
    /// The numbers.
    pub rows: Vec<Vec<String>>,
}

impl Figure {
    /// Writes the picture as SVG, on white, and as PDF, and its numbers as CSV.
    pub fn write(&self, folder: &Path) -> Result<()> {
        let file = |ending: &str, bytes: &[u8]| atomic::write(&folder.join(format!("{}.{ending}", self.id)), bytes);
        let on_white = svg(&self.drawing).replacen("<svg ", "<svg style=\"background:#fff;color:#222\" ", 1) + "\n";
        file("svg", on_white.as_bytes())?;
        file("pdf", &pdf::pdf(&self.drawing))?;
        file("csv", self.csv().as_bytes())
    }

    fn csv(&self) -> String {
        let line = |cells: &mut dyn Iterator<Item = &str>| cells.map(quoted).collect::<Vec<_>>().join(",") + "\n";
        let mut text = line(&mut self.columns.iter().copied());
        self.rows.iter().for_each(|row| text += &line(&mut row.iter().map(String::as_str)));
        text
    }
}

pub fn quoted(cell: &str) -> String {
    if cell.contains(['"', ',', '\n']) { format!("\"{}\"", cell.replace('"', "\"\"")) } else { cell.to_string() }
}

/// Text inside HTML or SVG, or inside an attribute.
pub fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

/// A file name out of words, not too long for a disk: letters, digits and points, all else as single hyphens.
pub fn slug(words: &str) -> String {
    let words: String = words.chars().take(80).collect();
    let kept = words.to_lowercase().replace(|letter: char| !letter.is_alphanumeric() && letter != '.', " ");
    kept.split_whitespace().collect::<Vec<_>>().join("-")
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
        let figure = Figure { id: "x".into(), drawing: Drawing::new(30.0, 20.0, "<t>"), columns: vec!["name", "n"], rows };
        assert_eq!(figure.csv(), "name,n\n\"a \"\"b\"\", c\",1\n");
        assert!(svg(&figure.drawing).contains("&lt;t&gt;"));
        assert_eq!(slug("net/v2.1: LAMP, 90 % <x>"), "net-v2.1-lamp-90-x");
        assert_eq!(escape("<a b=\"c\">&"), "&lt;a b=&quot;c&quot;&gt;&amp;");
    }
}
