//! Repairs: their algebra, their limits, and invariants of all of them.

mod algebra;
mod calibration;
mod criteria;
mod safety;
mod sparsify;

use resprout::Result;
use resprout::data::{ImageSet, Preprocess, gaussian};
use resprout::eval::{OutputKind, compare};
use resprout::formats::onnx;
use resprout::forward::{Network, PlanOptions};
use resprout::model::{MaskTable, Model, PrunableRule};
use resprout::ops::Op;
use resprout::progress::Quiet;
use resprout::prune::{PruneOptions, prune};
use resprout::repair::{Chain, REPAIRS, RepairOptions, RepairOutcome};
use resprout::sparsify::{Sparsified, SparsifyOptions, sparsify};
use resprout::tensor::Tensor;

const DIGITS: &[u8] = include_bytes!("../../../resprout-cli/assets/digits.onnx");
const IMAGES: &[u8] = include_bytes!("../../../resprout-cli/assets/digits-images-idx3-ubyte.gz");
const LABELS: &[u8] = include_bytes!("../../../resprout-cli/assets/digits-labels-idx1-ubyte.gz");
/// No BatchNormalization; plain, depthwise and grouped convolutions, Gemm and MatMul: testdata/gen/plain.py.
const PLAIN: &[u8] = include_bytes!("../../../../testdata/golden/plain.onnx");

fn digits() -> Model {
    onnx::parse(DIGITS.to_vec(), None).unwrap()
}

fn plain() -> Model {
    onnx::parse(PLAIN.to_vec(), None).unwrap()
}

fn images(count: usize) -> Tensor {
    let preprocess = Preprocess { mean: vec![4.884], std: vec![6.017], ..Preprocess::default() };
    ImageSet::from_idx("digits", IMAGES, LABELS).unwrap().load(0..count, 1, &preprocess).unwrap()
}

/// Images with some structure for the plain network: noise, averaged with its neighbours.
fn pictures(count: usize) -> Tensor {
    let mut images = gaussian(count, [3, 8, 8], &Preprocess::preset("cifar10").unwrap(), 7);
    for row in images.data.chunks_exact_mut(8) {
        (1..8).for_each(|x| row[x] = 0.5 * row[x] + 0.5 * row[x - 1]);
    }
    images
}

fn pruned(dense: &Model, sparsity: f64) -> Model {
    let mut model = dense.clone();
    let rule = PrunableRule { include_grouped: true, ..Default::default() };
    let options = PruneOptions { sparsity, allocation: "uniform".into(), rule, ..PruneOptions::default() };
    prune(&mut model, &options, &Tensor::default(), &Quiet).unwrap();
    model
}

fn repair(model: &mut Model, dense: &Model, text: &str, images: &Tensor) -> Result<RepairOutcome> {
    Chain::parse(text)?.repair(model, dense, images, &RepairOptions::default(), &Quiet)
}

fn repaired(dense: &Model, sparsity: f64, text: &str, images: &Tensor) -> Model {
    let mut model = pruned(dense, sparsity);
    repair(&mut model, dense, text, images).unwrap();
    model
}

fn outputs(model: &Model, images: &Tensor) -> Tensor {
    Network::new(model, &images.shape[1..], &PlanOptions::default()).unwrap().run(images).unwrap().swap_remove(0)
}

/// The largest difference by the largest output.
fn difference(a: &Tensor, b: &Tensor) -> f32 {
    let largest = b.data.iter().fold(0f32, |m, v| m.max(v.abs()));
    a.data.iter().zip(&b.data).map(|(a, b)| (a - b).abs() / largest).fold(0.0, f32::max)
}

fn relative_error(model: &Model, dense: &Model, images: &Tensor) -> f64 {
    let run = compare(&outputs(model, images), &outputs(dense, images), None, OutputKind::Logits).unwrap();
    assert_eq!(run.broken_images, 0);
    run.relative_error.unwrap().value
}

fn same_weights(a: &Model, b: &Model) -> bool {
    a.params.iter().all(|(name, param)| match (param.f32(), b.params.f32(name)) {
        (Some(a), Some(b)) => a.same_bits(b),
        (None, _) => true,
        _ => false,
    })
}

/// The weights of all convolutions that a BatchNormalization follows, with the names of its parameters.
fn normed(model: &Model) -> Vec<(String, Vec<String>)> {
    let norms = model.graph.layers.iter().filter(|layer| matches!(layer.op, Op::BatchNorm { .. }));
    let conv = |value: &String| model.graph.layers.iter().find(|layer| layer.outputs.contains(value)).unwrap().inputs[1].clone();
    norms.map(|norm| (conv(&norm.inputs[0]), norm.inputs[1..5].to_vec())).collect()
}

fn check_masks(model: &Model, before: &MaskTable, text: &str) {
    assert_eq!(&model.masks, before, "{text}");
    for (name, mask) in model.masks.iter() {
        let weights = &model.weight(name).unwrap().data;
        assert!(weights.iter().zip(&mask.0).all(|(w, &kept)| kept || w.to_bits() == 0), "{text} {name}");
    }
}

/// Every row of the table, every rule and placement, and the recommended chains.
fn all_repairs() -> Vec<String> {
    let mut all: Vec<String> = REPAIRS.iter().map(|entry| entry.name.to_string()).collect();
    for place in ["p1", "p2", "p3", "p4"] {
        for rule in ["signal", "ratio", "wiener", "bayes"] {
            all.push(format!("asr:placement={place}:rule={rule}:batch=32"));
        }
    }
    let chains =
        ["asr,bn", "layerwise,bn:variant=ema:reset=no:batch=32", "bn,stats", "bn,asr:placement=p4", "stats,bn,least-squares"];
    let fits = ["least-squares:target=layer:activation=0", "least-squares:norm=recalibrate:damp=0", "least-squares:rows=1"];
    all.extend(chains.iter().chain(&fits).map(|text| text.to_string()));
    all
}

fn run(dense: &Model, images: &Tensor, repair: &str, sparsity: f64, steps: usize) -> Result<Sparsified> {
    let options = SparsifyOptions {
        prune: PruneOptions { sparsity, ..PruneOptions::default() },
        repair: repair.into(),
        repair_rows: &[],
        repair_options: RepairOptions::default(),
        steps,
        checkpoint: None,
    };
    sparsify(dense, images, &options, &Quiet)
}
