//! What `run` finds.

use resprout::data::Preprocess;
use serde::Serialize;

/// The classes of every image.
#[derive(Serialize)]
pub struct Classified {
    pub schema_version: u32,
    pub tool_version: &'static str,
    pub preprocess: Preprocess,
    /// One per image.
    pub images: Vec<Classes>,
    pub images_per_second: f64,
    pub warnings: Vec<String>,
}

/// The classes of one image.
#[derive(Serialize)]
pub struct Classes {
    pub image: String,
    /// The highest first: class, output.
    pub classes: Vec<(usize, f32)>,
}
