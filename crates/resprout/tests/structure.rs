//! Patterns: exact groups, coupled channels, and shrunk networks with the same outputs.

use resprout::architectures::{Shape, build};
use resprout::formats::onnx;
use resprout::forward::{Network, PlanOptions};
use resprout::model::{Model, PrunableRule};
use resprout::progress::Quiet;
use resprout::prune::channel::{CHANNEL_ALLOCATIONS, CHANNEL_CRITERIA};
use resprout::prune::{PruneOptions, prune};
use resprout::structure::Pattern;
use resprout::structure::shrink::shrink;
use resprout::tensor::Tensor;

#[path = "../../../testdata/noise.rs"]
mod noise;

/// Relative to the largest output: the order of sums differs.
const TOLERANCE: f32 = 1e-4;

fn network(name: &str) -> Model {
    let image = (name == "mobilenet-v2").then_some([3, 64, 64]);
    let mut model = build(name, &Shape { classes: None, image }, "kaiming-out", 1).unwrap();
    // Different statistics, scales and biases, so that a wrong cut changes the outputs.
    let names: Vec<String> = model.params.iter().map(|(name, _)| name.to_string()).collect();
    for name in names {
        let Some(tensor) = model.params.f32_mut(&name).filter(|tensor| tensor.shape.len() == 1) else { continue };
        tensor.data = noise::parameter(&name, &tensor.shape);
    }
    model
}

fn images(image: [usize; 3]) -> Tensor {
    let count = 2 * image.iter().product::<usize>();
    Tensor::new([&[2][..], &image].concat(), noise::noise("images", count).into_iter().map(|u| u as f32).collect())
}

fn run(model: &Model, images: &Tensor) -> Vec<f32> {
    Network::new(model, &images.shape[1..], &PlanOptions::default()).unwrap().run(images).unwrap().swap_remove(0).data
}

fn assert_same(a: &[f32], b: &[f32], what: &str) {
    let largest = a.iter().fold(0.0f32, |largest, value| largest.max(value.abs()));
    assert!(largest > 0.0 && a.len() == b.len(), "{what}");
    let off = a.iter().zip(b).fold(0.0f32, |off, (a, b)| off.max((a - b).abs()));
    assert!(off <= TOLERANCE * largest, "{what}: {off} of {largest}");
}

fn channels(criterion: &str, allocation: &str, sparsity: f64, macs: Option<f64>) -> PruneOptions {
    PruneOptions {
        sparsity,
        macs,
        criterion: criterion.into(),
        allocation: allocation.into(),
        pattern: Pattern::Channel,
        ..PruneOptions::default()
    }
}

fn weights(model: &Model) -> usize {
    let rule = PrunableRule { include_grouped: true, ..PrunableRule::default() };
    model.prunable(&rule).unwrap().0.iter().map(|layer| layer.len()).sum()
}

/// Prunes, shrinks, writes and reads. Returns the share of weights under the masks, and the share in the smaller network.
fn check(model: &Model, options: &PruneOptions, images: &Tensor, what: &str) -> (f64, f64) {
    let mut masked = model.clone();
    let outcome = prune(&mut masked, options, images, &Quiet).unwrap_or_else(|e| panic!("{what}: {e}"));
    let (small, cuts) = shrink(&masked).unwrap_or_else(|e| panic!("{what}: {e}"));
    assert!(!cuts.is_empty(), "{what}: nothing was cut");
    let read = onnx::parse(onnx::encode(&small).unwrap(), None).unwrap();
    assert_same(&run(&masked, images), &run(&read, images), what);
    let whole = weights(model) as f64;
    let kept = outcome.kept.iter().sum::<usize>() as f64 / whole;
    let left = weights(&small) as f64 / whole;
    assert!((kept - left).abs() < 1e-9, "{what}: masks keep {kept}, the smaller network has {left}");
    assert!(shrink(&small).unwrap().1.is_empty(), "{what}: cut twice");
    (kept, left)
}

#[test]
fn shrunk_chains_compute_what_masked_ones_do() {
    shrunk_networks_compute_what_masked_ones_do(&["lenet-300-100", "lenet-5", "vgg-16-bn-cifar", "vgg-like", "mobilenet-v2"]);
}

#[test]
fn shrunk_residual_networks_compute_what_masked_ones_do() {
    shrunk_networks_compute_what_masked_ones_do(&["resnet-20", "resnet-18-cifar", "resnet-50-cifar", "densenet-121-cifar"]);
}

fn shrunk_networks_compute_what_masked_ones_do(names: &[&str]) {
    for &name in names {
        let model = network(name);
        let image = match name {
            "lenet-300-100" | "lenet-5" => [1, 28, 28],
            "mobilenet-v2" => [3, 64, 64],
            _ => [3, 32, 32],
        };
        let images = images(image);
        for options in [channels("l2", "global", 0.5, None), channels("l1", "uniform", 0.3, None)] {
            let (kept, _) = check(&model, &options, &images, name);
            let density = 1.0 - options.sparsity;
            assert!(kept <= density && kept > density - 0.1, "{name}: {kept} kept, {density} requested");
        }
    }
}

#[test]
fn every_criterion_and_allocation_prunes_channels_to_a_budget_of_operations() {
    let model = network("resnet-20");
    let images = images([3, 32, 32]);
    let macs = |model: &Model| resprout::forward::layer_macs(model, &[3, 32, 32]).unwrap().values().sum::<u64>() as f64;
    let mut results = Vec::new();
    for criterion in CHANNEL_CRITERIA {
        for allocation in CHANNEL_ALLOCATIONS {
            let options = channels(criterion.name, allocation.name, 0.0, Some(0.5));
            let mut masked = model.clone();
            prune(&mut masked, &options, &images, &Quiet).unwrap();
            let (small, _) = shrink(&masked).unwrap();
            let share = macs(&small) / macs(&model);
            assert!(share <= 0.5 && share > 0.45, "{} {}: {share}", criterion.name, allocation.name);
            assert_same(&run(&masked, &images), &run(&small, &images), criterion.name);
            results.push(onnx::encode(&small).unwrap());
        }
    }
    results.dedup();
    assert!(results.len() > 8, "criteria and allocations agree too often");
}

#[test]
fn n_of_every_m_stay_along_the_input_channels() {
    let model = network("resnet-20");
    for (pattern, sparsity) in
        [(Pattern::Nm { n: 2, m: 4 }, 0.5), (Pattern::Nm { n: 1, m: 8 }, 0.875), (Pattern::Mixed { m: 8 }, 0.7)]
    {
        let mut pruned = model.clone();
        let options = PruneOptions { sparsity, pattern, ..PruneOptions::default() };
        let outcome = prune(&mut pruned, &options, &Tensor::default(), &Quiet).unwrap();
        assert!(outcome.left_dense.iter().any(|left| left.param == "conv1.weight" && left.reason.contains('3')));
        let (Pattern::Nm { m, .. } | Pattern::Mixed { m }) = pattern else { unreachable!() };
        let mut different = std::collections::HashSet::new();
        for layer in &outcome.layers {
            let mask = &pruned.masks.get(&layer.param).unwrap().0;
            let (inputs, taps) = (layer.shape[1], layer.shape[2..].iter().product::<usize>());
            let mut counts = std::collections::HashSet::new();
            for out in 0..layer.shape[0] {
                for first in (0..inputs).step_by(m) {
                    for tap in 0..taps {
                        let group = (first..first + m).filter(|i| mask[(out * inputs + i) * taps + tap]);
                        counts.insert(group.count());
                    }
                }
            }
            assert_eq!(counts.len(), 1, "{pattern:?} {}: {counts:?}", layer.param);
            different.extend(counts);
        }
        let total: usize = outcome.layers.iter().map(|layer| layer.len()).sum();
        let density = outcome.kept.iter().sum::<usize>() as f64 / total as f64;
        match pattern {
            Pattern::Nm { n, m } => assert_eq!((density, different.len()), (n as f64 / m as f64, 1)),
            _ => assert!(density <= 0.3 && density > 0.27 && different.len() > 1, "{density} {different:?}"),
        }
    }
}

#[test]
fn invalid_options_are_refused() {
    let model = network("resnet-20");
    let images = images([3, 32, 32]);
    let message = |options: &PruneOptions| {
        let mut model = model.clone();
        prune(&mut model, options, &images, &Quiet).unwrap_err().to_string()
    };
    let plain = channels("l2", "global", 0.5, None);
    assert!(message(&PruneOptions { macs: Some(0.0), ..plain.clone() }).contains("macs 0"));
    assert!(message(&PruneOptions { macs: Some(1e-6), ..plain.clone() }).contains("are left with one channel"));
    assert!(message(&PruneOptions { sparsity: 0.9999, ..plain.clone() }).contains("are left with one channel"));
    assert!(message(&PruneOptions { criterion: "magnitude".into(), ..plain.clone() }).contains("magnitude"));
    assert!(message(&PruneOptions { allocation: "lamp".into(), ..plain.clone() }).contains("lamp"));
    assert!(message(&PruneOptions { min_per_channel: 1, ..plain.clone() }).contains("minimum weights per layer or channel"));
    let rule = PrunableRule { ignore: vec!["re:conv".into()], ..PrunableRule::default() };
    assert!(message(&PruneOptions { rule, ..plain.clone() }).contains("no channel can go"));
    let nothing_fits = PruneOptions { pattern: Pattern::Nm { n: 1, m: 31 }, ..PruneOptions::default() };
    assert!(message(&nothing_fits).contains("31"));
    // An ignored layer keeps its shape, and so does all that is coupled to it.
    let rule = PrunableRule { ignore: vec!["layer2.0.conv2.weight".into()], ..PrunableRule::default() };
    let mut masked = model.clone();
    prune(&mut masked, &PruneOptions { rule, ..plain }, &images, &Quiet).unwrap();
    let (small, _) = shrink(&masked).unwrap();
    assert_eq!(small.weight("layer2.0.conv2.weight").unwrap().shape, [32, 32, 3, 3]);
    assert_eq!(small.weight("layer2.0.conv1.weight").unwrap().shape[0], 32);
    assert_eq!(small.weight("layer2.1.conv2.weight").unwrap().shape[0], 32);
    assert_same(&run(&masked, &images), &run(&small, &images), "with an ignored layer");
}
