//! Whole channels: scores, how many units go, and the masks that follow.

use super::coupling::{Coupling, Role, Use};
use crate::error::{Error, Result};
use crate::forward::{Network, PlanOptions};
use crate::model::{LeftDense, Mask, MaskTable, Model, Prunable, PrunableRule};
use crate::ops::Op;
use crate::progress::Progress;
use crate::prune::{PruneOptions, PruneOutcome};
use crate::random::SplitMix64;
use crate::report::{fixed_image, layer_macs};
use crate::table::{self, Entry};
use crate::tensor::Tensor;
use std::collections::{HashMap, HashSet};

/// What a layer's output channels are scored by.
pub struct Layer<'a> {
    /// The model as it is.
    pub model: &'a Model,
    /// The layer.
    pub prunable: &'a Prunable,
    /// Its number, for random scores.
    pub index: usize,
    /// Seed of random scores.
    pub seed: u64,
    /// For each channel, the root mean square of what it makes of the calibration images.
    pub activations: Option<&'a [f64]>,
}

/// One score per output channel, not negative, comparable between layers.
pub type Score = fn(&Layer) -> Result<Vec<f64>>;

/// A criterion of channels.
pub struct Criterion {
    /// Whether it looks at images.
    pub needs_images: bool,
    score: Score,
}

/// All criteria of channels. Scores of coupled channels are added up.
pub static CHANNEL_CRITERIA: &[Entry<Criterion>] = &[
    Entry {
        name: "l2",
        about: "root mean square of the channel's weights",
        paper: "He et al., Soft filter pruning, IJCAI 2018",
        options: &[],
        build: Criterion { needs_images: false, score: |layer| layer.of_weights(|w| w * w, f64::sqrt) },
    },
    Entry {
        name: "l1",
        about: "mean absolute value of the channel's weights",
        paper: "Li et al., Pruning filters for efficient convnets, ICLR 2017",
        options: &[],
        build: Criterion { needs_images: false, score: |layer| layer.of_weights(f64::abs, |mean| mean) },
    },
    Entry {
        name: "gamma",
        about: "absolute scale of the BatchNormalization behind the layer",
        paper: "Liu et al., Learning efficient convolutional networks through network slimming, ICCV 2017",
        options: &[],
        build: Criterion { needs_images: false, score: |layer| layer.of_gamma() },
    },
    Entry {
        name: "activation",
        about: "root mean square of what the channel makes of the calibration images, behind its activation",
        paper: "after Hu et al., Network trimming, 2016",
        options: &[],
        build: Criterion { needs_images: true, score: |layer| layer.of_activations() },
    },
    Entry {
        name: "random",
        about: "a random number, from --seed",
        paper: "the control that every criterion must beat",
        options: &[],
        build: Criterion { needs_images: false, score: |layer| layer.at_random() },
    },
];

/// The order in which units go, given their scores: those of `groups` are coupled layers.
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

/// The criterion that a text names.
pub fn find(criterion: &str) -> Result<&'static Criterion> {
    table::find(CHANNEL_CRITERIA, "--criterion", criterion).map(|(entry, _)| &entry.build)
}

/// Prunes whole channels in place. All that depends on a pruned channel goes too: weights that make it, weights
/// that read it, biases, scale and shift.
pub fn prune(model: &mut Model, options: &PruneOptions, images: &Tensor, progress: &dyn Progress) -> Result<PruneOutcome> {
    check(options)?;
    let everything = PrunableRule { include_grouped: true, ..options.rule.clone() };
    let (layers, mut left_dense) = model.prunable(&everything)?;
    let reasons: HashMap<&str, &str> = left_dense.iter().map(|left| (left.param.as_str(), left.reason.as_str())).collect();
    let coupling = Coupling::new(model, |param| reasons.get(param).map(|reason| reason.to_string()));
    let open = (0..coupling.frozen.len()).filter(|&unit| coupling.frozen[unit].is_none());
    let produced: HashSet<usize> = outputs(&coupling).flat_map(|one| one.units.iter().copied()).collect();
    let open: Vec<usize> = open.filter(|unit| produced.contains(unit)).collect();
    if open.is_empty() {
        return Err(Error::option(format!("--pattern channel: no channel can go{}", examples(&coupling))));
    }
    let scores = scores(model, &coupling, &layers, &open, options, images, progress)?;
    let (order, _) = table::find(CHANNEL_ALLOCATIONS, "--allocation", &options.allocation)?;
    let groups = groups(&coupling, &open);
    let order = (order.build)(&scores, &groups);
    let gone = gone(model, &coupling);
    let mut costs = Costs::new(model, &coupling, &layers, images, options, &gone)?;
    let (limit, exact) = (costs.budget, options.macs.is_some() || model.masks.iter().next().is_none());
    let mut after = masked(model, &coupling, &remove(&costs, &coupling, &order, &gone)?);
    for _ in 0..CORRECTIONS {
        let left = layers.iter().map(|layer| after.get(&layer.param).map_or(layer.len(), Mask::kept)).sum::<usize>() as f64;
        if exact || left <= limit {
            break;
        }
        costs.budget *= limit / left;
        after = masked(model, &coupling, &remove(&costs, &coupling, &order, &gone)?);
    }
    model.masks = after;
    model.apply_masks();
    for layer in &layers {
        let outputs = outputs(&coupling).find(|one| one.param == layer.param);
        let frozen = outputs.and_then(|one| coupling.frozen[one.units[0]].as_ref().filter(|_| whole(&coupling, one)));
        if let Some(reason) = frozen {
            let reason = format!("its output channels stay: {reason}");
            let (weights, param) = (layer.len(), layer.param.clone());
            left_dense.push(LeftDense { layer: layer.layer.clone(), param, reason, weights });
        }
    }
    let kept = layers.iter().map(|layer| model.masks.get(&layer.param).map_or(layer.len(), Mask::kept)).collect();
    Ok(PruneOutcome { layers, kept, left_dense })
}

/// Single weights that earlier masks have pruned lie unevenly, and what channels cost is a guess then: how often the
/// budget is lowered to meet the sparsity.
const CORRECTIONS: usize = 8;

/// The masks of the model, and those of dead units.
fn masked(model: &Model, coupling: &Coupling, dead: &[bool]) -> MaskTable {
    let mut all = model.masks.clone();
    for (param, mut mask) in masks(model, coupling, dead) {
        if let Some(older) = all.get(&param) {
            mask.intersect(older);
        }
        all.insert(param, mask);
    }
    all
}

/// Fails on options that say nothing about channels.
fn check(options: &PruneOptions) -> Result<()> {
    let PruneOptions { criterion, allocation, own, .. } = options;
    for (kind, name, is_own) in
        [("criterion", criterion, own.criterion.is_some()), ("allocation", allocation, own.allocation.is_some())]
    {
        if is_own {
            return Err(Error::option(format!("{kind} {name}: is for single weights; whole channels take a row of the tables")));
        }
    }
    find(&options.criterion)?;
    table::find(CHANNEL_ALLOCATIONS, "--allocation", &options.allocation)?;
    if !options.layers.is_empty() || options.min_per_layer > 0 || options.min_per_channel > 0 {
        return Err(Error::option(
            "--pattern channel: --layer, --min-per-layer and --min-per-channel are about single weights; see --ignore",
        ));
    }
    options.macs.map_or(Ok(()), check_share)
}

/// Fails unless the share of the operations lies in `(0, 1]`.
pub fn check_share(macs: f64) -> Result<()> {
    if macs > 0.0 && macs <= 1.0 {
        return Ok(());
    }
    Err(Error::option(format!("--macs {macs}: a share above 0, up to 1, is needed")))
}

/// A few reasons why channels have to stay.
fn examples(coupling: &Coupling) -> String {
    let mut reasons: Vec<&str> = coupling.frozen.iter().flatten().map(String::as_str).collect();
    reasons.sort_unstable();
    reasons.dedup();
    reasons.truncate(3);
    if reasons.is_empty() { String::new() } else { format!(": {}", reasons.join("; ")) }
}

fn outputs(coupling: &Coupling) -> impl Iterator<Item = &Use> {
    coupling.uses.iter().filter(|one| one.role == Role::Output)
}

fn whole(coupling: &Coupling, one: &Use) -> bool {
    one.units.iter().all(|&unit| coupling.frozen[unit].is_some())
}

/// The summed score of every open unit, by unit; others have infinity.
fn scores(
    model: &Model,
    coupling: &Coupling,
    layers: &[Prunable],
    open: &[usize],
    options: &PruneOptions,
    images: &Tensor,
    progress: &dyn Progress,
) -> Result<Vec<f64>> {
    let criterion = find(&options.criterion)?;
    let by_param: HashMap<&str, (usize, &Prunable)> =
        layers.iter().enumerate().map(|(index, layer)| (layer.param.as_str(), (index, layer))).collect();
    let activations = if criterion.needs_images { activations(model, layers, images)? } else { HashMap::new() };
    let mut sums = vec![f64::INFINITY; coupling.frozen.len()];
    open.iter().for_each(|&unit| sums[unit] = 0.0);
    progress.begin("score", coupling.uses.len() as u64);
    for one in outputs(coupling).filter(|one| !whole(coupling, one)) {
        progress.check()?;
        let Some(&(index, prunable)) = by_param.get(one.param.as_str()) else { continue };
        let activations = activations.get(&prunable.layer).map(Vec::as_slice);
        let layer = Layer { model, prunable, index, seed: options.seed, activations };
        for (score, &unit) in (criterion.score)(&layer)?.iter().zip(&one.units) {
            sums[unit] += score;
        }
        progress.advance(1);
    }
    progress.end();
    Ok(sums)
}

impl Layer<'_> {
    fn of_weights(&self, of: impl Fn(f64) -> f64, then: impl Fn(f64) -> f64) -> Result<Vec<f64>> {
        let weights = &self.model.weight(&self.prunable.param)?.data;
        let mut sums = vec![0.0; self.prunable.channels()];
        weights.iter().enumerate().for_each(|(i, &w)| sums[self.prunable.channel_of(i)] += of(f64::from(w)));
        let each = (self.prunable.len() / self.prunable.channels()) as f64;
        Ok(sums.into_iter().map(|sum| then(sum / each)).collect())
    }

    fn of_gamma(&self) -> Result<Vec<f64>> {
        let graph = &self.model.graph;
        let missing = || {
            Error::option(format!(
                "--criterion gamma: layer {:?} has no BatchNormalization behind it; ignore it or take another criterion",
                self.prunable.layer
            ))
        };
        let layer = graph.layers.iter().find(|layer| layer.name == self.prunable.layer).ok_or_else(missing)?;
        let norm = graph.batch_norm_of(&layer.outputs[0]);
        let gamma = norm.and_then(|norm| self.model.params.f32(norm.input(1)?)).ok_or_else(missing)?;
        Ok(gamma.data.iter().map(|&gamma| f64::from(gamma.abs())).collect())
    }

    fn of_activations(&self) -> Result<Vec<f64>> {
        let missing =
            || Error::unsupported(format!("--criterion activation: layer {:?} cannot be measured", self.prunable.layer));
        self.activations.map(<[f64]>::to_vec).ok_or_else(missing)
    }

    fn at_random(&self) -> Result<Vec<f64>> {
        let mut random = SplitMix64::new(self.seed, self.index as u64);
        Ok((0..self.prunable.channels()).map(|_| random.next_f64()).collect())
    }
}

/// For each layer, the root mean square of each channel behind its normalisation and activation.
fn activations(model: &Model, layers: &[Prunable], images: &Tensor) -> Result<HashMap<String, Vec<f64>>> {
    if images.is_empty() {
        return Err(Error::option("--criterion activation: needs calibration images"));
    }
    let readers = model.graph.reader_counts();
    let follow = |layer: &Prunable| {
        let first = model.graph.layers.iter().find(|other| other.name == layer.layer)?;
        // A convolution's channels are its second axis, those of a product its last one.
        let axis = matches!(first.op, Op::Conv(_)).then_some(1);
        let mut value = &first.outputs[0];
        while readers.get(value.as_str()) == Some(&1) {
            let next = model.graph.layers.iter().find(|next| next.input(0) == Some(value));
            let Some(next) = next.filter(|next| matches!(next.op, Op::BatchNorm { .. } | Op::Unary(_) | Op::Clip { .. })) else {
                break;
            };
            value = &next.outputs[0];
        }
        Some((layer.layer.clone(), axis, value.clone()))
    };
    let followed: Vec<(String, Option<usize>, String)> = layers.iter().filter_map(follow).collect();
    let taps: Vec<String> = followed.iter().map(|(_, _, value)| value.clone()).collect();
    let outputs = model.graph.outputs.len();
    let network = Network::new(model, &images.shape[1..], &PlanOptions { taps, ..PlanOptions::default() })?;
    let mut sums: Vec<Vec<f64>> = vec![Vec::new(); followed.len()];
    // All values of all layers at once are many: a few images at a time.
    let batch = 16;
    for first in (0..images.shape[0]).step_by(batch) {
        let last = images.shape[0].min(first + batch);
        let part = images.pick(&(first..last).collect::<Vec<usize>>());
        for ((sums, (_, axis, _)), value) in sums.iter_mut().zip(&followed).zip(&network.run(&part)?[outputs..]) {
            let axis = axis.unwrap_or(value.shape.len() - 1);
            let (channels, inner) = (value.shape[axis], value.shape[axis + 1..].iter().product::<usize>().max(1));
            let positions: usize = value.shape[1..].iter().product::<usize>() / channels.max(1);
            sums.resize(channels, 0.0);
            for (at, plane) in value.data.chunks_exact(inner).enumerate() {
                let square: f64 = plane.iter().map(|&v| f64::from(v) * f64::from(v)).sum();
                sums[at % channels] += square / positions as f64;
            }
        }
    }
    let mean = |sums: Vec<f64>| sums.into_iter().map(|sum| (sum / images.shape[0] as f64).sqrt()).collect();
    Ok(followed.into_iter().map(|(layer, _, _)| layer).zip(sums.into_iter().map(mean)).collect())
}

/// Open units of layers that are coupled with each other, one list per group of layers.
fn groups(coupling: &Coupling, open: &[usize]) -> Vec<Vec<usize>> {
    let layers: Vec<&Use> = outputs(coupling).collect();
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

/// The lowest of each group first, then the second lowest ..., as shares of the group.
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

/// Units that earlier masks have removed: no weight is left that makes them, and none that reads them.
fn gone(model: &Model, coupling: &Coupling) -> Vec<bool> {
    let mut left = vec![false; coupling.frozen.len()];
    let mut made = vec![false; coupling.frozen.len()];
    for one in coupling.uses.iter().filter(|one| matches!(one.role, Role::Output | Role::Input)) {
        one.units.iter().for_each(|&unit| made[unit] |= one.role == Role::Output);
        match (model.params.f32(&one.param), model.masks.get(&one.param)) {
            (Some(tensor), Some(mask)) => {
                let unit = one.unit_of(&tensor.shape);
                mask.0.iter().enumerate().filter(|(_, kept)| **kept).for_each(|(index, _)| left[unit(index)] = true);
            }
            _ => one.units.iter().for_each(|&unit| left[unit] = true),
        }
    }
    let open = coupling.frozen.iter().map(Option::is_none);
    left.into_iter().zip(made).zip(open).map(|((left, made), open)| !left && made && open).collect()
}

/// What the network costs, and what it may cost.
struct Costs {
    /// For each weight: what it would cost with all channels, and its axes' places among the uses.
    weights: Vec<(f64, Vec<usize>)>,
    budget: f64,
    what: &'static str,
}

impl Costs {
    fn new(
        model: &Model,
        coupling: &Coupling,
        layers: &[Prunable],
        images: &Tensor,
        options: &PruneOptions,
        gone: &[bool],
    ) -> Result<Costs> {
        let image = images.shape.get(1..).filter(|image| !image.is_empty()).map(<[usize]>::to_vec).or_else(|| fixed_image(model));
        let macs = match (options.macs, image) {
            (None, _) => None,
            (Some(_), Some(image)) => Some(layer_macs(model, &image)?),
            (Some(_), None) => return Err(Error::option("--macs: the model leaves the size of its images free; give images")),
        };
        let cost = |layer: &Prunable| match &macs {
            Some(macs) => macs.get(&layer.layer).copied().unwrap_or(0) as f64,
            None => layer.len() as f64,
        };
        let axes = |layer: &Prunable| {
            let mut seen = HashSet::new();
            let of_weight = |at: &usize| coupling.uses[*at].param == layer.param && seen.insert(coupling.uses[*at].axis);
            (0..coupling.uses.len()).filter(of_weight).collect::<Vec<usize>>()
        };
        let mut weights: Vec<(f64, Vec<usize>)> = layers.iter().map(|layer| (cost(layer), axes(layer))).collect();
        let whole: f64 = weights.iter().map(|(cost, _)| cost).sum();
        if macs.is_none() {
            let alive = alive(coupling, gone);
            for (layer, (cost, axes)) in layers.iter().zip(&mut weights) {
                // Single weights that are gone cost nothing in the channels that are left.
                let Some(mask) = model.masks.get(&layer.param) else { continue };
                *cost = mask.kept() as f64 / axes.iter().map(|&at| share(coupling, &alive, at)).product::<f64>().max(1e-300);
            }
        }
        let share = options.macs.unwrap_or(1.0 - options.sparsity);
        Ok(Costs { weights, budget: share * whole, what: if macs.is_some() { "operations" } else { "weights" } })
    }

    fn now(&self, coupling: &Coupling, alive: &[usize]) -> f64 {
        let left = |axes: &[usize]| axes.iter().map(|&at| share(coupling, alive, at)).product::<f64>();
        self.weights.iter().map(|(cost, axes)| cost * left(axes)).sum()
    }
}

/// The channels of each use that are left.
fn alive(coupling: &Coupling, gone: &[bool]) -> Vec<usize> {
    coupling.uses.iter().map(|one| one.units.iter().filter(|&&unit| !gone[unit]).count()).collect()
}

/// The same as a share of all.
fn share(coupling: &Coupling, alive: &[usize], at: usize) -> f64 {
    alive[at] as f64 / coupling.uses[at].units.len() as f64
}

/// Removes units in order, beyond those that are gone, until the budget is met; every weight keeps one channel of each
/// kind.
fn remove(costs: &Costs, coupling: &Coupling, order: &[usize], gone: &[bool]) -> Result<Vec<bool>> {
    let mut dead = gone.to_vec();
    let mut alive = alive(coupling, gone);
    let mut at_unit: HashMap<usize, Vec<(usize, usize)>> = HashMap::new();
    for (at, one) in coupling.uses.iter().enumerate() {
        for &unit in &one.units {
            let places = at_unit.entry(unit).or_default();
            match places.last_mut() {
                Some((last, count)) if *last == at => *count += 1,
                _ => places.push((at, 1)),
            }
        }
    }
    let mut now = costs.now(coupling, &alive);
    for &unit in order.iter().filter(|&&unit| !gone[unit]) {
        if now <= costs.budget {
            break;
        }
        let places = at_unit.get(&unit).map(Vec::as_slice).unwrap_or_default();
        if places.iter().any(|&(at, count)| alive[at] <= count) {
            continue;
        }
        places.iter().for_each(|&(at, count)| alive[at] -= count);
        dead[unit] = true;
        now = costs.now(coupling, &alive);
    }
    if now > costs.budget * (1.0 + 1e-12) {
        return Err(Error::option(format!(
            "--pattern channel: {:.0} {} are allowed, and {now:.0} are left with one channel wherever channels can go{}",
            costs.budget,
            costs.what,
            examples(coupling)
        )));
    }
    Ok(dead)
}

/// The masks that silence dead units: what makes them, what reads them, and what is added to them.
fn masks(model: &Model, coupling: &Coupling, dead: &[bool]) -> Vec<(String, Mask)> {
    let mut masks: HashMap<&str, Mask> = HashMap::new();
    let mut order = Vec::new();
    for one in coupling.uses.iter().filter(|one| one.role != Role::Constant && one.units.iter().any(|&unit| dead[unit])) {
        let Some(tensor) = model.params.f32(&one.param) else { continue };
        let mask = masks.entry(&one.param).or_insert_with(|| {
            order.push(one.param.as_str());
            Mask(vec![true; tensor.len()])
        });
        let unit = one.unit_of(&tensor.shape);
        mask.0.iter_mut().enumerate().for_each(|(index, kept)| *kept &= !dead[unit(index)]);
    }
    order.into_iter().filter_map(|name| Some((name.to_string(), masks.remove(name)?))).collect()
}
