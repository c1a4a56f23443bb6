//! Gradients and training steps against PyTorch. The golden values are from testdata/gen/training.py.

use resprout::architectures::{Shape, build};
use resprout::data::{ImageSet, Preprocess};
use resprout::formats::onnx;
use resprout::forward::{Network, PlanOptions};
use resprout::progress::Quiet;
use resprout::tensor::Tensor;
use resprout_train::loader::Examples;
use resprout_train::recipe::Recipe;
use resprout_train::run::{Data, RunOptions, train};
use resprout_train::{Mode, gradients};
use safetensors::SafeTensors;
use std::sync::Arc;

#[path = "../../../testdata/noise.rs"]
mod noise;
#[path = "../../../testdata/resnet.rs"]
mod resnet;
use noise::noise;
use resnet::resnet;

const GOLDEN: &[u8] = include_bytes!("../../../testdata/golden/training.safetensors");
/// Relative to the largest element: f32 against f64.
const TOLERANCE: f64 = 1e-4;

fn doubles(bytes: &[u8]) -> Vec<f64> {
    bytes.as_chunks::<8>().0.iter().map(|&chunk| f64::from_le_bytes(chunk)).collect()
}

fn floats(bytes: &[u8]) -> Vec<f64> {
    bytes.as_chunks::<4>().0.iter().map(|&chunk| f64::from(f32::from_le_bytes(chunk))).collect()
}

fn close(got: &[f64], expected: &[f64], what: &str) {
    assert_eq!(got.len(), expected.len(), "{what}");
    let largest = expected.iter().fold(1e-6f64, |largest, v| largest.max(v.abs()));
    for (i, (got, expected)) in got.iter().zip(expected).enumerate() {
        assert!((got - expected).abs() <= TOLERANCE * largest, "{what}, element {i}: {got}, {expected} expected");
    }
}

fn wide(tensor: &Tensor) -> Vec<f64> {
    tensor.data.iter().map(|&v| f64::from(v)).collect()
}

#[test]
fn every_operation_has_pytorchs_gradients() {
    let golden = SafeTensors::deserialize(GOLDEN).unwrap();
    let names: Vec<&str> = golden.names().into_iter().filter_map(|name| name.strip_suffix(".onnx")).collect();
    assert!(names.len() >= 33, "{names:?}");
    let images = Tensor::new(vec![3, 3, 8, 8], noise("input", 3 * 3 * 64).into_iter().map(|v| v as f32).collect());
    for name in names {
        let model = onnx::parse(golden.tensor(&format!("{name}.onnx")).unwrap().data().to_vec(), None).unwrap();
        let found = gradients(&model, &images, &[0, 1, 2], Mode::Training, "cpu").unwrap_or_else(|e| panic!("{name}: {e}"));
        let loss = doubles(golden.tensor(&format!("{name}.loss")).unwrap().data())[0];
        close(&[found.loss], &[loss], name);
        let prefix = format!("{name}.grad.");
        let mut count = 0;
        for expected in golden.names().into_iter().filter(|n| n.starts_with(&prefix)) {
            let parameter = &expected[prefix.len()..];
            let gradient = found.by_name.get(parameter).unwrap_or_else(|| panic!("{name}: no gradient of {parameter}"));
            let expected = golden.tensor(expected).unwrap();
            assert_eq!(gradient.shape, expected.shape(), "{name}: {parameter}");
            close(&wide(gradient), &floats(expected.data()), &format!("{name}: {parameter}"));
            count += 1;
        }
        assert!(count >= 2 && count == found.by_name.len(), "{name}: {count} of {:?}", found.by_name.keys());
    }
}

fn sixteen_images() -> Examples {
    let pixels = noise("images", 16 * 3 * 1024).into_iter().map(|u| ((u / 3f64.sqrt() + 1.0) * 127.99) as u8).collect();
    let set = ImageSet::from_bytes("test", pixels, [16, 3, 32, 32], Some((0..16).map(|i| i % 10).collect())).unwrap();
    let preprocess = Preprocess { scale: 1.0 / 255.0, mean: vec![0.5], std: vec![0.25], ..Preprocess::default() };
    Examples { set: Arc::new(set), indices: Arc::new((0..16).collect()), preprocess, channels: 3 }
}

#[test]
fn two_steps_of_resnet_20_are_pytorchs() {
    let golden = SafeTensors::deserialize(GOLDEN).unwrap();
    let mut model = resnet();
    let recipe = Recipe {
        arch: Some("resnet-20".into()),
        method: "dense".into(),
        epochs: 2,
        batch: 16,
        rate: 0.05,
        schedule: "constant".into(),
        weight_decay: 1e-2,
        label_smoothing: 0.1,
        ..Recipe::default()
    };
    let data = Data { train: sixteen_images(), validation: None, test: None };
    let options = RunOptions { folder: None, resume: false, workers: 1 };
    let (outcome, _) = train(&mut model, &recipe, &data, &options, &Quiet).unwrap();
    let losses: Vec<f64> = outcome.rows.iter().map(|row| row.loss).collect();
    close(&losses, &doubles(golden.tensor("resnet.losses").unwrap().data()), "losses");
    let mut compared = 0;
    for name in golden.names() {
        let Some(parameter) = name.strip_prefix("resnet.state.") else { continue };
        let tensor = model.weight(parameter).unwrap();
        let expected = doubles(golden.tensor(name).unwrap().data());
        let (first, sums) = expected.split_at(expected.len() - 2);
        close(&wide(tensor)[..first.len()], first, parameter);
        let squares: f64 = wide(tensor).iter().map(|v| v * v).sum();
        assert!((squares - sums[1]).abs() <= TOLERANCE * sums[1].abs().max(1e-3), "{parameter}: {squares}, {} expected", sums[1]);
        compared += 1;
    }
    assert_eq!(compared, 97);
}

#[test]
fn the_lowered_network_equals_the_forward_pass() {
    let examples = sixteen_images();
    let images = examples.set.load(0..16, 3, &examples.preprocess).unwrap();
    for name in ["lenet-5", "resnet-20", "vgg-like", "mobilenet-v2", "densenet-121-cifar"] {
        let one_channel = name == "lenet-5";
        let shape = Shape { classes: Some(10), image: (!one_channel).then_some([3, 32, 32]) };
        let model = build(name, &shape, "kaiming-in", 3).unwrap();
        let small = || Tensor::new(vec![4, 1, 28, 28], images.data[..4 * 784].to_vec());
        let images = if one_channel { small() } else { images.first(4) };
        let expected = Network::new(&model, &images.shape[1..], &PlanOptions::default()).unwrap().run(&images).unwrap();
        let got = gradients(&model, &images, &[0, 1, 2, 3], Mode::Evaluation, "cpu").unwrap();
        close(&wide(&got.logits), &wide(&expected[0]), name);
        assert!(got.by_name.values().all(|gradient| gradient.data.iter().all(|v| v.is_finite())), "{name}");
    }
}

#[test]
fn a_pruned_weight_has_a_gradient_and_threads_change_no_bit() {
    let mut model = resnet();
    let options = resprout::prune::PruneOptions { sparsity: 0.9, ..Default::default() };
    resprout::prune::prune(&mut model, &options, &Tensor::default(), &Quiet).unwrap();
    let examples = sixteen_images();
    let images = examples.set.load(0..16, 3, &examples.preprocess).unwrap();
    let labels = examples.labels().unwrap();
    let on = |threads: usize| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| gradients(&model, &images, &labels, Mode::Training, "cpu").unwrap())
    };
    let (one, three) = (on(1), on(3));
    for (name, gradient) in &one.by_name {
        assert!(gradient.same_bits(&three.by_name[name]), "{name}");
    }
    let name = "layer2.1.conv1.weight";
    let mask = model.masks.get(name).unwrap();
    let pruned = mask.0.iter().zip(&one.by_name[name].data).filter(|(kept, _)| !**kept);
    assert!(pruned.clone().count() > 1000 && pruned.clone().filter(|(_, g)| **g != 0.0).count() > 1000);
}
