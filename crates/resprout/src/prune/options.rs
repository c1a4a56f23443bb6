//! Options and results of pruning.

use crate::allocation::{ALLOCATIONS, Allocation, Measured};
use crate::criteria::{CRITERIA, Criterion, GIVEN, Given};
use crate::error::{Error, Result};
use crate::model::{LeftDense, Prunable, PrunableRule};
use crate::structure::Pattern;
use crate::table;
use std::sync::Arc;

/// How a model is pruned. By default: 80 % of the single weights, by [`Magnitude`](crate::criteria::Magnitude) and
/// [`Lamp`](crate::allocation::Lamp).
#[derive(Clone, Debug)]
pub struct PruneOptions {
    /// Share of the prunable weights to remove, in `[0, 1)`.
    pub sparsity: f64,
    /// A row of [`CRITERIA`] with options, such as `wanda:rows=4096`, or [`GIVEN`] and the file of scores.
    pub criterion: String,
    /// A row of [`ALLOCATIONS`] with options, such as `erk:power=2`. [`Pattern::Nm`] does not read it.
    pub allocation: String,
    /// Which layers are pruned.
    pub rule: PrunableRule,
    /// Layers with a sparsity of their own, in `[0, 1)`: a name as in [`PrunableRule::ignore`], and the sparsity. The other
    /// layers share the rest, so that `sparsity` still holds for all.
    pub layers: Vec<(String, f64)>,
    /// The least number of weights that a layer keeps, or all it has; 0 for no floor.
    pub min_per_layer: usize,
    /// The least number of weights that an output channel keeps, or all it has; 0 for no floor.
    pub min_per_channel: usize,
    /// Seed of random criteria.
    pub seed: u64,
    /// Which weights go together. For channels, `criterion` is a row of
    /// [`CHANNEL_CRITERIA`](crate::prune::channel::CHANNEL_CRITERIA) and `allocation` one of
    /// [`CHANNEL_ALLOCATIONS`](crate::prune::channel::CHANNEL_ALLOCATIONS).
    pub pattern: Pattern,
    /// For channels: the share of the multiply-accumulates to leave, in `(0, 1]`, in place of the sparsity.
    pub macs: Option<f64>,
    /// Methods of the caller. They take precedence over the rows; the names above then only serve messages.
    pub own: OwnMethods,
}

/// Methods of the caller, in place of rows of the tables. They prune single weights; channels take rows alone.
#[doc(hidden)]
#[derive(Clone, Default)]
pub struct OwnMethods {
    /// Scores weights.
    pub criterion: Option<Arc<dyn Criterion>>,
    /// Decides how many weights each layer keeps.
    pub allocation: Option<Arc<dyn Allocation>>,
}

impl std::fmt::Debug for OwnMethods {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let OwnMethods { criterion, allocation } = self;
        f.debug_struct("OwnMethods").field("criterion", &criterion.is_some()).field("allocation", &allocation.is_some()).finish()
    }
}

impl Default for PruneOptions {
    fn default() -> PruneOptions {
        PruneOptions {
            sparsity: 0.8,
            criterion: "magnitude".into(),
            allocation: "lamp".into(),
            rule: PrunableRule::default(),
            layers: Vec::new(),
            min_per_layer: 0,
            min_per_channel: 0,
            seed: 0,
            pattern: Pattern::Unstructured,
            macs: None,
            own: OwnMethods::default(),
        }
    }
}

impl PruneOptions {
    /// Fails if pruning without images cannot use these options. It serves as an early check, for all patterns but channels.
    ///
    /// # Errors
    /// Of kind `Option`, and the errors of a file of scores.
    pub fn check_without_images(&self) -> Result<()> {
        check_sparsity(self.sparsity, "sparsity")?;
        if self.build_criterion()?.needs_images() {
            let name = row_name(&self.criterion);
            return Err(Error::option(format!("criterion {name}: needs calibration images, and there are none")));
        }
        if self.measures() {
            return Err(Error::option("allocation measured: needs calibration images, and there are none"));
        }
        self.build_allocation().map(drop)
    }

    /// Whether the allocation is [`Measured`], which takes images.
    pub(crate) fn measures(&self) -> bool {
        row_name(&self.allocation) == Measured::NAME
            && self.own.allocation.is_none()
            && matches!(self.pattern, Pattern::Unstructured | Pattern::Mixed { .. })
    }

    /// Whether scores come from outside of this library, so that they are checked.
    pub(super) fn has_foreign_scores(&self) -> bool {
        self.own.criterion.is_some() || self.criterion.starts_with(GIVEN)
    }

    pub(super) fn build_criterion(&self) -> Result<Arc<dyn Criterion>> {
        if let Some(own) = &self.own.criterion {
            return Ok(own.clone());
        }
        if let Some(given) = Given::read(&self.criterion)? {
            return Ok(Arc::new(given));
        }
        let (entry, options) = table::find(CRITERIA, "criterion", &self.criterion)?;
        Ok((entry.build)(&options, self.seed)?.into())
    }

    pub(super) fn build_allocation(&self) -> Result<Arc<dyn Allocation>> {
        if let Some(own) = &self.own.allocation {
            return Ok(own.clone());
        }
        let (entry, options) = table::find(ALLOCATIONS, "allocation", &self.allocation)?;
        Ok((entry.build)(&options)?.into())
    }
}

/// The name of a row, without the options behind it.
fn row_name(text: &str) -> &str {
    text.split(':').next().unwrap_or_default()
}

/// What was pruned.
#[derive(Clone, Debug)]
pub struct PruneOutcome {
    /// The layers that could be pruned, in order.
    pub layers: Vec<Prunable>,
    /// The number of kept weights of each of these layers.
    pub kept: Vec<usize>,
    /// Weights that were left dense, each with the reason.
    pub left_dense: Vec<LeftDense>,
}

impl PruneOutcome {
    /// The share of the weights of these layers that is pruned.
    pub fn sparsity(&self) -> f64 {
        let all: usize = self.layers.iter().map(Prunable::len).sum();
        1.0 - self.kept.iter().sum::<usize>() as f64 / (all as f64).max(1.0)
    }
}

/// Fails unless the sparsity lies in `[0, 1)`. `option` is its name in the message.
///
/// # Errors
/// Of kind `Option`.
#[doc(hidden)]
pub fn check_sparsity(sparsity: f64, option: &str) -> Result<()> {
    if !(0.0..1.0).contains(&sparsity) {
        return Err(Error::option(format!("{option} {sparsity}: a number from 0 up to, but not including, 1 is needed")));
    }
    Ok(())
}
