//! The table of repairs.

use super::{Build, asr, batch_norm, bias, channelwise, layerwise, least_squares, none, stats};
use crate::table::Entry;

/// All repairs.
pub static REPAIRS: &[Entry<Build>] = &[
    none::ENTRY,
    batch_norm::ENTRY,
    bias::ENTRY,
    layerwise::ENTRY,
    channelwise::ENTRY,
    asr::ENTRY,
    stats::ENTRY,
    least_squares::ENTRY,
];
