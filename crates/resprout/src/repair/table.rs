//! The table of repairs.

use super::{Rows, asr, batch_norm, bias, channelwise, layerwise, least_squares, none, stats};

/// The repairs of this crate.
pub static REPAIRS: Rows = &[
    none::ENTRY,
    batch_norm::ENTRY,
    bias::ENTRY,
    layerwise::ENTRY,
    channelwise::ENTRY,
    asr::ENTRY,
    stats::ENTRY,
    least_squares::ENTRY,
];
