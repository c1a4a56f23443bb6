//! Which channels can only go together, and what has to change when they go.
//!
//! Every channel of every value has a label: the value's axis of channels and its rank are known. Operations hand labels on (activations, pools), join them (a sum
//! makes its operands' channels one), or make new ones (convolutions, linear layers). What joins is one *unit*:
//! it stays or goes as a whole. An operation that is not understood freezes what it reads: those units stay.

mod layers;
mod moves;
mod shapes;

use crate::model::{Layer, Model};
use crate::ops::{Fact, Op, fold};
use crate::tensor::Value;
use resprout_kernels::Isa;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

/// What an axis of a parameter stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Output channels of a weight.
    Output,
    /// Input channels of a weight.
    Input,
    /// A number per channel that must be zero where the channel is pruned: biases, scale and shift.
    Channel,
    /// A number per channel that a mask leaves alone: running statistics, constants.
    Constant,
}

/// An axis of a parameter that is cut when units go.
#[derive(Clone, Debug)]
pub struct Use {
    /// The parameter.
    pub param: String,
    /// The layer that reads it.
    pub layer: String,
    /// The axis.
    pub axis: usize,
    /// What the axis stands for.
    pub role: Role,
    /// The unit of each index along the axis.
    pub units: Vec<usize>,
}

impl Use {
    /// From the flat index of an element of the parameter to its unit.
    pub fn unit_of(&self, shape: &[usize]) -> impl Fn(usize) -> usize {
        let inner: usize = shape[self.axis + 1..].iter().product();
        move |index| self.units[index / inner % self.units.len()]
    }
}

/// Zero channels that a Pad adds before and behind, by their units.
#[derive(Clone, Debug)]
pub struct PadUse {
    /// The Pad's index in the graph.
    pub layer: usize,
    /// The axis of the channels.
    pub axis: usize,
    /// All its pads.
    pub pads: Vec<i64>,
    /// Units of channels added before.
    pub before: Vec<usize>,
    /// Units of channels added behind.
    pub behind: Vec<usize>,
}

/// A target shape that names the number of channels, or of all that a channel has become.
#[derive(Clone, Debug)]
pub struct ReshapeUse {
    /// The Reshape's index in the graph.
    pub layer: usize,
    /// Where the number stands.
    pub axis: usize,
    /// The whole target.
    pub target: Vec<i64>,
    /// The unit of each index along the axis.
    pub units: Vec<usize>,
}

/// Everything that depends on which units stay.
#[derive(Clone, Debug)]
pub struct Coupling {
    /// For each unit that has to stay, why.
    pub frozen: Vec<Option<String>>,
    /// Axes of parameters.
    pub uses: Vec<Use>,
    /// Pads of channels.
    pub pads: Vec<PadUse>,
    /// Depthwise convolutions by their index in the graph, with the units of their inputs: their number of groups.
    pub depthwise: Vec<(usize, Vec<usize>)>,
    /// Reshapes that name a number of channels.
    pub reshapes: Vec<ReshapeUse>,
}

impl Coupling {
    /// Follows the channels of a model. Output channels of weights for which `stays` gives a reason stay whole.
    pub fn new(model: &Model, stays: impl Fn(&str) -> Option<String>) -> Coupling {
        let mut builder = CouplingBuilder::new(model);
        for index in 0..model.graph.layers.len() {
            let layer = &model.graph.layers[index];
            if builder.layer(index, layer).is_none() {
                builder.not_understood(layer);
            }
        }
        for output in &model.graph.outputs {
            builder.freeze(output, || "an output of the network".into());
        }
        builder.finish(stays)
    }
}

/// The channels of a value.
#[derive(Clone)]
struct Channels {
    /// One for each index along the axis.
    labels: Vec<usize>,
    axis: usize,
    rank: usize,
}

struct CouplingBuilder<'m> {
    model: &'m Model,
    parents: Vec<usize>,
    frozen: Vec<Option<String>>,
    values: HashMap<&'m str, Channels>,
    /// Of every value whose shape can be worked out.
    shapes: HashMap<&'m str, Vec<usize>>,
    uses: Vec<Use>,
    pads: Vec<PadUse>,
    depthwise: Vec<(usize, Vec<usize>)>,
    reshapes: Vec<ReshapeUse>,
    /// What follows from constants alone.
    constants: HashMap<&'m str, Arc<Value>>,
    /// Constants that are a parameter of one axis with more axes around it.
    spread: HashMap<&'m str, &'m str>,
    /// Parameters that something reads which is not understood.
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
            spread: HashMap::new(),
            untouchable: HashSet::new(),
            readers: model.graph.reader_counts(),
        };
        for input in &model.graph.inputs {
            if let Some(shape) = builder.shapes.get(input.name.as_str()).filter(|shape| shape.len() > 1) {
                let (channels, rank) = (shape[1], shape.len());
                let labels = builder.fresh(channels, Some("an input of the network"));
                builder.values.insert(&input.name, Channels { labels, axis: 1, rank });
            }
        }
        builder
    }

    fn fresh(&mut self, count: usize, frozen: Option<&str>) -> Vec<usize> {
        let first = self.parents.len();
        self.parents.extend(first..first + count);
        self.frozen.extend((0..count).map(|_| frozen.map(String::from)));
        (first..first + count).collect()
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

    fn not_understood(&mut self, layer: &'m Layer) {
        for name in layer.inputs.iter().filter(|name| !name.is_empty()) {
            self.freeze(name, || format!("layer {:?} ({}) reads them", layer.name, layer.op.name()));
            if self.model.params.get(name).is_some() {
                self.untouchable.insert(name);
            }
        }
    }

    /// The labels of so many channels along an axis of a layer's first input. Unknown ones stay, and those that must stay
    /// anyway may be others.
    fn input(&mut self, layer: &'m Layer, axis: usize, width: usize) -> Option<Vec<usize>> {
        let Some(channels) = self.values.get(layer.input(0)?).cloned() else {
            return Some(self.fresh(width, Some("channels that cannot be followed")));
        };
        if channels.axis == axis && channels.labels.len() == width {
            return Some(channels.labels);
        }
        let stay = channels.labels.iter().all(|&label| {
            let root = self.root(label);
            self.frozen[root].is_some()
        });
        stay.then(|| self.fresh(width, Some("channels that cannot be followed")))
    }

    fn cut(&mut self, layer: &Layer, param: &str, axis: usize, role: Role, units: &[usize]) {
        self.uses.push(Use { param: param.into(), layer: layer.name.clone(), axis, role, units: units.to_vec() });
    }

    /// The channels of a layer's result; `None` if they do not fit its shape.
    fn set(&mut self, layer: &'m Layer, channels: Channels) -> Option<()> {
        let output = layer.outputs.first()?;
        let fits = |shape: &Vec<usize>| shape.len() == channels.rank && shape[channels.axis] == channels.labels.len();
        self.shapes.get(output.as_str()).is_none_or(fits).then_some(())?;
        self.values.insert(output, channels);
        Some(())
    }

    /// The number or whole numbers of that name, if they follow from constants alone.
    fn constant(&self, name: &str) -> Option<Arc<Value>> {
        self.constants.get(name).or_else(|| self.model.params.get(name)?.value()).cloned()
    }

    fn whole_numbers(&self, name: Option<&str>) -> Option<Vec<i64>> {
        self.constant(name?)?.as_i64().map(|array| array.data.clone())
    }

    /// Computes what follows from a few constants: axes, pads and shapes as exporters write them.
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
            self.spread.insert(layer.outputs.first()?, source);
        }
        self.constants.insert(layer.outputs.first()?, Arc::new(value));
        Some(())
    }

    fn finish(mut self, stays: impl Fn(&str) -> Option<String>) -> Coupling {
        // A parameter that is read in several places is cut in all of them alike, or not at all.
        let uses = std::mem::take(&mut self.uses);
        // The layers that read each parameter in a way that is understood.
        let mut understood: HashMap<&str, HashSet<&str>> = HashMap::new();
        for one in &uses {
            understood.entry(&one.param).or_default().insert(&one.layer);
        }
        let mut first: HashMap<(&str, usize), &Use> = HashMap::new();
        for one in &uses {
            let param = one.param.as_str();
            let readers = self.readers.get(param).copied().unwrap_or(usize::MAX);
            if self.untouchable.contains(param) || readers > understood[param].len() {
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

/// Most elements of a constant that is computed with.
const FOLDED: usize = 4096;

#[cfg(test)]
mod tests;
