//! The weights that can be pruned, and the reasons why the others stay dense.

use super::{Layer, Model, Param, ParamData};
use crate::error::{Error, Result};
use crate::ops::Op;
use regex::Regex;
use std::collections::{HashMap, HashSet};

/// A weight tensor that can be pruned, as [`Model::prunable`] lists it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Prunable {
    /// The parameter's name.
    pub param: String,
    /// The layer that reads it (the first one, if several do).
    pub layer: String,
    /// The shape of the parameter: `[M, C / groups, kh, kw]` of a convolution in two dimensions, two axes of a linear layer.
    pub shape: Vec<usize>,
    /// The axis of `shape` that has the output channels: 0 or 1.
    pub out_axis: usize,
}

impl Prunable {
    /// The number of weights.
    pub fn len(&self) -> usize {
        self.shape.iter().product()
    }

    /// Whether there are no weights. Such a layer is an error before pruning.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The number of output channels.
    pub fn channels(&self) -> usize {
        self.shape[self.out_axis]
    }

    /// The output channel of the weight at a flat index.
    pub fn channel_of(&self, index: usize) -> usize {
        let inner: usize = self.shape[self.out_axis + 1..].iter().product();
        index / inner % self.shape[self.out_axis]
    }
}

/// A weight that stays dense, and why.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct LeftDense {
    /// The layer's name.
    pub layer: String,
    /// The weight's name.
    pub param: String,
    /// The reason.
    pub reason: String,
    /// The number of weights.
    #[serde(default)]
    pub weights: usize,
}

/// Which layers are prunable. The default ignores none, and leaves grouped convolutions dense.
#[derive(Clone, Debug, Default)]
pub struct PrunableRule {
    /// Layers that stay dense: the name of a layer or of its weight, or `re:` and a regular expression.
    pub ignore: Vec<String>,
    /// Whether depthwise and grouped convolutions are prunable too.
    pub include_grouped: bool,
}

/// A name, or a regular expression after `re:` that matches anywhere in a name.
pub struct NamePattern {
    text: String,
    regex: Option<Regex>,
}

impl NamePattern {
    /// Reads a pattern. `option` is its name in messages.
    ///
    /// # Errors
    /// Of kind `Option` for an invalid regular expression.
    pub fn parse(text: &str, option: &str) -> Result<NamePattern> {
        let regex = text.strip_prefix("re:").map(Regex::new).transpose();
        // The last line says what is wrong; the others show the pattern.
        let reason = |e: regex::Error| e.to_string().lines().last().unwrap_or_default().to_string();
        let regex = regex.map_err(|e| Error::option(format!("{option} {text:?}: regular expression: {}", reason(e))))?;
        Ok(NamePattern { text: text.to_string(), regex })
    }

    /// Whether the layer or its weight has this name.
    pub fn matches(&self, layer: &str, param: &str) -> bool {
        match &self.regex {
            Some(regex) => regex.is_match(layer) || regex.is_match(param),
            None => self.text == layer || self.text == param,
        }
    }
}

/// The weight of a layer.
enum Weight<'m> {
    /// A constant of that name.
    Constant(&'m str),
    /// Computed from constants.
    Computed(&'m str),
}

impl Model {
    /// The weights that can be pruned, in layer order, and those that stay dense: every other constant of at least two axes.
    ///
    /// Prunable are the weights of Conv, Gemm and MatMul. Grouped convolutions depend on the rule.
    ///
    /// # Errors
    /// Of kind `Option` for an invalid pattern, or one that matches no layer with weights. Of kind `Data` for a weight tensor
    /// without elements.
    pub fn prunable(&self, rule: &PrunableRule) -> Result<(Vec<Prunable>, Vec<LeftDense>)> {
        let patterns = rule.ignore.iter().map(|text| NamePattern::parse(text, "ignore"));
        let mut finder = Finder {
            model: self,
            rule,
            patterns: patterns.collect::<Result<_>>()?,
            used: vec![false; rule.ignore.len()],
            writers: self
                .graph
                .layers
                .iter()
                .flat_map(|layer| layer.outputs.iter().map(move |name| (name.as_str(), layer)))
                .collect(),
            seen: HashSet::new(),
            prunable: Vec::new(),
            dense: Vec::new(),
        };
        let found: Vec<(&Layer, Weight)> =
            self.graph.layers.iter().filter_map(|layer| Some((layer, finder.weight(layer)?))).collect();
        for (layer, weight) in &found {
            if let Weight::Constant(param) = weight {
                finder.take(layer, param)?;
            }
        }
        // A weight that one layer reads directly and another one through other layers is pruned for both.
        for (layer, weight) in &found {
            if let Weight::Computed(value) = weight {
                finder.list_sources(layer, value);
            }
        }
        finder.list_others();
        match finder.used.iter().position(|&used| !used) {
            Some(i) => Err(Error::option(format!("ignore {:?} matches no layer with weights", rule.ignore[i]))),
            None => Ok((finder.prunable, finder.dense)),
        }
    }
}

struct Finder<'m> {
    model: &'m Model,
    rule: &'m PrunableRule,
    patterns: Vec<NamePattern>,
    used: Vec<bool>,
    writers: HashMap<&'m str, &'m Layer>,
    /// Parameters that are already listed.
    seen: HashSet<&'m str>,
    prunable: Vec<Prunable>,
    dense: Vec<LeftDense>,
}

impl<'m> Finder<'m> {
    /// The weight of a layer; `None` without one, and for a product of two values that depend on the input.
    fn weight(&self, layer: &'m Layer) -> Option<Weight<'m>> {
        let names = || layer.op.weight_inputs().iter().filter_map(|&slot| layer.input(slot));
        let constant = names().find(|name| self.model.params.get(name).is_some_and(is_floating));
        let computed = || names().find(|name| self.is_constant(name)).map(Weight::Computed);
        constant.map(Weight::Constant).or_else(computed)
    }

    /// Whether a value depends on constants alone.
    fn is_constant(&self, value: &str) -> bool {
        let (mut open, mut done) = (vec![value], HashSet::new());
        while let Some(name) = open.pop() {
            if self.model.params.get(name).is_some() || !done.insert(name) {
                continue;
            }
            match self.writers.get(name) {
                Some(layer) if !layer.inputs.is_empty() => {
                    open.extend(layer.inputs.iter().map(String::as_str).filter(|n| !n.is_empty()))
                }
                Some(_) => {}
                None => return false,
            }
        }
        true
    }

    fn take(&mut self, layer: &'m Layer, param: &'m str) -> Result<()> {
        if !self.seen.insert(param) {
            return Ok(());
        }
        let ignored = self.is_ignored(layer, param);
        let Some(tensor) = self.model.params.f32(param) else {
            let kind = self.model.params.get(param).map_or("unknown", Param::type_name);
            self.leave(layer, param, format!("{kind}, not 32-bit floats"));
            return Ok(());
        };
        if ignored {
            self.leave(layer, param, "on the ignore list".into());
        } else if let Some(reason) = unsuitable(&layer.op, tensor.shape.len(), self.rule) {
            self.leave(layer, param, reason.into());
        } else if tensor.is_empty() {
            return Err(Error::data(format!(
                "layer {:?}: weight {param:?} has the shape {:?}, no elements",
                layer.name, tensor.shape
            )));
        } else {
            let out_axis = out_axis(layer, param);
            let shape = tensor.shape.clone();
            self.prunable.push(Prunable { param: param.into(), layer: layer.name.clone(), shape, out_axis });
        }
        Ok(())
    }

    fn is_ignored(&mut self, layer: &Layer, param: &str) -> bool {
        let mut ignored = false;
        for (pattern, used) in self.patterns.iter().zip(&mut self.used) {
            let hit = pattern.matches(&layer.name, param);
            ignored |= hit;
            *used |= hit;
        }
        ignored
    }

    fn leave(&mut self, layer: &Layer, param: &str, reason: String) {
        let weights = self.model.params.get(param).map_or(0, |param| param.shape.iter().product());
        self.dense.push(LeftDense { layer: layer.name.clone(), param: param.into(), reason, weights });
    }

    /// Lists the constants from which a layer's weight is computed.
    fn list_sources(&mut self, layer: &'m Layer, value: &'m str) {
        let (mut open, mut done, mut operations) = (vec![value], HashSet::new(), Vec::new());
        let mut sources = Vec::new();
        while let Some(name) = open.pop() {
            if !done.insert(name) {
                continue;
            }
            if self.model.params.get(name).is_some_and(is_weight) {
                sources.push(name);
            } else if let Some(writer) = self.writers.get(name) {
                operations.push(writer.op.name());
                open.extend(writer.inputs.iter().map(String::as_str).filter(|name| !name.is_empty()));
            }
        }
        operations.sort_unstable();
        operations.dedup();
        let between = operations.join(", ");
        for name in sources {
            if self.seen.insert(name) {
                let param = self.model.params.get(name).filter(|param| param.f32().is_none());
                let kind = param.map_or(String::new(), |param| format!("{}, ", param.type_name()));
                self.leave(
                    layer,
                    name,
                    format!("{kind}goes through {between} before the layer reads it; see the option fold-weights"),
                );
            }
        }
    }

    /// Lists every other constant of two axes: those of other operations, and those in graphs within layers.
    fn list_others(&mut self) {
        for layer in &self.model.graph.layers {
            for name in layer.inputs.iter().map(String::as_str).filter(|name| !name.is_empty()) {
                if self.model.params.get(name).is_some_and(is_weight) && self.seen.insert(name) {
                    let _ = self.is_ignored(layer, name);
                    self.leave(layer, name, format!("read by {}, which is not pruned", layer.op.name()));
                }
            }
        }
        for inner in &self.model.graph.inner {
            let reason = format!("within the graph of {}", inner.op);
            let (layer, param) = (inner.layer.clone(), inner.param.clone());
            self.dense.push(LeftDense { layer, param, reason, weights: inner.weights });
        }
    }
}

/// Whether a product can have these numbers as weights. Integers of 32 or 64 bits are indices and shapes.
fn is_floating(param: &Param) -> bool {
    match &param.data {
        ParamData::Narrow(kind, _) | ParamData::Opaque(kind) => {
            ["float16", "bfloat16", "float64", "int8", "uint8"].contains(kind)
        }
        ParamData::Value(value) => value.as_f32().is_some(),
    }
}

/// As [`is_floating`], with two axes or more: one number for each channel is no weight.
fn is_weight(param: &Param) -> bool {
    is_floating(param) && param.shape.iter().filter(|&&side| side > 1).count() > 1
}

fn unsuitable(op: &Op, rank: usize, rule: &PrunableRule) -> Option<&'static str> {
    match op {
        Op::Conv(a) if a.groups > 1 && !rule.include_grouped => Some("grouped or depthwise convolution"),
        Op::OpaqueConv { groups, .. } if *groups > 1 && !rule.include_grouped => Some("grouped or depthwise convolution"),
        Op::ConvTranspose(_) | Op::OpaqueConv { transposed: true, .. } => Some("transposed convolution"),
        Op::Conv(_) | Op::OpaqueConv { .. } if rank < 3 => Some("weight of fewer than three axes"),
        Op::Gemm { .. } | Op::MatMul if rank != 2 => Some("weight is not a matrix"),
        _ => None,
    }
}

fn out_axis(layer: &Layer, param: &str) -> usize {
    match layer.op {
        // Each row of a weight on the left side makes a row of the result.
        Op::MatMul if layer.input(1) != Some(param) => 0,
        Op::Gemm { trans_b: false, .. } | Op::MatMul => 1,
        _ => 0,
    }
}
