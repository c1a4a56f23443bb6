//! Files of exporters, optimisers and simplifiers: read, changed, written and read again.

mod external;
mod folding;
mod functions;
mod large;
mod views;

use super::parse;
use super::proto::{
    AttributeProto, Dimension, GraphProto, ModelProto, NodeProto, OperatorSetId, TensorProto, TensorShape, TensorType, TypeProto,
    ValueInfoProto, data_type,
};
use super::write::encode;
use crate::error::Result;
use crate::forward::{Network, PlanOptions};
use crate::model::{Dim, LeftDense, Mask, Model, PrunableRule};
use crate::tensor::Tensor;
use prost::Message;

fn node(op: &str, inputs: &[&str], outputs: &[&str]) -> NodeProto {
    let names = |names: &[&str]| names.iter().map(|name| name.to_string()).collect();
    NodeProto {
        op_type: op.into(),
        name: format!("{op}:{}", outputs[0]),
        input: names(inputs),
        output: names(outputs),
        ..Default::default()
    }
}

fn with_ints(mut node: NodeProto, name: &str, ints: &[i64]) -> NodeProto {
    node.attribute.push(AttributeProto { name: name.into(), ints: ints.to_vec(), r#type: 7, ..Default::default() });
    node
}

fn with_int(mut node: NodeProto, name: &str, i: i64) -> NodeProto {
    node.attribute.push(AttributeProto { name: name.into(), i, r#type: 2, ..Default::default() });
    node
}

fn with_text(mut node: NodeProto, name: &str, text: &str) -> NodeProto {
    let s = text.as_bytes().to_vec().into();
    node.attribute.push(AttributeProto { name: name.into(), s, r#type: 3, ..Default::default() });
    node
}

fn numbers(count: usize) -> Vec<f32> {
    (0..count).map(|i| ((i * 7 + 3) % 11) as f32 * 0.25 - 1.0).collect()
}

fn floats(name: &str, dims: &[i64]) -> TensorProto {
    let data = numbers(dims.iter().product::<i64>() as usize);
    let raw: Vec<u8> = data.iter().flat_map(|v| v.to_le_bytes()).collect();
    TensorProto {
        name: name.into(),
        dims: dims.to_vec(),
        data_type: data_type::FLOAT,
        raw_data: raw.into(),
        ..Default::default()
    }
}

fn ints(name: &str, values: &[i64]) -> TensorProto {
    let raw: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
    let dims = vec![values.len() as i64];
    TensorProto { name: name.into(), dims, data_type: data_type::INT64, raw_data: raw.into(), ..Default::default() }
}

fn value(name: &str, dims: &[i64]) -> ValueInfoProto {
    let dim = |&side: &i64| Dimension { dim_value: (side > 0).then_some(side), dim_param: None };
    let shape = TensorShape { dim: dims.iter().map(dim).collect() };
    let tensor_type = TensorType { elem_type: data_type::FLOAT, shape: Some(shape) };
    ValueInfoProto { name: name.into(), r#type: Some(TypeProto { tensor_type: Some(tensor_type) }) }
}

/// A model with the input `x` and the output `y`.
fn model(x: &[i64], nodes: Vec<NodeProto>, initializers: Vec<TensorProto>) -> ModelProto {
    let graph = GraphProto {
        name: "graph".into(),
        node: nodes,
        initializer: initializers,
        input: vec![value("x", x)],
        output: vec![value("y", &[])],
        ..Default::default()
    };
    ModelProto {
        ir_version: 8,
        graph: Some(graph),
        opset_import: vec![OperatorSetId { domain: String::new(), version: 13 }],
        ..Default::default()
    }
}

fn parse_proto(proto: &ModelProto) -> Result<Model> {
    parse(proto.encode_to_vec(), None)
}

/// The model after it was written and read again.
fn again(model: &Model) -> Model {
    parse(encode(model).unwrap(), None).unwrap()
}

fn run(model: &Model, image: &[usize]) -> Vec<f32> {
    let shape = [&[2], image].concat();
    let images = Tensor::new(shape.clone(), (0..shape.iter().product::<usize>()).map(|i| (i as f32 * 0.37).sin()).collect());
    Network::new(model, image, &PlanOptions::default()).unwrap().run(&images).unwrap().swap_remove(0).data
}

/// Paddle's exporter writes -1 where others leave the value out.
#[test]
fn an_axis_of_minus_one_is_free() {
    let mut proto = model(&[0, 3, 8, 8], vec![node("Relu", &["x"], &["y"])], vec![]);
    let input = &mut proto.graph.as_mut().unwrap().input[0];
    let shape = input.r#type.as_mut().unwrap().tensor_type.as_mut().unwrap().shape.as_mut().unwrap();
    shape.dim[0].dim_value = Some(-1);
    shape.dim[2].dim_value = Some(-1);
    let read = parse_proto(&proto).unwrap();
    assert_eq!(read.graph.inputs[0].shape, [Dim::Free(String::new()), Dim::Fixed(3), Dim::Free(String::new()), Dim::Fixed(8)]);
    assert_eq!(run(&read, &[3, 5, 8]).len(), 2 * 3 * 5 * 8);
    assert_eq!(again(&read).graph.inputs[0].shape, read.graph.inputs[0].shape);
}

fn prunable(model: &Model) -> (Vec<String>, Vec<LeftDense>) {
    let (prunable, dense) = model.prunable(&PrunableRule::default()).unwrap();
    (prunable.into_iter().map(|one| one.param).collect(), dense)
}

/// The model with every third weight pruned.
fn pruned(model: &Model, param: &str) -> Model {
    let mut pruned = model.clone();
    let count = pruned.params.f32(param).unwrap().len();
    pruned.masks.insert(param.into(), Mask((0..count).map(|i| i % 3 != 0).collect()));
    pruned.apply_masks();
    pruned
}

/// Checks that writing and reading again changes nothing, to the bit.
fn check_back(model: &Model, image: &[usize]) -> Model {
    let back = again(model);
    assert_eq!(run(model, image), run(&back, image));
    for (name, param) in model.params.iter().filter(|(_, param)| param.f32().is_some()) {
        assert!(back.params.f32(name).unwrap().same_bits(param.f32().unwrap()), "{name}");
    }
    back
}

#[test]
fn nodes_in_any_order_are_read_and_cycles_are_named() {
    let relu = node("Relu", &["x"], &["a"]);
    let gemm = node("Gemm", &["a", "w"], &["y"]);
    let proto = model(&[0, 4], vec![gemm.clone(), relu], vec![floats("w", &[4, 3])]);
    let model_read = parse_proto(&proto).unwrap();
    assert_eq!(model_read.graph.layers[0].name, "Relu:a");
    check_back(&pruned(&model_read, "w"), &[4]);
    let around = model(&[0, 4], vec![gemm, node("Relu", &["y"], &["a"])], vec![floats("w", &[4, 3])]);
    let error = parse_proto(&around).unwrap_err().to_string();
    assert!(error.contains("cycle"), "{error}");
}
