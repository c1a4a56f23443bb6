//! Options of images and their preprocessing.

use clap::Args;
use std::num::NonZeroUsize;

#[derive(Args, Debug, Clone)]
pub struct ImageArgs {
    /// Labels of --data: auto (class folders, labels.csv, fields of the file), none, or a .csv, .npy or IDX file
    #[arg(long, default_value = "auto", value_name = "WHERE")]
    pub labels: String,
    /// Measure on this many images, from the first on [default: all]
    #[arg(long, value_name = "N")]
    pub limit: Option<NonZeroUsize>,
    /// Preprocessing (see `resprout list`) [default: chosen by the model's input, and reported]
    #[arg(long, value_name = "NAME")]
    pub preset: Option<String>,
    /// Mean per channel, after scaling
    #[arg(long, value_name = "M,..", value_delimiter = ',', allow_hyphen_values = true)]
    pub mean: Option<Vec<f32>>,
    /// Standard deviation per channel, after scaling
    #[arg(long, value_name = "D,..", value_delimiter = ',')]
    pub std: Option<Vec<f32>>,
    /// Factor of every pixel, before mean and deviation
    #[arg(long, value_name = "F")]
    pub scale: Option<f32>,
    /// Resize the shorter side to this many pixels first; 0 for no resize
    #[arg(long, value_name = "PIXELS")]
    pub resize: Option<usize>,
    /// Then cut out the centre: SIZE or HEIGHTxWIDTH; 0 for no crop
    #[arg(long, value_name = "SIZE")]
    pub crop: Option<String>,
}

/// A number of calibration images, or as many as it takes.
#[derive(Clone, Copy, Debug)]
pub enum CalibrationCount {
    Auto,
    Exactly(NonZeroUsize),
}

impl std::str::FromStr for CalibrationCount {
    type Err = String;

    fn from_str(text: &str) -> Result<CalibrationCount, String> {
        match text {
            "auto" => Ok(CalibrationCount::Auto),
            _ => text.parse().map(CalibrationCount::Exactly).map_err(|_| "a number from 1 on, or auto, is needed".into()),
        }
    }
}

impl std::fmt::Display for CalibrationCount {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            CalibrationCount::Auto => f.write_str("auto"),
            CalibrationCount::Exactly(count) => count.fmt(f),
        }
    }
}
