//! What is asked for, and what was done.

use super::{channel, check_sparsity};
use crate::allocation::{ALLOCATIONS, Allocation};
use crate::criteria::{CRITERIA, Criterion};
use crate::error::{Error, Result};
use crate::model::{LeftDense, Prunable, PrunableRule};
use crate::structure::Pattern;
use crate::table;
use std::sync::Arc;

/// What is asked for.
#[derive(Clone, Debug)]
pub struct PruneOptions {
    /// Share of the prunable weights to remove, in `[0, 1)`.
    pub sparsity: f64,
    /// A row of [`CRITERIA`], with options.
    pub criterion: String,
    /// A row of [`ALLOCATIONS`], with options.
    pub allocation: String,
    /// Which layers are taken.
    pub rule: PrunableRule,
    /// Layers with a sparsity of their own: name or `re:` pattern, sparsity.
    pub layers: Vec<(String, f64)>,
    /// Every layer keeps at least this many weights (or all it has).
    pub min_per_layer: usize,
    /// Every output channel keeps at least this many weights (or all it has).
    pub min_per_channel: usize,
    /// For criteria that draw random numbers.
    pub seed: u64,
    /// Which weights go together. For channels, criterion and allocation are rows of
    /// [`CHANNEL_CRITERIA`](crate::prune::channel::CHANNEL_CRITERIA) and
    /// [`CHANNEL_ALLOCATIONS`](crate::prune::channel::CHANNEL_ALLOCATIONS).
    pub pattern: Pattern,
    /// For channels: remove until this share of the operations is left, instead of by sparsity.
    pub macs: Option<f64>,
    /// Methods that are no rows of a table; the names above only say what they are then.
    pub own: OwnMethods,
}

/// Methods of the caller's own, instead of rows of the tables.
#[derive(Clone, Default)]
pub struct OwnMethods {
    /// Scores weights.
    pub criterion: Option<Arc<dyn Criterion>>,
    /// Decides how many each layer keeps.
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
    /// Fails on what no pruning without images can do, before the work that leads up to it.
    pub fn check_without_images(&self) -> Result<()> {
        check_sparsity(self.sparsity, "--sparsity")?;
        if self.build_criterion()?.needs_images() {
            let name = self.criterion.split(':').next().unwrap_or_default();
            return Err(Error::option(format!("--criterion {name}: needs calibration images, which there are none of here")));
        }
        self.build_allocation().map(drop)
    }

    /// Whether the criterion scores by calibration images.
    pub fn needs_images(&self) -> Result<bool> {
        match self.pattern {
            Pattern::Channel => Ok(channel::find(&self.criterion)?.needs_images),
            _ => Ok(self.build_criterion()?.needs_images()),
        }
    }

    pub(super) fn build_criterion(&self) -> Result<Arc<dyn Criterion>> {
        if let Some(own) = &self.own.criterion {
            return Ok(own.clone());
        }
        let (entry, options) = table::find(CRITERIA, "--criterion", &self.criterion)?;
        Ok((entry.build)(&options, self.seed)?.into())
    }

    pub(super) fn build_allocation(&self) -> Result<Arc<dyn Allocation>> {
        if let Some(own) = &self.own.allocation {
            return Ok(own.clone());
        }
        let (entry, options) = table::find(ALLOCATIONS, "--allocation", &self.allocation)?;
        Ok((entry.build)(&options)?.into())
    }
}

/// What was done.
#[derive(Clone, Debug)]
pub struct PruneOutcome {
    /// The pruned layers, in order.
    pub layers: Vec<Prunable>,
    /// Kept weights per pruned layer.
    pub kept: Vec<usize>,
    /// Layers with weights that were left dense.
    pub left_dense: Vec<LeftDense>,
}
