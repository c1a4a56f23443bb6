//! What `compress` finds.

use resprout::compress::{Loss, Row, Wish};
use resprout::data::Preprocess;
use resprout::report::FileInfo;
use serde::Serialize;

/// What `compress` finds.
#[derive(Serialize)]
pub struct CompressReport {
    pub schema_version: u32,
    pub tool_version: &'static str,
    pub model: FileInfo,
    pub wish: Wish,
    pub preprocess: Preprocess,
    /// Images that repaired, chose and checked.
    pub images: [usize; 3],
    pub cpu: String,
    pub threads: usize,
    pub batch: usize,
    /// Bytes of the dense network's parameters.
    pub dense_bytes: u64,
    /// Every measured network.
    pub rows: Vec<Row>,
    /// Whether the nearest network keeps the wish, on the images of the final measurement too.
    pub kept: bool,
    /// The row of the network that keeps the wish on the images that it was chosen by, if there is one.
    pub chosen: Option<usize>,
    /// The row that comes closest.
    pub nearest: usize,
    /// The loss of that network on images that nothing was chosen by.
    pub check: Loss,
    /// Whether `check` is accuracy by labels.
    pub labelled: bool,
    /// The commands that make that network again.
    pub commands: Vec<String>,
    pub seconds: f64,
    pub warnings: Vec<String>,
}
