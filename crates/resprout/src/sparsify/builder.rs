//! The builder [`Sparsify`]: prune and repair in one expression, with methods of the tables or of the caller.

use super::{Sparsified, SparsifyOptions, in_steps, schedule_of, sparsify};
use crate::allocation::Allocation;
use crate::criteria::Criterion;
use crate::error::{Error, Result};
use crate::model::{Model, PrunableRule};
use crate::progress::{Progress, Quiet};
use crate::prune::PruneOptions;
use crate::prune::channel;
use crate::repair::{AUTO, Chain, Repair, RepairOptions, Rows};
use crate::structure::Pattern;
use crate::tensor::Tensor;
use std::sync::Arc;

/// How much is pruned, and which weights go together. [`Sparsify::run`] checks it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Budget {
    sparsity: Option<f64>,
    macs: Option<f64>,
    pattern: Pattern,
}

impl Budget {
    /// Removes this share of the prunable weights, in `[0, 1)`.
    pub fn sparsity(sparsity: f64) -> Budget {
        Budget { sparsity: Some(sparsity), macs: None, pattern: Pattern::Unstructured }
    }

    /// Leaves this share of the multiply-accumulates, in `(0, 1]`, by pruning whole channels.
    pub fn macs(share: f64) -> Budget {
        Budget { sparsity: None, macs: Some(share), pattern: Pattern::Channel }
    }

    /// Keeps `n` of every `m` neighbours along the input channels, with `1 <= n < m <= 32`. Layers whose input channels are no
    /// multiple of `m` stay dense.
    pub fn n_of_m(n: usize, m: usize) -> Budget {
        Budget { sparsity: None, macs: None, pattern: Pattern::Nm { n, m } }
    }

    /// The same budget in another pattern: a sparsity of whole channels, or of an `n` of `m` for each layer.
    #[must_use]
    pub fn pattern(self, pattern: Pattern) -> Budget {
        Budget { pattern, ..self }
    }

    /// The options of this budget, with the pattern's default criterion and allocation.
    fn prune_options(self) -> Result<PruneOptions> {
        let Budget { sparsity, macs, pattern } = self;
        match pattern {
            Pattern::Nm { n, m } => _ = Pattern::parse(&format!("{n}:{m}"))?,
            Pattern::Mixed { m } => _ = Pattern::parse(&format!("mixed:m={m}"))?,
            Pattern::Unstructured | Pattern::Channel => {}
        }
        let sparsity = match (pattern.sparsity(), sparsity) {
            (Some(own), Some(_)) => return Err(Error::option(format!("a budget of n:m has a sparsity of its own, {own}"))),
            (None, None) if macs.is_none() => return Err(Error::option("a budget of n:m goes with no other pattern")),
            (own, other) => own.or(other).unwrap_or(0.0),
        };
        if macs.is_some() && pattern != Pattern::Channel {
            return Err(Error::option("a budget of multiply-accumulates goes with whole channels"));
        }
        macs.map_or(Ok(()), channel::check_share)?;
        let (criterion, allocation) = pattern.default_methods();
        let (criterion, allocation) = (criterion.into(), allocation.into());
        Ok(PruneOptions { sparsity, macs, pattern, criterion, allocation, ..PruneOptions::default() })
    }
}

/// A method: a row of a table as `name` or `name:option=value:...`, or a method of the caller.
enum Method<T: ?Sized> {
    Row(String),
    Own(&'static str, Box<T>),
}

/// A criterion: text for a row of [`CRITERIA`](crate::criteria::CRITERIA), or anything that implements [`Criterion`].
pub struct AnyCriterion(Method<dyn Criterion>);

/// An allocation: text for a row of [`ALLOCATIONS`](crate::allocation::ALLOCATIONS), or anything that implements [`Allocation`].
pub struct AnyAllocation(Method<dyn Allocation>);

/// A repair: text as [`Chain::parse`] reads it, `auto` included, or anything that implements [`Repair`].
pub struct AnyRepair(Method<dyn Repair>);

impl<T: ?Sized> Method<T> {
    fn name(&self) -> &str {
        match self {
            Method::Row(name) => name,
            Method::Own(name, _) => name,
        }
    }

    /// Its name, and the method itself if it is no row.
    fn split(self) -> (String, Option<Arc<T>>) {
        match self {
            Method::Row(row) => (row, None),
            Method::Own(name, own) => (name.into(), Some(Arc::from(own))),
        }
    }
}

macro_rules! any {
    ($any:ident, $method:ident) => {
        impl From<&str> for $any {
            fn from(row: &str) -> $any {
                $any(Method::Row(row.into()))
            }
        }

        impl<T: $method + 'static> From<T> for $any {
            fn from(own: T) -> $any {
                $any(Method::Own(std::any::type_name::<T>(), Box::new(own)))
            }
        }
    };
}

any!(AnyCriterion, Criterion);
any!(AnyAllocation, Allocation);
any!(AnyRepair, Repair);

/// Prunes and repairs a network: see the example of the [crate](crate). The function [`sparsify()`] does the same by options.
pub struct Sparsify {
    budget: Budget,
    criterion: Option<AnyCriterion>,
    allocation: Option<AnyAllocation>,
    repairs: Vec<AnyRepair>,
    repair_rows: Rows,
    repair_options: RepairOptions,
    rule: PrunableRule,
    seed: u64,
    steps: usize,
    regrow: bool,
}

impl Sparsify {
    /// Begins with the defaults: by [`Magnitude`](crate::criteria::Magnitude) and [`Lamp`](crate::allocation::Lamp) in one step,
    /// without a repair. Whole channels go by their norm, with one threshold for all layers.
    pub fn new(budget: Budget) -> Sparsify {
        Sparsify {
            budget,
            criterion: None,
            allocation: None,
            repairs: Vec::new(),
            repair_rows: &[],
            repair_options: RepairOptions::default(),
            rule: PrunableRule::default(),
            seed: 0,
            steps: 1,
            regrow: false,
        }
    }

    /// How much each weight matters: a row as text (`"wanda:rows=4096"`), a type, or your own.
    #[must_use]
    pub fn criterion(self, criterion: impl Into<AnyCriterion>) -> Sparsify {
        Sparsify { criterion: Some(criterion.into()), ..self }
    }

    /// How many weights each layer keeps: a row as text (`"erk"`), a type, or your own. A budget of n:m takes none.
    #[must_use]
    pub fn allocation(self, allocation: impl Into<AnyAllocation>) -> Sparsify {
        Sparsify { allocation: Some(allocation.into()), ..self }
    }

    /// Appends a repair: a chain as text (`"bn,stats"`), [`AUTO`] alone, a type, or your own. They act in the order of the calls.
    #[must_use]
    pub fn repair(mut self, repair: impl Into<AnyRepair>) -> Sparsify {
        self.repairs.push(repair.into());
        self
    }

    /// Repairs of other crates, whose names text may hold beside those of [`REPAIRS`](crate::repair::REPAIRS); none by default.
    #[must_use]
    pub fn repair_rows(self, repair_rows: Rows) -> Sparsify {
        Sparsify { repair_rows, ..self }
    }

    /// Memory and time of repairs.
    #[must_use]
    pub fn repair_options(self, repair_options: RepairOptions) -> Sparsify {
        Sparsify { repair_options, ..self }
    }

    /// Which layers are pruned; by default all that can be, without grouped convolutions.
    #[must_use]
    pub fn rule(self, rule: PrunableRule) -> Sparsify {
        Sparsify { rule, ..self }
    }

    /// Seed of random criteria; 0 by default.
    #[must_use]
    pub fn seed(self, seed: u64) -> Sparsify {
        Sparsify { seed, ..self }
    }

    /// The number of steps of pruning and repair, from 1 to 1000; 1 by default. [`schedule`](super::schedule()) says how far each
    /// goes.
    #[must_use]
    pub fn steps(self, steps: usize) -> Sparsify {
        Sparsify { steps, ..self }
    }

    /// Whether zeros of a network that was pruned before may become weights again; they stay by default.
    #[must_use]
    pub fn regrow(self, regrow: bool) -> Sparsify {
        Sparsify { regrow, ..self }
    }

    /// Prunes and repairs. `images: [N, C, H, W]` are preprocessed. They may be empty if criterion and repairs need none.
    ///
    /// Where `dense` was pruned before, its zeros stay, and count: see [`Model::keep_zeros`]. [`regrow`](Self::regrow) lets them
    /// grow again.
    ///
    /// # Errors
    /// Of kind `Option` for unknown methods and for options that the network or the pattern does not allow. Of kind `Data` for
    /// images or scores that do not match the network, and `Unsupported` for a network that cannot be computed where images are
    /// needed.
    pub fn run(self, dense: &Model, images: &Tensor) -> Result<Sparsified> {
        self.run_with(dense, images, &Quiet)
    }

    /// As [`run`](Self::run), with progress that is shown and can be stopped.
    ///
    /// # Errors
    /// As [`run`](Self::run), and of kind `Interrupted`.
    pub fn run_with(self, dense: &Model, images: &Tensor, progress: &dyn Progress) -> Result<Sparsified> {
        let mut dense = dense.clone();
        dense.keep_zeros(&self.rule, self.regrow)?;
        let dense = &dense;
        let mut prune = PruneOptions { rule: self.rule, seed: self.seed, ..self.budget.prune_options()? };
        if let (Pattern::Nm { n, m }, Some(allocation)) = (prune.pattern, &self.allocation) {
            let name = allocation.0.name();
            return Err(Error::option(format!("allocation {name}: a budget of {n}:{m} keeps the same in every layer")));
        }
        if let Some(AnyCriterion(method)) = self.criterion {
            (prune.criterion, prune.own.criterion) = method.split();
        }
        if let Some(AnyAllocation(method)) = self.allocation {
            (prune.allocation, prune.own.allocation) = method.split();
        }
        let (repair_rows, repair_options, steps) = (self.repair_rows, self.repair_options, self.steps);
        let options =
            |repair: &str| SparsifyOptions { prune, repair: repair.into(), repair_rows, repair_options, steps, checkpoint: None };
        if let [AnyRepair(Method::Row(row))] = &self.repairs[..]
            && row == AUTO
        {
            return sparsify(dense, images, &options(AUTO), progress);
        }
        let mut chain = Chain::default();
        for AnyRepair(repair) in self.repairs {
            match repair {
                Method::Row(row) => chain.push_rows(&row, repair_rows)?,
                Method::Own(name, own) => chain.push(name, own),
            }
        }
        chain.check_batches()?;
        let options = options(chain.text());
        in_steps(dense, dense, images, &chain, &schedule_of(dense, &options)?, &options, progress)
    }
}
