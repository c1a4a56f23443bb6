//! Criteria: how much each weight matters. Higher scores are kept.

mod given;
mod magnitude;
mod obs;
mod random;
mod rms;
mod table;
mod wanda;

use crate::calibrate::{Needs, Visitor, WeightSite, walk};
use crate::error::{Error, Result};
use crate::model::{Model, Prunable};
use crate::progress::Progress;
use crate::table::Options;
use crate::tensor::Tensor;
use std::collections::HashMap;
use std::sync::Mutex;

pub(crate) use given::Given;
pub use given::{GIVEN, pinned};
pub use magnitude::Magnitude;
pub use rms::Rms;
pub use table::CRITERIA;

/// One layer's weights, as a criterion sees them.
pub struct ScoreInput<'a> {
    /// The weights, flat, in the order of the file.
    pub weights: &'a [f32],
    /// The layer: name, shape, and which axis has the output channels.
    pub layer: &'a Prunable,
    /// The layer's position among the prunable ones.
    pub index: usize,
}

/// Scores weights. Pure: the same input gives the same scores on every machine.
pub trait Criterion: Send + Sync {
    /// Whether it scores with calibration images ([`Self::score_site`]) or by the weights alone ([`Self::score`]).
    fn needs_images(&self) -> bool {
        false
    }

    /// One score per weight, finite and not negative.
    fn score(&self, _layer: &ScoreInput) -> Vec<f64> {
        Vec::new()
    }

    /// The scores by the values at the layer, in the order of the site's rows; `None` where the layer's inputs are unknown.
    fn score_site(&self, _site: &WeightSite) -> Result<Option<Vec<f64>>> {
        Ok(None)
    }
}

/// Builds a criterion from its options and the seed.
pub type Build = fn(&Options, u64) -> Result<Box<dyn Criterion>>;

/// Scores every layer in one walk of the images through `model`.
pub(crate) fn score_with_images(
    criterion: &dyn Criterion,
    model: &Model,
    layers: &[Prunable],
    images: &Tensor,
    progress: &dyn Progress,
) -> Result<Vec<Vec<f64>>> {
    let scorer = Scorer { criterion, scores: Mutex::default() };
    // The scorer changes nothing, but the walk takes a mutable model.
    let mut model = model.clone();
    let unchanged = model.clone();
    walk(&mut model, &unchanged, images, &[&scorer], "score", progress)?;
    let mut scores = scorer.scores.into_inner().unwrap_or_default();
    let of_layer = |layer: &Prunable| {
        let missing = || {
            Error::unsupported(format!("layer {:?}: its inputs cannot be measured; ignore it or score by weights", layer.layer))
        };
        scores.remove(&layer.layer).ok_or_else(missing)
    };
    layers.iter().map(of_layer).collect()
}

/// Scores every layer by the criterion, and changes nothing.
struct Scorer<'c> {
    criterion: &'c dyn Criterion,
    scores: Mutex<HashMap<String, Vec<f64>>>,
}

impl Visitor for Scorer<'_> {
    fn needs(&self) -> Needs {
        Needs { images: true, weights: true, ..Needs::default() }
    }

    fn weights(&self, site: &mut WeightSite) -> Result<()> {
        if let Some(scores) = self.criterion.score_site(site)? {
            let stored = site.in_file_order(&scores);
            if let Ok(mut all) = self.scores.lock() {
                all.insert(site.name.to_string(), stored);
            }
        }
        Ok(())
    }
}

/// A layer of so many weights, for tests of criteria that do not look at it.
#[cfg(test)]
fn layer_of(count: usize) -> Prunable {
    Prunable { param: "weight".into(), layer: "layer".into(), shape: vec![count], out_axis: 0 }
}
