//! The order in which channels go.

use crate::structure::coupling::{Coupling, Use};
use crate::table::Entry;
use std::collections::HashMap;

/// The order in which units go, by their scores: indices of `scores`, the first to go first. Each of `groups` holds the units of
/// coupled layers.
#[doc(hidden)]
pub type Order = fn(scores: &[f64], groups: &[Vec<usize>]) -> Vec<usize>;

/// All allocations of channels.
pub static CHANNEL_ALLOCATIONS: &[Entry<Order>] = &[
    Entry { name: "global", about: "one threshold for all scores", paper: "baseline", options: &[], build: by_score },
    Entry {
        name: "uniform",
        about: "the same share of every group of coupled layers",
        paper: "baseline",
        options: &[],
        build: by_rank,
    },
];

/// The open units of coupled layers, one list per group of layers.
pub(super) fn groups(coupling: &Coupling, open: &[usize]) -> Vec<Vec<usize>> {
    let layers: Vec<&Use> = coupling.outputs().collect();
    let mut group_of: Vec<usize> = (0..layers.len()).collect();
    let mut first_with: HashMap<usize, usize> = HashMap::new();
    for (index, layer) in layers.iter().enumerate() {
        for unit in &layer.units {
            let other = *first_with.entry(*unit).or_insert(index);
            let (from, to) = (group_of[index].max(group_of[other]), group_of[index].min(group_of[other]));
            group_of.iter_mut().filter(|group| **group == from).for_each(|group| *group = to);
        }
    }
    let mut groups: Vec<Vec<usize>> = vec![Vec::new(); layers.len()];
    for &unit in open {
        groups[group_of[first_with[&unit]]].push(unit);
    }
    groups.retain(|group| !group.is_empty());
    groups
}

fn by_score(scores: &[f64], groups: &[Vec<usize>]) -> Vec<usize> {
    let mut order: Vec<usize> = groups.concat();
    order.sort_by(|&a, &b| scores[a].total_cmp(&scores[b]).then(a.cmp(&b)));
    order
}

/// By rank as a share of the group: the lowest of each group first.
fn by_rank(scores: &[f64], groups: &[Vec<usize>]) -> Vec<usize> {
    let mut ranked: Vec<(f64, usize)> = Vec::new();
    for group in groups {
        let order = by_score(scores, std::slice::from_ref(group));
        let size = order.len() as f64;
        ranked.extend(order.into_iter().enumerate().map(|(rank, unit)| ((rank + 1) as f64 / size, unit)));
    }
    ranked.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
    ranked.into_iter().map(|(_, unit)| unit).collect()
}
