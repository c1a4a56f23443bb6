//! Networks by latency and accuracy: one file, no network.

use super::cells;
use super::figure::lines::{Line, chart};
use super::plain_page::{html_figure, html_list, html_table, plain_page};
use crate::reports::compare::Compared;

/// The page; `None` where no row has a time together with a measure of quality.
pub fn page(rows: &[Compared], notes: &[String]) -> Option<String> {
    let (name, points) = points(rows)?;
    let title = format!("{name} by latency");
    let lines: Vec<Line> = [frontier(&points)].into_iter().chain(points.iter().map(single)).collect();
    let picture = chart(&title, "milliseconds", &format!("{name} (%)"), &lines);
    let body = html_figure(&format!("{title}; dashed: the networks that no other one beats in both"), &picture)
        + &html_table(&cells::compared(rows))
        + &html_list("Notes", notes);
    Some(plain_page(&title, &title, "", &body))
}

/// A row by name, milliseconds and percent.
type Point<'a> = (&'a str, f64, f64);

/// Accuracy, where any row with a time has it; agreement with the dense network otherwise.
fn points(rows: &[Compared]) -> Option<(&'static str, Vec<Point<'_>>)> {
    let of = |quality: fn(&Compared) -> Option<f64>| -> Vec<Point<'_>> {
        rows.iter().filter_map(|row| Some((row.name.as_str(), row.milliseconds?, 100.0 * quality(row)?))).collect()
    };
    let accuracy = of(|row| row.top1);
    if !accuracy.is_empty() {
        return Some(("Accuracy", accuracy));
    }
    // The dense network, which nothing is compared with, agrees with itself.
    let agreement = of(|row| row.agreement.or((row.sparsity == Some(0.0)).then_some(1.0)));
    rows.iter().any(|row| row.milliseconds.is_some() && row.agreement.is_some()).then_some(("Agreement", agreement))
}

fn single(&(name, x, y): &Point) -> Line {
    Line { name: name.into(), points: vec![(x, y)], ..Line::default() }
}

/// From the fastest network to the best one.
fn frontier(points: &[Point]) -> Line {
    let mut sorted = points.to_vec();
    sorted.sort_by(|a, b| a.1.total_cmp(&b.1).then(b.2.total_cmp(&a.2)));
    let mut best = f64::NEG_INFINITY;
    let mut kept = Vec::new();
    for (_, x, y) in sorted {
        if y > best {
            kept.push((x, y));
            best = y;
        }
    }
    Line { name: "frontier".into(), points: kept, reference: true, ..Line::default() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slower_and_worse_networks_are_off_the_frontier() {
        let points = [("dense", 4.0, 92.0), ("worse", 3.0, 80.0), ("good", 2.0, 91.0), ("fast", 1.0, 70.0)];
        assert_eq!(frontier(&points).points, [(1.0, 70.0), (2.0, 91.0), (4.0, 92.0)]);
    }

    #[test]
    fn rows_without_a_time_are_in_the_table_alone() {
        let row = |name: &str, milliseconds, top1| Compared { name: name.into(), milliseconds, top1, ..Compared::default() };
        let page = |rows: &[Compared]| page(rows, &["a note".into()]);
        assert!(page(&[row("a", Some(1.0), None), row("b", None, Some(0.9))]).is_none());
        let text = page(&[row("a", Some(1.0), Some(0.5)), row("untimed", None, Some(0.9))]).unwrap();
        assert!(page(&[Compared { sparsity: Some(0.0), ..row("dense", Some(1.0), None) }]).is_none());
        let (picture, table) = text.split_once("</svg>").unwrap();
        assert!(picture.contains(">a<") && !picture.contains("untimed") && table.contains("untimed") && table.contains("a note"));
    }
}
