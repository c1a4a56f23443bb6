//! What a repair sees at one layer.

use super::normal::Inputs;
use super::stats::{ChannelStats, PairStats};
use super::store::ActivationStore;
use super::walk::Follow;
use crate::error::{Error, Result};
use crate::forward::{BatchNormStep, Step};
use crate::model::{Mask, Model};
use crate::ops::{Compute, Fact, Fused, Op, resolve};
use crate::tensor::{Tensor, Value};
use resprout_kernels::Activation;
use std::sync::Arc;

/// The weights of a layer, one row per output, whatever their order in the file.
#[derive(Clone, Debug, PartialEq)]
pub struct WeightRows {
    /// `M`: output channels or features.
    pub rows: usize,
    /// `K`: weights per output.
    pub len: usize,
    /// Groups of outputs that read different inputs.
    pub groups: usize,
    /// `[M][K]`
    pub data: Vec<f32>,
    /// `[M][K]`, true = kept; `None` for a dense layer.
    pub mask: Option<Vec<bool>>,
}

impl WeightRows {
    /// One row.
    pub fn row(&self, row: usize) -> &[f32] {
        &self.data[row * self.len..][..self.len]
    }

    /// One row, to be changed.
    pub fn row_mut(&mut self, row: usize) -> &mut [f32] {
        &mut self.data[row * self.len..][..self.len]
    }

    /// Whether a weight is kept.
    pub fn kept(&self, row: usize, index: usize) -> bool {
        self.mask.as_ref().is_none_or(|mask| mask[row * self.len + index])
    }

    /// Whether every weight of a row is zero.
    pub fn is_dead(&self, row: usize) -> bool {
        self.row(row).iter().all(|&w| w == 0.0)
    }
}

/// The numbers of a BatchNormalization.
#[derive(Clone, Debug, PartialEq)]
pub struct NormParams {
    /// `[C]`
    pub gamma: Vec<f64>,
    /// `[C]`
    pub beta: Vec<f64>,
    /// `[C]`
    pub mean: Vec<f64>,
    /// `[C]`
    pub var: Vec<f64>,
    /// Added to the variance.
    pub epsilon: f64,
}

impl NormParams {
    /// As they stand in the model.
    pub fn read(model: &Model, norm: &BatchNormStep) -> Result<NormParams> {
        let wide = |name: &String| Ok::<_, Error>(model.weight(name)?.data.iter().map(|&v| f64::from(v)).collect());
        let [gamma, beta, mean, var] = &norm.params;
        Ok(NormParams {
            gamma: wide(gamma)?,
            beta: wide(beta)?,
            mean: wide(mean)?,
            var: wide(var)?,
            epsilon: f64::from(norm.epsilon),
        })
    }

    /// Puts what differs from the model into it, rounded to `f32`.
    pub(super) fn write(&self, model: &mut Model, norm: &BatchNormStep) -> Result<()> {
        let old = NormParams::read(model, norm)?;
        let columns = [
            (&self.gamma, &old.gamma, &norm.params[0]),
            (&self.beta, &old.beta, &norm.params[1]),
            (&self.mean, &old.mean, &norm.params[2]),
            (&self.var, &old.var, &norm.params[3]),
        ];
        for (new, _, name) in columns.into_iter().filter(|(new, old, _)| new != old) {
            // What another layer reads too cannot be right for both.
            if model.graph.reader_counts().get(name.as_str()) != Some(&1) {
                return Err(Error::unsupported(format!("the BatchNormalization shares {name:?} with another layer")));
            }
            let missing = || Error::unsupported(format!("{name:?} is computed, not a parameter"));
            let tensor = model.params.f32_mut(name).ok_or_else(missing)?;
            tensor.data.iter_mut().zip(new).for_each(|(to, &from)| *to = from as f32);
        }
        Ok(())
    }

    /// `gamma / sqrt(var + epsilon)`: the factor of channel `c`.
    pub fn scale(&self, c: usize) -> f64 {
        self.gamma[c] / (self.var[c] + self.epsilon).sqrt()
    }

    /// `beta - mean * scale`: what is added to channel `c`.
    pub fn shift(&self, c: usize) -> f64 {
        self.beta[c] - self.mean[c] * self.scale(c)
    }

    /// The number of channels.
    pub fn channels(&self) -> usize {
        self.gamma.len()
    }

    /// As a computation, with the statistics rounded to `f32` as they are stored: what is measured
    /// behind is what the written model computes.
    pub(super) fn compute(&self, activation: Activation) -> Compute {
        let stored = |values: &[f64]| values.iter().map(|&v| f64::from(v as f32)).collect::<Vec<f64>>();
        let rounded = NormParams {
            gamma: stored(&self.gamma),
            beta: stored(&self.beta),
            mean: stored(&self.mean),
            var: stored(&self.var),
            epsilon: self.epsilon,
        };
        let each = |value: &dyn Fn(usize) -> f64| (0..self.channels()).map(|c| value(c) as f32).collect();
        Compute::Affine { scale: each(&|c| rounded.scale(c)), shift: each(&|c| rounded.shift(c)), activation }
    }
}

/// A layer with weights, before its output in the pruned network is final.
pub struct WeightSite<'w> {
    /// The layer's name.
    pub name: &'w str,
    /// The weights of the pruned network; whatever a repair writes, pruned ones stay 0.
    pub weights: WeightRows,
    /// The bias, zeros where there is none yet; `None` where the layer cannot have one.
    pub bias: Option<Vec<f64>>,
    /// The BatchNormalization that alone reads the layer's output, in the pruned network.
    pub norm: Option<NormParams>,
    /// The same in the dense network.
    pub dense_norm: Option<NormParams>,
    /// Warnings for the report.
    pub warnings: Vec<String>,
    /// Whether a repair has changed anything.
    pub changed: bool,
    /// Whether it was given the dense network's mean and deviation in the place of a folded BatchNormalization.
    pub recalibrated: bool,
    /// Whether there is no time for more than statistics.
    pub statistics_only: bool,
    /// The bias as it stands in the model, for layers whose bias is not theirs to change.
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
    /// Statistics of the layer's output in both networks, before anything that follows.
    pub fn pair(&mut self) -> Result<PairStats> {
        Ok(self.pair_groups(1)?.swap_remove(0))
    }

    /// The same in up to `groups` groups of images.
    pub fn pair_groups(&mut self, groups: usize) -> Result<Vec<PairStats>> {
        self.refresh()?;
        let (slot, last) = (self.step.output(), self.channels_last());
        Ok(self.store.pair_stats(slot, self.dense()?, slot, last, groups))
    }

    /// Statistics of the layer's output in the pruned network for the first so many images (rounded up
    /// to whole chunks), for ascending numbers of images.
    pub fn stats_of_first(&mut self, counts: &[usize]) -> Result<Vec<ChannelStats>> {
        self.refresh()?;
        Ok(self.store.stats_of_first(self.step.output(), self.channels_last(), counts))
    }

    /// The number of calibration images.
    pub fn images(&self) -> usize {
        (0..self.store.chunks()).map(|chunk| self.store.images(chunk)).sum()
    }

    /// Marks the weights, bias or norm as changed.
    pub fn touch(&mut self) {
        self.changed = true;
        self.fresh = false;
        if let Some(mask) = &self.weights.mask {
            self.weights.data.iter_mut().zip(mask).filter(|(_, kept)| !**kept).for_each(|(w, _)| *w = 0.0);
        }
    }

    /// The inputs of the layer in the pruned network, as rows of a matrix; `None` where they are not a
    /// matrix in memory.
    pub fn inputs(&self) -> Option<Inputs> {
        let input = &self.store.value(0, self.input_slot()).shape;
        Inputs::new(self.op, input, self.store.batch(), &self.follow.weight_shape, &self.weights)
    }

    /// Numbers in the order of the rows, one per weight, in the order of the file.
    pub fn in_file_order(&self, values: &[f64]) -> Vec<f64> {
        let order = file_order(self.op, &self.weights);
        (0..values.len()).map(|i| values[order(i)]).collect()
    }

    /// Whether a BatchNormalization may have been multiplied into the weights: see [`Model::folded_norms`].
    pub fn is_folded(&self) -> bool {
        self.follow.folded
    }

    /// What is added to an output now, whether or not it is the layer's own to change.
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

    /// Whether an activation with bounds comes behind.
    pub fn has_activation(&self) -> bool {
        self.follow.activation != Activation::None
    }

    pub(super) fn input_slot(&self) -> usize {
        self.step.first_input().unwrap_or(0)
    }

    pub(super) fn channels_last(&self) -> bool {
        matches!(self.op, Op::MatMul | Op::Gemm { .. })
    }

    pub(super) fn dense(&self) -> Result<&ActivationStore> {
        self.dense.ok_or_else(|| Error::data("a repair has not said that it needs the dense network"))
    }

    /// Computes the output with the current weights, if it is not there yet.
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
        let mut facts =
            vec![Some(Fact::of_shape(input)), constant(stored_weights(self.op, &self.weights, &self.follow.weight_shape))];
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
    /// Its numbers in the pruned network.
    pub params: NormParams,
    /// Its numbers in the dense network.
    pub dense_params: Option<NormParams>,
    /// Warnings for the report.
    pub warnings: Vec<String>,
    /// Whether a repair has changed anything.
    pub changed: bool,
    /// Whether its statistics were measured again.
    pub recalibrated: bool,
    /// Whether the layer with weights before it got no more than statistics, for want of time.
    pub statistics_only: bool,
    /// What each chunk is normalised by on its way on, if not by `params`.
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

    /// The same for every chunk of images.
    pub fn chunk_stats(&self) -> Vec<ChannelStats> {
        self.store.chunk_stats(self.slot, false)
    }

    /// Statistics of the input in both networks.
    pub fn pair(&self) -> Result<PairStats> {
        Ok(self.pair_groups(1)?.swap_remove(0))
    }

    /// The same in up to `groups` groups of images.
    pub fn pair_groups(&self, groups: usize) -> Result<Vec<PairStats>> {
        let dense = self.dense.ok_or_else(|| Error::data("a repair has not said that it needs the dense network"))?;
        Ok(self.store.pair_stats(self.slot, dense, self.slot, false, groups))
    }
}

/// The weights of a layer as rows.
pub(super) fn weight_rows(op: &Op, weight: &Tensor, mask: Option<&Mask>) -> Option<WeightRows> {
    let transposed = is_transposed(op)?;
    let (rows, groups) = match op {
        Op::Conv(a) => (weight.shape[0], a.groups),
        _ => (weight.shape[usize::from(transposed)], 1),
    };
    let len = weight.len() / rows.max(1);
    let order = |i: usize| if transposed { i % len * rows + i / len } else { i };
    let factor = factor(op);
    let data = (0..weight.len()).map(|i| (f64::from(weight.data[order(i)]) * factor) as f32).collect();
    let mask = mask.map(|mask| (0..weight.len()).map(|i| mask.0[order(i)]).collect());
    Some(WeightRows { rows, len, groups, data, mask })
}

/// The rows as the file stores them.
pub(super) fn stored_weights(op: &Op, rows: &WeightRows, shape: &[usize]) -> Tensor {
    let order = file_order(op, rows);
    let factor = factor(op);
    let data = (0..rows.data.len()).map(|i| (f64::from(rows.data[order(i)]) / factor) as f32).collect();
    Tensor::new(shape.to_vec(), data)
}

/// From an index in the file to one in the rows.
fn file_order(op: &Op, rows: &WeightRows) -> impl Fn(usize) -> usize {
    let (outputs, len) = (rows.rows, rows.len);
    let transposed = is_transposed(op).unwrap_or(false);
    move |i| if transposed { i % outputs * len + i / outputs } else { i }
}

/// The bias as the file stores it.
pub(super) fn stored_bias(op: &Op, bias: &[f64]) -> Vec<f32> {
    let beta = match op {
        Op::Gemm { beta, .. } => f64::from(*beta),
        _ => 1.0,
    };
    bias.iter().map(|b| (b / beta) as f32).collect()
}

/// Whether the file holds the columns of the weight matrix one after the other; `None` for layers
/// that are not products with a weight matrix.
fn is_transposed(op: &Op) -> Option<bool> {
    match op {
        Op::Conv(_) => Some(false),
        Op::Gemm { trans_b, .. } => Some(!trans_b),
        Op::MatMul => Some(true),
        _ => None,
    }
}

fn factor(op: &Op) -> f64 {
    match op {
        Op::Gemm { alpha, .. } => f64::from(*alpha),
        _ => 1.0,
    }
}
