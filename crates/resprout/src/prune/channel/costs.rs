//! The cost of channels, and the units that go to meet the budget.

use crate::error::{Error, Result};
use crate::forward::layer_macs;
use crate::model::{Mask, Model, Prunable, fixed_image};
use crate::prune::options::PruneOptions;
use crate::structure::coupling::{Coupling, Role};
use crate::tensor::Tensor;
use std::collections::{HashMap, HashSet};

/// Units that earlier masks have removed: no kept weight writes or reads them.
pub(super) fn gone(model: &Model, coupling: &Coupling) -> Vec<bool> {
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

/// The cost of the network, and its budget.
pub(super) struct Costs {
    /// For each weight: its cost with all channels, and the positions of its axes among the uses.
    weights: Vec<(f64, Vec<usize>)>,
    pub budget: f64,
    what: &'static str,
}

impl Costs {
    pub fn new(
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
            (Some(_), None) => return Err(Error::option("macs: the model leaves the size of its images free; give images")),
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
                // Single pruned weights cost nothing in the remaining channels.
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

/// The number of remaining channels of each use.
fn alive(coupling: &Coupling, gone: &[bool]) -> Vec<usize> {
    coupling.uses.iter().map(|one| one.units.iter().filter(|&&unit| !gone[unit]).count()).collect()
}

/// The share of channels that remain in a use.
fn share(coupling: &Coupling, alive: &[usize], at: usize) -> f64 {
    alive[at] as f64 / coupling.uses[at].units.len() as f64
}

/// Removes units in order until the budget is met, and returns all removed ones. Every weight keeps one channel on each axis.
pub(super) fn remove(costs: &Costs, coupling: &Coupling, order: &[usize], gone: &[bool]) -> Result<Vec<bool>> {
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
            "pattern channel: {:.0} {} are allowed, and {now:.0} are left with one channel wherever channels can go{}",
            costs.budget,
            costs.what,
            coupling.example_reasons()
        )));
    }
    Ok(dead)
}

/// The masks that silence dead units: on the weights that write or read them, and on their biases, scales and shifts.
pub(super) fn masks(model: &Model, coupling: &Coupling, dead: &[bool]) -> Vec<(String, Mask)> {
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
