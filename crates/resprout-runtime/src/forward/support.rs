//! Checks that a network can be computed before anything is.

use crate::error::{Error, Result};
use crate::model::{Layer, Model};
use crate::ops::Op;
use std::collections::HashSet;
use std::ops::RangeInclusive;

/// Versions of the standard operator set whose rules are implemented.
const OPSETS: RangeInclusive<i64> = 7..=28;

/// What is possible with a network that cannot be computed.
const ALTERNATIVE: &str = "pruning without images (repair none) works";

/// Fails if the network cannot be computed for any images, and names all unsupported operations.
///
/// # Errors
/// Of kind `Unsupported`. Pruning by weights alone works with such a network nevertheless.
#[doc(hidden)]
pub fn check_supported(model: &Model) -> Result<()> {
    check_opset(model)?;
    let inputs = &model.graph.inputs;
    if inputs.len() != 1 {
        let names: Vec<&str> = inputs.iter().map(|input| input.name.as_str()).collect();
        return Err(Error::unsupported(format!(
            "the forward needs exactly one input, the model has {}: {names:?}; {ALTERNATIVE}",
            names.len()
        )));
    }
    model.check_input_type()?;
    let needed = needed_values(model, &[]);
    let needs = |layer: &Layer| layer.outputs.iter().any(|output| needed.contains(output.as_str()));
    let dynamic = |layer: &Layer| needs(layer) && layer.op.is_dynamic();
    check_operations(model, dynamic, "the shape of the result depends on the image's content, or a graph of its own runs")?;
    let opaque = |op: &Op| matches!(op, Op::Unknown(_) | Op::OpaqueConv { volume: None, .. } | Op::OpaqueConstant);
    let missing = |layer: &Layer| needs(layer) && opaque(&layer.op);
    check_operations(model, missing, "not among the supported operations")
}

fn check_opset(model: &Model) -> Result<()> {
    if OPSETS.contains(&model.opset) {
        return Ok(());
    }
    let (first, last) = (OPSETS.start(), OPSETS.end());
    Err(Error::unsupported(format!(
        "the model uses opset {}; opset {first} to {last} can be computed; {ALTERNATIVE}",
        model.opset
    )))
}

/// Fails if a layer's operation is `missing`. Names every such operation with its first layer, and `what` they are not.
///
/// # Errors
/// Of kind `Unsupported`.
#[doc(hidden)]
pub fn check_operations(model: &Model, missing: impl Fn(&Layer) -> bool, what: &str) -> Result<()> {
    let missing: Vec<&Layer> = model.graph.layers.iter().filter(|layer| missing(layer)).collect();
    let mut names: Vec<&str> = Vec::new();
    for layer in &missing {
        if !names.contains(&layer.op.name()) {
            names.push(layer.op.name());
        }
    }
    let one = |name: &&str| {
        let layers: Vec<&&Layer> = missing.iter().filter(|layer| layer.op.name() == *name).collect();
        let more = if layers.len() > 1 { format!(" and {} more", layers.len() - 1) } else { String::new() };
        format!("layer {:?} ({name}){more}", layers[0].name)
    };
    match names.is_empty() {
        true => Ok(()),
        false => {
            let list: Vec<String> = names.iter().map(one).collect();
            Err(Error::unsupported(format!("{}: {what}; {ALTERNATIVE}", list.join(", "))))
        }
    }
}

/// Every value that an output or a tap depends on.
pub(super) fn needed_values<'a>(model: &'a Model, taps: &'a [String]) -> HashSet<&'a str> {
    let mut needed: HashSet<&str> = model.graph.outputs.iter().chain(taps).map(String::as_str).collect();
    for layer in model.graph.layers.iter().rev() {
        if layer.outputs.iter().any(|output| needed.contains(output.as_str())) {
            needed.extend(layer.inputs.iter().map(String::as_str));
        }
    }
    needed
}
