//! Invariants of every row of every table, on the embedded network.

use proptest::prelude::*;
use resprout::ErrorKind;
use resprout::allocation::ALLOCATIONS;
use resprout::criteria::CRITERIA;
use resprout::data::{ImageSet, Preprocess};
use resprout::formats::{onnx, safetensors};
use resprout::forward::{Network, PlanOptions};
use resprout::model::Model;
use resprout::progress::Quiet;
use resprout::prune::{PruneOptions, prune};
use resprout::repair::{Chain, REPAIRS, RepairOptions, RepairOutcome};
use resprout::tensor::Tensor;

const MODEL: &[u8] = include_bytes!("../../resprout-cli/assets/digits.onnx");
const IMAGES: &[u8] = include_bytes!("../../resprout-cli/assets/digits-images-idx3-ubyte.gz");
const LABELS: &[u8] = include_bytes!("../../resprout-cli/assets/digits-labels-idx1-ubyte.gz");

fn model() -> Model {
    onnx::parse(MODEL.to_vec(), None).unwrap()
}

fn images(count: usize) -> Tensor {
    let preprocess = Preprocess { mean: vec![4.884], std: vec![6.017], ..Preprocess::default() };
    ImageSet::from_idx("digits", IMAGES, LABELS).unwrap().load(0..count, 1, &preprocess).unwrap()
}

fn on_threads<T: Send>(threads: usize, run: impl FnOnce() -> T + Send) -> T {
    rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap().install(run)
}

fn options(sparsity: f64) -> PruneOptions {
    PruneOptions { sparsity, ..PruneOptions::default() }
}

/// For criteria that score by the weights alone.
fn no_images() -> Tensor {
    Tensor::default()
}

fn pruned(options: &PruneOptions) -> Model {
    let mut model = model();
    prune(&mut model, options, &no_images(), &Quiet).unwrap();
    model
}

fn repair(model: &mut Model, text: &str, images: &Tensor) -> resprout::Result<RepairOutcome> {
    Chain::parse(text)?.repair(model, &self::model(), images, &RepairOptions::default(), &Quiet)
}

fn outputs(model: &Model, images: &Tensor, options: &PlanOptions) -> Vec<Tensor> {
    Network::new(model, &images.shape[1..], options).unwrap().run(images).unwrap()
}

#[test]
fn every_criterion_and_allocation_keeps_the_exact_count() {
    for criterion in CRITERIA {
        for allocation in ALLOCATIONS.iter().filter(|row| row.name != "measured") {
            for sparsity in [0.0, 0.3, 0.5, 0.9, 0.99] {
                let options =
                    PruneOptions { criterion: criterion.name.into(), allocation: allocation.name.into(), ..options(sparsity) };
                let place = format!("{} {} {sparsity}", criterion.name, allocation.name);
                let mut model = model();
                let outcome = match prune(&mut model, &options, &images(32), &Quiet) {
                    Ok(outcome) => outcome,
                    // This allocation alone can have too few weights to remove.
                    Err(error) => {
                        assert!(
                            allocation.name == "uniform+" && sparsity > 0.9 && error.kind() == ErrorKind::Option,
                            "{place}: {error}"
                        );
                        continue;
                    }
                };
                let total: usize = outcome.layers.iter().map(|layer| layer.len()).sum();
                let expected: usize = match allocation.name {
                    "uniform" => {
                        outcome.layers.iter().map(|l| l.len() - (sparsity * l.len() as f64).round_ties_even() as usize).sum()
                    }
                    _ => ((1.0 - sparsity) * total as f64).round_ties_even() as usize,
                };
                assert_eq!(outcome.kept.iter().sum::<usize>(), expected, "{place}");
                for (layer, &kept) in outcome.layers.iter().zip(&outcome.kept) {
                    let mask = model.masks.get(&layer.param).unwrap();
                    assert_eq!(mask.kept(), kept, "{place} {}", layer.param);
                    let weights = &model.weight(&layer.param).unwrap().data;
                    assert!(
                        weights.iter().zip(&mask.0).all(|(w, &kept)| kept || w.to_bits() == 0),
                        "{place}: a pruned weight is not 0.0"
                    );
                }
            }
        }
    }
}

#[test]
fn masks_and_outputs_do_not_depend_on_threads() {
    let images = images(100);
    for allocation in ALLOCATIONS.iter().filter(|row| row.name != "measured") {
        let options = PruneOptions { allocation: allocation.name.into(), ..options(0.8) };
        let runs: Vec<(Model, Vec<Tensor>)> = [1, 2, 3]
            .into_iter()
            .map(|threads| {
                on_threads(threads, || {
                    let mut model = pruned(&options);
                    repair(&mut model, "bn", &images).unwrap();
                    let outputs = outputs(&model, &images, &PlanOptions::default());
                    (model, outputs)
                })
            })
            .collect();
        for (model, outputs) in &runs[1..] {
            assert_eq!(model.masks, runs[0].0.masks, "{}", allocation.name);
            assert_eq!(outputs, &runs[0].1, "{}", allocation.name);
        }
    }
}

#[test]
fn one_image_at_a_time_gives_the_same_bits_as_many() {
    let images = images(5);
    let many = outputs(&model(), &images, &PlanOptions::default()).swap_remove(0);
    for i in 0..5 {
        let one = Tensor::new(vec![1, 1, 8, 8], images.data[i * 64..(i + 1) * 64].to_vec());
        // Two threads share the channels of a single image.
        let one = on_threads(2, || outputs(&model(), &one, &PlanOptions::default()).swap_remove(0));
        assert_eq!(one.data, many.data[i * 10..(i + 1) * 10], "image {i}");
    }
}

#[test]
fn folding_batch_norm_and_taps_leave_the_result() {
    let images = images(20);
    let plain = outputs(&model(), &images, &PlanOptions::default()).swap_remove(0);
    let unfolded = outputs(&model(), &images, &PlanOptions { fold_batch_norm: false, ..PlanOptions::default() }).swap_remove(0);
    let close = |a: &Tensor, b: &Tensor| a.data.iter().zip(&b.data).all(|(x, y)| (x - y).abs() < 1e-4);
    assert!(close(&plain, &unfolded));
    // A tap between convolution and BatchNormalization keeps them apart and returns the value between.
    let layers = model().graph.layers;
    let conv = layers.iter().find(|layer| layer.op.name() == "Conv").unwrap().outputs[0].clone();
    let last = layers.last().unwrap().inputs[0].clone();
    let tapped = outputs(&model(), &images, &PlanOptions { taps: vec![conv, last], ..PlanOptions::default() });
    assert!(close(&plain, &tapped[0]));
    assert_eq!((tapped[1].shape.clone(), tapped[2].shape.clone()), (vec![20, 16, 8, 8], vec![20, 64]));
    let missing = PlanOptions { taps: vec!["nowhere".into()], ..PlanOptions::default() };
    assert!(Network::new(&model(), &[1, 8, 8], &missing).is_err());
}

#[test]
fn every_repair_keeps_pruned_weights_at_zero() {
    let images = images(64);
    for entry in REPAIRS {
        let mut model = pruned(&options(0.9));
        let masks = model.masks.clone();
        repair(&mut model, entry.name, &images).unwrap();
        assert_eq!(model.masks, masks);
        for (name, mask) in masks.iter() {
            let weights = &model.weight(name).unwrap().data;
            assert!(weights.iter().zip(&mask.0).all(|(w, &kept)| kept || w.to_bits() == 0), "{} {name}", entry.name);
        }
    }
}

/// The running statistics equal independent ones: mean and population variance in f64 of taps before each BatchNormalization.
#[test]
fn exact_recalibration_is_a_fixed_point() {
    let images = images(150);
    let mut model = pruned(&options(0.8));
    repair(&mut model, "bn", &images).unwrap();
    let norms: Vec<_> = model.graph.layers.iter().filter(|layer| layer.op.name() == "BatchNormalization").cloned().collect();
    let taps: Vec<String> = norms.iter().map(|layer| layer.inputs[0].clone()).collect();
    let tapped = outputs(&model, &images, &PlanOptions { fold_batch_norm: false, taps, ..PlanOptions::default() });
    for (norm, value) in norms.iter().zip(&tapped[1..]) {
        let (channels, plane) = (value.shape[1], value.shape[2] * value.shape[3]);
        for c in 0..channels {
            let of_channel = |i: usize| value.data[(i * channels + c) * plane..][..plane].iter().map(|&v| f64::from(v));
            let all: Vec<f64> = (0..150).flat_map(of_channel).collect();
            let mean = all.iter().sum::<f64>() / all.len() as f64;
            let var = all.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / all.len() as f64;
            let stored = |index: usize| f64::from(model.weight(&norm.inputs[index]).unwrap().data[c]);
            // Storage in f32 has a relative error of 6e-8. The network computes in f32 too.
            assert!((stored(3) - mean).abs() <= 1e-6 * (1.0 + mean.abs()), "{} {c}", norm.name);
            assert!((stored(4) - var).abs() <= 1e-5 * var + 1e-9, "{} {c}: {} {var}", norm.name, stored(4));
        }
    }
}

#[test]
fn recalibration_variants_follow_their_formulas() {
    let images = images(128);
    let first_norm = |model: &Model| {
        let layer = model.graph.layers.iter().find(|layer| layer.op.name() == "BatchNormalization").unwrap();
        [3, 4].map(|index| model.weight(&layer.inputs[index]).unwrap().data.iter().map(|&v| f64::from(v)).collect::<Vec<_>>())
    };
    let run = |text: &str| {
        let mut model = model();
        repair(&mut model, text, &images).unwrap();
        first_norm(&model)
    };
    let [old_mean, old_var] = first_norm(&model());
    let [mean, var] = run("bn");
    // With one batch of all images, cumulative and ema with momentum 1 store its mean and unbiased variance.
    let unbiased = (128 * 64) as f64 / (128 * 64 - 1) as f64;
    for text in ["bn:variant=cumulative:batch=128", "bn:variant=ema:batch=128:momentum=1"] {
        let [m, v] = run(text);
        for c in 0..16 {
            assert!(
                (m[c] - mean[c]).abs() < 1e-5 && (v[c] - var[c] * unbiased).abs() < 1e-5 * (1.0 + var[c]),
                "{text} channel {c}"
            );
        }
    }
    let [m, v] = run("bn:variant=ema:batch=128");
    let [kept_m, kept_v] = run("bn:variant=ema:batch=128:reset=no");
    for c in 0..16 {
        assert!((m[c] - 0.1 * mean[c]).abs() < 1e-5 && (v[c] - (0.9 + 0.1 * var[c] * unbiased)).abs() < 1e-4);
        assert!((kept_m[c] - (0.9 * old_mean[c] + 0.1 * mean[c])).abs() < 1e-5, "channel {c}");
        assert!((kept_v[c] - (0.9 * old_var[c] + 0.1 * var[c] * unbiased)).abs() < 1e-4 * (1.0 + var[c]), "channel {c}");
    }
    // With two batches the mean is that of both, and the variance between them is lost.
    let [halves_mean, halves_var] = run("bn:variant=cumulative:batch=64");
    let biased = (64 * 64 - 1) as f64 / (64 * 64) as f64;
    assert!((0..16).all(|c| (halves_mean[c] - mean[c]).abs() < 1e-5 && halves_var[c] * biased <= var[c] + 1e-6));
    assert!((0..16).any(|c| halves_var[c] * biased < var[c] - 1e-7));
    assert_eq!(repair(&mut model(), "bn:variant=cumulative:batch=127", &images).unwrap_err().kind(), ErrorKind::Option);
}

#[test]
fn options_of_methods_are_checked() {
    let message = |text: &str| repair(&mut model(), text, &images(4)).unwrap_err().to_string();
    for (text, part) in [
        ("nothing", "there are none, bn, bias"),
        ("bn:speed=1", "has no option \"speed\"; it has [variant, batch, momentum, reset]"),
        ("bn:variant", "has no value"),
        ("bn:variant=fast", "exact, cumulative or ema is needed"),
        ("bn:momentum=0", "a number in (0, 1] is needed"),
        ("bn:momentum=NaN", "a number in (0, 1] is needed"),
        ("bn:batch=1", "from 2 on"),
        ("bn:reset=maybe", "yes or no is needed"),
    ] {
        assert!(message(text).contains(part), "{text}: {}", message(text));
    }
}

#[test]
fn overrides_floors_and_ignore_lists() {
    let kept = |options: &PruneOptions| prune(&mut model(), options, &no_images(), &Quiet).map(|o| (o.layers, o.kept));
    let base = options(0.9);
    let (layers, plain) = kept(&base).unwrap();
    let total: usize = plain.iter().sum();

    let (_, own) =
        kept(&PruneOptions { layers: vec![("conv1.weight".into(), 0.5), ("re:^fc".into(), 0.0)], ..base.clone() }).unwrap();
    assert_eq!((own[0], *own.last().unwrap(), own.iter().sum::<usize>()), (72, 640, total), "72 = half of 144");

    let floors = PruneOptions { min_per_layer: 300, min_per_channel: 2, sparsity: 0.95, ..base.clone() };
    let (layers_floor, floored) = kept(&floors).unwrap();
    let floor = |l: &resprout::model::Prunable| 300usize.max(2 * l.channels()).min(l.len());
    assert!(layers_floor.iter().zip(&floored).all(|(layer, &kept)| kept >= floor(layer)));
    let model = pruned(&floors);
    for layer in &layers_floor {
        let mut channels = vec![0; layer.channels()];
        let mask = &model.masks.get(&layer.param).unwrap().0;
        (0..layer.len()).filter(|&i| mask[i]).for_each(|i| channels[layer.channel_of(i)] += 1);
        assert!(channels.iter().all(|&kept| kept >= 2), "{}", layer.param);
    }

    let ignoring = PruneOptions { sparsity: 0.5, ..base.clone() };
    let ignoring = PruneOptions {
        rule: resprout::model::PrunableRule { ignore: vec!["re:layer[12]".into(), "fc".into()], include_grouped: false },
        ..ignoring
    };
    let (some, _) = kept(&ignoring).unwrap();
    assert!(some.len() < layers.len() && some.iter().all(|l| !l.param.contains("layer1") && l.layer != "fc"));

    for (options, part) in [
        (PruneOptions { layers: vec![("nowhere".into(), 0.5)], ..base.clone() }, "no prunable layer or weight has this name"),
        (PruneOptions { layers: vec![("re:(".into(), 0.5)], ..base.clone() }, "regular expression"),
        (PruneOptions { layers: vec![("fc".into(), f64::NAN)], ..base.clone() }, "layer \"fc\": sparsity NaN"),
        (PruneOptions { allocation: "erk".into(), layers: vec![("re:layer3".into(), 0.0)], ..base.clone() }, "needs"),
        (PruneOptions { min_per_layer: 10_000, ..base.clone() }, "the floors need"),
        (PruneOptions { sparsity: 0.999, min_per_channel: 9, ..base.clone() }, "the floors need"),
        (
            PruneOptions {
                rule: resprout::model::PrunableRule { ignore: vec!["re:.".into()], include_grouped: true },
                ..base.clone()
            },
            "no layer is left to prune",
        ),
    ] {
        let error = kept(&options).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Option, "{error}");
        assert!(error.to_string().contains(part), "{error}");
    }
}

#[test]
fn an_earlier_mask_stays() {
    let mut twice = pruned(&options(0.5));
    let first = twice.masks.clone();
    let random = |sparsity| PruneOptions { criterion: "random".into(), allocation: "global".into(), ..options(sparsity) };
    let outcome = prune(&mut twice, &random(0.8), &no_images(), &Quiet).unwrap();
    let total: usize = outcome.layers.iter().map(|layer| layer.len()).sum();
    assert_eq!(outcome.kept.iter().sum::<usize>(), (0.2 * total as f64).round_ties_even() as usize);
    for (name, mask) in twice.masks.iter() {
        assert!(
            mask.0.iter().zip(&first.get(name).unwrap().0).all(|(now, before)| *before || !now),
            "{name}: a pruned weight came back"
        );
    }
    // A lower sparsity brings no weight back.
    let outcome = prune(&mut twice, &random(0.3), &no_images(), &Quiet).unwrap();
    assert_eq!(outcome.kept.iter().sum::<usize>(), (0.2 * total as f64).round_ties_even() as usize);
}

#[test]
fn only_the_changed_tensors_differ_in_the_file() {
    assert_eq!(onnx::encode(&model()).unwrap(), MODEL, "an unchanged model is the same file");
    let pruned = pruned(&options(0.5));
    let bytes = onnx::encode(&pruned).unwrap();
    assert_eq!(bytes.len(), MODEL.len(), "raw data stay raw data");
    let mut changed: usize = 0;
    for (name, mask) in pruned.masks.iter() {
        let before = &model().weight(name).unwrap().data.clone();
        changed += before.iter().zip(&mask.0).filter(|(w, kept)| !**kept && **w != 0.0).count();
    }
    let differing = bytes.iter().zip(MODEL).filter(|(a, b)| a != b).count();
    assert!(differing > 0 && differing <= 4 * changed, "{differing} bytes for {changed} weights");
}

#[test]
fn safetensors_round_trip_with_masks() {
    let pruned = pruned(&options(0.7));
    let bytes = safetensors::encode(&pruned).unwrap();
    let mut back = model();
    safetensors::decode_into(&mut back, &bytes).unwrap();
    assert_eq!(back.masks, pruned.masks);
    assert_eq!(onnx::encode(&back).unwrap(), onnx::encode(&pruned).unwrap());
    assert!(safetensors::decode_into(&mut back, &bytes[..100]).is_err());
}

#[test]
fn effective_counts_find_paths_that_lead_nowhere() {
    use resprout::model::effective::effective_counts;
    let mut model = model();
    let (layers, _) = model.prunable(&Default::default()).unwrap();
    let index = |name: &str| layers.iter().position(|layer| layer.param == name).unwrap();
    let dense = effective_counts(&model, &layers);
    assert!(layers.iter().zip(&dense).all(|(layer, &count)| count == layer.len()));
    // Without output channel 3 of the block's first convolution, its readers in the second are useless.
    model.params.f32_mut("layer1.conv1.weight").unwrap().data[3 * 144..4 * 144].fill(0.0);
    let counts = effective_counts(&model, &layers);
    assert_eq!(counts[index("layer1.conv2.weight")], 16 * 16 * 9 - 16 * 9);
    // Without readers of channel 5, the weights that write it are useless.
    let second = model.params.f32_mut("layer1.conv2.weight").unwrap();
    (0..16).for_each(|out| second.data[(out * 16 + 5) * 9..][..9].fill(0.0));
    let counts = effective_counts(&model, &layers);
    assert_eq!(counts[index("layer1.conv1.weight")], 14 * 144);
    // The residual sum keeps everything else alive.
    assert_eq!(counts[index("layer2.conv1.weight")], layers[index("layer2.conv1.weight")].len());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]
    /// A hostile file is an error, and causes no panic, endless loop or huge allocation.
    #[test]
    fn broken_models_never_panic(cut in 0usize..4000, flips in prop::collection::vec((0usize..319_050, any::<u8>()), 0..6), head in any::<bool>()) {
        let mut bytes = MODEL.to_vec();
        for (at, value) in flips {
            // The first bytes of the file hold the nodes of the graph.
            bytes[if head { at % 6000 } else { at }] = value;
        }
        bytes.truncate(bytes.len() - if cut > 2000 { cut } else { 0 });
        if let Ok(mut model) = onnx::parse(bytes, None) {
            let _ = prune(&mut model, &options(0.5), &no_images(), &Quiet);
            if let Ok(network) = Network::new(&model, &[1, 8, 8], &PlanOptions::default()) {
                let _ = network.run(&images(2));
            }
            let _ = onnx::encode(&model);
        }
    }
}
