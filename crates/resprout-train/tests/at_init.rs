//! Pruning at initialisation: invariants of the scores and masks of every method.

use resprout::architectures::{Shape, build};
use resprout::model::{Model, Prunable, PrunableRule};
use resprout::progress::Quiet;
use resprout::prune::PruneOptions;
use resprout::random::SplitMix64;
use resprout::tensor::Tensor;
use resprout_train::at_init::ablation::{self, ABLATIONS, Pruning};
use resprout_train::at_init::{self, AT_INIT, Input, LabelledImages, Scores, prune_at_init};
use safetensors::SafeTensors;

#[path = "../../../testdata/noise.rs"]
mod noise;

const GOLDEN: &[u8] = include_bytes!("../../../testdata/golden/at_init.safetensors");

fn network(name: &str) -> Model {
    build(name, &Shape { classes: None, image: None }, "kaiming-in", 1).unwrap()
}

fn layers(model: &Model) -> Vec<Prunable> {
    model.prunable(&PrunableRule::default()).unwrap().0
}

/// Two batches of eight images of noise.
fn noise(image: [usize; 3]) -> Vec<LabelledImages> {
    let batch = |stream| {
        let mut random = SplitMix64::new(5, stream);
        let count = 8 * image.iter().product::<usize>();
        let values = (0..count).map(|_| random.next_normal() as f32).collect();
        (Tensor::new([&[8][..], &image].concat(), values), (0..8).map(|i| i % 10).collect())
    };
    vec![batch(0), batch(1)]
}

fn pruned(model: &Model, method: &str, sparsity: f64, image: [usize; 3]) -> Model {
    let batches = noise(image);
    let input = Input { batches: &batches, image, device: "cpu", seed: 3 };
    let options = PruneOptions { sparsity, allocation: "global".into(), ..PruneOptions::default() };
    let mut model = model.clone();
    prune_at_init(&mut model, &at_init::find(method, sparsity).unwrap(), &options, &input, &Quiet).unwrap();
    model
}

fn scores(model: &Model, method: &str, image: [usize; 3]) -> Scores {
    let batches = noise(image);
    let input = Input { batches: &batches, image, device: "cpu", seed: 3 };
    at_init::find(method, 0.5).unwrap().score.score(model, model, &layers(model), &input).unwrap()
}

/// ResNet-20 with the weights of testdata/gen/at_init.py.
fn filled() -> Model {
    let mut model = network("resnet-20");
    let names: Vec<String> = model.params.iter().filter(|(_, p)| p.f32().is_some()).map(|(name, _)| name.to_string()).collect();
    for name in names {
        let tensor = model.params.f32_mut(&name).unwrap();
        tensor.data = noise::parameter(&name, &tensor.shape);
    }
    model
}

#[test]
fn scores_are_pytorchs() {
    let golden = SafeTensors::deserialize(GOLDEN).unwrap();
    let model = filled();
    let images = noise::noise("images", 16 * 3 * 1024).into_iter().map(|u| u as f32).collect();
    let batches = [(Tensor::new(vec![16, 3, 32, 32], images), (0..16).map(|i| i % 10).collect())];
    let input = Input { batches: &batches, image: [3, 32, 32], device: "cpu", seed: 0 };
    // Relative to the layer's largest score. Gradients are in f32, and a difference of them has fewer digits.
    for (method, tolerance) in [("snip", 1e-4), ("synflow", 1e-5), ("grasp", 2e-2)] {
        let scores = at_init::find(method, 0.5).unwrap().score.score(&model, &model, &layers(&model), &input).unwrap();
        assert_eq!(scores.len(), 20);
        let mut scale = 1.0;
        for (name, scores) in &scores {
            let bytes = golden.tensor(&format!("{method}.{name}")).unwrap();
            let expected: Vec<f64> =
                bytes.data().as_chunks::<4>().0.iter().map(|&chunk| f64::from(f32::from_le_bytes(chunk))).collect();
            let got: Vec<f64> = scores.iter().step_by(97).copied().collect();
            assert_eq!(got.len(), expected.len(), "{method}: {name}");
            let largest = expected.iter().fold(0.0f64, |largest, score| largest.max(score.abs()));
            if method == "synflow" && scale == 1.0 {
                // All scores have one power of two as a factor.
                scale = 2f64.powf((got[0] / expected[0]).log2().round());
            }
            for (got, expected) in got.iter().zip(&expected) {
                let off = (got / scale - expected).abs();
                assert!(off <= tolerance * largest, "{method}: {name}: {got}, {expected} expected, largest {largest}");
            }
        }
    }
}

#[test]
fn ablations_change_nothing_but_their_subject() {
    let before = network("resnet-20");
    let image = [3, 32, 32];
    let input = Input { batches: &noise(image), image, device: "cpu", seed: 3 };
    let options = PruneOptions { sparsity: 0.9, allocation: "global".into(), ..PruneOptions::default() };
    let method = at_init::find("resynflow", 0.9).unwrap();
    let pruning = Pruning { method: &method, options: &options, input: &input, init: "kaiming-in" };
    let run = |name: &str, model: &Model| {
        let mut model = model.clone();
        ablation::find(name).unwrap().prune(&mut model, &pruning, &Quiet).unwrap();
        model
    };
    let plain = run("none", &before);
    for entry in ABLATIONS.iter().filter(|entry| entry.name != "none") {
        let name = entry.name;
        let trained = filled();
        let done = run(name, if name == "ratios" { &trained } else { &before });
        for layer in layers(&done) {
            let (weights, mask) = (&done.weight(&layer.param).unwrap().data, done.masks.get(&layer.param).unwrap());
            let of_plain = plain.masks.get(&layer.param).unwrap();
            assert!(weights.iter().zip(&mask.0).all(|(w, &kept)| kept || w.to_bits() == 0), "{name}");
            if name != "ratios" {
                assert_eq!(mask.kept(), of_plain.kept(), "{name}: {}", layer.param);
            }
            match name {
                "reinit" | "original" => assert_eq!(mask, of_plain, "{name}"),
                "shuffle" if mask.kept() > 9 => assert_ne!(mask, of_plain, "{name}"),
                _ => {}
            }
            let source = if name == "ratios" { trained.weight(&layer.param) } else { before.weight(&layer.param) }.unwrap();
            let same = weights.iter().zip(&source.data).zip(&mask.0).all(|((now, was), &kept)| !kept || now == was);
            assert_eq!(same || mask.kept() == 0, name != "reinit" || mask.kept() == 0, "{name}: {}", layer.param);
            if name == "ratios" {
                let sizes =
                    |kept: bool| weights.iter().zip(&source.data).zip(&mask.0).filter(move |x| *x.1 == kept).map(|x| x.0.1.abs());
                let (least, most) = (sizes(true).fold(f32::INFINITY, f32::min), sizes(false).fold(0.0, f32::max));
                assert!(least >= most, "{name}: {}", layer.param);
            }
        }
    }
    let check = |name: &str, pruned, weights| ablation::find(name).unwrap().check(name, pruned, weights);
    assert!(check("shuffle", false, true).is_err() && check("ratios", true, false).is_err());
    assert!(check("none", false, false).is_ok() && check("ratios", true, true).is_ok());
}

fn kept(model: &Model) -> Vec<usize> {
    layers(model).iter().map(|layer| model.masks.get(&layer.param).map_or(layer.len(), |mask| mask.kept())).collect()
}

#[test]
fn every_method_keeps_the_exact_count_of_a_chain() {
    every_method_keeps_the_exact_count("lenet-5", [1, 28, 28]);
}

#[test]
fn every_method_keeps_the_exact_count_of_a_residual_network() {
    every_method_keeps_the_exact_count("resnet-20", [3, 32, 32]);
}

fn every_method_keeps_the_exact_count(name: &str, image: [usize; 3]) {
    let model = network(name);
    let total: usize = layers(&model).iter().map(Prunable::len).sum();
    for entry in AT_INIT {
        let method = &match entry.name {
            "synflow" | "resynflow" => format!("{}:rounds=5", entry.name),
            name => name.to_string(),
        };
        let done = pruned(&model, method, 0.95, image);
        let expected = (0.05 * total as f64).round_ties_even() as usize;
        assert_eq!(kept(&done).iter().sum::<usize>(), expected, "{name}: {method}");
        for layer in layers(&done) {
            let (weights, mask) = (&done.weight(&layer.param).unwrap().data, done.masks.get(&layer.param).unwrap());
            assert!(weights.iter().zip(&mask.0).all(|(w, &kept)| kept || w.to_bits() == 0), "{name}: {method}");
            // Rescaling keeps the signs.
            let before = &model.weight(&layer.param).unwrap().data;
            assert!(weights.iter().zip(before).all(|(now, was)| now * was >= 0.0), "{name}: {method}");
        }
        assert_eq!(kept(&done), kept(&pruned(&model, method, 0.95, image)), "{name}: {method} twice");
    }
}

#[test]
fn as_much_flows_into_a_layer_as_out_of_it() {
    let model = network("vgg-16-bn-cifar");
    let scores = scores(&model, "synflow", [3, 32, 32]);
    let sums: Vec<f64> = layers(&model).iter().map(|layer| scores[&layer.param].iter().sum()).collect();
    assert_eq!(sums.len(), 14);
    for sum in &sums {
        assert!((sum / sums[0] - 1.0).abs() < 1e-4, "{sums:?}");
    }
}

#[test]
fn synflow_keeps_layers_alive_where_magnitude_and_snip_do_not() {
    let model = network("vgg-16-bn-cifar");
    let smallest = |method| *kept(&pruned(&model, method, 0.999, [3, 32, 32])).iter().min().unwrap();
    assert!(smallest("synflow:rounds=15") > 0);
    assert_eq!(smallest("magnitude"), 0);
    assert_eq!(smallest("snip"), 0);
}

#[test]
fn on_a_chain_resynflow_prunes_as_synflow_does() {
    let model = network("vgg-16-bn-cifar");
    let image = [3, 32, 32];
    let one = pruned(&model, "synflow:rounds=3:schedule=linear", 0.9, image);
    let other = pruned(&model, "resynflow:rounds=3:schedule=linear", 0.9, image);
    let (mut same, mut all) = (0, 0);
    for layer in layers(&model) {
        let (a, b) = (one.masks.get(&layer.param).unwrap(), other.masks.get(&layer.param).unwrap());
        same += a.0.iter().zip(&b.0).filter(|(a, b)| a == b).count();
        all += layer.len();
    }
    // Equal in exact arithmetic. In f32 neighbours in rank may swap.
    assert!(same as f64 >= 0.9999 * all as f64, "{same} of {all}");
}

#[test]
fn scores_of_deep_networks_are_finite_and_not_all_zero() {
    for name in ["resnet-50-cifar", "resnet-152", "densenet-121-cifar", "mobilenet-v2"] {
        let model = network(name);
        let image = if name.ends_with("cifar") { [3, 32, 32] } else { [3, 64, 64] };
        for method in ["synflow", "resynflow"] {
            let scores = scores(&model, method, image);
            for (name, scores) in &scores {
                assert!(scores.iter().all(|score| score.is_finite()), "{method}: {name}");
                assert!(scores.iter().any(|&score| score > 0.0), "{method}: {name}");
            }
        }
    }
}

#[test]
fn invalid_requests_are_refused() {
    let mut model = network("lenet-5");
    let image = [1, 28, 28];
    let batches = noise(image);
    let input = Input { batches: &batches, image, device: "cpu", seed: 3 };
    let prune = |model: &mut Model, method: &str, sparsity: f64, input: &Input| {
        let options = PruneOptions { sparsity, allocation: "global".into(), ..PruneOptions::default() };
        at_init::find(method, sparsity).and_then(|m| prune_at_init(model, &m, &options, input, &Quiet)).unwrap_err().to_string()
    };
    let message = prune(&mut model.clone(), "synflow", 0.999_999, &input);
    assert!(message.contains("0 weights for 4 layers"), "{message}");
    let message = prune(&mut model.clone(), "snip:batches=3", 0.5, &input);
    assert!(message.contains("3 batches"), "{message}");
    for method in ["snap", "synflow:rounds=0", "synflow:schedule=cubic", "grasp:temperature=0"] {
        assert!(at_init::find(method, 0.5).is_err(), "{method}");
    }
    model.params.f32_mut("fc2.weight").unwrap().data.fill(f32::MAX);
    for method in ["snip", "grasp", "synflow"] {
        let message = prune(&mut model.clone(), method, 0.5, &input);
        assert!(message.contains("fc2") || message.contains("fc1") || message.contains("gradient"), "{method}: {message}");
    }
}
