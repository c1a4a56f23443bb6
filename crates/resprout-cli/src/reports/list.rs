//! Rows of the tables that `list` shows.

use serde::Serialize;

/// One row of a table.
#[derive(Serialize)]
pub struct ListRow {
    pub name: &'static str,
    pub about: &'static str,
    pub paper: &'static str,
    pub options: Vec<OptionRow>,
}

/// An option of a row.
#[derive(Serialize)]
pub struct OptionRow {
    pub name: &'static str,
    pub about: &'static str,
    pub default: &'static str,
}
