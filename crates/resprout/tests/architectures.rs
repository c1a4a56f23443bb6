//! Every architecture against PyTorch. The outputs are from testdata/gen/architectures.py.

use resprout::architectures::{ARCHITECTURES, Shape, build};
use resprout::forward::{Network, PlanOptions};
use resprout::model::Model;
use resprout::ops::Op;
use resprout::tensor::Tensor;
use safetensors::SafeTensors;
use std::collections::HashSet;

#[path = "../../../testdata/noise.rs"]
mod noise;
use noise::noise;

const GOLDEN: &[u8] = include_bytes!("../../../testdata/golden/architectures.safetensors");
/// Relative to the largest output: sums in f32 against sums in f64 over up to 121 layers.
const TOLERANCE: f32 = 1e-4;

/// The names of the model's torch state dict, and the number of parameters.
fn state_names(model: &Model) -> (Vec<String>, usize) {
    let (mut names, mut parameters, mut seen) = (Vec::new(), 0, HashSet::new());
    for layer in &model.graph.layers {
        let last = match layer.op {
            Op::Conv(_) | Op::Gemm { .. } => 2,
            Op::BatchNorm { .. } => 4,
            _ => continue,
        };
        for (index, name) in (1..=last).filter_map(|i| Some((i, layer.input(i)?))) {
            assert!(seen.insert(name.to_string()), "{name} is read twice");
            names.push(name.to_string());
            if index < 3 {
                parameters += model.weight(name).unwrap().len();
            }
        }
    }
    (names, parameters)
}

fn fill(model: &mut Model, names: &[String]) {
    for name in names {
        let tensor = model.params.f32_mut(name).unwrap();
        tensor.data = noise::parameter(name, &tensor.shape);
    }
}

#[test]
fn outputs_and_parameter_counts_are_those_of_pytorch() {
    compare(0);
}

#[test]
fn outputs_and_parameter_counts_of_the_others_are_too() {
    compare(1);
}

/// Every second architecture, so that two tests share the work.
fn compare(first: usize) {
    let golden = SafeTensors::deserialize(GOLDEN).unwrap();
    for entry in ARCHITECTURES.iter().skip(first).step_by(2) {
        let mut model = build(entry.name, &Shape { classes: None, image: None }, "kaiming-out", 0).unwrap();
        let (names, parameters) = state_names(&model);
        let count = golden.tensor(&format!("{}.parameters", entry.name)).unwrap();
        assert_eq!(count.data(), (parameters as i64).to_le_bytes(), "{}: {parameters} parameters", entry.name);
        fill(&mut model, &names);
        let image = entry.build.image;
        let len = 2 * image.iter().product::<usize>();
        let images = Tensor::new([&[2], &image[..]].concat(), noise("input", len).into_iter().map(|u| u as f32).collect());
        let got = Network::new(&model, &image, &PlanOptions::default()).unwrap().run(&images).unwrap().swap_remove(0);
        let expected = golden.tensor(&format!("{}.output", entry.name)).unwrap();
        assert_eq!(got.shape, expected.shape(), "{}", entry.name);
        let expected: Vec<f32> = expected.data().as_chunks::<4>().0.iter().map(|&chunk| f32::from_le_bytes(chunk)).collect();
        let largest = expected.iter().fold(0.0f32, |largest, v| largest.max(v.abs()));
        for (got, expected) in got.data.iter().zip(&expected) {
            assert!((got - expected).abs() <= TOLERANCE * largest, "{}: {got}, {expected} expected", entry.name);
        }
    }
}

#[test]
fn classes_images_and_seeds_are_the_requested_ones() {
    let shape = Shape { classes: Some(7), image: Some([1, 40, 48]) };
    let model = build("resnet-20", &shape, "kaiming-in", 1).unwrap();
    let images = Tensor::new(vec![1, 1, 40, 48], vec![0.5; 40 * 48]);
    let run = |model: &Model| Network::new(model, &[1, 40, 48], &PlanOptions::default()).unwrap().run(&images).unwrap();
    assert_eq!(run(&model)[0].shape, [1, 7]);
    assert_eq!(run(&model), run(&build("resnet-20", &shape, "kaiming-in", 1).unwrap()));
    assert_ne!(run(&model), run(&build("resnet-20", &shape, "kaiming-in", 2).unwrap()));
    // The variance of 9216 weights of the last stage is 2 / fan-in within 4 standard errors.
    let weights = &model.weight("layer3.1.conv1.weight").unwrap().data;
    let variance = weights.iter().map(|&w| f64::from(w).powi(2)).sum::<f64>() / weights.len() as f64;
    let expected = 2.0 / (64.0 * 9.0);
    assert!((variance / expected - 1.0).abs() < 4.0 * (2.0 / weights.len() as f64).sqrt(), "{variance} {expected}");
}

#[test]
fn impossible_networks_are_refused() {
    let plain = Shape { classes: None, image: None };
    for (name, shape, init) in [
        ("resnet-21", plain.clone(), "kaiming-in"),
        ("resnet-20", plain.clone(), "zeros"),
        ("resnet-20", Shape { classes: Some(0), image: None }, "kaiming-in"),
        ("lenet-5", Shape { classes: None, image: Some([1, 8, 8]) }, "kaiming-in"),
        ("resnet-20", Shape { classes: None, image: Some([0, 8, 8]) }, "kaiming-in"),
    ] {
        let error = build(name, &shape, init, 0).unwrap_err().to_string();
        assert!(error.starts_with("architecture") || error.starts_with("initialisation"), "{error}");
    }
}
