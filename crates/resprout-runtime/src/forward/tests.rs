//! A changed model computes the same, and what cannot be computed is refused by name.

use super::{Network, Plan, PlanOptions};
use crate::formats::onnx::{self, Attribute, GraphBuilder};
use crate::model::{Layer, Mask, Model};
use crate::ops::Op;
use crate::tensor::Tensor;
use crate::testing::Net;

/// Two convolutions with BatchNormalization, and a third one whose output another layer reads too.
fn network() -> Model {
    let mut net = Net::default();
    let a = net.conv("input", "a", [4, 3, 3, 3], 1, false);
    let a = net.batch_norm(&a, "a_norm", 4);
    let b = net.conv(&a, "b", [4, 1, 3, 3], 4, true);
    let b = net.batch_norm(&b, "b_norm", 4);
    let c = net.conv(&b, "c", [4, 4, 1, 1], 1, false);
    let d = net.batch_norm(&c, "c_norm", 4);
    let sum = net.add(&c, &d, "sum");
    net.classify(&sum, 4, [3, 8, 8], 3)
}

fn run(model: &Model) -> Vec<f32> {
    let images = Tensor::new(vec![2, 3, 8, 8], (0..384).map(|i| (i as f32 * 0.37).sin()).collect());
    Network::new(model, &[3, 8, 8], &PlanOptions::default()).unwrap().run(&images).unwrap().swap_remove(0).data
}

#[test]
fn a_network_computes_the_same_without_its_batch_norms_and_is_written_without_them() {
    let model = network();
    let mut merged = model.clone();
    let mask = Mask((0..108).map(|i| i % 3 != 0).collect());
    merged.masks.insert("a.weight".into(), mask.clone());
    merged.apply_masks();
    let before = run(&merged);
    let outcome = merged.merge_batch_norms().unwrap();
    assert_eq!((outcome.merged, outcome.left.len()), (2, 1));
    assert_eq!(outcome.left[0].0, "c_norm");
    let zeros =
        |model: &Model| model.params.f32("a.weight").unwrap().data.iter().zip(&mask.0).all(|(w, kept)| *kept || *w == 0.0);
    assert!(zeros(&merged));
    let back = onnx::parse(onnx::encode(&merged).unwrap(), None).unwrap();
    let is_norm = |layer: &&Layer| matches!(layer.op, Op::BatchNorm { .. });
    let norms = |model: &Model| model.graph.layers.iter().filter(is_norm).count();
    assert_eq!((norms(&model), norms(&merged), norms(&back)), (3, 1, 1));
    assert!(back.params.get("a_norm.weight").is_none() && back.params.get("c_norm.weight").is_some());
    for after in [run(&merged), run(&back)] {
        assert!(before.iter().zip(&after).all(|(a, b)| (a - b).abs() <= 1e-5 * a.abs().max(1.0)), "{before:?} {after:?}");
    }
}

/// A network of one operation behind a Reshape to rows, by its name.
fn behind_rows(op: &str) -> Model {
    let mut graph = GraphBuilder::default();
    let rows = graph.node("Flatten", "rows", &["input"], &[]);
    let last = graph.node(op, "last", &[&rows], &[]);
    graph.finish("test", [3, 8, 8], &last, 3).unwrap()
}

#[test]
fn results_whose_shape_depends_on_pixels_are_refused_by_name() {
    for op in ["NonZero", "Loop", "Scan", "If", "Unique", "Compress", "NonMaxSuppression"] {
        let error = Plan::new(&behind_rows(op), &[2, 3, 8, 8], &PlanOptions::default()).err().unwrap().to_string();
        assert!(error.contains("\"last\"") && error.contains(op) && error.contains("depends on the image's content"), "{error}");
    }
    let mut newer = network();
    newer.opset = 29;
    let error = Plan::new(&newer, &[2, 3, 8, 8], &PlanOptions::default()).err().unwrap().to_string();
    assert!(error.contains("opset 29") && error.contains("7 to 28"), "{error}");
}

#[test]
fn an_output_without_an_axis_of_images_is_refused_by_name() {
    let mut graph = GraphBuilder::default();
    let sum = graph.node("ReduceMax", "largest", &["input"], &[("keepdims", Attribute::Int(0))]);
    let model = graph.finish("test", [3, 8, 8], &sum, 3).unwrap();
    let error = Network::new(&model, &[3, 8, 8], &PlanOptions::default()).err().unwrap().to_string();
    assert!(error.contains("\"largest\""), "{error}");
}

#[test]
fn indices_that_view_all_images_keep_them_apart() {
    let view = |indices: &[i64]| {
        let mut graph = GraphBuilder::default();
        let all = graph.integers("all", &[-1]);
        let flat = graph.node("Reshape", "flat", &["input", &all], &[]);
        let at = graph.integers("at", indices);
        let shape = graph.integers("shape", &[2, 3]);
        let at = graph.node("Reshape", "grid", &[&at, &shape], &[]);
        let seen = graph.node("Gather", "seen", &[&flat, &at], &[]);
        let model = graph.finish("test", [3, 1, 1], &seen, 3).unwrap();
        Plan::new(&model, &[2, 3, 1, 1], &PlanOptions::default()).unwrap().check_independent(&model, &model.graph.outputs)
    };
    assert!(view(&[0, 1, 2, 3, 4, 5]).is_ok());
    assert!(view(&[2, 1, 0, 5, 5, 4]).is_ok(), "in any order within an image");
    assert!(view(&[0, 1, 3, 3, 4, 5]).unwrap_err().to_string().contains("\"seen\""));
}

#[test]
fn the_outputs_of_a_node_are_computed_each_by_a_layer() {
    let mut graph = GraphBuilder::default();
    let k = graph.integers("k", &[2]);
    graph.nodes("TopK", &["values", "places"], &["input", &k], &[("axis", Attribute::Int(1))]);
    graph.nodes("Dropout", &["kept", "mask"], &["values"], &[]);
    let both = graph.node("Concat", "both", &["kept", "places"], &[("axis", Attribute::Int(1))]);
    let model = graph.finish("test", [3, 1, 1], &both, 3).unwrap();
    let names: Vec<&str> = model.graph.layers.iter().map(|layer| layer.name.as_str()).collect();
    // Nothing reads the mask.
    assert_eq!(names, ["values", "values/output1", "kept", "both"]);
    let images = Tensor::new(vec![2, 3, 1, 1], vec![0.5, 3.0, -1.0, 7.0, 7.0, 8.0]);
    let result = Network::new(&model, &[3, 1, 1], &PlanOptions::default()).unwrap().run(&images).unwrap().swap_remove(0);
    assert_eq!(result.data, [3.0, 0.5, 1.0, 0.0, 8.0, 7.0, 2.0, 0.0]);
}
