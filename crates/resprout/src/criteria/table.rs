//! The table of criteria.

use super::{Build, magnitude, obs, random, rms, wanda};
use crate::table::Entry;

/// All criteria for single weights. Channels have
/// [`CHANNEL_CRITERIA`](crate::prune::channel::CHANNEL_CRITERIA).
pub static CRITERIA: &[Entry<Build>] = &[magnitude::ENTRY, rms::ENTRY, random::ENTRY, wanda::ENTRY, obs::ENTRY];
