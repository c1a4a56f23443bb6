//! Which channels go together, and which parameters change with them.
//!
//! Every channel of every value has a label. Operations pass labels on (activations, pools), join them (the operands of a
//! sum), or create new ones (convolutions, linear layers). Joined labels form a *unit*, which stays or goes as a whole. An
//! unsupported operation freezes the units that it reads.

mod layers;
mod moves;
mod shapes;

use crate::model::{Layer, Model};
use crate::ops::{Fact, Op, fold};
use crate::tensor::Value;
use resprout_kernels::Isa;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

/// The meaning of an axis of a parameter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Output channels of a weight.
    Output,
    /// Input channels of a weight.
    Input,
    /// One value per channel that must be zero where the channel is pruned: biases, scale and shift.
    Channel,
    /// One value per channel that masks do not change: running statistics, constants.
    Constant,
}

/// An axis of a parameter that is cut with its units.
#[derive(Clone, Debug)]
pub struct Use {
    /// The parameter.
    pub param: String,
    /// The layer that reads it.
    pub layer: String,
    /// The axis.
    pub axis: usize,
    /// The meaning of the axis.
    pub role: Role,
    /// The unit of each index along the axis.
    pub units: Vec<usize>,
}

impl Use {
    /// Maps the flat index of an element of the parameter to its unit.
    pub fn unit_of(&self, shape: &[usize]) -> impl Fn(usize) -> usize {
        let inner: usize = shape[self.axis + 1..].iter().product();
        move |index| self.units[index / inner % self.units.len()]
    }
}

/// The units of the zero channels that a Pad adds.
#[derive(Clone, Debug)]
pub struct PadUse {
    /// The Pad's index in the graph.
    pub layer: usize,
    /// The axis of the channels.
    pub axis: usize,
    /// The pads of all axes.
    pub pads: Vec<i64>,
    /// Units of the channels before.
    pub before: Vec<usize>,
    /// Units of the channels behind.
    pub behind: Vec<usize>,
}

/// A target shape that contains the number of channels, or a multiple of it.
#[derive(Clone, Debug)]
pub struct ReshapeUse {
    /// The Reshape's index in the graph.
    pub layer: usize,
    /// The axis of the number.
    pub axis: usize,
    /// The target shape.
    pub target: Vec<i64>,
    /// The unit of each index along the axis.
    pub units: Vec<usize>,
}

/// The units of a model, and everything in it that depends on which of them stay.
#[derive(Clone, Debug)]
pub struct Coupling {
    /// For each unit, the reason why it must stay; `None` if it may go.
    pub frozen: Vec<Option<String>>,
    /// Axes of parameters.
    pub uses: Vec<Use>,
    /// Pads of channels.
    pub pads: Vec<PadUse>,
    /// Depthwise convolutions by their index in the graph, with the units of their inputs. The number of groups follows from
    /// these.
    pub depthwise: Vec<(usize, Vec<usize>)>,
    /// Reshapes whose target contains a number of channels.
    pub reshapes: Vec<ReshapeUse>,
}

impl Coupling {
    /// Follows the channels of a model. `stays` gets the name of a weight, and returns a reason if it keeps its channels.
    pub fn new(model: &Model, stays: impl Fn(&str) -> Option<String>) -> Coupling {
        let mut builder = CouplingBuilder::new(model);
        for index in 0..model.graph.layers.len() {
            let layer = &model.graph.layers[index];
            if builder.layer(index, layer).is_none() {
                builder.unsupported(layer);
            }
        }
        for output in &model.graph.outputs {
            builder.freeze(output, || "an output of the network".into());
        }
        builder.finish(stays)
    }

    /// The axes of output channels.
    pub fn outputs(&self) -> impl Iterator<Item = &Use> {
        self.uses.iter().filter(|one| one.role == Role::Output)
    }

    /// Whether all units of an axis must stay.
    pub fn is_frozen(&self, one: &Use) -> bool {
        one.units.iter().all(|&unit| self.frozen[unit].is_some())
    }

    /// A few reasons why channels must stay, as the end of a message.
    pub(crate) fn example_reasons(&self) -> String {
        let mut reasons: Vec<&str> = self.frozen.iter().flatten().map(String::as_str).collect();
        reasons.sort_unstable();
        reasons.dedup();
        reasons.truncate(3);
        if reasons.is_empty() { String::new() } else { format!(": {}", reasons.join("; ")) }
    }
}

/// The most channels of all values together, those that belong together counted once each.
const MOST_LABELS: usize = 1 << 20;

/// The channels of a value.
#[derive(Clone)]
struct Channels {
    /// One label for each index along the axis.
    labels: Vec<usize>,
    axis: usize,
    rank: usize,
}

struct CouplingBuilder<'m> {
    model: &'m Model,
    parents: Vec<usize>,
    frozen: Vec<Option<String>>,
    values: HashMap<&'m str, Channels>,
    /// The shapes of values, where they are known.
    shapes: HashMap<&'m str, Vec<usize>>,
    uses: Vec<Use>,
    pads: Vec<PadUse>,
    depthwise: Vec<(usize, Vec<usize>)>,
    reshapes: Vec<ReshapeUse>,
    /// Values that depend on constants alone.
    constants: HashMap<&'m str, Arc<Value>>,
    /// Constants that are a vector parameter with additional axes of length 1.
    unsqueezed: HashMap<&'m str, &'m str>,
    /// Parameters that an unsupported operation reads.
    untouchable: HashSet<&'m str>,
    readers: HashMap<&'m str, usize>,
}

impl<'m> CouplingBuilder<'m> {
    fn new(model: &'m Model) -> CouplingBuilder<'m> {
        let mut builder = CouplingBuilder {
            model,
            parents: Vec::new(),
            frozen: Vec::new(),
            values: HashMap::new(),
            shapes: shapes::infer(model),
            uses: Vec::new(),
            pads: Vec::new(),
            depthwise: Vec::new(),
            reshapes: Vec::new(),
            constants: HashMap::new(),
            unsqueezed: HashMap::new(),
            untouchable: HashSet::new(),
            readers: model.graph.reader_counts(),
        };
        for input in &model.graph.inputs {
            if let Some(shape) = builder.shapes.get(input.name.as_str()).filter(|shape| shape.len() > 1) {
                let (channels, rank) = (shape[1], shape.len());
                if let Some(labels) = builder.fresh(channels, Some("an input of the network")) {
                    builder.values.insert(&input.name, Channels { labels, axis: 1, rank });
                }
            }
        }
        builder
    }

    /// New labels, frozen for a reason or free. `None` if they are more than a network has: a few bytes of a file can ask for any
    /// number.
    fn fresh(&mut self, count: usize, frozen: Option<&str>) -> Option<Vec<usize>> {
        let first = self.parents.len();
        let end = first.checked_add(count).filter(|end| *end <= MOST_LABELS)?;
        self.parents.extend(first..end);
        self.frozen.extend((0..count).map(|_| frozen.map(String::from)));
        Some((first..end).collect())
    }

    fn root(&mut self, mut label: usize) -> usize {
        while self.parents[label] != label {
            self.parents[label] = self.parents[self.parents[label]];
            label = self.parents[label];
        }
        label
    }

    fn join(&mut self, a: usize, b: usize) {
        let (a, b) = (self.root(a), self.root(b));
        let (low, high) = (a.min(b), a.max(b));
        if low != high {
            self.parents[high] = low;
            let reason = self.frozen[high].take();
            self.frozen[low] = self.frozen[low].take().or(reason);
        }
    }

    fn join_all(&mut self, a: &[usize], b: &[usize]) {
        a.iter().zip(b).for_each(|(&a, &b)| self.join(a, b));
    }

    fn freeze_labels(&mut self, labels: &[usize], reason: &str) {
        for &label in labels {
            let root = self.root(label);
            self.frozen[root].get_or_insert_with(|| reason.to_string());
        }
    }

    fn freeze(&mut self, value: &str, reason: impl FnOnce() -> String) {
        if let Some(channels) = self.values.get(value).cloned() {
            self.freeze_labels(&channels.labels, &reason());
        }
    }

    fn unsupported(&mut self, layer: &'m Layer) {
        for name in layer.inputs.iter().filter(|name| !name.is_empty()) {
            self.freeze(name, || format!("layer {:?} ({}) reads them", layer.name, layer.op.name()));
            if self.model.params.get(name).is_some() {
                self.untouchable.insert(name);
            }
        }
    }

    /// The labels of `width` channels along an axis of a layer's first input. If the channels are unknown, or frozen in another
    /// layout, the labels are new and frozen.
    fn input(&mut self, layer: &'m Layer, axis: usize, width: usize) -> Option<Vec<usize>> {
        let Some(channels) = self.values.get(layer.input(0)?).cloned() else {
            return self.fresh(width, Some("channels that cannot be followed"));
        };
        if channels.axis == axis && channels.labels.len() == width {
            return Some(channels.labels);
        }
        let stay = channels.labels.iter().all(|&label| {
            let root = self.root(label);
            self.frozen[root].is_some()
        });
        if stay { self.fresh(width, Some("channels that cannot be followed")) } else { None }
    }

    fn cut(&mut self, layer: &Layer, param: &str, axis: usize, role: Role, units: &[usize]) {
        self.uses.push(Use { param: param.into(), layer: layer.name.clone(), axis, role, units: units.to_vec() });
    }

    /// Sets the channels of a layer's result; `None` if they do not match its shape.
    fn set(&mut self, layer: &'m Layer, channels: Channels) -> Option<()> {
        let output = layer.outputs.first()?;
        let fits = |shape: &Vec<usize>| shape.len() == channels.rank && shape[channels.axis] == channels.labels.len();
        self.shapes.get(output.as_str()).is_none_or(fits).then_some(())?;
        self.values.insert(output, channels);
        Some(())
    }

    /// The value of that name, if it depends on constants alone.
    fn constant(&self, name: &str) -> Option<Arc<Value>> {
        self.constants.get(name).or_else(|| self.model.params.get(name)?.value()).cloned()
    }

    fn integers(&self, name: Option<&str>) -> Option<Vec<i64>> {
        self.constant(name?)?.as_i64().map(|array| array.data.clone())
    }

    /// Computes a layer of small constants: exporters compute axes, pads and shapes in the graph.
    fn fold(&mut self, layer: &'m Layer) -> Option<()> {
        let fact = |name: &String| match name.is_empty() {
            true => Some(None),
            false => self
                .constant(name)
                .filter(|value| value.shape().iter().product::<usize>() <= FOLDED)
                .map(|value| Some(Fact::constant(value))),
        };
        let facts: Vec<Option<Fact>> = layer.inputs.iter().map(fact).collect::<Option<_>>()?;
        let value = fold(&layer.op, &facts, Isa::best()).ok()??;
        let source = layer.input(0).filter(|name| self.model.params.f32(name).is_some_and(|tensor| tensor.shape.len() == 1));
        if let (Op::Unsqueeze { .. }, Some(source)) = (&layer.op, source) {
            self.unsqueezed.insert(layer.outputs.first()?, source);
        }
        self.constants.insert(layer.outputs.first()?, Arc::new(value));
        Some(())
    }

    fn finish(mut self, stays: impl Fn(&str) -> Option<String>) -> Coupling {
        // A parameter that several layers read is cut alike in all of them, or not at all.
        let uses = std::mem::take(&mut self.uses);
        // The supported layers that read each parameter.
        let mut supported: HashMap<&str, HashSet<&str>> = HashMap::new();
        for one in &uses {
            supported.entry(&one.param).or_default().insert(&one.layer);
        }
        let mut first: HashMap<(&str, usize), &Use> = HashMap::new();
        for one in &uses {
            let param = one.param.as_str();
            let readers = self.readers.get(param).copied().unwrap_or(usize::MAX);
            if self.untouchable.contains(param) || readers > supported[param].len() {
                self.freeze_labels(&one.units, "their numbers are read elsewhere too");
            }
            if !self.model.can_be_cut(param) {
                self.freeze_labels(&one.units, "the file reshapes their weight to a fixed shape");
            }
            match first.entry((&one.param, one.axis)) {
                std::collections::hash_map::Entry::Occupied(other) => self.join_all(&other.get().units, &one.units),
                std::collections::hash_map::Entry::Vacant(entry) => {
                    entry.insert(one);
                }
            }
            if let Some(reason) = stays(&one.param).filter(|_| matches!(one.role, Role::Output | Role::Input)) {
                self.freeze_labels(&one.units, &reason);
            }
        }
        let (mut units, mut frozen) = (HashMap::new(), Vec::new());
        let roots: Vec<usize> = (0..self.parents.len()).map(|label| self.root(label)).collect();
        for &root in &roots {
            units.entry(root).or_insert_with(|| {
                frozen.push(self.frozen[root].clone());
                frozen.len() - 1
            });
        }
        let unit = |labels: Vec<usize>| labels.into_iter().map(|label| units[&roots[label]]).collect::<Vec<usize>>();
        Coupling {
            uses: uses.into_iter().map(|one| Use { units: unit(one.units), ..one }).collect(),
            pads: self.pads.into_iter().map(|pad| PadUse { before: unit(pad.before), behind: unit(pad.behind), ..pad }).collect(),
            depthwise: self.depthwise.into_iter().map(|(layer, labels)| (layer, unit(labels))).collect(),
            reshapes: self.reshapes.into_iter().map(|one| ReshapeUse { units: unit(one.units), ..one }).collect(),
            frozen,
        }
    }
}

/// The most elements of a constant that is folded.
const FOLDED: usize = 4096;

#[cfg(test)]
mod tests;
