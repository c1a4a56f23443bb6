//! Masks: which weights of a parameter are kept.

use std::collections::BTreeMap;
use std::sync::Arc;

/// One flag per weight, in the order of the parameter: true if it is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mask(pub Vec<bool>);

impl Mask {
    /// The number of kept weights.
    pub fn kept(&self) -> usize {
        self.0.iter().filter(|&&kept| kept).count()
    }

    /// Prunes what `other` prunes as well. Both have the same length.
    pub fn intersect(&mut self, other: &Mask) {
        self.0.iter_mut().zip(&other.0).for_each(|(kept, &other)| *kept &= other);
    }

    /// Sets pruned weights to exactly 0.0.
    pub fn apply(&self, weights: &mut [f32]) {
        weights.iter_mut().zip(&self.0).for_each(|(weight, &kept)| *weight = if kept { *weight } else { 0.0 });
    }
}

/// Masks by parameter name. A parameter without one is dense. Cloning copies no masks.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MaskTable(BTreeMap<String, Arc<Mask>>);

impl MaskTable {
    /// Sets the mask of a parameter.
    pub fn insert(&mut self, name: String, mask: Mask) {
        self.0.insert(name, Arc::new(mask));
    }

    /// Removes the mask of a parameter.
    pub fn remove(&mut self, name: &str) {
        self.0.remove(name);
    }

    /// The mask of a parameter.
    pub fn get(&self, name: &str) -> Option<&Mask> {
        self.0.get(name).map(|mask| &**mask)
    }

    /// The mask of a parameter, shared.
    pub fn shared(&self, name: &str) -> Option<Arc<Mask>> {
        self.0.get(name).cloned()
    }

    /// All masks, by name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Mask)> {
        self.0.iter().map(|(name, mask)| (name.as_str(), &**mask))
    }
}
