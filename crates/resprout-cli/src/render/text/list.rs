//! Every table of methods.

use crate::reports::list::ListRow;

/// The tables by name, and the instruction sets of this CPU.
pub fn list(tables: &[(&str, Vec<ListRow>)], isas: &[&str]) {
    for (table, rows) in tables {
        outln!("{table}");
        rows.iter().for_each(row);
    }
    outln!("instruction sets that this CPU has, best first: {}", isas.join(", "));
}

fn row(row: &ListRow) {
    outln!("  {:20} {}", row.name, row.about);
    if !row.paper.is_empty() {
        outln!("  {:20} [{}]", "", row.paper);
    }
    for option in &row.options {
        outln!("  {:20} :{}=  {} (default {})", "", option.name, option.about, option.default);
    }
}
