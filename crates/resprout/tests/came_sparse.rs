//! Sparse input models: their zeros become masks, and stay through pruning, patterns, steps and repair.

use resprout::allocation::ALLOCATIONS;
use resprout::data::{ImageSet, Preprocess};
use resprout::eval::{OutputKind, compare};
use resprout::formats::onnx;
use resprout::forward::{Network, PlanOptions};
use resprout::model::{CameSparse, Model, PrunableRule};
use resprout::progress::Quiet;
use resprout::prune::{PruneOptions, prune, weights_left};
use resprout::repair::RepairOptions;
use resprout::sparsify::{Sparsified, SparsifyOptions, sparsify, sparsify_from};
use resprout::structure::Pattern;
use resprout::tensor::Tensor;

const DIGITS: &[u8] = include_bytes!("../../resprout-cli/assets/digits.onnx");
const IMAGES: &[u8] = include_bytes!("../../resprout-cli/assets/digits-images-idx3-ubyte.gz");
const LABELS: &[u8] = include_bytes!("../../resprout-cli/assets/digits-labels-idx1-ubyte.gz");

fn digits() -> Model {
    onnx::parse(DIGITS.to_vec(), None).unwrap()
}

fn images(count: usize) -> Tensor {
    let raw = Preprocess::preset("raw").unwrap();
    let preprocess = Preprocess { resize: None, crop: None, mean: vec![4.884], std: vec![6.017], ..raw };
    ImageSet::from_idx("digits", IMAGES, LABELS).unwrap().load(0..count, 1, &preprocess).unwrap()
}

fn unstructured(sparsity: f64, allocation: &str) -> PruneOptions {
    PruneOptions { sparsity, allocation: allocation.into(), ..PruneOptions::default() }
}

fn channels(sparsity: f64, criterion: &str) -> PruneOptions {
    let (criterion, allocation) = (criterion.into(), "global".into());
    PruneOptions { sparsity, criterion, allocation, pattern: Pattern::Channel, ..PruneOptions::default() }
}

/// The digits network from a pruned file without masks.
fn came(options: &PruneOptions) -> (Model, CameSparse) {
    let mut model = digits();
    prune(&mut model, options, &Tensor::default(), &Quiet).unwrap();
    let mut read = onnx::parse(onnx::encode(&model).unwrap(), None).unwrap();
    assert!(read.masks.iter().next().is_none());
    let came = read.keep_zeros(&PrunableRule::default(), false).unwrap().unwrap();
    (read, came)
}

fn sparsified(model: &Model, prune: PruneOptions, repair: &str, steps: usize) -> resprout::Result<Sparsified> {
    let options = SparsifyOptions {
        prune,
        repair: repair.into(),
        repair_rows: &[],
        repair_options: RepairOptions::default(),
        steps,
        checkpoint: None,
    };
    sparsify(model, &images(64), &options, &Quiet)
}

/// Checks that every zero weight of `before` is zero in `after`, and returns the number of weights left.
fn zeros_stay(before: &Model, after: &Model, options: &PruneOptions) -> usize {
    for (name, mask) in before.masks.iter() {
        let weights = &after.weight(name).unwrap().data;
        assert!(mask.0.iter().zip(weights).all(|(kept, &weight)| *kept || weight == 0.0), "{name}");
    }
    weights_left(after, options).unwrap().0
}

#[test]
fn zeros_become_masks_only_if_there_are_many() {
    let mut dense = digits();
    assert_eq!(dense.keep_zeros(&PrunableRule::default(), false).unwrap(), None);
    let options = unstructured(0.6, "lamp");
    let (mut model, came) = came(&options);
    let (left, total) = weights_left(&model, &options).unwrap();
    assert_eq!((came.zeros, came.prunable, came.regrown), (total - left, total, false));
    assert_eq!(came.to_string(), format!("came with {:.2} % zeros, kept as mask", 100.0 * came.zeros as f64 / total as f64));
    // Layers with few zeros get masks too, because the whole file counts.
    let sparsest = model.masks.iter().map(|(_, mask)| mask.0.len() - mask.kept()).min().unwrap();
    assert!(sparsest > 0);
    assert!(model.keep_zeros(&PrunableRule::default(), true).unwrap().unwrap().regrown);
    assert!(model.masks.iter().next().is_none());
}

#[test]
fn every_allocation_continues_to_the_exact_count() {
    for entry in ALLOCATIONS.iter().filter(|row| row.name != "measured") {
        // An even allocation alone would bring pruned weights back.
        for (first, sparsity) in [("global", 0.62), ("lamp", 0.9), ("erk", 0.65)] {
            let (model, _) = came(&unstructured(0.6, first));
            let options = unstructured(sparsity, entry.name);
            let mut fresh = digits();
            let expected = prune(&mut fresh, &options, &Tensor::default(), &Quiet).unwrap().kept.iter().sum::<usize>();
            let left = weights_left(&model, &options).unwrap().0;
            let result = sparsified(&model, options.clone(), "none", 1).unwrap();
            let kept = zeros_stay(&model, &result.repaired, &options);
            assert_eq!(kept, expected.min(left), "{first}, then {} at {sparsity}", entry.name);
            let again = sparsified(&model, options.clone(), "bn", 3).unwrap();
            let after = zeros_stay(&model, &again.repaired, &options);
            assert!(after.abs_diff(kept) <= model.graph.layers.len(), "{} in steps: {after} of {kept}", entry.name);
            assert!(again.steps.windows(2).all(|pair| pair[0] <= pair[1]) && again.steps[0] >= 0.6 - 1e-3, "{:?}", again.steps);
        }
    }
}

#[test]
fn a_lower_sparsity_is_an_error_and_zero_is_repair_alone() {
    let (model, came) = came(&unstructured(0.6, "global"));
    let error = sparsified(&model, unstructured(0.5, "lamp"), "none", 1).unwrap_err().to_string();
    assert!(error.contains("sparsity 0.5") && error.contains(&came.zeros.to_string()) && error.contains("regrow"), "{error}");
    let layer = PruneOptions { layers: vec![("re:.".into(), 0.01)], ..unstructured(0.8, "lamp") };
    let error = sparsified(&model, layer, "none", 1).unwrap_err().to_string();
    assert!(error.contains("layer \"re:.\": sparsity 0.01") && error.contains("weights left"), "{error}");
    for allocation in ALLOCATIONS.iter().filter(|row| row.name != "measured") {
        let options = unstructured(0.0, allocation.name);
        let result = sparsified(&model, options.clone(), "none", 1).unwrap();
        assert_eq!(zeros_stay(&model, &result.repaired, &options), came.prunable - came.zeros, "{}", allocation.name);
        let same = |(name, mask)| result.repaired.masks.get(name) == Some(mask);
        assert!(model.masks.iter().all(same), "{}", allocation.name);
    }
}

#[test]
fn floors_hold_on_the_remaining_weights() {
    let (model, _) = came(&unstructured(0.9, "global"));
    let options = PruneOptions { min_per_channel: 2, min_per_layer: 20, ..unstructured(0.93, "global") };
    let result = sparsified(&model, options.clone(), "none", 1).unwrap();
    let mut fresh = digits();
    let expected: usize = prune(&mut fresh, &unstructured(0.93, "global"), &Tensor::default(), &Quiet).unwrap().kept.iter().sum();
    assert_eq!(zeros_stay(&model, &result.repaired, &options), expected);
}

#[test]
fn patterns_continue_from_earlier_zeros() {
    let (scattered, _) = came(&unstructured(0.3, "global"));
    let options = PruneOptions { pattern: Pattern::parse("2:4").unwrap(), sparsity: 0.5, ..PruneOptions::default() };
    let result = sparsified(&scattered, options.clone(), "none", 1).unwrap();
    let kept = zeros_stay(&scattered, &result.repaired, &options);
    let total = weights_left(&scattered, &options).unwrap().1;
    assert!(kept <= total / 2 && kept > total / 3, "{kept} of {total}");

    for criterion in ["l2", "random"] {
        let first = channels(0.3, "l2");
        let (model, _) = came(&first);
        let before = zeros_stay(&model, &model, &first);
        for (start, left) in [(&model, before), (&scattered, zeros_stay(&scattered, &scattered, &first))] {
            let options = channels(0.5, criterion);
            let result = sparsified(start, options.clone(), "none", 1).unwrap();
            let kept = zeros_stay(start, &result.repaired, &options);
            let total = weights_left(start, &options).unwrap().1;
            let share = kept as f64 / total as f64;
            assert!(kept < left && share <= 0.5 && share > 0.4, "{criterion}: {kept} of {total}");
        }
        let error = sparsified(&model, channels(0.1, criterion), "none", 1).unwrap_err().to_string();
        assert!(error.contains("gone already"), "{error}");
        let same = sparsified(&model, channels(0.0, criterion), "none", 1).unwrap();
        assert_eq!(zeros_stay(&model, &same.repaired, &first), before);
    }
}

#[test]
fn repair_alone_approaches_the_dense_network() {
    let dense = digits();
    let (model, _) = came(&unstructured(0.9, "lamp"));
    let images = images(128);
    let outputs = |model: &Model| {
        let network = Network::new(model, &[1, 8, 8], &PlanOptions::default()).unwrap();
        network.run(&images).unwrap().swap_remove(0)
    };
    let error = |model: &Model| {
        compare(&outputs(model), &outputs(&dense), None, OutputKind::Logits).unwrap().relative_error.unwrap().value
    };
    for repair in ["least-squares", "auto"] {
        let options = SparsifyOptions {
            prune: unstructured(0.0, "lamp"),
            repair: repair.into(),
            repair_rows: &[],
            repair_options: RepairOptions::default(),
            steps: 1,
            checkpoint: None,
        };
        let result = sparsify_from(&model, &dense, &images, &options, &Quiet).unwrap();
        zeros_stay(&model, &result.repaired, &options.prune);
        assert!(error(&result.repaired) < 0.5 * error(&model), "{repair}: {} of {}", error(&result.repaired), error(&model));
        assert_eq!(error(&result.pruned), error(&model));
        // Without the dense network it must do no harm.
        let alone = sparsify(&model, &images, &options, &Quiet).unwrap();
        zeros_stay(&model, &alone.repaired, &options.prune);
        assert!(error(&alone.repaired) < 1.05 * error(&model), "{repair}: {}", error(&alone.repaired));
    }
    let other = onnx::parse(include_bytes!("../../../testdata/golden/plain.onnx").to_vec(), None).unwrap();
    let options = SparsifyOptions {
        prune: unstructured(0.95, "lamp"),
        repair: "none".into(),
        repair_rows: &[],
        repair_options: RepairOptions::default(),
        steps: 1,
        checkpoint: None,
    };
    let message = sparsify_from(&model, &other, &images, &options, &Quiet).unwrap_err().to_string();
    assert!(message.contains("reference"), "{message}");
}
