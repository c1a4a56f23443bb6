//! Shrinks a network: cuts the channels that no weight reads out of every parameter.

use super::coupling::{Coupling, Role};
use crate::error::{Error, Result};
use crate::formats::onnx;
use crate::model::{Mask, Model, Param};
use crate::ops::Op;
use crate::tensor::{Array, Tensor, Value};
use serde::{Deserialize, Serialize};
use std::collections::HashSet;

/// A weight that was cut.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cut {
    /// The layer that reads it.
    pub layer: String,
    /// The weight.
    pub param: String,
    /// Its shape before.
    pub from: Vec<usize>,
    /// Its shape after.
    pub to: Vec<usize>,
}

/// The model without the channels whose readers are all zero, and the weights that were cut. It computes the same, up to the
/// order of sums. [`Pattern::Channel`](super::Pattern::Channel) makes such channels.
pub fn shrink(model: &Model) -> Result<(Model, Vec<Cut>)> {
    let coupling = Coupling::new(model, |_| None);
    let dead = unread(model, &coupling);
    let mut small = model.clone();
    let (mut cuts, mut done) = (Vec::new(), HashSet::new());
    for one in &coupling.uses {
        if !done.insert((&one.param, one.axis)) || !one.units.iter().any(|&unit| dead[unit]) {
            continue;
        }
        let keep: Vec<usize> = (0..one.units.len()).filter(|&index| !dead[one.units[index]]).collect();
        let tensor = small.weight(&one.param)?;
        let from = tensor.shape.clone();
        let mut to = from.clone();
        to[one.axis] = keep.len();
        let tensor = Tensor::new(to, pick(&tensor.data, &from, one.axis, &keep));
        if matches!(one.role, Role::Output | Role::Input) {
            note(
                &mut cuts,
                Cut { layer: one.layer.clone(), param: one.param.clone(), from: from.clone(), to: tensor.shape.clone() },
            );
        }
        if let Some(mask) = small.masks.get(&one.param) {
            let mask = pick(&mask.0, &from, one.axis, &keep);
            small.masks.insert(one.param.clone(), Mask(mask));
        }
        small.params.replace(&one.param, Param::from_tensor(tensor));
    }
    if cuts.is_empty() {
        return Ok((small, cuts));
    }
    for pad in &coupling.pads {
        let count = |units: &[usize]| units.iter().filter(|&&unit| !dead[unit]).count() as i64;
        let mut pads = pad.pads.clone();
        let behind = pads.len() / 2 + pad.axis;
        (pads[pad.axis], pads[behind]) = (count(&pad.before), count(&pad.behind));
        set_second_input(&mut small, pad.layer, "pads", pads)?;
    }
    for reshape in &coupling.reshapes {
        let mut target = reshape.target.clone();
        target[reshape.axis] = reshape.units.iter().filter(|&&unit| !dead[unit]).count() as i64;
        set_second_input(&mut small, reshape.layer, "shape", target)?;
    }
    for (layer, inputs) in &coupling.depthwise {
        if let Op::Conv(attributes) = &mut small.graph.layers[*layer].op {
            attributes.groups = inputs.iter().filter(|&&unit| !dead[unit]).count();
        }
    }
    // Parsed again, so that graph, shapes and bytes agree.
    let masks = std::mem::take(&mut small.masks);
    let mut read = onnx::parse(onnx::encode(&small)?, None)?;
    read.masks = masks;
    Ok((read, cuts))
}

/// Units whose readers are all zero. Every weight keeps one channel on each axis.
fn unread(model: &Model, coupling: &Coupling) -> Vec<bool> {
    let mut read = vec![true; coupling.frozen.len()];
    let reading: Vec<_> = coupling.uses.iter().filter(|one| one.role == Role::Input).collect();
    reading.iter().flat_map(|one| &one.units).for_each(|&unit| read[unit] = false);
    for one in &reading {
        let Some(tensor) = model.params.f32(&one.param) else { continue };
        let unit = one.unit_of(&tensor.shape);
        let nonzero = tensor.data.iter().enumerate().filter(|(_, weight)| **weight != 0.0);
        nonzero.for_each(|(index, _)| read[unit(index)] = true);
    }
    let mut dead: Vec<bool> = read.iter().zip(&coupling.frozen).map(|(&read, frozen)| !read && frozen.is_none()).collect();
    loop {
        let empty = coupling.uses.iter().find(|one| one.units.iter().all(|&unit| dead[unit]));
        match empty.and_then(|one| one.units.first()) {
            Some(&unit) => dead[unit] = false,
            None => return dead,
        }
    }
}

/// Gives a layer a second input of its own, because other layers may read the present one.
fn set_second_input(model: &mut Model, layer: usize, what: &str, numbers: Vec<i64>) -> Result<()> {
    let name = format!("{}.{what}.cut", model.graph.layers[layer].name);
    if !model.params.insert(name.clone(), Param::from_value(Value::I64(Array::vector(numbers)))) {
        return Err(Error::unsupported(format!("{name:?} is the name of something else")));
    }
    model.graph.layers[layer].inputs[1] = name;
    Ok(())
}

/// Adds a cut. Both axes of one weight are one cut.
fn note(cuts: &mut Vec<Cut>, cut: Cut) {
    match cuts.iter_mut().find(|other| other.param == cut.param) {
        Some(other) => other.to = cut.to,
        None => cuts.push(cut),
    }
}

/// The elements at the chosen indices along an axis.
fn pick<T: Copy>(data: &[T], shape: &[usize], axis: usize, keep: &[usize]) -> Vec<T> {
    let inner: usize = shape[axis + 1..].iter().product();
    let blocks = data.chunks_exact((shape[axis] * inner).max(1));
    blocks.flat_map(|block| keep.iter().flat_map(move |&index| &block[index * inner..][..inner])).copied().collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::architectures::{INITS, Net, Window};
    use crate::forward::{Network, PlanOptions};
    use crate::progress::Quiet;
    use crate::prune::{PruneOptions, prune};
    use crate::random::SplitMix64;
    use crate::structure::Pattern;
    use proptest::prelude::*;

    /// A network of random layers: each reads one or two of the values so far.
    fn random_network(seed: u64, layers: usize) -> Model {
        let mut random = SplitMix64::new(seed, 0);
        let mut net = Net::new([4, 8, 8], &INITS[0].build, seed);
        let mut values = vec![net.input()];
        for index in 0..layers {
            let x = values[random.below(values.len())].clone();
            let name = format!("n{index}");
            let size = |n: usize| 2 * (1 + n);
            let y = match random.below(9) {
                0 => net.conv(&x, &name, size(random.below(4)), Window::new(1, 1, 0), 1, true).unwrap(),
                1 => net.conv(&x, &name, size(random.below(4)), Window::new(3, 1, 1), 1, false).unwrap(),
                2 => net.conv(&x, &name, size(random.below(4)), Window::new(3, 1, 1), 2, false).unwrap(),
                3 => net.conv(&x, &name, x.channels, Window::new(3, 1, 1), x.channels, true).unwrap(),
                4 => net.batch_norm(&x, &name),
                5 if !values.iter().any(|v| v.name == format!("{}.relu", x.name)) => net.relu(&x),
                5 => net.batch_norm(&x, &name),
                6 if x.size[0] > 2 => net.pad_shortcut(&x, &name, x.channels + 2),
                7 | 6 => {
                    let same: Vec<_> = values.iter().filter(|v| v.size == x.size).cloned().collect();
                    net.concat(&[x, same[random.below(same.len())].clone()], &name)
                }
                _ => {
                    let same: Vec<_> = values.iter().filter(|v| v.size == x.size && v.channels == x.channels).cloned().collect();
                    net.add(&x, &same[random.below(same.len())].clone(), &name)
                }
            };
            values.push(y);
        }
        // Values that no layer reads so far are pooled too.
        let rows: Vec<_> =
            values.iter().enumerate().skip(1).map(|(i, value)| net.global_average(value, &format!("pool{i}"))).collect();
        let all = if rows.is_empty() { net.global_average(&values[0], "pool") } else { net.concat(&rows, "all") };
        let flat = net.flatten(&all, "flat");
        let output = net.linear(&flat, "classes", 3).name;
        let mut model = net.finish("random", &output, 3).unwrap();
        let names: Vec<String> = model.params.iter().map(|(name, _)| name.to_string()).collect();
        for name in names {
            let Some(tensor) = model.params.f32_mut(&name).filter(|tensor| tensor.shape.len() == 1) else { continue };
            tensor.data.iter_mut().for_each(|value| *value = 0.5 + random.next_f64() as f32);
        }
        model
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(200))]
        #[test]
        fn random_networks_stay_the_same(seed in 0u64..1_000_000, layers in 2usize..14, sparsity in 0.05f64..0.6) {
            let model = random_network(seed, layers);
            let images = Tensor::new(vec![2, 4, 8, 8], (0..512).map(|i| (i as f32 * 0.37).sin()).collect());
            let run = |model: &Model| {
                let network = Network::new(model, &[4, 8, 8], &PlanOptions::default()).unwrap();
                network.run(&images).unwrap().swap_remove(0).data
            };
            let options = PruneOptions {
                sparsity, criterion: "random".into(), allocation: "global".into(), pattern: Pattern::Channel, seed,
                ..PruneOptions::default()
            };
            let mut masked = model.clone();
            // Some networks have no channel that can go, or too few.
            if prune(&mut masked, &options, &Tensor::default(), &Quiet).is_ok() {
                let (small, cuts) = shrink(&masked).unwrap();
                prop_assert!(!cuts.is_empty());
                let (before, after) = (run(&masked), run(&small));
                let largest = before.iter().fold(0.0f32, |largest, value| largest.max(value.abs()));
                for (a, b) in before.iter().zip(&after) {
                    prop_assert!((a - b).abs() <= 1e-4 * largest, "{:?} {:?}", before, after);
                }
            }
        }
    }
}
