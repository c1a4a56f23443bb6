//! Recalibration of networks whose BatchNormalizations an exporter has folded into convolutions.

use resprout::data::{ImageSet, Preprocess, gaussian};
use resprout::eval::{OutputKind, compare};
use resprout::formats::onnx;
use resprout::forward::{Network, PlanOptions};
use resprout::model::{Model, Param};
use resprout::ops::Op;
use resprout::progress::Quiet;
use resprout::prune::{PruneOptions, prune};
use resprout::repair::{Chain, RepairOptions, RepairOutcome};
use resprout::tensor::Tensor;

const DIGITS: &[u8] = include_bytes!("../../resprout-cli/assets/digits.onnx");
const IMAGES: &[u8] = include_bytes!("../../resprout-cli/assets/digits-images-idx3-ubyte.gz");
const LABELS: &[u8] = include_bytes!("../../resprout-cli/assets/digits-labels-idx1-ubyte.gz");
/// No BatchNormalization: testdata/gen/plain.py.
const PLAIN: &[u8] = include_bytes!("../../../testdata/golden/plain.onnx");

fn images(count: usize) -> Tensor {
    let preprocess = Preprocess { mean: vec![4.884], std: vec![6.017], ..Preprocess::default() };
    ImageSet::from_idx("digits", IMAGES, LABELS).unwrap().load(0..count, 1, &preprocess).unwrap()
}

fn repair(model: &mut Model, dense: &Model, text: &str, images: &Tensor) -> RepairOutcome {
    Chain::parse(text).unwrap().repair(model, dense, images, &RepairOptions::default(), &Quiet).unwrap()
}

fn outputs(model: &Model, images: &Tensor) -> Tensor {
    Network::new(model, &images.shape[1..], &PlanOptions::default()).unwrap().run(images).unwrap().swap_remove(0)
}

fn relative_error(a: &Tensor, b: &Tensor) -> f64 {
    compare(a, b, None, OutputKind::Logits).unwrap().relative_error.unwrap().value
}

/// Folds every BatchNormalization into the convolution before it, as exporters do.
fn fold(model: &Model) -> Model {
    let mut folded = model.clone();
    let norms = model.graph.layers.iter().filter(|layer| matches!(layer.op, Op::BatchNorm { .. }));
    for norm in norms {
        let Op::BatchNorm { epsilon } = norm.op else { unreachable!() };
        let at = folded.graph.layers.iter().position(|layer| layer.outputs[0] == norm.inputs[0]).unwrap();
        assert!(matches!(folded.graph.layers[at].op, Op::Conv(_)) && folded.graph.layers[at].inputs.len() == 2);
        let values = |name: &String| model.weight(name).unwrap().data.iter().map(|&v| f64::from(v)).collect::<Vec<f64>>();
        let [gamma, beta, mean, var] = [1, 2, 3, 4].map(|index| values(&norm.inputs[index]));
        let factor: Vec<f64> = gamma.iter().zip(&var).map(|(g, v)| g / (v + f64::from(epsilon)).sqrt()).collect();
        let weight = folded.params.f32_mut(&folded.graph.layers[at].inputs[1].clone()).unwrap();
        let row = weight.len() / factor.len();
        weight.data.iter_mut().enumerate().for_each(|(i, w)| *w = (f64::from(*w) * factor[i / row]) as f32);
        let bias = (0..factor.len()).map(|c| (beta[c] - mean[c] * factor[c]) as f32).collect();
        let name = format!("{}.folded", norm.name);
        folded.params.insert(name.clone(), Param::from_tensor(Tensor::vector(bias)));
        folded.graph.layers[at].inputs.push(name);
        folded.graph.layers[at].outputs[0].clone_from(&norm.outputs[0]);
    }
    folded.graph.layers.retain(|layer| !matches!(layer.op, Op::BatchNorm { .. }));
    folded
}

/// The digits network with BatchNormalization, and folded. Its statistics are those of the calibration images, so the two
/// differ by epsilon alone.
fn both() -> [Model; 2] {
    let digits = onnx::parse(DIGITS.to_vec(), None).unwrap();
    let mut dense = digits.clone();
    repair(&mut dense, &digits, "bn", &images(256));
    let folded = fold(&dense);
    assert!(relative_error(&outputs(&folded, &images(50)), &outputs(&dense, &images(50))) < 1e-5);
    [dense, folded]
}

/// The network pruned by the masks of `with`.
fn pruned(dense: &Model, with: &Model, sparsity: f64) -> Model {
    let (mut masks, mut model) = (with.clone(), dense.clone());
    let options = PruneOptions { sparsity, allocation: "uniform".into(), ..PruneOptions::default() };
    prune(&mut masks, &options, &Tensor::default(), &Quiet).unwrap();
    model.masks = masks.masks;
    model.apply_masks();
    model
}

#[test]
fn recalibration_does_the_same_with_and_without_folding() {
    let [dense, folded] = both();
    let (seen, test) = (images(256), images(1400).pick(&(1000..1400).collect::<Vec<_>>()));
    for sparsity in [0.5, 0.8, 0.9] {
        let [mut norms, mut weights] = [&dense, &folded].map(|model| pruned(model, &dense, sparsity));
        let broken = relative_error(&outputs(&weights, &test), &outputs(&folded, &test));
        let (by_norm, by_weights) = (repair(&mut norms, &dense, "bn", &seen), repair(&mut weights, &folded, "bn", &seen));
        assert_eq!((by_norm.batch_norms, by_norm.folded), (9, 0));
        assert_eq!((by_weights.batch_norms, by_weights.folded), (0, 9));
        let far = relative_error(&outputs(&weights, &test), &outputs(&norms, &test));
        assert!(far < 2e-3 && broken > 0.1, "{sparsity}: {far}, {broken} without repair");
        // The classifier is not changed.
        let last = &folded.graph.layers.iter().rfind(|layer| matches!(layer.op, Op::Gemm { .. })).unwrap().inputs;
        assert_eq!(weights.params.f32(&last[2]), folded.params.f32(&last[2]));
    }
}

#[test]
fn a_file_with_some_folded_and_some_not() {
    let [dense, folded] = both();
    let seen = images(256);
    // The first convolution gets an identity BatchNormalization.
    let mut mixed = folded.clone();
    let norm = dense.graph.layers.iter().find(|layer| matches!(layer.op, Op::BatchNorm { .. })).unwrap();
    let mut first = norm.clone();
    first.inputs[0] = "before".into();
    mixed.graph.layers[0].outputs[0] = "before".into();
    for (index, value) in [(1, 1.0), (2, 0.0), (3, 0.0), (4, 1.0)] {
        let channels = dense.weight(&norm.inputs[index]).unwrap().len();
        mixed.params.f32_mut(&norm.inputs[index]).unwrap().data = vec![value; channels];
    }
    mixed.graph.layers.insert(1, first);
    let mut model = pruned(&mixed, &dense, 0.8);
    let outcome = repair(&mut model, &mixed, "bn", &seen);
    assert_eq!((outcome.batch_norms, outcome.folded, outcome.changed), (1, 8, 9));
}

#[test]
fn a_dead_channel_gets_the_mean_alone() {
    let [_, folded] = both();
    let seen = images(128);
    let mut model = pruned(&folded, &folded, 0.5);
    let (weight, bias) = (folded.graph.layers[0].inputs[1].clone(), folded.graph.layers[0].inputs[2].clone());
    let row = folded.weight(&weight).unwrap().len() / folded.weight(&bias).unwrap().len();
    model.params.f32_mut(&weight).unwrap().data[..row].fill(0.0);
    let outcome = repair(&mut model, &folded, "bn", &seen);
    assert!(outcome.warnings.iter().any(|warning| warning.contains("1 of") && warning.contains("constant")), "{outcome:?}");
    let value = folded.graph.layers[0].outputs[0].clone();
    let options = PlanOptions { taps: vec![value], fuse_activation: false, ..PlanOptions::default() };
    let first = |model: &Model| Network::new(model, &seen.shape[1..], &options).unwrap().run(&seen).unwrap().swap_remove(1);
    let (is, was) = (first(&model), first(&folded));
    let (plane, channels) = (is.shape[2] * is.shape[3], is.shape[1]);
    let channel = |t: &Tensor| t.data.chunks(plane).step_by(channels).flatten().map(|&v| f64::from(v)).collect::<Vec<f64>>();
    let (is, was) = (channel(&is), channel(&was));
    let mean = was.iter().sum::<f64>() / was.len() as f64;
    assert!(is.iter().all(|v| (v - mean).abs() < 1e-5), "{mean} {:?}", &is[..4]);
}

#[test]
fn networks_without_batch_norm() {
    let dense = onnx::parse(PLAIN.to_vec(), None).unwrap();
    let pictures = gaussian(200, [3, 8, 8], &Preprocess::preset("cifar10").unwrap(), 7);
    // A convolution and a Gemm have biases. Two convolutions have none, and the MatMul is the output.
    let mut model = pruned(&dense, &dense, 0.5);
    let before = relative_error(&outputs(&model, &pictures), &outputs(&dense, &pictures));
    let outcome = repair(&mut model, &dense, "bn", &pictures);
    assert_eq!((outcome.batch_norms, outcome.folded), (0, 2));
    assert!(relative_error(&outputs(&model, &pictures), &outputs(&dense, &pictures)) < before);
    assert!(outcome.warnings.is_empty(), "{:?}", outcome.warnings);

    let mut bare = dense.clone();
    bare.graph
        .layers
        .iter_mut()
        .filter(|layer| matches!(layer.op, Op::Conv(_) | Op::Gemm { .. }))
        .for_each(|layer| layer.inputs.truncate(2));
    for (chain, others) in [("bn", false), ("bias,bn", true)] {
        let mut model = pruned(&bare, &bare, 0.5);
        let outcome = repair(&mut model, &bare, chain, &pictures);
        let warnings =
            outcome.warnings.iter().filter(|warning| warning.contains("repair bn: there was nothing to repair")).count();
        assert_eq!((warnings, outcome.changed > 0), (1, others), "{:?}", outcome.warnings);
    }
}

#[test]
fn a_variant_that_folded_layers_lack_is_reported() {
    let [dense, folded] = both();
    let text = "bn:variant=cumulative:batch=32";
    let outcome = repair(&mut pruned(&folded, &dense, 0.8), &folded, text, &images(128));
    assert!(outcome.warnings.iter().any(|warning| warning.contains("variant=exact")), "{:?}", outcome.warnings);
}
