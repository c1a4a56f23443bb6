//! Criteria: how much each weight matters. Higher scores are kept.
//!
//! [`CRITERIA`] has a row per criterion. Your own implements [`Criterion`]:
//!
//! ```
//! use resprout::criteria::{Criterion, ScoreInput};
//! use resprout::sparsify::{Budget, Sparsify};
//! use resprout::{model::Model, tensor::Tensor};
//!
//! /// The square of the weight.
//! struct Energy;
//!
//! impl Criterion for Energy {
//!     fn score(&self, layer: &ScoreInput) -> Vec<f64> {
//!         layer.weights.iter().map(|w| f64::from(*w).powi(2)).collect()
//!     }
//! }
//!
//! # fn main() -> resprout::Result<()> {
//! # let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../resprout-cli/assets");
//! let dense = Model::open(folder.join("digits.onnx"))?;
//! let no_images = Tensor::default(); // this criterion needs none
//! let sparse = Sparsify::new(Budget::sparsity(0.9)).criterion(Energy).run(&dense, &no_images)?;
//! assert_eq!(sparse.outcome.kept.iter().sum::<usize>(), 7707);
//! # Ok(())
//! # }
//! ```

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
    /// The weights, flat and row-major in the shape of `layer`.
    pub weights: &'a [f32],
    /// The layer: name, shape, and which axis of the shape has the output channels.
    pub layer: &'a Prunable,
    /// The layer's position among the prunable ones, from 0 on.
    pub index: usize,
}

/// Scores weights. Pure: the same input gives the same scores on every machine.
///
/// Implement [`score`](Self::score) for a criterion by the weights alone. For one that measures the layer's inputs and outputs
/// on calibration images, implement [`needs_images`](Self::needs_images) and [`score_site`](Self::score_site).
///
/// Scores are finite and not negative, and as many as weights; anything else is an error of kind `Data`. The scale matters
/// where an allocation compares layers, as [`Global`](crate::allocation::Global) does.
pub trait Criterion: Send + Sync {
    /// Whether it scores with calibration images ([`Self::score_site`]) or by the weights alone ([`Self::score`]).
    fn needs_images(&self) -> bool {
        false
    }

    /// One score per weight, in the order of [`ScoreInput::weights`].
    fn score(&self, _layer: &ScoreInput) -> Vec<f64> {
        Vec::new()
    }

    /// One score per weight by the values at the layer, in the order of
    /// [`WeightRows::data`](crate::calibrate::WeightRows::data). `None` where they cannot be measured, which is an error of kind
    /// `Unsupported` unless the layer is ignored.
    fn score_site(&self, _site: &WeightSite) -> Result<Option<Vec<f64>>> {
        Ok(None)
    }
}

/// Builds a criterion from its options and the seed of random scores.
#[doc(hidden)]
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
            let (name, weights) = (site.name, site.weights.data.len());
            if scores.len() != weights {
                return Err(Error::data(format!("layer {name:?}: {} scores for {weights} weights", scores.len())));
            }
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
