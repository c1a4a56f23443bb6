//! Pruning at initialisation: what must hold of the scores and masks of every method.

use resprout::architectures::{Shape, build};
use resprout::model::{Model, Prunable, PrunableRule};
use resprout::progress::Quiet;
use resprout::prune::PruneOptions;
use resprout::random::SplitMix64;
use resprout::tensor::Tensor;
use resprout_train::at_init::{self, AT_INIT, Batch, Input, Scores, prune_at_init};

fn network(name: &str) -> Model {
    build(name, &Shape { classes: None, image: None }, "kaiming-in", 1).unwrap()
}

fn layers(model: &Model) -> Vec<Prunable> {
    model.prunable(&PrunableRule::default()).unwrap().0
}

/// Two batches of eight images of noise.
fn noise(image: [usize; 3]) -> Vec<Batch> {
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

fn kept(model: &Model) -> Vec<usize> {
    layers(model).iter().map(|layer| model.masks.get(&layer.param).map_or(layer.len(), |mask| mask.kept())).collect()
}

#[test]
fn every_method_keeps_exactly_what_it_is_asked_to() {
    for (name, image) in [("lenet-5", [1, 28, 28]), ("resnet-20", [3, 32, 32])] {
        let model = network(name);
        let total: usize = layers(&model).iter().map(Prunable::len).sum();
        for entry in AT_INIT {
            let method = if entry.name == "synflow" { "synflow:rounds=20" } else { entry.name };
            let done = pruned(&model, method, 0.95, image);
            let wanted = (0.05 * total as f64).round_ties_even() as usize;
            assert_eq!(kept(&done).iter().sum::<usize>(), wanted, "{name}: {method}");
            for layer in layers(&done) {
                let (weights, mask) = (&done.weight(&layer.param).unwrap().data, done.masks.get(&layer.param).unwrap());
                assert!(weights.iter().zip(&mask.0).all(|(w, &kept)| kept || w.to_bits() == 0), "{name}: {method}");
                // Signs are those of before, whatever was done to the sizes.
                let before = &model.weight(&layer.param).unwrap().data;
                assert!(weights.iter().zip(before).all(|(now, was)| now * was >= 0.0), "{name}: {method}");
            }
            assert_eq!(kept(&done), kept(&pruned(&model, method, 0.95, image)), "{name}: {method} twice");
        }
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
    assert!(smallest("synflow:rounds=40") > 0);
    assert_eq!(smallest("magnitude"), 0);
    assert_eq!(smallest("snip"), 0);
}

#[test]
fn on_a_chain_resynflow_prunes_as_synflow_does() {
    let model = network("vgg-16-bn-cifar");
    let image = [3, 32, 32];
    let one = pruned(&model, "synflow:rounds=5:schedule=linear", 0.9, image);
    let other = pruned(&model, "resynflow:rounds=5:schedule=linear", 0.9, image);
    let (mut same, mut all) = (0, 0);
    for layer in layers(&model) {
        let (a, b) = (one.masks.get(&layer.param).unwrap(), other.masks.get(&layer.param).unwrap());
        same += a.0.iter().zip(&b.0).filter(|(a, b)| a == b).count();
        all += layer.len();
    }
    // Equal in exact arithmetic; scores are f32, and neighbours in rank may change places.
    assert!(same as f64 >= 0.9999 * all as f64, "{same} of {all}");
}

#[test]
fn scores_of_deep_networks_are_finite_and_not_all_zero() {
    for name in ["resnet-50-cifar", "densenet-121-cifar", "mobilenet-v2"] {
        let model = network(name);
        let image = if name == "mobilenet-v2" { [3, 64, 64] } else { [3, 32, 32] };
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
fn what_cannot_be_is_refused() {
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
