//! Nodes that stand for others: functions, branches and fused operations.

use super::*;
use crate::formats::onnx::proto::FunctionProto;

/// The function `y = Gemm(Relu(a), b)`, which hands on the attribute `transB`.
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
fn functions_are_inlined_and_their_weights_pruned() {
    let nodes = vec![call("Block", &["x", "w1"], "h"), call("Block", &["h", "w2"], "y")];
    let mut proto = model(&[0, 4], nodes, vec![floats("w1", &[3, 4]), floats("w2", &[2, 3])]);
    proto.functions = vec![function("Block", "Gemm")];
    let dense = parse_proto(&proto).unwrap();
    assert_eq!(dense.graph.layers.iter().map(|layer| layer.op.name()).collect::<Vec<_>>(), ["Relu", "Gemm", "Relu", "Gemm"]);
    assert_eq!(prunable(&dense).0, ["w1", "w2"]);
    check_back(&pruned(&dense, "w2"), &[4]);
}

#[test]
fn a_function_that_calls_itself_is_refused() {
    let mut proto = model(&[0, 4], vec![call("Block", &["x", "w"], "y")], vec![floats("w", &[3, 4])]);
    proto.functions = vec![function("Block", "Block")];
    assert!(parse_proto(&proto).unwrap_err().to_string().contains("calls itself"));
    // Functions that call each other twice would stand for 2^40 nodes.
    let mut proto = model(&[0, 4], vec![call("F0", &["x", "w"], "y")], vec![floats("w", &[3, 4])]);
    let twice = |level: usize| {
        let inner = |input: &str, output: &str| call(&format!("F{}", level + 1), &[input, "b"], output);
        FunctionProto { node: vec![inner("a", "h"), inner("h", "out")], ..function(&format!("F{level}"), "Gemm") }
    };
    proto.functions = (0..40).map(twice).chain([function("F40", "Gemm")]).collect();
    assert!(parse_proto(&proto).unwrap_err().to_string().contains("nodes"));
}

#[test]
fn a_branch_reads_outer_values_and_its_weights_are_listed() {
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
    let condition = TensorProto { data_type: data_type::BOOL, raw_data: vec![1].into(), ..ints("condition", &[1]) };
    let dense =
        parse_proto(&model(&[0, 4], vec![node("MatMul", &["x", "w"], &["h"]), choose], vec![floats("w", &[4, 3]), condition]))
            .unwrap();
    assert_eq!(dense.graph.reader_counts()["h"], 1);
    let (names, left) = prunable(&dense);
    assert_eq!(names, ["w"]);
    assert_eq!(left.iter().map(|left| left.param.as_str()).collect::<Vec<_>>(), ["w2", "w3"]);
    // The branch reads every channel, so that every nonzero weight is on a path.
    let layers = dense.prunable(&PrunableRule::default()).unwrap().0;
    let sparse = pruned(&dense, "w");
    let nonzero = sparse.params.f32("w").unwrap().data.iter().filter(|w| **w != 0.0).count();
    assert_eq!(crate::model::effective::effective_counts(&sparse, &layers), [nonzero]);
}

#[test]
fn fused_operations_of_onnx_runtime_are_split() {
    let mut conv = with_text(node("FusedConv", &["x", "w", "b", "z"], &["y"]), "activation", "Relu");
    conv.domain = "com.microsoft".into();
    let relu = node("Relu", &["x"], &["z"]);
    let initializers = || vec![floats("w", &[3, 3, 1, 1]), floats("b", &[3])];
    let fused = parse_proto(&model(&[0, 3, 2, 2], vec![relu.clone(), conv.clone()], initializers())).unwrap();
    assert_eq!(fused.graph.layers.iter().map(|layer| layer.op.name()).collect::<Vec<_>>(), ["Relu", "Conv", "Add", "Relu"]);
    let plain = vec![
        relu.clone(),
        node("Conv", &["x", "w", "b"], &["c"]),
        node("Add", &["c", "z"], &["s"]),
        node("Relu", &["s"], &["y"]),
    ];
    let plain = parse_proto(&model(&[0, 3, 2, 2], plain, initializers())).unwrap();
    assert_eq!(run(&fused, &[3, 2, 2]), run(&plain, &[3, 2, 2]));
    check_back(&pruned(&fused, "w"), &[3, 2, 2]);
    // An unknown activation makes an unknown layer, whose weight is listed.
    conv.attribute[0].s = b"Tanh".to_vec().into();
    let unknown = parse_proto(&model(&[0, 3, 2, 2], vec![relu, conv], initializers())).unwrap();
    assert_eq!(prunable(&unknown).1[0].param, "w");
}
