//! What a visitor sees at one layer.

use super::follow::Follow;
use super::inputs::{InputValue, Inputs};
use super::norm::NormParams;
use super::normal::InputSums;
use super::sample::Sample;
use super::stats::{ChannelStats, PairStats};
use super::store::ActivationStore;
use super::weights::{WeightRows, stored_bias};
use crate::error::{Error, Result};
use crate::forward::Step;
use crate::ops::{Compute, Fact, Fused, Op, resolve};
use crate::tensor::{Tensor, Value};
use resprout_kernels::Activation;
use std::sync::Arc;

/// A layer with weights, before its output in the pruned network is final.
pub struct WeightSite<'w> {
    /// The layer's name.
    pub name: &'w str,
    /// The weights of the pruned network. Pruned ones stay 0, whatever a visitor writes.
    pub weights: WeightRows,
    /// The bias of each output, zeros where there is none yet; `None` where the layer cannot have one of its own.
    pub bias: Option<Vec<f64>>,
    /// The BatchNormalization in the pruned network, if it alone reads the layer's output.
    pub norm: Option<NormParams>,
    /// The same in the dense network, if that takes part in the walk.
    pub dense_norm: Option<NormParams>,
    /// Warnings for the report.
    pub warnings: Vec<String>,
    /// Whether a visitor has changed anything; [`touch`](Self::touch) sets it.
    pub changed: bool,
    /// Whether a visitor gave it the dense network's mean and deviation in place of a folded BatchNormalization.
    pub recalibrated: bool,
    /// Whether the time limit allows statistics only: no fit of weights.
    pub statistics_only: bool,
    /// The model's bias, where another layer reads it too and it must not change.
    pub(super) fixed_bias: Option<Tensor>,
    pub(super) op: &'w Op,
    pub(super) follow: &'w Follow,
    pub(super) step: &'w Step,
    pub(super) store: &'w mut ActivationStore,
    pub(super) dense: Option<&'w ActivationStore>,
    /// Whether the output slot holds what the current weights compute.
    pub(super) fresh: bool,
}

impl WeightSite<'_> {
    /// Statistics of the layer's own output, before any BatchNormalization or activation, in both networks.
    ///
    /// # Errors
    /// Of kind `Data` if no visitor needs the dense network.
    pub fn pair(&mut self) -> Result<PairStats> {
        Ok(self.pair_groups(1)?.swap_remove(0))
    }

    /// As [`pair`](Self::pair), in up to `groups` groups of images.
    ///
    /// # Errors
    /// As [`pair`](Self::pair).
    pub fn pair_groups(&mut self, groups: usize) -> Result<Vec<PairStats>> {
        self.refresh()?;
        let (slot, last) = (self.step.output(), self.channels_last());
        Ok(self.store.pair_stats(slot, self.dense()?, slot, last, groups))
    }

    /// Statistics of the layer's output in the pruned network over the first `counts` images, in ascending order. Counts are
    /// rounded up to whole chunks.
    pub fn stats_of_first(&mut self, counts: &[usize]) -> Result<Vec<ChannelStats>> {
        self.refresh()?;
        Ok(self.store.stats_of_first(self.step.output(), self.channels_last(), counts))
    }

    /// The number of calibration images.
    pub fn images(&self) -> usize {
        (0..self.store.chunks()).map(|chunk| self.store.images(chunk)).sum()
    }

    /// Marks weights, bias or norm as changed, and sets pruned weights to zero. Statistics that are measured after it are those
    /// of the changed layer.
    pub fn touch(&mut self) {
        self.changed = true;
        self.fresh = false;
        if let Some(mask) = &self.weights.mask {
            self.weights.data.iter_mut().zip(mask).filter(|(_, kept)| !**kept).for_each(|(w, _)| *w = 0.0);
        }
    }

    /// The inputs of the layer in the pruned network as rows of a matrix; `None` where they are no matrix in memory.
    pub(crate) fn inputs(&self) -> Option<Inputs> {
        let input = &self.store.value(0, self.input_slot()).shape;
        Inputs::new(self.op, input, self.store.batch(), &self.follow.weight_shape, &self.weights)
    }

    /// The root mean square of the input that each weight multiplies, in the order of [`WeightRows::data`], over about `rows`
    /// positions of all images, drawn from `seed`. `None` where the inputs are no matrix in memory.
    pub fn input_rms(&self, rows: usize, seed: u64) -> Option<Vec<f64>> {
        let inputs = self.inputs()?;
        let sample = Sample::new(self, &inputs, rows, seed);
        let mut all = Vec::with_capacity(self.weights.data.len());
        for group in 0..inputs.groups() {
            let sums = InputSums::new(self, &inputs, &sample, group);
            let rms: Vec<f64> = (0..self.weights.len).map(|i| (sums.product(i, i) / sums.count).max(0.0).sqrt()).collect();
            inputs.outputs(group).for_each(|_| all.extend_from_slice(&rms));
        }
        Some(all)
    }

    /// Reorders values, one per weight, from the order of [`WeightRows::data`] to that of the model's parameter.
    pub fn in_file_order(&self, values: &[f64]) -> Vec<f64> {
        let order = self.weights.file_order(self.op);
        (0..values.len()).map(|i| values[order(i)]).collect()
    }

    /// The inverse of [`in_file_order`](Self::in_file_order).
    pub fn from_file_order(&self, values: &[f64]) -> Vec<f64> {
        let order = self.weights.file_order(self.op);
        let mut ours = vec![0.0; values.len()];
        values.iter().enumerate().for_each(|(i, value)| ours[order(i)] = *value);
        ours
    }

    /// Whether a BatchNormalization may be folded into the weights: see
    /// [`Model::folded_norms`](crate::model::Model::folded_norms).
    pub fn is_folded(&self) -> bool {
        self.follow.folded
    }

    /// The bias of an output, whether or not the layer may change it.
    pub(crate) fn bias_of(&self, output: usize) -> f64 {
        let fixed = |tensor: &Tensor| match &tensor.data[..] {
            [all] => f64::from(*all),
            each => each.get(output).map_or(0.0, |&b| f64::from(b)),
        };
        let beta = if let Op::Gemm { beta, .. } = self.op { f64::from(*beta) } else { 1.0 };
        match (&self.bias, &self.fixed_bias) {
            (Some(bias), _) => bias[output],
            (None, Some(tensor)) => fixed(tensor) * beta,
            (None, None) => 0.0,
        }
    }

    /// Whether an activation with bounds, such as ReLU, follows the layer or its BatchNormalization.
    pub fn has_activation(&self) -> bool {
        self.follow.activation != Activation::None
    }

    fn input_slot(&self) -> usize {
        self.step.first_input().unwrap_or(0)
    }

    /// The value that the layer reads in the pruned network.
    pub(super) fn input_value(&self) -> InputValue<'_> {
        InputValue { store: self.store, slot: self.input_slot() }
    }

    pub(super) fn channels_last(&self) -> bool {
        matches!(self.op, Op::MatMul | Op::Gemm { .. })
    }

    pub(super) fn dense(&self) -> Result<&ActivationStore> {
        self.dense.ok_or_else(|| Error::data("a repair has not said that it needs the dense network"))
    }

    /// Computes the output with the current weights, unless it is up to date.
    pub(crate) fn refresh(&mut self) -> Result<()> {
        if !self.fresh {
            let compute = self.compute()?;
            self.store.run_keeping(self.step, &compute);
            self.fresh = true;
        }
        Ok(())
    }

    fn compute(&self) -> Result<Compute> {
        let input = self.store.value(0, self.input_slot()).shape.clone();
        let constant = |tensor: Tensor| Some(Fact::constant(Arc::new(Value::F32(tensor))));
        let mut facts = vec![Some(Fact::of_shape(input)), constant(self.weights.stored(self.op, &self.follow.weight_shape))];
        match (&self.bias, &self.fixed_bias) {
            (Some(bias), _) => facts.push(constant(Tensor::vector(stored_bias(self.op, bias)))),
            (None, Some(fixed)) => facts.push(constant(fixed.clone())),
            (None, None) => {}
        }
        Ok(resolve(self.op, &facts, &Fused::NONE)?.compute)
    }
}

/// A BatchNormalization, before it is applied in the pruned network.
pub struct NormSite<'w> {
    /// The layer's name.
    pub name: &'w str,
    /// Its parameters in the pruned network.
    pub params: NormParams,
    /// Its parameters in the dense network, if that takes part in the walk.
    pub dense_params: Option<NormParams>,
    /// Warnings for the report.
    pub warnings: Vec<String>,
    /// Whether a visitor has changed anything. A visitor that changes `params` sets it.
    pub changed: bool,
    /// Whether its statistics were measured again.
    pub recalibrated: bool,
    /// Whether the time limit left statistics only to the layer with weights before it.
    pub statistics_only: bool,
    /// The statistics that normalise each chunk of images in this walk, if not those of `params`.
    pub per_chunk: Option<Vec<ChannelStats>>,
    pub(super) slot: usize,
    pub(super) store: &'w ActivationStore,
    pub(super) dense: Option<&'w ActivationStore>,
}

impl NormSite<'_> {
    /// Statistics of the input in the pruned network.
    pub fn stats(&self) -> ChannelStats {
        self.store.stats(self.slot, false)
    }

    /// Statistics of the input in the pruned network, chunk by chunk.
    pub fn chunk_stats(&self) -> Vec<ChannelStats> {
        self.store.chunk_stats(self.slot, false)
    }

    /// Statistics of the input in both networks.
    ///
    /// # Errors
    /// Of kind `Data` if no visitor needs the dense network.
    pub fn pair(&self) -> Result<PairStats> {
        Ok(self.pair_groups(1)?.swap_remove(0))
    }

    /// As [`pair`](Self::pair), in up to `groups` groups of images.
    ///
    /// # Errors
    /// As [`pair`](Self::pair).
    pub fn pair_groups(&self, groups: usize) -> Result<Vec<PairStats>> {
        let dense = self.dense.ok_or_else(|| Error::data("a repair has not said that it needs the dense network"))?;
        Ok(self.store.pair_stats(self.slot, dense, self.slot, false, groups))
    }
}
