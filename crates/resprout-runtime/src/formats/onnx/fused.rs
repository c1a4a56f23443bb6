//! Splits the fused operations of com.microsoft, which ONNX Runtime's optimiser writes, into standard ones.

use super::proto::NodeProto;
use crate::error::Result;
use crate::model::Layer;
use crate::ops::{Attribute, Attributes, BinaryOp, Op};

/// The suffix of layers and values that exist only within a fused node.
const WITHIN: &str = "/fused";

/// The operation of a node of another domain; its main operation if it is fused.
pub(super) fn op(node: &NodeProto, attributes: &Attributes) -> Result<Op> {
    let unknown = || Op::Unknown(format!("{}.{}", node.domain, node.op_type));
    if node.domain != "com.microsoft" {
        return Ok(unknown());
    }
    match node.op_type.as_str() {
        "FusedConv" if activation(node).is_some() => Op::parse("Conv", attributes),
        "FusedGemm" if activation(node).is_some() => Op::parse("Gemm", attributes),
        "FusedMatMul" if is_plain_product(attributes)? => Ok(Op::MatMul),
        _ => Ok(unknown()),
    }
}

/// Whether a product transposes and scales nothing.
fn is_plain_product(attributes: &Attributes) -> Result<bool> {
    let flags = ["transA", "transB", "transBatchA", "transBatchB"];
    let set = flags.iter().map(|name| attributes.flag(name, false)).collect::<Result<Vec<bool>>>()?;
    Ok(!set.contains(&true) && attributes.float("alpha", 1.0)? == 1.0)
}

/// The layers of a fused node: the product, the sum with another value, and the activation.
pub(super) fn unfused(mut layer: Layer, node: &NodeProto) -> Result<Vec<Layer>> {
    if node.domain != "com.microsoft" || matches!(layer.op, Op::Unknown(_)) {
        return Ok(vec![layer]);
    }
    let Some(output) = layer.outputs.first().cloned() else { return Ok(vec![layer]) };
    let summand =
        if matches!(layer.op, Op::Conv(_)) { layer.inputs.get(3).cloned().filter(|name| !name.is_empty()) } else { None };
    layer.inputs.truncate(3);
    let mut then: Vec<(Op, Option<String>)> = Vec::new();
    then.extend(summand.map(|name| (Op::Binary(BinaryOp::Add), Some(name))));
    then.extend(activation(node).flatten().map(|op| (op, None)));
    let mut layers = vec![layer];
    for (step, (op, operand)) in then.into_iter().enumerate() {
        // Each step reads the output of the one before. The last one writes the node's output.
        let between = format!("{output}{WITHIN}{step}");
        layers.last_mut().into_iter().for_each(|before| before.outputs = vec![between.clone()]);
        let name = format!("{}{WITHIN}{step}", layers[0].name);
        let inputs = std::iter::once(between).chain(operand).collect();
        layers.push(Layer { name, op, inputs, outputs: vec![output.clone()] });
    }
    Ok(layers)
}

/// The activation of a fused node, if it has one; `None` if it is unknown.
fn activation(node: &NodeProto) -> Option<Option<Op>> {
    let find = |name: &str| node.attribute.iter().find(|attribute| attribute.name == name);
    let Some(kind) = find("activation").map(|a| String::from_utf8_lossy(&a.s).into_owned()).filter(|kind| !kind.is_empty())
    else {
        return Some(None);
    };
    let params = find("activation_params").map(|a| a.floats.clone()).unwrap_or_default();
    let named = |name: &str| find(name).map(|a| a.f);
    let number = |index: usize, name: &str| params.get(index).copied().or_else(|| named(name));
    let mut attributes = Attributes::new(6);
    let mut give = |name: &str, value: Option<f32>| {
        value.into_iter().for_each(|value| attributes.insert(name.to_string(), Attribute::Float(value)));
    };
    match kind.as_str() {
        "Relu" | "Sigmoid" => {}
        "LeakyRelu" => give("alpha", number(0, "activation_alpha")),
        "HardSigmoid" => {
            give("alpha", number(0, "activation_alpha"));
            give("beta", number(1, "activation_beta"));
        }
        "Clip" => {
            give("min", params.first().copied());
            give("max", params.get(1).copied());
        }
        _ => return None,
    }
    Op::parse(&kind, &attributes).ok().map(Some)
}
