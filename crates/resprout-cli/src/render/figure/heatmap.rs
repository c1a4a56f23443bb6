//! A table of numbers from 0 to 1 as colours.

use super::colour;
use super::drawing::{Anchor, Drawing, Paint, Shape};

/// Rows, columns and what stands in the cells.
pub struct Heatmap {
    pub rows: Vec<String>,
    pub columns: Vec<String>,
    pub column_name: String,
    /// `[row][column]`
    pub cells: Vec<Vec<Option<HeatmapCell>>>,
    /// Names of the colours, where cells are of kinds.
    pub kinds: Vec<String>,
}

/// One cell.
pub struct HeatmapCell {
    /// How strong the colour is, from 0 to 1.
    pub share: f64,
    /// Which colour, by its place in [`Heatmap::kinds`].
    pub kind: usize,
    /// Written into the cell where there is room.
    pub words: String,
}

const TOP: f64 = 8.0;
/// Roughly the width of a letter.
const LETTER: f64 = 6.2;

/// The heatmap with its labels.
pub fn heatmap(title: &str, map: &Heatmap) -> Drawing {
    let left = 12.0 + LETTER * map.rows.iter().map(|name| name.chars().count()).max().unwrap_or(0) as f64;
    let cell_width = (900.0 / map.columns.len().max(1) as f64).clamp(26.0, 64.0);
    let cell_height = if map.rows.len() > 24 { 12.0 } else { 20.0 };
    let (width, height) = (cell_width * map.columns.len() as f64, cell_height * map.rows.len() as f64);
    let below = if map.kinds.is_empty() { 0.0 } else { 22.0 };
    let mut sheet = Drawing::new((left + width + 12.0).max(420.0), TOP + height + 36.0 + below, title);
    for (r, (name, cells)) in map.rows.iter().zip(&map.cells).enumerate() {
        let y = TOP + cell_height * r as f64;
        let base = y + cell_height / 2.0 + 4.0;
        sheet.text(left - 6.0, base, Anchor::End, name);
        for (c, cell) in cells.iter().enumerate() {
            let x = left + cell_width * c as f64;
            let Some(cell) = cell else {
                sheet.text(x + cell_width / 2.0, base, Anchor::Middle, "-");
                continue;
            };
            let hint = format!("{name}, {}: {}", map.columns.get(c).map_or("", String::as_str), cell.words);
            let paint = Paint { opacity: cell.share.clamp(0.0, 1.0) * 0.75, ..Paint::new(colour(cell.kind)) };
            sheet.shapes.push(Shape::Box { corner: (x, y), size: (cell_width - 1.0, cell_height - 1.0), paint, hint });
            if cell_height > 14.0 && cell.words.chars().count() as f64 * LETTER < cell_width + 4.0 {
                sheet.text(x + cell_width / 2.0, base, Anchor::Middle, &cell.words);
            }
        }
    }
    for (c, name) in map.columns.iter().enumerate() {
        sheet.text(left + cell_width * (c as f64 + 0.5), TOP + height + 14.0, Anchor::Middle, name);
    }
    sheet.text(left + width, TOP + height + 30.0, Anchor::End, &map.column_name);
    let names: Vec<(String, Paint)> =
        map.kinds.iter().enumerate().map(|(i, name)| (name.clone(), Paint::new(colour(i)))).collect();
    sheet.legend(8.0, TOP + height + 50.0, names.len().max(1), 130.0, &names);
    sheet
}
