//! Folds weights that are computed from constants: weight normalisation and standardisation, masks, quantised weights.

use super::order::captured;
use super::proto::{AttributeProto, GraphProto, NodeProto};
use super::source::FileTensors;
use super::tensors::widened;
use crate::error::{Error, Result};
use crate::model::{Layer, ParamTable};
use crate::ops::{Fact, Op, axis_index, fold};
use crate::tensor::{Tensor, Value, strides};
use resprout_kernels::Isa;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

/// Values that depend on constants alone, computed on demand.
pub(super) struct Constants<'l> {
    layers: &'l [Layer],
    params: &'l ParamTable,
    /// The node of each layer, by the layer's name.
    nodes: &'l HashMap<String, usize>,
    tensors: FileTensors<'l>,
    /// The layer that writes each value.
    writers: HashMap<&'l str, usize>,
    known: HashMap<String, Option<Arc<Value>>>,
}

impl<'l> Constants<'l> {
    pub fn new(
        layers: &'l [Layer],
        params: &'l ParamTable,
        nodes: &'l HashMap<String, usize>,
        tensors: FileTensors<'l>,
        writers: HashMap<&'l str, usize>,
    ) -> Constants<'l> {
        Constants { layers, params, nodes, tensors, writers, known: HashMap::new() }
    }

    /// The weights that are computed from constants, each once, in the order of the layers that read them.
    pub fn weights(mut self) -> Vec<(String, Value)> {
        let mut found: Vec<(String, Value)> = Vec::new();
        for layer in self.layers {
            for &slot in layer.op.weight_inputs() {
                let Some(name) = layer.input(slot).filter(|name| self.writers.contains_key(name)) else { continue };
                let value = self.value(name, 0).filter(|value| value.as_f32().is_some());
                if let Some(value) = value.filter(|_| !found.iter().any(|(other, _)| other == name)) {
                    found.push((name.to_string(), (*value).clone()));
                }
            }
        }
        found
    }

    /// The numbers of a value; `None` if they depend on the input, or on an unsupported operation.
    fn value(&mut self, name: &str, depth: usize) -> Option<Arc<Value>> {
        if let Some(param) = self.params.get(name) {
            return param.value().cloned().or_else(|| self.stored(name));
        }
        if let Some(known) = self.known.get(name) {
            return known.clone();
        }
        let &writer = self.writers.get(name)?;
        let layer = &self.layers[writer];
        let first = layer.outputs.first().is_some_and(|output| output == name);
        let facts = if first && depth < MAX_DEPTH { self.facts(layer, depth) } else { None };
        let value = facts.and_then(|facts| self.compute(layer, &facts)).map(Arc::new);
        self.known.insert(name.to_string(), value.clone());
        value
    }

    fn stored(&self, name: &str) -> Option<Arc<Value>> {
        let (tensor, outside) = self.tensors.get(name)?;
        Some(Arc::new(Value::F32(widened(tensor, outside).ok()??)))
    }

    fn facts(&mut self, layer: &Layer, depth: usize) -> Option<Vec<Option<Fact>>> {
        let others = layer.outputs.len() > 1 && !matches!(&layer.op, Op::Unknown(name) if name.starts_with(NORM));
        (!layer.inputs.is_empty() && !others).then_some(())?;
        let fact = |name: &String| match name.is_empty() {
            true => Some(None),
            false => self.value(name, depth + 1).map(|value| Some(Fact::constant(value))),
        };
        layer.inputs.iter().map(fact).collect()
    }

    fn compute(&self, layer: &Layer, facts: &[Option<Fact>]) -> Option<Value> {
        match &layer.op {
            Op::Unknown(name) => {
                let node = self.tensors.graph.node.get(*self.nodes.get(&layer.name)?)?;
                match name.as_str() {
                    "DequantizeLinear" => dequantised(node, facts).ok(),
                    name if name.starts_with(NORM) => normalised(node, facts),
                    name => reduced(name, node, facts).or_else(|| elementwise(name, facts)),
                }
            }
            op => fold(op, facts, Isa::best()).ok()?,
        }
    }
}

/// How the name of an unsupported BatchNormalization begins.
const NORM: &str = "BatchNormalization";

fn attribute<'n>(node: &'n NodeProto, name: &str) -> Option<&'n AttributeProto> {
    node.attribute.iter().find(|attribute| attribute.name == name)
}

/// The longest chain of operations that is followed. The arithmetic of real weights is shorter.
const MAX_DEPTH: usize = 200;

/// Sums and norms over axes, in `f64`.
fn reduced(name: &str, node: &NodeProto, facts: &[Option<Fact>]) -> Option<Value> {
    let term: fn(f64) -> f64 = match name {
        "ReduceSum" => |x| x,
        "ReduceL1" => f64::abs,
        "ReduceL2" | "ReduceSumSquare" => |x| x * x,
        _ => return None,
    };
    let then = |sum: f64| if name == "ReduceL2" { sum.sqrt() } else { sum };
    let x = facts.first()?.as_ref()?.value.as_ref()?.as_f32()?;
    let attribute = |name: &str| attribute(node, name);
    let given =
        facts.get(1).and_then(Option::as_ref).and_then(|fact| fact.value.as_ref()?.as_i64().map(|axes| axes.data.clone()));
    let axes = given.or_else(|| attribute("axes").map(|axes| axes.ints.clone())).unwrap_or_default();
    let axes: Vec<usize> = axes.iter().map(|&axis| axis_index(axis, x.shape.len()).ok()).collect::<Option<_>>()?;
    if axes.is_empty() && attribute("noop_with_empty_axes").is_some_and(|noop| noop.i != 0) {
        return None;
    }
    let is_reduced = |axis: usize| axes.is_empty() || axes.contains(&axis);
    let kept: Vec<usize> = x.shape.iter().enumerate().map(|(axis, &side)| if is_reduced(axis) { 1 } else { side }).collect();
    let steps = strides(&kept);
    let mut sums = vec![0.0f64; kept.iter().product()];
    for (index, &value) in x.data.iter().enumerate() {
        let mut rest = index;
        let mut at = 0;
        for axis in (0..x.shape.len()).rev() {
            at += if is_reduced(axis) { 0 } else { rest % x.shape[axis] * steps[axis] };
            rest /= x.shape[axis];
        }
        sums[at] += term(f64::from(value));
    }
    let keep = attribute("keepdims").is_none_or(|keep| keep.i != 0);
    let shape =
        if keep { kept } else { (0..x.shape.len()).filter(|&axis| !is_reduced(axis)).map(|axis| x.shape[axis]).collect() };
    Some(Value::F32(Tensor::new(shape, sums.into_iter().map(|sum| then(sum) as f32).collect())))
}

/// A BatchNormalization in training mode, by mean and variance of its own input.
fn normalised(node: &NodeProto, facts: &[Option<Fact>]) -> Option<Value> {
    let number = |index: usize| facts.get(index)?.as_ref()?.value.as_ref()?.as_f32();
    let (x, scale, shift) = (number(0)?, number(1)?, number(2)?);
    let attribute = |name: &str| attribute(node, name);
    attribute("training_mode").filter(|mode| mode.i == 1)?;
    let epsilon = f64::from(attribute("epsilon").map_or(1e-5, |epsilon| epsilon.f));
    let &channels = x.shape.get(1).filter(|&&channels| channels > 0 && channels == scale.len() && channels == shift.len())?;
    let inner = x.shape[2..].iter().product::<usize>().max(1);
    let channel = |index: usize| index / inner % channels;
    let count = (x.len() / channels).max(1) as f64;
    let mut mean = vec![0.0f64; channels];
    x.data.iter().enumerate().for_each(|(index, &v)| mean[channel(index)] += f64::from(v) / count);
    let mut variance = vec![0.0f64; channels];
    x.data.iter().enumerate().for_each(|(i, &v)| variance[channel(i)] += (f64::from(v) - mean[channel(i)]).powi(2) / count);
    let of = |(index, &v): (usize, &f32)| {
        let c = channel(index);
        let unit = (f64::from(v) - mean[c]) / (variance[c] + epsilon).sqrt();
        (unit * f64::from(scale.data[c]) + f64::from(shift.data[c])) as f32
    };
    Some(Value::F32(Tensor::new(x.shape.clone(), x.data.iter().enumerate().map(of).collect())))
}

/// Element-wise operations that only the arithmetic of weights uses.
fn elementwise(name: &str, facts: &[Option<Fact>]) -> Option<Value> {
    let number = |index: usize| facts.get(index)?.as_ref()?.value.as_ref()?.as_f32().cloned();
    let x = number(0)?;
    let power = number(1).filter(|power| power.len() == 1).map(|power| power.data[0]);
    let of = |v: f32| -> Option<f32> {
        Some(match name {
            "Pow" => v.powf(power?),
            "Reciprocal" => 1.0 / v,
            "Abs" => v.abs(),
            "Exp" => v.exp(),
            _ => return None,
        })
    };
    Some(Value::F32(Tensor::new(x.shape.clone(), x.data.iter().map(|&v| of(v)).collect::<Option<_>>()?)))
}

/// `(x - zero point) * scale`, with one scale for each index along an axis or for all elements.
fn dequantised(node: &NodeProto, facts: &[Option<Fact>]) -> Result<Value> {
    let missing = || Error::unsupported("DequantizeLinear without its numbers");
    let tensor = |index: usize| match facts.get(index).and_then(Option::as_ref).and_then(|fact| fact.value.as_deref()) {
        Some(Value::F32(tensor)) => Some(tensor.clone()),
        Some(Value::I64(ints)) => Some(Tensor::new(ints.shape.clone(), ints.data.iter().map(|&v| v as f32).collect())),
        None => None,
    };
    let (x, scale) = (tensor(0).ok_or_else(missing)?, tensor(1).ok_or_else(missing)?);
    let zero = tensor(2).unwrap_or_else(|| Tensor::new(scale.shape.clone(), vec![0.0; scale.len()]));
    let attribute = |name: &str| attribute(node, name).map(|attribute| attribute.i);
    let axis = axis_index(attribute("axis").unwrap_or(1), x.shape.len().max(1))?;
    let along = x.shape.get(axis).copied().unwrap_or(1);
    let fits = scale.len() == 1 || (scale.shape.len() == 1 && scale.len() == along);
    if !fits || zero.len() != scale.len() || attribute("block_size").is_some_and(|size| size != 0) {
        return Err(Error::unsupported("DequantizeLinear in blocks"));
    }
    let inner: usize = x.shape[(axis + 1).min(x.shape.len())..].iter().product();
    let of = |index: usize| if scale.len() == 1 { 0 } else { index / inner.max(1) % along.max(1) };
    let data = x.data.iter().enumerate().map(|(i, x)| (x - zero.data[of(i)]) * scale.data[of(i)]).collect();
    Ok(Value::F32(Tensor::new(x.shape, data)))
}

/// Nodes and initializers that nothing but these values needs.
pub(super) fn unneeded(graph: &GraphProto, computed: &[String]) -> (HashSet<usize>, HashSet<usize>) {
    let cut: HashSet<&str> = computed.iter().map(String::as_str).collect();
    let before = needed(graph, &HashSet::new());
    let after = needed(graph, &cut);
    let nodes = before.0.difference(&after.0).copied().collect();
    let gone = |name: &String| before.1.contains(name) && !after.1.contains(name);
    let initializers = graph.initializer.iter().enumerate().filter(|(_, tensor)| gone(&tensor.name)).map(|(index, _)| index);
    (nodes, initializers.collect())
}

/// Nodes on which the outputs depend, and names that these read. Values in `cut` depend on nothing.
fn needed(graph: &GraphProto, cut: &HashSet<&str>) -> (HashSet<usize>, HashSet<String>) {
    let outputs =
        |(index, node): (usize, &NodeProto)| node.output.iter().map(move |name| (name.clone(), index)).collect::<Vec<_>>();
    let writers: HashMap<String, usize> = graph.node.iter().enumerate().flat_map(outputs).collect();
    let mut open: Vec<String> = graph.output.iter().map(|output| output.name.clone()).collect();
    let (mut nodes, mut names) = (HashSet::new(), HashSet::new());
    while let Some(name) = open.pop() {
        if !names.insert(name.clone()) || cut.contains(name.as_str()) {
            continue;
        }
        if let Some(&writer) = writers.get(&name).filter(|writer| nodes.insert(**writer)) {
            let node = &graph.node[writer];
            open.extend(node.input.iter().cloned().chain(captured(node)));
        }
    }
    (nodes, names)
}
