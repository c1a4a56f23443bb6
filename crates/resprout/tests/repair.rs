//! Repairs: their algebra, their limits, and what must hold for all of them.

use proptest::prelude::*;
use resprout::calibrate::{ActivationCache, Dense, NormParams, checkup};
use resprout::data::{ImageSet, Preprocess, gaussian};
use resprout::eval::{OutputKind, compare};
use resprout::formats::{onnx, safetensors};
use resprout::forward::{Network, PlanOptions};
use resprout::model::Model;
use resprout::ops::Op;
use resprout::progress::Quiet;
use resprout::prune::{PruneOptions, prune};
use resprout::random::SplitMix64;
use resprout::repair::{AUTO, Chain, Judge, REPAIRS, RepairOptions, RepairOutcome};
use resprout::sparsify::{Sparsified, SparsifyOptions, sparsify};
use resprout::tensor::Tensor;
use resprout::{ErrorKind, Result};

const DIGITS: &[u8] = include_bytes!("../../resprout-cli/assets/digits.onnx");
const IMAGES: &[u8] = include_bytes!("../../resprout-cli/assets/digits-images-idx3-ubyte.gz");
const LABELS: &[u8] = include_bytes!("../../resprout-cli/assets/digits-labels-idx1-ubyte.gz");
/// No BatchNormalization; plain, depthwise and grouped convolutions, Gemm and MatMul: testdata/gen/plain.py.
const PLAIN: &[u8] = include_bytes!("../../../testdata/golden/plain.onnx");

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

/// Pictures with some structure for the plain network: noise, averaged with its neighbours.
fn pictures(count: usize) -> Tensor {
    let mut images = gaussian(count, [3, 8, 8], &Preprocess::preset("cifar10").unwrap(), 7);
    for row in images.data.chunks_exact_mut(8) {
        (1..8).for_each(|x| row[x] = 0.5 * row[x] + 0.5 * row[x - 1]);
    }
    images
}

fn pruned(dense: &Model, sparsity: f64) -> Model {
    let mut model = dense.clone();
    let rule = resprout::model::PrunableRule { include_grouped: true, ..Default::default() };
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

/// Weights of all convolutions that a BatchNormalization follows, by layer, with the names of its numbers.
fn normed(model: &Model) -> Vec<(String, Vec<String>)> {
    let norms = model.graph.layers.iter().filter(|layer| matches!(layer.op, Op::BatchNorm { .. }));
    let conv = |value: &String| model.graph.layers.iter().find(|layer| layer.outputs.contains(value)).unwrap().inputs[1].clone();
    norms.map(|norm| (conv(&norm.inputs[0]), norm.inputs[1..5].to_vec())).collect()
}

/// T1 in f64: with exact statistics and no epsilon a gain before a BatchNormalization changes nothing;
/// with one, no more than the theorem says.
#[test]
fn a_recording_of_the_dense_network_changes_nothing() {
    let (all, fewer, others) = (images(96), images(32), images(128).pick(&(64..128).collect::<Vec<_>>()));
    for (dense, sets) in [
        (digits(), [all, fewer, others]),
        (plain(), [pictures(96), pictures(32), pictures(200).pick(&(110..200).collect::<Vec<_>>())]),
    ] {
        let recording = ActivationCache::new(&dense, &sets[0], usize::MAX, &Quiet).unwrap();
        let recorded = Dense::cached(&dense, &recording);
        assert!(recording.is_some() && ActivationCache::new(&dense, &sets[0], 100_000, &Quiet).unwrap().is_none());
        for text in all_repairs() {
            for images in &sets {
                let (mut with, mut without) = (pruned(&dense, 0.8), pruned(&dense, 0.8));
                let outcome = Chain::parse(&text).unwrap().repair(&mut with, recorded, images, &RepairOptions::default(), &Quiet);
                let plain = repair(&mut without, &dense, &text, images);
                let untimed = |outcome: RepairOutcome| RepairOutcome { expected_seconds: 0.0, seconds: 0.0, ..outcome };
                assert_eq!(untimed(outcome.unwrap()), untimed(plain.unwrap()), "{text}");
                assert!(same_weights(&with, &without), "{text}, {} images", images.shape[0]);
            }
        }
    }
}

#[test]
fn exact_recalibration_cancels_gains() {
    let mut random = SplitMix64::new(5, 0);
    for _ in 0..200 {
        let values: Vec<f64> = (0..50).map(|_| random.next_f64() * 3.0 - 1.0).collect();
        let gain = 0.5 + 1.5 * random.next_f64();
        let normalised = |gain: f64, epsilon: f64| {
            let scaled: Vec<f64> = values.iter().map(|v| v * gain).collect();
            let mean = scaled.iter().sum::<f64>() / 50.0;
            let var = scaled.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / 50.0;
            let norm = NormParams { gamma: vec![1.7], beta: vec![0.3], mean: vec![mean], var: vec![var], epsilon };
            let out: Vec<f64> = scaled.iter().map(|v| v * norm.scale(0) + norm.shift(0)).collect();
            (out, var)
        };
        let ((before, var), (after, _)) = (normalised(1.0, 0.0), normalised(gain, 0.0));
        assert!(before.iter().zip(&after).all(|(a, b)| (a - b).abs() < 1e-9));
        let epsilon = 1e-5;
        let deviation = |values: &[f64]| {
            let mean = values.iter().sum::<f64>() / 50.0;
            (values.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / 50.0).sqrt()
        };
        let (a, b) = (deviation(&normalised(1.0, epsilon).0), deviation(&normalised(gain, epsilon).0));
        let bound = epsilon * (1.0 / (gain * gain) - 1.0).abs() / (2.0 * var);
        assert!((a - b).abs() / a <= bound * (1.0 + 1e-3) + 1e-12, "{a} {b} {bound}");
    }
}

/// T1 on a network: gains that are powers of two are exact in f32, so the outputs are the same to the bit.
#[test]
fn exact_recalibration_cancels_gains_to_the_bit() {
    let images = images(64);
    let mut dense = digits();
    for layer in &mut dense.graph.layers {
        if let Op::BatchNorm { epsilon } = &mut layer.op {
            *epsilon = 0.0;
        }
    }
    let mut plain = pruned(&dense, 0.7);
    let mut scaled = plain.clone();
    let mut random = SplitMix64::new(1, 0);
    for (weight, _) in normed(&dense) {
        let tensor = scaled.params.f32_mut(&weight).unwrap();
        let row = tensor.len() / tensor.shape[0];
        for channel in tensor.data.chunks_exact_mut(row) {
            let gain = [0.5, 1.0, 2.0][(random.next_f64() * 3.0) as usize];
            channel.iter_mut().for_each(|w| *w *= gain);
        }
    }
    assert!(difference(&outputs(&scaled, &images), &outputs(&plain, &images)) > 0.01);
    for model in [&mut plain, &mut scaled] {
        repair(model, &dense, "bn", &images).unwrap();
    }
    assert_eq!(outputs(&scaled, &images), outputs(&plain, &images));
}

/// The digits network with weights so small that the variance before each BatchNormalization is near
/// epsilon, and the same outputs.
fn small_weights() -> Model {
    let mut model = digits();
    for (weight, norm) in normed(&model) {
        let values = |model: &Model, name: &str| model.weight(name).unwrap().data.clone();
        let var = values(&model, &norm[3]);
        let mean_var = var.iter().sum::<f32>() / var.len() as f32;
        let (epsilon, s) = (1e-5f32, (1e-5 / mean_var).sqrt());
        let mut each = |name: &str, change: &dyn Fn(usize, f32) -> f32| {
            let tensor = model.params.f32_mut(name).unwrap();
            tensor.data.iter_mut().enumerate().for_each(|(i, v)| *v = change(i, *v));
        };
        each(&weight, &|_, v| v * s);
        each(&norm[2], &|_, v| v * s);
        each(&norm[3], &|_, v| v * s * s);
        each(&norm[0], &|c, v| v * ((var[c] * s * s + epsilon) / (s * s * (var[c] + epsilon))).sqrt());
    }
    model
}

/// T2: gains before a recalibrated BatchNormalization act through epsilon alone.
#[test]
fn gains_matter_only_where_variances_are_small() {
    let images = images(200);
    let (normal, small) = (digits(), small_weights());
    assert!(difference(&outputs(&small, &images), &outputs(&normal, &images)) < 1e-3, "the same network");
    let effect = |dense: &Model| {
        let (mut with, without) = (repaired(dense, 0.8, "channelwise,bn", &images), repaired(dense, 0.8, "bn", &images));
        // Behind the classifier there is no BatchNormalization that could cancel its gains.
        for name in &dense.graph.layers.last().unwrap().inputs[1..] {
            with.params.f32_mut(name).unwrap().data.clone_from(&without.weight(name).unwrap().data);
        }
        difference(&outputs(&with, &images), &outputs(&without, &images))
    };
    assert!(effect(&normal) < 1e-3, "{}", effect(&normal));
    assert!(effect(&small) > 0.02, "{}", effect(&small));
}

/// The limits of shrinkage, to the bit.
#[test]
fn shrinkage_ends_in_layerwise_and_naive_matching() {
    for (dense, images) in [(digits(), images(100)), (plain(), pictures(100))] {
        for (asr, plain) in [("asr:rule=0:toward=layer", "layerwise"), ("asr:rule=1", "channelwise")] {
            for more in ["", ":shift=yes", ":shift=no", ":clamp=1.2"] {
                let (a, b) = (format!("{asr}{more}"), format!("{plain}{more}"));
                assert!(same_weights(&repaired(&dense, 0.7, &a, &images), &repaired(&dense, 0.7, &b, &images)), "{a} is not {b}");
            }
        }
        // Nothing is pruned, so there is nothing to match.
        for repair in ["asr", "asr:rule=ratio", "asr:rule=0.5:toward=mean", "layerwise", "channelwise"] {
            assert!(same_weights(&repaired(&dense, 0.0, &format!("{repair}:shift=no"), &images), &dense), "{repair}");
        }
    }
}

/// T3 and T4: every repair, alone and composed, on any mask, also with dead channels and dead layers.
#[test]
fn every_repair_is_safe_with_dead_channels() {
    // A channel that is dead in the dense network already.
    let mut dead = digits();
    dead.params.f32_mut(&normed(&digits())[1].0).unwrap().data[..144].fill(0.0);
    for (dense, images) in [(digits(), images(60)), (dead, images(60)), (plain(), pictures(60))] {
        for text in all_repairs() {
            let mut model = pruned(&dense, 0.6);
            let (layers, _) = model.prunable(&Default::default()).unwrap();
            // Two output channels of the first layer die, and a whole layer in the middle.
            for (layer, rows) in [(&layers[0], 0..2), (&layers[1], 0..layers[1].channels())] {
                let row = layer.len() / layer.channels();
                let mut mask = model.masks.get(&layer.param).unwrap().clone();
                rows.for_each(|r| mask.0[r * row..][..row].fill(false));
                model.masks.insert(layer.param.clone(), mask);
            }
            model.apply_masks();
            let before = model.masks.clone();
            repair(&mut model, &dense, &text, &images).unwrap_or_else(|e| panic!("{text}: {e}"));
            check_masks(&model, &before, &text);
            assert!(outputs(&model, &images).data.iter().all(|v| v.is_finite()), "{text}");
            model.check_finite().unwrap();
        }
    }
}

fn check_masks(model: &Model, before: &resprout::model::MaskTable, text: &str) {
    assert_eq!(&model.masks, before, "{text}");
    for (name, mask) in model.masks.iter() {
        let weights = &model.weight(name).unwrap().data;
        assert!(weights.iter().zip(&mask.0).all(|(w, &kept)| kept || w.to_bits() == 0), "{text} {name}");
    }
}

/// Every row of the table, every rule and placement, and the compositions that are recommended.
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

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]
    /// Pruned weights stay exactly zero, and nothing becomes NaN, for any mask and any number of images.
    #[test]
    fn pruned_weights_stay_zero(seed in any::<u64>(), sparsity in 0.0f64..0.99, count in 1usize..40, at in any::<prop::sample::Index>(), which in any::<bool>()) {
        let (dense, images) = if which { (digits(), images(count)) } else { (plain(), pictures(count)) };
        let all = all_repairs();
        let text = at.get(&all);
        let mut model = dense.clone();
        let options = PruneOptions { sparsity, criterion: "random".into(), allocation: "global".into(), seed, ..PruneOptions::default() };
        prune(&mut model, &options, &Tensor::default(), &Quiet).unwrap();
        let before = model.masks.clone();
        match repair(&mut model, &dense, text, &images) {
            Ok(_) => {
                check_masks(&model, &before, text);
                prop_assert!(model.check_finite().is_ok(), "{}", text);
            }
            // A last batch of one image.
            Err(error) => prop_assert_eq!(error.kind(), ErrorKind::Option, "{}: {}", text, error),
        }
    }
}

/// `--seconds`: enough is as no limit, none at all leaves statistics, and in between some layers are fitted.
#[test]
fn a_limit_on_the_time_leaves_the_layers_that_gain_least_to_statistics() {
    let (dense, images) = (digits(), images(64));
    let within = |seconds: Option<f64>| {
        let mut model = pruned(&dense, 0.8);
        let options = RepairOptions { seconds, ..RepairOptions::default() };
        let outcome = Chain::parse("least-squares").unwrap().repair(&mut model, &dense, &images, &options, &Quiet).unwrap();
        (model, outcome)
    };
    let (unlimited, outcome) = within(None);
    assert!(outcome.fitted.is_empty() && outcome.statistics_only.is_empty() && outcome.expected_seconds > 0.0);
    let (enough, outcome) = within(Some(1e6));
    assert!(same_weights(&enough, &unlimited) && outcome.statistics_only.is_empty());
    let layers = outcome.fitted.len();
    let (least, outcome) = within(Some(1e-9));
    assert_eq!((outcome.fitted.len(), outcome.statistics_only.len()), (0, layers));
    assert!(outcome.warnings.iter().any(|warning| warning.contains("--seconds")), "{:?}", outcome.warnings);
    let weights = |model: &Model| normed(model).iter().map(|(name, _)| model.weight(name).unwrap().clone()).collect::<Vec<_>>();
    assert_eq!(weights(&least), weights(&pruned(&dense, 0.8)), "weights of convolutions stay");
    let error = |model: &Model| relative_error(model, &dense, &images);
    assert!(error(&unlimited) < error(&least) && error(&least) < error(&pruned(&dense, 0.8)));
}

/// Least squares against a plain solution of the first layer's normal equations in this test.
#[test]
fn least_squares_equals_a_plain_solution() {
    let images = images(50);
    let dense = digits();
    let model = repaired(&dense, 0.5, "least-squares:activation=0:target=layer:damp=0:rows=100000", &images);
    let (weight, norm) = &normed(&dense)[0];
    let (w, mask) = (&dense.weight(weight).unwrap().data, &model.masks.get(weight).unwrap().0);
    let input = |n: usize, y: i64, x: i64| match (0..8).contains(&y) && (0..8).contains(&x) {
        true => f64::from(images.data[n * 64 + (y * 8 + x) as usize]),
        false => 0.0,
    };
    let rows: Vec<[f64; 9]> = (0..50 * 64)
        .map(|p| std::array::from_fn(|k| input(p / 64, (p % 64 / 8 + k / 3) as i64 - 1, (p % 8 + k % 3) as i64 - 1)))
        .collect();
    for channel in 0..16 {
        let kept: Vec<usize> = (0..9).filter(|&k| mask[channel * 9 + k]).collect();
        let target = |row: &[f64; 9]| (0..9).map(|k| f64::from(w[channel * 9 + k]) * row[k]).sum::<f64>();
        // Unknowns: the kept weights and an intercept.
        let unknown = kept.len() + 1;
        let value = |row: &[f64; 9], u: usize| if u < kept.len() { row[kept[u]] } else { 1.0 };
        let mut system = vec![vec![0.0; unknown + 1]; unknown];
        for row in &rows {
            for a in 0..unknown {
                (0..unknown).for_each(|b| system[a][b] += value(row, a) * value(row, b));
                system[a][unknown] += value(row, a) * target(row);
            }
        }
        let solution = gauss(system);
        for (u, &k) in kept.iter().enumerate() {
            let got = f64::from(model.weight(weight).unwrap().data[channel * 9 + k]);
            // f32 products and f32 storage.
            assert!((got - solution[u]).abs() < 1e-4, "channel {channel} weight {k}: {got} {}", solution[u]);
        }
        let moved = f64::from(dense.weight(&norm[2]).unwrap().data[channel]) - solution[unknown - 1];
        assert!((f64::from(model.weight(&norm[2]).unwrap().data[channel]) - moved).abs() < 1e-4, "channel {channel}");
    }
}

fn gauss(mut system: Vec<Vec<f64>>) -> Vec<f64> {
    let n = system.len();
    for p in 0..n {
        let best = (p..n).max_by(|&a, &b| system[a][p].abs().total_cmp(&system[b][p].abs())).unwrap();
        system.swap(p, best);
        for r in (0..n).filter(|&r| r != p) {
            let factor = system[r][p] / system[p][p];
            (p..=n).for_each(|c| system[r][c] -= factor * system[p][c]);
        }
    }
    (0..n).map(|p| system[p][n] / system[p][p]).collect()
}

/// Without BatchNormalization: weights and biases take the repair, and the written file has the new biases.
#[test]
fn networks_without_batch_norm() {
    let (dense, images, test) = (plain(), pictures(300), pictures(600).pick(&(300..600).collect::<Vec<_>>()));
    let error = |text: &str| relative_error(&repaired(&dense, 0.5, text, &images), &dense, &test);
    let (none, bias, channelwise, fitted) = (error("none"), error("bias"), error("channelwise"), error("least-squares"));
    assert!(bias < none && channelwise < none && fitted < 0.6 * none, "{none} {bias} {channelwise} {fitted}");

    for text in ["bias", "least-squares"] {
        let mut model = pruned(&dense, 0.5);
        let outcome = repair(&mut model, &dense, text, &images).unwrap();
        assert_eq!(outcome.added_bias, ["conv.weight.bias", "depthwise.weight.bias"], "{text}");
        let back = onnx::parse(onnx::encode(&model).unwrap(), None).unwrap();
        assert_eq!(outputs(&back, &test), outputs(&model, &test), "{text}");
        let mut from_weights = plain();
        safetensors::decode_into(&mut from_weights, &safetensors::encode(&model).unwrap()).unwrap();
        assert_eq!(outputs(&from_weights, &test), outputs(&model, &test), "{text}");
    }
}

#[test]
fn the_stronger_repair_comes_closer() {
    let (dense, seen, test) = (digits(), images(256), images(1400).pick(&(1000..1400).collect::<Vec<_>>()));
    let kl = |text: &str, steps: usize| {
        let result = run(&dense, &seen, text, 0.95, steps).unwrap();
        compare(&outputs(&result.repaired, &test), &outputs(&dense, &test), None, OutputKind::Logits).unwrap().kl.unwrap().value
    };
    let (none, bn, fitted, gradual) = (kl("none", 1), kl("bn", 1), kl("least-squares", 1), kl("least-squares", 6));
    assert!(gradual < fitted && fitted < 0.5 * bn && bn < none, "{none} {bn} {fitted} {gradual}");
}

fn run(dense: &Model, images: &Tensor, repair: &str, sparsity: f64, steps: usize) -> Result<Sparsified> {
    let options = SparsifyOptions {
        prune: PruneOptions { sparsity, ..PruneOptions::default() },
        repair: repair.into(),
        repair_options: RepairOptions::default(),
        steps,
        checkpoint: None,
    };
    sparsify(dense, images, &options, &Quiet)
}

#[test]
fn auto_is_never_worse_than_nothing_by_its_own_measure() {
    let dense = digits();
    for (count, sparsity) in [(4, 0.2), (16, 0.5), (100, 0.9), (100, 0.97)] {
        let images = images(count);
        let result = run(&dense, &images, AUTO, sparsity, 1).unwrap();
        let chosen: Vec<_> = result.candidates.iter().filter(|candidate| candidate.chosen).collect();
        assert_eq!((chosen.len(), result.candidates.len()), (1, Judge::CANDIDATES.len()));
        // The images that it was judged on are every fourth.
        let held: Vec<usize> = (0..count).filter(|i| i % 4 == 3).collect();
        let again = compare(
            &outputs(&result.repaired, &images.pick(&held)),
            &outputs(&dense, &images.pick(&held)),
            None,
            OutputKind::Logits,
        );
        assert_eq!(chosen[0].evaluation, Some(again.unwrap()));
        let of = |i: usize| result.candidates[i].evaluation.clone().unwrap();
        let best = chosen[0].evaluation.clone().unwrap();
        assert!(
            best.kl.unwrap().value <= of(0).kl.unwrap().value && best.agreement.unwrap().value >= of(0).agreement.unwrap().value
        );
    }
    assert_eq!(run(&dense, &images(3), AUTO, 0.5, 1).unwrap_err().kind(), ErrorKind::Data);
}

/// T5: the same images with other labels give the same network, to the bit; so do other numbers of threads.
#[test]
fn neither_labels_nor_threads_matter() {
    let bytes: Vec<u8> = (0..30 * 64).map(|i| (i * 37 % 17) as u8).collect();
    let set = |labels: Vec<usize>| ImageSet::from_bytes("made up", bytes.clone(), [30, 1, 8, 8], Some(labels)).unwrap();
    let preprocess = Preprocess::preset("raw").unwrap();
    let dense = digits();
    let result = |labels: Vec<usize>, threads: usize| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        let images = set(labels).load(0..30, 1, &preprocess).unwrap();
        pool.install(|| run(&dense, &images, "asr,bn,least-squares", 0.8, 2).unwrap().repaired)
    };
    let first = result(vec![0; 30], 1);
    assert!(same_weights(&first, &result((0..30).map(|i| i % 10).collect(), 2)));
    assert!(same_weights(&first, &result(vec![9; 30], 3)));
}

#[test]
fn an_interrupted_run_goes_on_where_it_was() {
    let (dense, images) = (digits(), images(40));
    let folder = tempfile::tempdir().unwrap();
    let options = |checkpoint| SparsifyOptions {
        prune: PruneOptions { sparsity: 0.9, ..PruneOptions::default() },
        repair: "least-squares".into(),
        repair_options: RepairOptions::default(),
        steps: 4,
        checkpoint,
    };
    let whole = sparsify(&dense, &images, &options(None), &Quiet).unwrap().repaired;
    // Stops at the second layer of the third step.
    let stop = StopAfter { left: std::sync::atomic::AtomicUsize::new(70) };
    let error = sparsify(&dense, &images, &options(Some(folder.path().into())), &stop).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Interrupted);
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 2, "a network and its state");
    let resumed = sparsify(&dense, &images, &options(Some(folder.path().into())), &Quiet).unwrap().repaired;
    assert!(same_weights(&whole, &resumed) && whole.masks == resumed.masks);
    let other = SparsifyOptions { steps: 5, ..options(Some(folder.path().into())) };
    let error = sparsify(&dense, &images, &other, &Quiet).unwrap_err();
    assert!(error.kind() == ErrorKind::Option && error.to_string().contains("--checkpoint"), "{error}");
}

struct StopAfter {
    left: std::sync::atomic::AtomicUsize,
}

impl resprout::progress::Progress for StopAfter {
    fn cancelled(&self) -> bool {
        use std::sync::atomic::Ordering;
        self.left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)).is_err()
    }
}

#[test]
fn the_check_up_finds_what_is_wrong_with_images() {
    let dense = digits();
    let good = images(256);
    let found = checkup(&dense, &good, usize::MAX, &Quiet).unwrap();
    assert_eq!((found.duplicates, found.constant, found.noise_like), (0, 0, 0));
    assert_eq!(found.curve.iter().map(|(count, _)| *count).collect::<Vec<_>>(), [16, 32, 64, 128]);
    assert!(found.curve.windows(2).all(|pair| pair[0].1 > pair[1].1), "{:?}", found.curve);
    assert_eq!(found.settled, Some(128));
    let mut bad = good.pick(&[0, 1, 2, 1, 0, 3]);
    bad.data[5 * 64..].fill(1.5);
    let noise =
        gaussian(2, [1, 8, 8], &Preprocess { mean: vec![0.5], std: vec![0.1], ..Preprocess::preset("mnist").unwrap() }, 3);
    let bad = Tensor::new(vec![8, 1, 8, 8], [bad.data, noise.data].concat());
    let found = checkup(&dense, &bad, usize::MAX, &Quiet).unwrap();
    assert_eq!((found.duplicates, found.constant), (2, 1));
    assert!(found.noise_like >= 1 && found.settled.is_none());
    assert_eq!(found.warnings().len(), 4, "{:?}", found.warnings());
}

#[test]
fn bad_calibration_images_are_named() {
    let dense = digits();
    let message = |images: &Tensor, options: &RepairOptions| {
        let mut model = pruned(&dense, 0.5);
        Chain::parse("least-squares").unwrap().repair(&mut model, &dense, images, options, &Quiet).unwrap_err().to_string()
    };
    let mut broken = images(5);
    broken.data[3 * 64 + 7] = f32::NAN;
    assert!(message(&broken, &RepairOptions::default()).contains("image 3 holds NaN"));
    let none = Tensor::new(vec![0, 1, 8, 8], vec![]);
    assert!(message(&none, &RepairOptions::default()).contains("no calibration images"));
    assert!(message(&images(4), &RepairOptions { memory: 1000, ..RepairOptions::default() }).contains("--memory"));
    // Fewer images than asked for are used, and that is said.
    let mut model = pruned(&dense, 0.5);
    let outcome = Chain::parse("bn").unwrap().repair(
        &mut model,
        &dense,
        &images(64),
        &RepairOptions { memory: 100_000, ..RepairOptions::default() },
        &Quiet,
    );
    assert!(outcome.unwrap().warnings.iter().any(|w| w.contains("of 64 calibration images were used")));
}

/// Inputs are those behind the activations, also where a plan would compute layer and activation at once.
#[test]
fn wanda_scores_by_what_goes_in() {
    let (dense, images) = (plain(), pictures(40));
    let options = PlanOptions { taps: vec!["flat".into()], ..PlanOptions::default() };
    let flat = Network::new(&dense, &[3, 8, 8], &options).unwrap().run(&images).unwrap().swap_remove(1);
    let size = |k: usize| flat.data.chunks_exact(16).map(|row| f64::from(row[k]).powi(2)).sum::<f64>().sqrt();
    let weights = &dense.weight("gemm.weight").unwrap().data;
    let scores: Vec<f64> = weights.iter().enumerate().map(|(i, w)| f64::from(w.abs()) * size(i / 24)).collect();
    let mut sorted = scores.clone();
    sorted.sort_by(f64::total_cmp);
    let mut model = dense.clone();
    let options =
        PruneOptions { sparsity: 0.5, criterion: "wanda".into(), allocation: "uniform".into(), ..PruneOptions::default() };
    prune(&mut model, &options, &images, &Quiet).unwrap();
    let kept: Vec<bool> = scores.iter().map(|score| *score >= sorted[192]).collect();
    assert_eq!(model.masks.get("gemm.weight").unwrap().0, kept);
}

/// Where two inputs are the same, one can stand in for the other: their weights go first.
#[test]
fn obs_knows_what_the_others_can_make_good() {
    let mut model = plain();
    model.params.f32_mut("conv.weight").unwrap().data.fill(1.0);
    let mut twins = pictures(200);
    for image in twins.data.chunks_exact_mut(3 * 64) {
        image.copy_within(..64, 64);
    }
    let ignore = vec!["re:grouped|gemm|matmul".to_string()];
    let rule = resprout::model::PrunableRule { ignore, include_grouped: false };
    let options =
        PruneOptions { sparsity: 0.3, criterion: "obs".into(), allocation: "global".into(), rule, ..PruneOptions::default() };
    prune(&mut model, &options, &twins, &Quiet).unwrap();
    for row in model.masks.get("conv.weight").unwrap().0.chunks_exact(27) {
        assert!(row[18..].iter().all(|&kept| kept), "the third colour has no twin: {row:?}");
    }
}

#[test]
fn numbers_that_two_layers_share_are_not_changed_for_one() {
    let mut dense = digits();
    let norms: Vec<usize> =
        (0..dense.graph.layers.len()).filter(|&i| matches!(dense.graph.layers[i].op, Op::BatchNorm { .. })).collect();
    let shared = dense.graph.layers[norms[0]].inputs[3].clone();
    dense.graph.layers[norms[1]].inputs[3] = shared.clone();
    let error = repair(&mut pruned(&dense, 0.5), &dense, "bn", &images(20)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    assert!(error.to_string().contains(&dense.graph.layers[norms[0]].name) && error.to_string().contains(&shared), "{error}");
    // The weights of two layers: both stay, the others are repaired.
    let mut dense = digits();
    let convs: Vec<usize> = (0..dense.graph.layers.len()).filter(|&i| dense.graph.layers[i].op.name() == "Conv").collect();
    let weight = dense.graph.layers[convs[1]].inputs[1].clone();
    dense.graph.layers[convs[2]].inputs[1] = weight.clone();
    let mut model = pruned(&dense, 0.5);
    let before = model.weight(&weight).unwrap().clone();
    let outcome = repair(&mut model, &dense, "least-squares", &images(20)).unwrap();
    assert!(outcome.warnings.iter().filter(|w| w.contains("shares its weights")).count() == 2 && outcome.changed > 0);
    assert_eq!(model.weight(&weight).unwrap(), &before);
}

#[test]
fn chains_are_checked() {
    let message = |text: &str| Chain::parse(text).err().map(|e| e.to_string()).unwrap_or_default();
    for (text, part) in [
        ("bn,", "--repair \"\" is not known"),
        ("asr:rule=2", "signal, ratio, wiener, bayes or a number from 0 to 1"),
        ("asr:rule=wiener:toward=layer", "toward"),
        ("asr:placement=p5", "p1, p2, p3 or p4"),
        ("layerwise:clamp=0.5", "from 1 on"),
        ("layerwise:shift=maybe", "auto, yes or no"),
        ("least-squares:damp=-1", "from 0 on"),
        ("least-squares:norm=none", "fit or recalibrate"),
        ("bn:variant=ema:batch=8,asr:placement=p2:batch=16", "same batch size"),
    ] {
        assert!(message(text).contains(part), "{text}: {}", message(text));
    }
}
