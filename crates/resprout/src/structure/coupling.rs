//! Which channels can only go together, and what has to change when they go.
//!
//! Every channel of every value has a label. Operations hand labels on (activations, pools), join them (a sum
//! makes its operands' channels one), or make new ones (convolutions, linear layers). What joins is one *unit*:
//! it stays or goes as a whole. An operation that is not understood freezes what it reads: those units stay.

use crate::model::{Dim, Layer, Model};
use crate::ops::{ConvAttributes, Fact, Op, PadMode, fold};
use crate::tensor::Value;
use resprout_kernels::Kernel;
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
    /// All its pads.
    pub pads: Vec<i64>,
    /// Units of channels added before.
    pub before: Vec<usize>,
    /// Units of channels added behind.
    pub behind: Vec<usize>,
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
    /// Reshapes to rows, by their index in the graph, that name the number of columns.
    pub reshapes: Vec<usize>,
}

impl Coupling {
    /// Follows the channels of a model. Output channels of weights for which `stays` gives a reason stay whole.
    pub fn new(model: &Model, stays: impl Fn(&str) -> Option<String>) -> Coupling {
        let mut builder = Builder::new(model);
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
    labels: Vec<usize>,
    /// Whether the value has the axes batch and features alone; a feature may be a position of a channel then.
    flat: bool,
}

struct Builder<'m> {
    model: &'m Model,
    parents: Vec<usize>,
    frozen: Vec<Option<String>>,
    values: HashMap<&'m str, Channels>,
    uses: Vec<Use>,
    pads: Vec<PadUse>,
    depthwise: Vec<(usize, Vec<usize>)>,
    reshapes: Vec<usize>,
    /// What follows from constants alone.
    constants: HashMap<&'m str, Arc<Value>>,
    /// Constants that are a parameter of one axis with more axes around it.
    spread: HashMap<&'m str, &'m str>,
    /// Parameters that something reads which is not understood.
    untouchable: HashSet<&'m str>,
    readers: HashMap<&'m str, usize>,
}

impl<'m> Builder<'m> {
    fn new(model: &'m Model) -> Builder<'m> {
        let mut builder = Builder {
            model,
            parents: Vec::new(),
            frozen: Vec::new(),
            values: HashMap::new(),
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
            if let Some(&Dim::Fixed(channels)) = input.shape.get(1) {
                let labels = builder.fresh(channels, Some("an input of the network"));
                builder.values.insert(&input.name, Channels { labels, flat: input.shape.len() == 2 });
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

    /// The channels of a layer's first input; unknown ones stay.
    fn input(&mut self, layer: &'m Layer, width: usize) -> Option<Channels> {
        let name = layer.input(0)?;
        if let Some(channels) = self.values.get(name) {
            return Some(channels.clone());
        }
        let labels = self.fresh(width, Some("channels that cannot be followed"));
        Some(Channels { labels, flat: false })
    }

    fn cut(&mut self, layer: &Layer, param: &str, axis: usize, role: Role, units: &[usize]) {
        self.uses.push(Use { param: param.into(), layer: layer.name.clone(), axis, role, units: units.to_vec() });
    }

    fn set(&mut self, layer: &'m Layer, channels: Channels) -> Option<()> {
        self.values.insert(layer.outputs.first()?, channels);
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
        let value = fold(&layer.op, &facts, Kernel::best()).ok()??;
        let source = layer.input(0).filter(|name| self.model.params.f32(name).is_some_and(|tensor| tensor.shape.len() == 1));
        if let (Op::Unsqueeze { .. }, Some(source)) = (&layer.op, source) {
            self.spread.insert(layer.outputs.first()?, source);
        }
        self.constants.insert(layer.outputs.first()?, Arc::new(value));
        Some(())
    }

    /// Follows one layer; `None` if it is not understood.
    fn layer(&mut self, index: usize, layer: &'m Layer) -> Option<()> {
        if self.fold(layer).is_some() {
            return Some(());
        }
        let computed = |name: &&String| !name.is_empty() && self.model.params.get(name).is_none();
        let labelled = layer.inputs.iter().filter(computed).any(|name| self.values.contains_key(name.as_str()));
        match &layer.op {
            Op::Conv(attributes) => self.conv(index, layer, attributes),
            Op::ConvTranspose(_) => self.transposed(layer),
            Op::Gemm { trans_a: false, trans_b, .. } => self.linear(layer, usize::from(*trans_b)),
            Op::MatMul => self.linear(layer, 0),
            // Arithmetic on shapes has no channels, and is none of our business.
            _ if !labelled => match layer.op {
                Op::BatchNorm { .. } => None,
                _ => Some(()),
            },
            Op::BatchNorm { .. } => {
                let x = self.values.get(layer.input(0)?)?.clone();
                for (input, role) in [(1, Role::Channel), (2, Role::Channel), (3, Role::Constant), (4, Role::Constant)] {
                    let name = layer.input(input)?;
                    (self.model.params.f32(name)?.len() == x.labels.len()).then_some(())?;
                    self.cut(layer, name, 0, role, &x.labels);
                }
                self.set(layer, x)
            }
            Op::Unary(_) | Op::Clip { .. } | Op::MaxPool(_) | Op::AveragePool(_) | Op::GlobalAveragePool | Op::Identity => {
                self.pass(layer, None)
            }
            Op::Resize(_) if layer.input(3).is_none() => self.pass(layer, None),
            Op::Flatten { axis: 1 } => self.pass(layer, Some(true)),
            Op::ReduceMean { axes, keep_dims, .. } => {
                let axes = &axes.clone().or_else(|| self.whole_numbers(layer.input(1)))?;
                self.spatial(layer, axes)?;
                self.pass(layer, (!keep_dims && axes.len() == 2).then_some(true))
            }
            Op::Squeeze { axes } => {
                let axes = &axes.clone().or_else(|| self.whole_numbers(layer.input(1)))?;
                self.spatial(layer, axes)?;
                self.pass(layer, (axes.len() == 2).then_some(true))
            }
            Op::Unsqueeze { axes } => {
                let axes = &axes.clone().or_else(|| self.whole_numbers(layer.input(1)))?;
                let behind = axes.len() == 2 && axes.iter().all(|axis| SPATIAL.contains(axis));
                (behind && self.values.get(layer.input(0)?)?.flat).then_some(())?;
                self.pass(layer, Some(false))
            }
            Op::Reshape { allow_zero: false } => self.reshape(index, layer),
            Op::Shape { start, end } => self.shape(layer, *start, *end),
            Op::Binary(_) => self.binary(layer),
            Op::Concat { axis } => self.concat(layer, *axis),
            Op::Slice { attributes } => {
                let axes = match attributes {
                    Some([_, _, axes]) => axes.clone(),
                    None => self.whole_numbers(layer.input(3))?,
                };
                self.spatial(layer, &axes)?;
                self.pass(layer, None)
            }
            Op::Pad { mode, attributes } => self.pad(index, layer, mode, attributes.is_some()),
            _ => None,
        }
    }

    /// Whether these are height or width of the first input.
    fn spatial(&self, layer: &Layer, axes: &[i64]) -> Option<()> {
        let images = !self.values.get(layer.input(0)?)?.flat;
        (images && axes.iter().all(|axis| SPATIAL.contains(axis))).then_some(())
    }

    fn pass(&mut self, layer: &'m Layer, flat: Option<bool>) -> Option<()> {
        let x = self.values.get(layer.input(0)?)?.clone();
        let flat = flat.unwrap_or(x.flat);
        self.set(layer, Channels { flat, ..x })
    }

    fn conv(&mut self, index: usize, layer: &'m Layer, attributes: &ConvAttributes) -> Option<()> {
        let name = layer.input(1)?;
        let weight = self.model.params.f32(name)?;
        let (&[outputs, group_in, ..], groups) = (&weight.shape[..], attributes.groups) else { return None };
        let x = self.input(layer, group_in * groups)?.labels;
        (x.len() == group_in * groups && !x.is_empty() && outputs.is_multiple_of(groups)).then_some(())?;
        let out = self.fresh(outputs, None);
        if groups > 1 && group_in == 1 {
            (0..outputs).for_each(|j| self.join(out[j], x[j / (outputs / groups)]));
            self.depthwise.push((index, x));
        } else {
            // All groups keep the same positions, so that they stay equally large.
            for group in 1..groups {
                self.join_all(&x[..group_in], &x[group * group_in..][..group_in]);
                let size = outputs / groups;
                self.join_all(&out[..size], &out[group * size..][..size]);
            }
            self.cut(layer, name, 1, Role::Input, &x[..group_in]);
        }
        self.cut(layer, name, 0, Role::Output, &out);
        self.bias(layer, &out)?;
        self.set(layer, Channels { labels: out, flat: false })
    }

    fn transposed(&mut self, layer: &'m Layer) -> Option<()> {
        let Op::ConvTranspose(attributes) = &layer.op else { return None };
        let name = layer.input(1)?;
        let &[inputs, outputs, ..] = &self.model.params.f32(name)?.shape[..] else { return None };
        (attributes.groups() == 1).then_some(())?;
        let x = self.input(layer, inputs)?.labels;
        (x.len() == inputs).then_some(())?;
        let out = self.fresh(outputs, None);
        self.cut(layer, name, 0, Role::Input, &x);
        self.cut(layer, name, 1, Role::Output, &out);
        self.bias(layer, &out)?;
        self.set(layer, Channels { labels: out, flat: false })
    }

    /// A bias as the third input.
    fn bias(&mut self, layer: &'m Layer, out: &[usize]) -> Option<()> {
        let Some(name) = layer.input(2) else { return Some(()) };
        let shape = &self.model.params.f32(name)?.shape;
        match shape.last() {
            Some(&last) if last == out.len() && shape.iter().product::<usize>() == last => {
                self.cut(layer, name, shape.len() - 1, Role::Channel, out);
                Some(())
            }
            _ => shape.iter().all(|&side| side == 1).then_some(()),
        }
    }

    /// A matrix whose input channels lie along `in_axis`.
    fn linear(&mut self, layer: &'m Layer, in_axis: usize) -> Option<()> {
        let name = layer.input(1)?;
        let weight = self.model.params.f32(name)?;
        let &[rows, columns] = &weight.shape[..] else { return None };
        let (inputs, outputs) = if in_axis == 0 { (rows, columns) } else { (columns, rows) };
        let x = self.input(layer, inputs)?;
        // The product of a matrix acts on the last axis, which are the channels of rows only.
        (x.flat || matches!(layer.op, Op::Gemm { .. }) || !self.values.contains_key(layer.input(0)?)).then_some(())?;
        (!x.labels.is_empty() && inputs.is_multiple_of(x.labels.len())).then_some(())?;
        let positions = inputs / x.labels.len();
        let labels: Vec<usize> = x.labels.iter().flat_map(|&label| std::iter::repeat_n(label, positions)).collect();
        let out = self.fresh(outputs, None);
        self.cut(layer, name, in_axis, Role::Input, &labels);
        self.cut(layer, name, 1 - in_axis, Role::Output, &out);
        if matches!(layer.op, Op::Gemm { .. }) {
            self.bias(layer, &out)?;
        }
        self.set(layer, Channels { labels: out, flat: true })
    }

    fn reshape(&mut self, index: usize, layer: &'m Layer) -> Option<()> {
        let shape = layer.input(1)?;
        match self.whole_numbers(Some(shape)).as_deref() {
            Some([0 | 1, -1]) => self.pass(layer, Some(true)),
            Some([0, 0 | -1, 1, 1]) => self.pass(layer, Some(false)),
            // The number of columns is written anew.
            Some([-1, columns]) if *columns > 0 => {
                self.reshapes.push(index);
                self.pass(layer, Some(true))
            }
            Some(_) => None,
            // As exported: the batch, as it is, and all the rest.
            None => {
                let made = self.model.graph.layers.iter().find(|made| made.outputs.iter().any(|output| output == shape))?;
                let rest = self.whole_numbers(made.input(1));
                (matches!(made.op, Op::Concat { axis: 0 }) && made.inputs.len() == 2 && rest.as_deref() == Some(&[-1]))
                    .then_some(())?;
                self.pass(layer, Some(true))
            }
        }
    }

    /// A shape of which the channels are not looked at.
    fn shape(&self, layer: &Layer, start: i64, end: Option<i64>) -> Option<()> {
        if start == 0 && end == Some(1) || start >= 2 {
            return Some(());
        }
        let output = layer.outputs.first()?;
        let harmless = |reader: &Layer| {
            let indices = self.whole_numbers(reader.input(1));
            matches!(reader.op, Op::Gather { axis: 0 })
                && indices.is_some_and(|i| i.iter().all(|index| [0, 2, 3].contains(index)))
        };
        let mut readers = self.model.graph.layers.iter().filter(|reader| reader.inputs.contains(output));
        readers.all(harmless).then_some(())
    }

    fn binary(&mut self, layer: &'m Layer) -> Option<()> {
        let constants: HashMap<&str, Vec<usize>> =
            layer.inputs.iter().filter_map(|name| Some((name.as_str(), self.constant(name)?.shape().to_vec()))).collect();
        let computed: Vec<&str> = layer.inputs.iter().map(String::as_str).filter(|name| !constants.contains_key(name)).collect();
        let operands: Option<Vec<Channels>> = computed.iter().map(|name| self.values.get(name).cloned()).collect();
        let operands = operands?;
        let widest = operands.iter().max_by_key(|operand| operand.labels.len())?.clone();
        for operand in &operands {
            match operand.labels.len() {
                width if width == widest.labels.len() => self.join_all(&operand.labels, &widest.labels),
                1 => self.freeze_labels(&operand.labels, "one for all channels"),
                _ => return None,
            }
            (operand.flat == widest.flat).then_some(())?;
        }
        for name in layer.inputs.iter().map(String::as_str) {
            let Some(shape) = constants.get(name) else { continue };
            // Axes are counted from the last one.
            let Some(axis) = shape.len().checked_sub(if widest.flat { 1 } else { 3 }) else { continue };
            match shape[axis] {
                1 => {}
                side if side == widest.labels.len() => {
                    let (param, axis) = match self.spread.get(name) {
                        Some(param) => (*param, 0),
                        None => (name, axis),
                    };
                    self.model.params.f32(param)?;
                    self.cut(layer, param, axis, Role::Constant, &widest.labels);
                }
                _ => return None,
            }
        }
        self.set(layer, widest)
    }

    fn concat(&mut self, layer: &'m Layer, axis: i64) -> Option<()> {
        let parts: Option<Vec<Channels>> = layer.inputs.iter().map(|name| self.values.get(name.as_str()).cloned()).collect();
        let parts = parts?;
        let first = parts.first()?.clone();
        if axis == 1 && parts.iter().all(|part| !part.flat) {
            let labels = parts.iter().flat_map(|part| part.labels.iter().copied()).collect();
            return self.set(layer, Channels { labels, flat: false });
        }
        self.spatial(layer, &[axis])?;
        (!parts.iter().any(|part| part.flat) && parts.iter().all(|part| part.labels.len() == first.labels.len())).then_some(())?;
        parts[1..].iter().for_each(|part| self.join_all(&first.labels, &part.labels));
        self.set(layer, first)
    }

    fn pad(&mut self, index: usize, layer: &'m Layer, mode: &PadMode, attributes: bool) -> Option<()> {
        let pads = match &layer.op {
            Op::Pad { attributes: Some((pads, _)), .. } => pads.clone(),
            _ => self.whole_numbers(layer.input(1))?,
        };
        let &[0, before, _, _, 0, behind, _, _] = &pads[..] else { return None };
        (layer.input(3).is_none() && before >= 0 && behind >= 0).then_some(())?;
        if before == 0 && behind == 0 {
            return self.pass(layer, None);
        }
        let is_zero = |value: Arc<Value>| value.as_f32().is_some_and(|value| value.data == [0.0]);
        let zero = layer.input(2).is_none_or(|name| self.constant(name).is_some_and(is_zero));
        (zero && !attributes && matches!(mode, PadMode::Constant)).then_some(())?;
        let x = self.values.get(layer.input(0)?)?.clone();
        let (before, behind) = (self.fresh(before as usize, None), self.fresh(behind as usize, None));
        let labels = [&before[..], &x.labels, &behind].concat();
        self.pads.push(PadUse { layer: index, pads, before, behind });
        self.set(layer, Channels { labels, ..x })
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
            reshapes: self.reshapes,
            frozen,
        }
    }
}

/// Most elements of a constant that is computed with.
const FOLDED: usize = 4096;

/// Height and width.
const SPATIAL: [i64; 4] = [2, 3, -1, -2];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::formats::onnx::GraphBuilder;
    use crate::tensor::Tensor;

    /// conv a, what stands between, conv b, conv c, pooled and classified.
    fn chain(between: &str) -> Model {
        let mut builder = GraphBuilder::default();
        for (name, inputs) in [("a.weight", 2), ("b.weight", 4), ("c.weight", 4)] {
            builder.tensor(name, &Tensor::new(vec![4, inputs, 1, 1], vec![1.0; 4 * inputs]));
        }
        let a = builder.node("Conv", "a", &["input", "a.weight"], &[]);
        let x = builder.node(between, "between", &[&a], &[]);
        let b = builder.node("Conv", "b", &[&x, "b.weight"], &[]);
        let c = builder.node("Conv", "c", &[&b, "c.weight"], &[]);
        let pooled = builder.node("GlobalAveragePool", "pool", &[&c], &[]);
        let flat = builder.node("Flatten", "flat", &[&pooled], &[]);
        let output = builder.node("MatMul", "fc", &[&flat, "fc.transposed"], &[]);
        builder.tensor("fc.transposed", &Tensor::new(vec![4, 3], vec![1.0; 12]));
        builder.finish("chain", [2, 4, 4], &output, 3).unwrap()
    }

    fn reason(coupling: &Coupling, param: &str, role: Role) -> Option<String> {
        let one = coupling.uses.iter().find(|one| one.param == param && one.role == role).unwrap();
        coupling.frozen[one.units[0]].clone()
    }

    #[test]
    fn an_operation_that_is_not_understood_keeps_its_neighbours_whole() {
        let coupling = Coupling::new(&chain("Relu"), |_| None);
        assert_eq!(reason(&coupling, "a.weight", Role::Output), None);
        for between in ["Swirl", "Softmax"] {
            let coupling = Coupling::new(&chain(between), |_| None);
            let why = reason(&coupling, "a.weight", Role::Output).unwrap();
            assert!(why.contains("\"between\"") && why.contains(between), "{why}");
            assert!(reason(&coupling, "b.weight", Role::Input).is_some(), "{between}");
            // What lies behind is understood again.
            assert_eq!(reason(&coupling, "b.weight", Role::Output), None, "{between}");
            assert_eq!(reason(&coupling, "fc.transposed", Role::Input), None, "{between}");
            assert!(reason(&coupling, "fc.transposed", Role::Output).unwrap().contains("output"), "{between}");
        }
    }

    #[test]
    fn layers_that_stay_freeze_what_they_read_and_write() {
        let coupling = Coupling::new(&chain("Relu"), |param| (param == "b.weight").then(|| "asked for".into()));
        assert_eq!(reason(&coupling, "a.weight", Role::Output).as_deref(), Some("asked for"));
        assert_eq!(reason(&coupling, "c.weight", Role::Input).as_deref(), Some("asked for"));
        assert_eq!(reason(&coupling, "c.weight", Role::Output), None);
    }
}
