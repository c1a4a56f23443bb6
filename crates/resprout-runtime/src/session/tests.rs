//! Small graphs with known results: step by step, compiled, and in a session.

use super::{Session, SessionOptions};
use crate::formats::onnx::{Attribute, GraphBuilder};
use crate::forward::{Network, Plan, PlanOptions, Slots};
use crate::model::Model;
use crate::ops::{Op, PadMode};
use crate::tensor::Tensor;
use resprout_kernels::Isa;

/// Runs images step by step, compiled and in a session. All must agree; returns the only output.
fn run(model: &Model, images: &Tensor) -> Tensor {
    let mut slots = Slots::default();
    let plan = Plan::new(model, &images.shape, &PlanOptions::default()).unwrap();
    let steps = plan.run(images.clone(), &mut slots, Isa::best(), false).swap_remove(0);
    let network = Network::new(model, &images.shape[1..], &PlanOptions::default()).unwrap().run(images).unwrap().swap_remove(0);
    let mut session = Session::new(model, &images.shape[1..], &SessionOptions::default()).unwrap();
    let session = session.run(images).unwrap().swap_remove(0);
    for other in [network, session] {
        assert_eq!(steps.shape, other.shape);
        assert!(steps.data.iter().zip(&other.data).all(|(a, b)| (a - b).abs() < 1e-5), "{steps:?} {other:?}");
    }
    steps
}

fn images(shape: &[usize]) -> Tensor {
    Tensor::new(shape.to_vec(), (0..shape.iter().product()).map(|i| i as f32 + 1.0).collect())
}

/// A convolution that changes nothing, the node, and another such convolution.
fn between(channels: usize, side: usize, node: impl Fn(&mut GraphBuilder, &str) -> String) -> Model {
    let mut builder = GraphBuilder::default();
    let one = |i: usize| if i.is_multiple_of(channels + 1) { 1.0 } else { 0.0 };
    let weight = Tensor::new(vec![channels, channels, 1, 1], (0..channels * channels).map(one).collect());
    builder.tensor("weight", &weight);
    let x = builder.node("Conv", "a", &["input", "weight"], &[]);
    let x = node(&mut builder, &x);
    let output = builder.node("Conv", "b", &[&x, "weight"], &[]);
    builder.finish("between", [channels, side, side], &output, 1).unwrap()
}

#[test]
fn padding_follows_its_mode_behind_a_convolution() {
    let padded = |mode: PadMode| {
        let mut model = between(1, 2, |builder, x| {
            let pads = builder.integers("pads", &[0, 0, 0, 1, 0, 0, 0, 1]);
            builder.node("Pad", "pad", &[x, &pads], &[])
        });
        model.graph.layers[1].op = Op::Pad { mode, attributes: None };
        run(&model, &images(&[2, 1, 2, 2])).data[..8].to_vec()
    };
    assert_eq!(padded(PadMode::Constant), [0.0, 1.0, 2.0, 0.0, 0.0, 3.0, 4.0, 0.0]);
    assert_eq!(padded(PadMode::Edge), [1.0, 1.0, 2.0, 2.0, 3.0, 3.0, 4.0, 4.0]);
    assert_eq!(padded(PadMode::Reflect), [2.0, 1.0, 2.0, 1.0, 4.0, 3.0, 4.0, 3.0]);
    assert_eq!(padded(PadMode::Wrap), [2.0, 1.0, 2.0, 1.0, 4.0, 3.0, 4.0, 3.0]);
}

#[test]
fn a_sum_has_all_of_two_values_and_a_constant() {
    let model = between(1, 2, |builder, x| {
        builder.tensor("ten", &Tensor::new(vec![1, 1, 1, 1], vec![10.0]));
        builder.node("Sum", "sum", &[x, "input", "ten"], &[])
    });
    assert_eq!(run(&model, &images(&[1, 1, 2, 2])).data, [12.0, 14.0, 16.0, 18.0]);
}

#[test]
fn one_spatial_axis_is_a_height_of_one() {
    let mut builder = GraphBuilder::default();
    builder.tensor("weight", &Tensor::new(vec![1, 1, 3], vec![1.0, 10.0, 100.0]));
    let axis = builder.integers("axis", &[2]);
    let x = builder.node("Squeeze", "squeeze", &["input", &axis], &[]);
    let x = builder.node("Conv", "conv", &[&x, "weight"], &[("pads", Attribute::Ints(vec![0, 1]))]);
    let output = builder.node("MaxPool", "pool", &[&x], &[("kernel_shape", Attribute::Ints(vec![2]))]);
    let model = builder.finish("row", [1, 1, 4], &output, 1).unwrap();
    let out = run(&model, &images(&[2, 1, 1, 4]));
    assert_eq!((out.shape, &out.data[..2]), (vec![2, 1, 2], &[432.0, 432.0][..]));
}

#[test]
fn the_error_for_mixed_images_names_the_layer_that_mixes_them() {
    let mixed = |axis: i64| between(2, 2, |builder, x| builder.node("Softmax", "mix", &[x], &[("axis", Attribute::Int(axis))]));
    run(&mixed(1), &images(&[3, 2, 2, 2]));
    let model = mixed(0);
    for e in [
        Network::new(&model, &[2, 2, 2], &PlanOptions::default()).err(),
        Session::new(&model, &[2, 2, 2], &SessionOptions::default()).err(),
    ] {
        let message = e.unwrap().to_string();
        assert!(message.contains("\"mix\"") && message.contains("mixes the images"), "{message}");
    }
    // Images stay independent on another axis.
    let moved = between(2, 2, |builder, x| {
        let perm = [("perm", Attribute::Ints(vec![1, 0, 2, 3]))];
        let y = builder.node("Transpose", "there", &[x], &perm);
        let y = builder.node("Relu", "relu", &[&y], &[]);
        builder.node("Transpose", "back", &[&y], &[("perm", Attribute::Ints(vec![1, 0, 2, 3]))])
    });
    run(&moved, &images(&[3, 2, 2, 2]));
}
