//! Files as exporters, optimisers and simplifiers leave them: read, changed, written and read again.

use super::proto::{
    AttributeProto, Dimension, FunctionProto, GraphProto, ModelProto, NodeProto, OperatorSetId, StringEntry, TensorProto,
    TensorShape, TensorType, TypeProto, ValueInfoProto, data_type,
};
use super::read::ReadOptions;
use super::write::{Storage, encode, write};
use super::{parse, read_with};
use crate::error::Result;
use crate::forward::{Network, PlanOptions};
use crate::model::{LeftDense, Mask, Model, PrunableRule};
use crate::random::SplitMix64;
use crate::tensor::Tensor;
use half::f16;
use prost::Message;
use std::path::Path;

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

fn whole(name: &str, values: &[i64]) -> TensorProto {
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

fn read(proto: &ModelProto) -> Result<Model> {
    parse(proto.encode_to_vec(), None)
}

fn again(model: &Model) -> Model {
    parse(encode(model).unwrap(), None).unwrap()
}

fn run(model: &Model, image: &[usize]) -> Vec<f32> {
    let shape = [&[2], image].concat();
    let images = Tensor::new(shape.clone(), (0..shape.iter().product::<usize>()).map(|i| (i as f32 * 0.37).sin()).collect());
    Network::new(model, image, &PlanOptions::default()).unwrap().run(&images).unwrap().swap_remove(0).data
}

fn prunable(model: &Model) -> (Vec<String>, Vec<LeftDense>) {
    let (prunable, dense) = model.prunable(&PrunableRule::default()).unwrap();
    (prunable.into_iter().map(|one| one.param).collect(), dense)
}

/// Prunes every third weight.
fn pruned(model: &Model, param: &str) -> Model {
    let mut pruned = model.clone();
    let count = pruned.params.f32(param).unwrap().len();
    pruned.masks.insert(param.into(), Mask((0..count).map(|i| i % 3 != 0).collect()));
    pruned.apply_masks();
    pruned
}

/// Writing and reading again changes nothing, to the bit.
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
    let model_read = read(&proto).unwrap();
    assert_eq!(model_read.graph.layers[0].name, "Relu:a");
    check_back(&pruned(&model_read, "w"), &[4]);
    let around = model(&[0, 4], vec![gemm, node("Relu", &["y"], &["a"])], vec![floats("w", &[4, 3])]);
    let error = read(&around).unwrap_err().to_string();
    assert!(error.contains("cycle"), "{error}");
}

#[test]
fn a_weight_behind_nodes_that_move_it_is_pruned_where_it_is_stored() {
    let nodes = vec![
        with_ints(node("Transpose", &["fc.weight"], &["t"]), "perm", &[1, 0]),
        node("Identity", &["t"], &["i"]),
        node("MatMul", &["x", "i"], &["h"]),
        node("Reshape", &["flat", "shape"], &["r"]),
        node("MatMul", &["h", "r"], &["y"]),
    ];
    let initializers = vec![floats("fc.weight", &[3, 4]), floats("flat", &[6]), whole("shape", &[3, 2])];
    let dense = read(&model(&[0, 4], nodes, initializers)).unwrap();
    let (names, left) = prunable(&dense);
    assert_eq!(names, ["fc.weight", "flat"]);
    assert!(left.is_empty());
    assert_eq!(dense.params.f32("fc.weight").unwrap().shape, [4, 3]);
    assert_eq!(dense.stored_shape("fc.weight").unwrap().unwrap(), [3, 4]);
    assert!(dense.can_be_cut("fc.weight") && !dense.can_be_cut("flat"));
    let sparse = pruned(&pruned(&dense, "fc.weight"), "flat");
    let back = check_back(&sparse, &[4]);
    // The file still has the weight as it was, and the nodes.
    let bytes = encode(&back).unwrap();
    let stored = ModelProto::decode(&bytes[..]).unwrap().graph.unwrap();
    assert_eq!(stored.initializer[0].dims, [3, 4]);
    assert_eq!(stored.node.len(), 5);
    // A file of its own keeps weights and masks in the layout of the network's file.
    let file = crate::formats::sparse::decode(&crate::formats::sparse::encode(&sparse).unwrap()).unwrap().unwrap();
    assert_eq!(file.masks, sparse.masks);
    assert_eq!(run(&file, &[4]), run(&sparse, &[4]));
    let weights = crate::formats::safetensors::encode(&sparse).unwrap();
    let tensors = safetensors::SafeTensors::deserialize(&weights).unwrap();
    assert_eq!(tensors.tensor("fc.weight").unwrap().shape(), [3, 4]);
    let mut read = dense.clone();
    crate::formats::safetensors::decode_into(&mut read, &weights).unwrap();
    assert_eq!((run(&read, &[4]), &read.masks), (run(&sparse, &[4]), &sparse.masks));
}

#[test]
fn what_several_nodes_read_is_not_changed_behind_the_back_of_one_of_them() {
    let nodes = vec![
        with_ints(node("Transpose", &["w"], &["t"]), "perm", &[1, 0]),
        node("MatMul", &["x", "t"], &["h"]),
        node("MatMul", &["h", "w"], &["y"]),
    ];
    let dense = read(&model(&[0, 4], nodes, vec![floats("w", &[3, 4])])).unwrap();
    assert_eq!(prunable(&dense).0, ["w"]);
    let sparse = pruned(&dense, "w");
    assert_eq!(run(&sparse, &[4]), run(&again(&sparse), &[4]));
}

#[test]
fn half_precision_behind_a_cast_stays_half_where_that_is_exact() {
    let raw: Vec<u8> = numbers(12).iter().flat_map(|v| f16::from_f32(*v).to_le_bytes()).collect();
    let half = TensorProto {
        name: "w".into(),
        dims: vec![4, 3],
        data_type: data_type::FLOAT16,
        raw_data: raw.into(),
        ..Default::default()
    };
    let nodes = vec![with_int(node("Cast", &["w"], &["f"]), "to", 1), node("MatMul", &["x", "f"], &["y"])];
    let dense = read(&model(&[0, 4], nodes, vec![half.clone()])).unwrap();
    let stored = |model: &Model| ModelProto::decode(&encode(model).unwrap()[..]).unwrap().graph.unwrap().initializer[0].data_type;
    let sparse = pruned(&dense, "w");
    assert_eq!(stored(&sparse), data_type::FLOAT16);
    check_back(&sparse, &[4]);
    // A number that half precision does not have makes it 32-bit floats, which the Cast leaves alone.
    let mut repaired = sparse.clone();
    repaired.params.f32_mut("w").unwrap().data[1] = 0.1;
    assert_eq!(stored(&repaired), data_type::FLOAT);
    check_back(&repaired, &[4]);
    // Read by its layer without a Cast it is listed under its own name.
    let direct = read(&model(&[0, 4], vec![node("MatMul", &["x", "w"], &["y"])], vec![half])).unwrap();
    let (names, left) = prunable(&direct);
    assert!(names.is_empty() && left[0].reason.starts_with("float16") && left[0].weights == 12, "{left:?}");
}

fn norm(x: &str, y: &str, of: [&str; 4]) -> NodeProto {
    node("BatchNormalization", &[x, of[0], of[1], of[2], of[3]], &[y])
}

#[test]
fn numbers_that_normalisations_share_are_changed_one_by_one() {
    let vectors = || ["g", "b", "m"].map(|name| floats(name, &[3]));
    let var = || TensorProto {
        raw_data: [1.5f32, 2.0, 0.5].iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<u8>>().into(),
        ..floats("v", &[3])
    };
    // Read twice as they are, and handed on by Identity: as simplifiers and the TorchScript exporter leave them.
    let direct = vec![norm("x", "a", ["g", "b", "b", "v"]), norm("a", "y", ["g", "b", "m", "v"])];
    let handed = vec![
        node("Identity", &["g"], &["n2.weight"]),
        norm("x", "a", ["g", "b", "m", "v"]),
        norm("a", "y", ["n2.weight", "b", "m", "v"]),
    ];
    for nodes in [direct, handed] {
        let dense = read(&model(&[0, 3, 2, 2], nodes, vectors().into_iter().chain([var()]).collect())).unwrap();
        assert_eq!(encode(&dense).unwrap(), encode(&again(&dense)).unwrap());
        let first = dense.graph.layers[0].inputs[1].clone();
        let second = dense.graph.layers[1].inputs[1].clone();
        assert_ne!(first, second);
        for changed in [first, second] {
            let mut repaired = dense.clone();
            repaired.params.f32_mut(&changed).unwrap().data[1] = 9.0;
            check_back(&repaired, &[3, 2, 2]);
        }
    }
}

fn weight_norm() -> ModelProto {
    let nodes = vec![
        node("Mul", &["v", "v"], &["squares"]),
        with_ints(node("ReduceMean", &["squares"], &["mean"]), "axes", &[1]),
        node("Div", &["v", "mean"], &["unit"]),
        node("Mul", &["unit", "g"], &["w"]),
        with_int(node("Gemm", &["x", "w"], &["y"]), "transB", 1),
    ];
    model(&[0, 4], nodes, vec![floats("v", &[3, 4]), floats("g", &[3, 1])])
}

#[test]
fn weights_made_of_constants_are_listed_and_folded_where_asked() {
    let dense = read(&weight_norm()).unwrap();
    let (names, left) = prunable(&dense);
    assert!(names.is_empty());
    assert_eq!((left.len(), left[0].param.as_str(), left[0].weights), (1, "v", 12));
    assert!(left[0].reason.contains("--fold-weights") && left[0].reason.contains("Div"), "{left:?}");
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.onnx");
    std::fs::write(&path, weight_norm().encode_to_vec()).unwrap();
    let folded = read_with(&path, ReadOptions { fold_weights: true }).unwrap();
    assert_eq!(prunable(&folded).0, ["w"]);
    assert_eq!(run(&dense, &[4]), run(&folded, &[4]));
    let back = check_back(&pruned(&folded, "w"), &[4]);
    // What made the weight is gone.
    let stored = ModelProto::decode(&encode(&back).unwrap()[..]).unwrap().graph.unwrap();
    let names: Vec<&str> = stored.initializer.iter().map(|tensor| tensor.name.as_str()).collect();
    assert_eq!((stored.node.len(), names), (1, vec!["w"]));
}

#[test]
fn weight_norm_as_pytorch_exports_it_is_folded() {
    let nodes = vec![
        with_ints(with_int(node("ReduceL2", &["v"], &["length"]), "keepdims", 1), "axes", &[1]),
        node("Div", &["v", "length"], &["unit"]),
        node("Mul", &["unit", "g"], &["w"]),
        with_int(node("Gemm", &["x", "w"], &["y"]), "transB", 1),
    ];
    let proto = model(&[0, 4], nodes, vec![floats("v", &[3, 4]), floats("g", &[3, 1])]);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.onnx");
    std::fs::write(&path, proto.encode_to_vec()).unwrap();
    let folded = read_with(&path, ReadOptions { fold_weights: true }).unwrap();
    let (v, g) = (numbers(12), numbers(3));
    for (row, weights) in folded.params.f32("w").unwrap().data.chunks(4).enumerate() {
        let length = v[row * 4..][..4].iter().map(|v| v * v).sum::<f32>().sqrt();
        let near = |(at, w): (usize, &f32)| (w - g[row] * v[row * 4 + at] / length).abs() < 1e-6;
        assert!(weights.iter().enumerate().all(near), "{weights:?}");
    }
}

#[test]
fn standardisation_by_a_normalisation_in_training_mode_is_folded() {
    // One row per output channel, as the older exporter of PyTorch writes weight standardisation.
    let norm =
        with_int(node("BatchNormalization", &["rows", "s", "b", "m", "v"], &["unit", "mean", "variance"]), "training_mode", 1);
    let nodes = vec![
        node("Reshape", &["raw", "flat"], &["rows"]),
        norm,
        node("Reshape", &["unit", "back"], &["w"]),
        with_int(node("Gemm", &["x", "w"], &["y"]), "transB", 1),
    ];
    let constants = ["s", "b", "m", "v"].map(|name| floats(name, &[3]));
    let shapes = [whole("flat", &[1, 3, 4]), whole("back", &[3, 4])];
    let proto = model(&[0, 4], nodes, [vec![floats("raw", &[3, 4])], shapes.to_vec(), constants.to_vec()].concat());
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.onnx");
    std::fs::write(&path, proto.encode_to_vec()).unwrap();
    assert_eq!(prunable(&read(&proto).unwrap()).1[0].param, "raw");
    let folded = read_with(&path, ReadOptions { fold_weights: true }).unwrap();
    assert_eq!(prunable(&folded).0, ["w"]);
    let (raw, scale) = (numbers(12), numbers(3));
    for (row, weights) in folded.params.f32("w").unwrap().data.chunks(4).enumerate() {
        let row_of = &raw[row * 4..][..4];
        let mean = row_of.iter().sum::<f32>() / 4.0;
        let variance = row_of.iter().map(|v| (v - mean).powi(2)).sum::<f32>() / 4.0;
        let near = |(v, w): (&f32, &f32)| ((v - mean) / (variance + 1e-5).sqrt() * scale[row] + scale[row] - w).abs() < 1e-5;
        assert!(row_of.iter().zip(weights).all(near), "{weights:?}");
    }
}

#[test]
fn quantised_weights_are_folded() {
    let quantised = TensorProto {
        name: "q".into(),
        dims: vec![4, 3],
        data_type: data_type::INT8,
        raw_data: (0..12u8).map(|i| i.wrapping_sub(6)).collect::<Vec<u8>>().into(),
        ..Default::default()
    };
    let nodes = vec![with_int(node("DequantizeLinear", &["q", "s"], &["w"]), "axis", 1), node("MatMul", &["x", "w"], &["y"])];
    let proto = model(&[0, 4], nodes, vec![quantised, floats("s", &[3])]);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.onnx");
    std::fs::write(&path, proto.encode_to_vec()).unwrap();
    assert_eq!(prunable(&read(&proto).unwrap()).1[0].param, "q");
    let folded = read_with(&path, ReadOptions { fold_weights: true }).unwrap();
    let scale = numbers(3);
    let expected: Vec<f32> = (0..12).map(|i| (i as f32 - 6.0) * scale[i % 3]).collect();
    assert_eq!(folded.params.f32("w").unwrap().data, expected);
}

/// `y = Gemm(Relu(a), b)`, as a function, with the attribute `transB` handed on.
fn function(name: &str, inner: &str) -> FunctionProto {
    let mut gemm = node(inner, &["h", "b"], &["out"]);
    gemm.domain = if inner == "Gemm" { String::new() } else { "local".into() };
    let transposed = AttributeProto { name: "transB".into(), ref_attr_name: "t".into(), r#type: 2, ..Default::default() };
    gemm.attribute.push(transposed);
    FunctionProto {
        name: name.into(),
        domain: "local".into(),
        input: vec!["a".into(), "b".into()],
        output: vec!["out".into()],
        node: vec![node("Relu", &["a"], &["h"]), gemm],
        opset_import: vec![OperatorSetId { domain: String::new(), version: 13 }],
        ..Default::default()
    }
}

fn call(name: &str, inputs: &[&str], output: &str) -> NodeProto {
    with_int(NodeProto { domain: "local".into(), ..node(name, inputs, &[output]) }, "t", 1)
}

#[test]
fn functions_are_written_out_and_their_weights_pruned() {
    let nodes = vec![call("Block", &["x", "w1"], "h"), call("Block", &["h", "w2"], "y")];
    let mut proto = model(&[0, 4], nodes, vec![floats("w1", &[3, 4]), floats("w2", &[2, 3])]);
    proto.functions = vec![function("Block", "Gemm")];
    let dense = read(&proto).unwrap();
    assert_eq!(dense.graph.layers.iter().map(|layer| layer.op.name()).collect::<Vec<_>>(), ["Relu", "Gemm", "Relu", "Gemm"]);
    assert_eq!(prunable(&dense).0, ["w1", "w2"]);
    check_back(&pruned(&dense, "w2"), &[4]);
}

#[test]
fn a_function_that_calls_itself_is_refused() {
    let mut proto = model(&[0, 4], vec![call("Block", &["x", "w"], "y")], vec![floats("w", &[3, 4])]);
    proto.functions = vec![function("Block", "Block")];
    assert!(read(&proto).unwrap_err().to_string().contains("calls itself"));
    // Functions that call each other twice would stand for 2^40 nodes.
    let mut proto = model(&[0, 4], vec![call("F0", &["x", "w"], "y")], vec![floats("w", &[3, 4])]);
    let twice = |level: usize| {
        let inner = |input: &str, output: &str| call(&format!("F{}", level + 1), &[input, "b"], output);
        FunctionProto { node: vec![inner("a", "h"), inner("h", "out")], ..function(&format!("F{level}"), "Gemm") }
    };
    proto.functions = (0..40).map(twice).chain([function("F40", "Gemm")]).collect();
    assert!(read(&proto).unwrap_err().to_string().contains("nodes"));
}

#[test]
fn what_a_branch_reads_from_outside_counts_and_its_weights_are_listed() {
    let branch = |name: &str| GraphProto {
        node: vec![node("MatMul", &["h", name], &["z"])],
        initializer: vec![floats(name, &[3, 2])],
        output: vec![value("z", &[])],
        ..Default::default()
    };
    let mut choose = node("If", &["condition"], &["y"]);
    for (name, weight) in [("then_branch", "w2"), ("else_branch", "w3")] {
        let g = Some(branch(weight));
        choose.attribute.push(AttributeProto { name: name.into(), g, r#type: 5, ..Default::default() });
    }
    let condition = TensorProto { data_type: data_type::BOOL, raw_data: vec![1].into(), ..whole("condition", &[1]) };
    let dense =
        read(&model(&[0, 4], vec![node("MatMul", &["x", "w"], &["h"]), choose], vec![floats("w", &[4, 3]), condition])).unwrap();
    assert_eq!(dense.graph.reader_counts()["h"], 1);
    let (names, left) = prunable(&dense);
    assert_eq!(names, ["w"]);
    assert_eq!(left.iter().map(|left| left.param.as_str()).collect::<Vec<_>>(), ["w2", "w3"]);
    // The branch reads every channel: none of the pruned weights is without a path.
    let layers = dense.prunable(&PrunableRule::default()).unwrap().0;
    let sparse = pruned(&dense, "w");
    let nonzero = sparse.params.f32("w").unwrap().data.iter().filter(|w| **w != 0.0).count();
    assert_eq!(crate::model::effective::effective_counts(&sparse, &layers), [nonzero]);
}

#[test]
fn fused_operations_of_onnx_runtime_are_read_as_what_they_are() {
    let mut conv = with_text(node("FusedConv", &["x", "w", "b", "z"], &["y"]), "activation", "Relu");
    conv.domain = "com.microsoft".into();
    let relu = node("Relu", &["x"], &["z"]);
    let initializers = || vec![floats("w", &[3, 3, 1, 1]), floats("b", &[3])];
    let fused = read(&model(&[0, 3, 2, 2], vec![relu.clone(), conv.clone()], initializers())).unwrap();
    assert_eq!(fused.graph.layers.iter().map(|layer| layer.op.name()).collect::<Vec<_>>(), ["Relu", "Conv", "Add", "Relu"]);
    let plain = vec![
        relu.clone(),
        node("Conv", &["x", "w", "b"], &["c"]),
        node("Add", &["c", "z"], &["s"]),
        node("Relu", &["s"], &["y"]),
    ];
    let plain = read(&model(&[0, 3, 2, 2], plain, initializers())).unwrap();
    assert_eq!(run(&fused, &[3, 2, 2]), run(&plain, &[3, 2, 2]));
    check_back(&pruned(&fused, "w"), &[3, 2, 2]);
    // An activation that is not known here makes it a layer that is not known; its weight is listed.
    conv.attribute[0].s = b"Tanh".to_vec().into();
    let unknown = read(&model(&[0, 3, 2, 2], vec![relu, conv], initializers())).unwrap();
    assert_eq!(prunable(&unknown).1[0].param, "w");
}

fn outside(tensor: TensorProto, entries: &[(&str, &str)]) -> TensorProto {
    let entry = |&(key, value): &(&str, &str)| StringEntry { key: key.into(), value: value.into() };
    TensorProto { raw_data: Default::default(), data_location: 1, external_data: entries.iter().map(entry).collect(), ..tensor }
}

fn read_in(folder: &Path, proto: &ModelProto) -> Result<Model> {
    let path = folder.join("model.onnx");
    std::fs::write(&path, proto.encode_to_vec()).unwrap();
    super::read(&path)
}

#[test]
fn external_data_are_read_in_slices_and_written_back() {
    let folder = tempfile::tempdir().unwrap();
    let weights = floats("w", &[4, 100]);
    std::fs::write(folder.path().join("weights.bin"), [&[0u8; 16][..], &weights.raw_data].concat()).unwrap();
    let entries = [("location", "weights.bin"), ("offset", "16"), ("length", "1600")];
    let proto = model(&[0, 4], vec![node("MatMul", &["x", "w"], &["y"])], vec![outside(weights.clone(), &entries)]);
    let inline = read(&model(&[0, 4], vec![node("MatMul", &["x", "w"], &["y"])], vec![weights])).unwrap();
    let dense = read_in(folder.path(), &proto).unwrap();
    assert_eq!(run(&dense, &[4]), run(&inline, &[4]));
    let sparse = pruned(&dense, "w");
    check_back(&sparse, &[4]);
    let target = folder.path().join("out.onnx");
    write(&sparse, &target, Storage::External, |_| Ok(())).unwrap();
    let files = super::external_files(&target).unwrap();
    assert_eq!(files, [folder.path().join("out.onnx.data")]);
    assert_eq!(std::fs::metadata(&files[0]).unwrap().len(), 1600);
    assert!(std::fs::metadata(&target).unwrap().len() < 400);
    assert_eq!(run(&super::read(&target).unwrap(), &[4]), run(&sparse, &[4]));
}

#[test]
fn external_data_that_do_not_fit_are_refused_by_name() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("short.bin"), [0u8; 100]).unwrap();
    let nodes = || vec![node("MatMul", &["x", "a"], &["h"]), node("MatMul", &["h", "b"], &["y"])];
    let try_with = |a: &[(&str, &str)], b: &[(&str, &str)]| {
        let initializers = vec![outside(floats("a", &[4, 4]), a), outside(floats("b", &[4, 4]), b)];
        read_in(folder.path(), &model(&[0, 4], nodes(), initializers)).unwrap_err().to_string()
    };
    let fine = [("location", "short.bin"), ("offset", "0"), ("length", "64")];
    for (b, expected) in [
        (vec![("location", "short.bin"), ("offset", "40")], "64 bytes at 40 are needed, the file has 100"),
        (vec![("location", "short.bin"), ("offset", "32"), ("length", "64")], "overlap those of \"a\""),
        (vec![("location", "short.bin"), ("offset", "64"), ("length", "36")], "36 bytes for a tensor that takes 64"),
        (vec![("location", "../short.bin")], "outside the model's folder"),
        (vec![("location", "nothing.bin")], "nothing.bin"),
        (vec![("offset", "0")], "without a location"),
        (vec![("location", "short.bin"), ("offset", "-1")], "is not a number"),
        (vec![("location", "short.bin"), ("offset", "18446744073709551615")], "are needed"),
    ] {
        let error = try_with(&fine, &b);
        assert!(error.contains(expected) && error.contains("initializer \"b\"") && error.contains("model.onnx"), "{error}");
    }
}

/// A layer whose weight is large enough to be read from the file only when it is needed, one in half precision that no
/// layer reads, and one of typed numbers.
fn large() -> ModelProto {
    let unread = |name: &str, element, raw: Vec<u8>| TensorProto {
        name: name.into(),
        data_type: element,
        raw_data: raw.into(),
        ..whole(name, &[])
    };
    let half = TensorProto {
        dims: vec![3000],
        ..unread("half", data_type::FLOAT16, numbers(1500).iter().flat_map(|v| v.to_le_bytes()).collect())
    };
    let typed = TensorProto { raw_data: Default::default(), float_data: numbers(2000), ..floats("typed", &[2000, 1]) };
    let nodes =
        vec![node("Gemm", &["x", "w"], &["h"]), node("MatMul", &["h", "v"], &["g"]), node("MatMul", &["g", "typed"], &["y"])];
    model(&[-1, 40], nodes, vec![half, floats("w", &[40, 50]), typed, floats("v", &[50, 2000])])
}

#[test]
fn large_tensors_stay_in_the_file_until_they_are_read() {
    let folder = tempfile::tempdir().unwrap();
    let (path, out) = (folder.path().join("m.onnx"), folder.path().join("out.onnx"));
    let bytes = large().encode_to_vec();
    std::fs::write(&path, &bytes).unwrap();
    let from_disk = read_with(&path, ReadOptions::default()).unwrap();
    let source = super::changes::source_of(&from_disk).unwrap();
    assert_eq!(source.detached.len(), 3, "half, w and v");
    assert!(source.bytes.len() < bytes.len() / 4);
    // Unchanged, it is the same file; in a file of its own or as external data every number is there.
    assert_eq!(encode(&from_disk).unwrap(), bytes);
    for storage in [Storage::Dense, Storage::External] {
        write(&from_disk, &out, storage, |_| Ok(())).unwrap();
        let back = read_with(&out, ReadOptions::default()).unwrap();
        assert_eq!(run(&back, &[40]), run(&from_disk, &[40]));
        assert_eq!(encode(&back).unwrap(), bytes, "and into one file again");
    }
    let from_memory = pruned(&parse(bytes.clone(), None).unwrap(), "v");
    assert_eq!(encode(&pruned(&from_disk, "v")).unwrap(), encode(&from_memory).unwrap());
    // Cut off anywhere, it is refused as before.
    for end in [3, 100, bytes.len() / 2, bytes.len() - 5000, bytes.len() - 1] {
        std::fs::write(&path, &bytes[..end]).unwrap();
        assert!(read_with(&path, ReadOptions::default()).is_err(), "{end}");
    }
}

#[test]
fn damaged_files_are_read_from_disk_as_they_are_from_memory() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("m.onnx");
    let nodes = vec![node("MatMul", &["x", "w"], &["h"]), node("MatMul", &["h", "v"], &["y"])];
    let bytes = model(&[0, 40], nodes, vec![floats("w", &[40, 50]), floats("v", &[50, 30])]).encode_to_vec();
    let mut random = SplitMix64::new(0, 0);
    let (mut read, mut refused) = (0, 0);
    for _ in 0..600 {
        let mut damaged = bytes.clone();
        // Mostly where the structure is, not among the numbers.
        let far = if random.next_f64() < 0.1 { damaged.len() } else { 160 };
        let at = (random.next_f64() * far as f64) as usize;
        let at = if random.next_f64() < 0.5 { at } else { damaged.len() - 1 - at };
        damaged[at] = (256.0 * random.next_f64()) as u8;
        std::fs::write(&path, &damaged).unwrap();
        match (parse(damaged, None), read_with(&path, ReadOptions::default())) {
            (Ok(a), Ok(b)) => {
                let bits = |model: &Model| -> Vec<Vec<u8>> {
                    model.params.iter().filter_map(|(_, param)| param.f32()).map(Tensor::to_le_bytes).collect()
                };
                assert_eq!(bits(&a), bits(&b), "byte {at}");
                read += 1;
            }
            (Err(_), Err(_)) => refused += 1,
            (a, b) => panic!("byte {at}: from memory {:?}, from disk {:?}", a.err(), b.err()),
        }
    }
    assert!(read > 50 && refused > 50, "{read} read, {refused} refused");
}
