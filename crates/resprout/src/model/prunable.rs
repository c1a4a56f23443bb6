//! Which weights can be pruned, and why the others are left dense.

use super::Model;
use crate::error::{Error, Result};
use crate::ops::Op;
use regex::Regex;
use std::collections::HashSet;

/// A weight that can be pruned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Prunable {
    /// The parameter's name.
    pub param: String,
    /// The layer that reads it (the first one, if several do).
    pub layer: String,
    /// Its shape as stored.
    pub shape: Vec<usize>,
    /// The axis of the output channels.
    pub out_axis: usize,
}

impl Prunable {
    /// The number of weights.
    pub fn len(&self) -> usize {
        self.shape.iter().product()
    }

    /// Whether there are no weights; such a layer is refused before pruning.
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
}

/// Which layers are taken.
#[derive(Clone, Debug, Default)]
pub struct PrunableRule {
    /// Layers to leave dense: a name of a layer or its weight, or `re:` and a regular expression.
    pub ignore: Vec<String>,
    /// Whether depthwise and grouped convolutions are taken too.
    pub include_grouped: bool,
}

/// A name, or a regular expression after `re:`, that must match somewhere in the name.
pub struct NamePattern {
    text: String,
    regex: Option<Regex>,
}

impl NamePattern {
    /// Reads a pattern; `option` is named in the error.
    pub fn parse(text: &str, option: &str) -> Result<NamePattern> {
        let regex = text.strip_prefix("re:").map(Regex::new).transpose();
        // The last line says what is wrong; the others draw the pattern.
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

impl Model {
    /// The weights that can be pruned, in layer order, and those left dense.
    ///
    /// Prunable are the weights of Conv (with one group unless asked otherwise), Gemm and MatMul.
    pub fn prunable(&self, rule: &PrunableRule) -> Result<(Vec<Prunable>, Vec<LeftDense>)> {
        let patterns = rule.ignore.iter().map(|text| NamePattern::parse(text, "--ignore"));
        let patterns: Vec<NamePattern> = patterns.collect::<Result<_>>()?;
        let mut used = vec![false; patterns.len()];
        let (mut prunable, mut dense, mut seen) = (Vec::new(), Vec::new(), HashSet::new());
        for layer in &self.graph.layers {
            let Some(param) = layer.input(1).filter(|_| holds_weights(&layer.op)) else { continue };
            if !seen.insert(param.to_string()) {
                continue;
            }
            let mut leave = |reason: &str| {
                dense.push(LeftDense { layer: layer.name.clone(), param: param.into(), reason: reason.into() });
            };
            let Some(tensor) = self.params.f32(param) else {
                leave(&self.not_floats(param));
                continue;
            };
            let mut ignored = false;
            for (pattern, used) in patterns.iter().zip(&mut used) {
                let hit = pattern.matches(&layer.name, param);
                ignored |= hit;
                *used |= hit;
            }
            if ignored {
                leave("on the ignore list");
            } else if let Some(reason) = unsuitable(&layer.op, tensor.shape.len(), rule) {
                leave(reason);
            } else if tensor.is_empty() {
                return Err(Error::data(format!(
                    "layer {:?}: weight {param:?} has the shape {:?}, no elements",
                    layer.name, tensor.shape
                )));
            } else {
                let out_axis = out_axis(&layer.op);
                prunable.push(Prunable { param: param.into(), layer: layer.name.clone(), shape: tensor.shape.clone(), out_axis });
            }
        }
        match used.iter().position(|&used| !used) {
            Some(i) => Err(Error::option(format!("--ignore {:?} matches no layer with weights", rule.ignore[i]))),
            None => Ok((prunable, dense)),
        }
    }
}

impl Model {
    /// Why a weight is no tensor of 32-bit floats.
    fn not_floats(&self, param: &str) -> String {
        if let Some(param) = self.params.get(param) {
            return format!("{}, not 32-bit floats", param.type_name());
        }
        let writer = self.graph.layers.iter().find(|layer| layer.outputs.iter().any(|output| output == param));
        let stored = writer.and_then(|layer| Some((layer, self.params.get(layer.input(0)?)?)));
        match stored.filter(|(_, param)| param.f32().is_none()) {
            Some((layer, param)) => format!("{} behind {}, not 32-bit floats", param.type_name(), layer.op.name()),
            None => "computed, not a constant".into(),
        }
    }
}

fn holds_weights(op: &Op) -> bool {
    matches!(op, Op::Conv(_) | Op::ConvTranspose(_) | Op::Gemm { .. } | Op::MatMul)
}

fn unsuitable(op: &Op, rank: usize, rule: &PrunableRule) -> Option<&'static str> {
    match op {
        Op::Conv(a) if a.groups > 1 && !rule.include_grouped => Some("grouped or depthwise convolution"),
        Op::Conv(_) if rank < 3 => Some("weight of fewer than three axes"),
        Op::ConvTranspose(_) => Some("transposed convolution"),
        Op::Gemm { .. } | Op::MatMul if rank != 2 => Some("weight is not a matrix"),
        _ => None,
    }
}

fn out_axis(op: &Op) -> usize {
    match op {
        Op::Gemm { trans_b: false, .. } | Op::MatMul => 1,
        _ => 0,
    }
}
