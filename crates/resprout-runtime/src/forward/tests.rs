//! A changed model computes the same.

use super::{Network, PlanOptions};
use crate::formats::onnx;
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
