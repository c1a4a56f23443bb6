//! Aligned columns.

use crate::render::cells::Cells;

/// Prints cells as [`table`] does.
pub fn cells(cells: &Cells) {
    table(&cells.header, &cells.rows);
}

/// Prints rows under a header: text to the left, numbers (all columns but the first) to the right.
pub fn table(header: &[&str], rows: &[Vec<String>]) {
    let width =
        |column: usize| rows.iter().map(|row| row[column].chars().count()).chain([header[column].len()]).max().unwrap_or(0);
    let widths: Vec<usize> = (0..header.len()).map(width).collect();
    let line = |cells: &[String]| {
        let cell = |(i, text): (usize, &String)| {
            if i == 0 { format!("{text:<0$}", widths[0]) } else { format!("{text:>0$}", widths[i]) }
        };
        outln!("  {}", cells.iter().enumerate().map(cell).collect::<Vec<_>>().join("  ").trim_end());
    };
    line(&header.iter().map(|name| name.to_string()).collect::<Vec<_>>());
    rows.iter().for_each(|row| line(row));
}
