//! What a search has measured, kept in a file, so that an interrupted search goes on.

use super::{Candidate, Cost, Loss};
use crate::error::{Error, Result};
use crate::formats::atomic;
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

/// How thoroughly a network was repaired.
#[doc(hidden)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stage {
    /// Few images, one step.
    Estimate,
    /// All images, in steps.
    Full,
}

/// A measured network.
#[doc(hidden)]
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Row {
    /// What was pruned.
    pub candidate: Candidate,
    /// The repair.
    pub repair: String,
    /// Steps of pruning and repair.
    pub steps: usize,
    /// How thoroughly it was repaired.
    pub stage: Stage,
    /// What it costs.
    pub cost: Cost,
    /// What it loses on images to choose by.
    pub loss: Loss,
    /// Seconds of pruning and repair.
    pub seconds: f64,
}

#[derive(Serialize, Deserialize)]
struct Stored {
    key: String,
    rows: Vec<Row>,
}

/// The rows of a search, in a file.
#[doc(hidden)]
pub struct Rows {
    file: PathBuf,
    key: String,
    rows: Vec<Row>,
}

impl Rows {
    /// Reads the rows of an earlier run, if there are any. `key` identifies everything that they depend on.
    ///
    /// # Errors
    /// Of kind `Option` if the file is that of another search.
    pub fn open(file: &Path, key: &str) -> Result<Rows> {
        let mut rows = Rows { file: file.into(), key: key.into(), rows: Vec::new() };
        let bytes = match std::fs::read(file) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(rows),
            Err(error) => return Err(Error::io(file, error)),
        };
        let stored: Stored = serde_json::from_slice(&bytes).map_err(|e| Error::format(format!("{}: {e}", file.display())))?;
        if stored.key != key {
            return Err(Error::option(format!(
                "{}: holds a search with another model, other images or other options; remove it or name another folder",
                file.display()
            )));
        }
        rows.rows = stored.rows;
        Ok(rows)
    }

    /// All rows, in the order of their measurement.
    pub fn all(&self) -> &[Row] {
        &self.rows
    }

    /// A row with the same candidate, repair and stage, and with no fewer steps.
    pub fn find(&self, candidate: &Candidate, repair: &str, stage: Stage, steps: usize) -> Option<usize> {
        let same = |row: &Row| row.candidate == *candidate && row.repair == repair && row.stage == stage;
        self.rows.iter().position(|row| same(row) && row.steps >= steps)
    }

    /// Appends a row and stores it at once. Returns its index.
    pub fn push(&mut self, row: Row) -> Result<usize> {
        self.rows.push(row);
        let stored = Stored { key: self.key.clone(), rows: std::mem::take(&mut self.rows) };
        let text = serde_json::to_vec(&stored).map_err(|e| Error::data(e.to_string()));
        self.rows = stored.rows;
        atomic::write(&self.file, &text?)?;
        Ok(self.rows.len() - 1)
    }
}
