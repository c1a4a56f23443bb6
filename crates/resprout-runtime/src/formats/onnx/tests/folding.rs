//! Weights that are computed from constants.

use super::*;
use crate::formats::onnx::{ReadOptions, read_with};

fn read_folded(proto: &ModelProto) -> Model {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.onnx");
    std::fs::write(&path, proto.encode_to_vec()).unwrap();
    read_with(&path, ReadOptions { fold_weights: true }).unwrap()
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
fn weights_computed_from_constants_are_listed_or_folded() {
    let dense = parse_proto(&weight_norm()).unwrap();
    let (names, left) = prunable(&dense);
    assert!(names.is_empty());
    assert_eq!((left.len(), left[0].param.as_str(), left[0].weights), (1, "v", 12));
    assert!(left[0].reason.contains("the option fold-weights") && left[0].reason.contains("Div"), "{left:?}");
    let folded = read_folded(&weight_norm());
    assert_eq!(prunable(&folded).0, ["w"]);
    assert_eq!(run(&dense, &[4]), run(&folded, &[4]));
    let back = check_back(&pruned(&folded, "w"), &[4]);
    // The nodes that computed the weight are gone.
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
    let folded = read_folded(&proto);
    let (v, g) = (numbers(12), numbers(3));
    for (row, weights) in folded.params.f32("w").unwrap().data.chunks(4).enumerate() {
        let length = v[row * 4..][..4].iter().map(|v| v * v).sum::<f32>().sqrt();
        let near = |(at, w): (usize, &f32)| (w - g[row] * v[row * 4 + at] / length).abs() < 1e-6;
        assert!(weights.iter().enumerate().all(near), "{weights:?}");
    }
}

#[test]
fn standardisation_by_a_normalisation_in_training_mode_is_folded() {
    // The older exporter of PyTorch writes weight standardisation so, with one row per output channel.
    let norm =
        with_int(node("BatchNormalization", &["rows", "s", "b", "m", "v"], &["unit", "mean", "variance"]), "training_mode", 1);
    let nodes = vec![
        node("Reshape", &["raw", "flat"], &["rows"]),
        norm,
        node("Reshape", &["unit", "back"], &["w"]),
        with_int(node("Gemm", &["x", "w"], &["y"]), "transB", 1),
    ];
    let constants = ["s", "b", "m", "v"].map(|name| floats(name, &[3]));
    let shapes = [ints("flat", &[1, 3, 4]), ints("back", &[3, 4])];
    let proto = model(&[0, 4], nodes, [vec![floats("raw", &[3, 4])], shapes.to_vec(), constants.to_vec()].concat());
    assert_eq!(prunable(&parse_proto(&proto).unwrap()).1[0].param, "raw");
    let folded = read_folded(&proto);
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
    assert_eq!(prunable(&parse_proto(&proto).unwrap()).1[0].param, "q");
    let folded = read_folded(&proto);
    let scale = numbers(3);
    let expected: Vec<f32> = (0..12).map(|i| (i as f32 - 6.0) * scale[i % 3]).collect();
    assert_eq!(folded.params.f32("w").unwrap().data, expected);
}
