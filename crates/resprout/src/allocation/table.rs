//! The table of allocations.

use super::{Build, erk, global, lamp, measured, uniform, uniform_plus};
use crate::table::Entry;

/// All allocations for single weights. Channels have
/// [`CHANNEL_ALLOCATIONS`](crate::prune::channel::CHANNEL_ALLOCATIONS).
pub static ALLOCATIONS: &[Entry<Build>] =
    &[uniform::ENTRY, uniform_plus::ENTRY, global::ENTRY, erk::ENTRY, lamp::ENTRY, measured::ENTRY];
