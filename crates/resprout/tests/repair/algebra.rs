//! The algebra of repairs: what recalibration cancels, the limits of shrinkage, and least squares against a reference.

use crate::{
    difference, digits, images, normed, outputs, pictures, plain, pruned, relative_error, repair, repaired, same_weights,
};
use resprout::calibrate::NormParams;
use resprout::formats::{onnx, safetensors};
use resprout::model::Model;
use resprout::ops::Op;
use resprout::random::SplitMix64;

/// In f64: with exact statistics and epsilon 0, a gain before a BatchNormalization changes nothing. With an epsilon, the
/// change stays within the theorem's bound.
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

/// On a network: gains that are powers of two are exact in f32, so the outputs are the same to the bit.
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

/// The digits network with small weights and the same outputs: the variance before each BatchNormalization is near epsilon.
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

/// Gains before a recalibrated BatchNormalization act through epsilon alone.
#[test]
fn gains_matter_only_where_variances_are_small() {
    let images = images(200);
    let (normal, small) = (digits(), small_weights());
    assert!(difference(&outputs(&small, &images), &outputs(&normal, &images)) < 1e-3, "the same network");
    let effect = |dense: &Model| {
        let (mut with, without) = (repaired(dense, 0.8, "channelwise,bn", &images), repaired(dense, 0.8, "bn", &images));
        // No BatchNormalization cancels the gains of the classifier.
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
fn shrinkage_ends_in_layerwise_and_channelwise_matching() {
    for (dense, images) in [(digits(), images(100)), (plain(), pictures(100))] {
        for (asr, plain) in [("asr:rule=0:toward=layer", "layerwise"), ("asr:rule=1", "channelwise")] {
            for more in ["", ":shift=yes", ":shift=no", ":clamp=1.2"] {
                let (a, b) = (format!("{asr}{more}"), format!("{plain}{more}"));
                assert!(same_weights(&repaired(&dense, 0.7, &a, &images), &repaired(&dense, 0.7, &b, &images)), "{a} is not {b}");
            }
        }
        // Without pruning there is nothing to match.
        for repair in ["asr", "asr:rule=ratio", "asr:rule=0.5:toward=mean", "layerwise", "channelwise"] {
            assert!(same_weights(&repaired(&dense, 0.0, &format!("{repair}:shift=no"), &images), &dense), "{repair}");
        }
    }
}

/// Least squares against a reference implementation: Gaussian elimination of the first layer's normal equations.
#[test]
fn least_squares_equals_a_reference_solution() {
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
            // Products and storage are in f32.
            assert!((got - solution[u]).abs() < 1e-4, "channel {channel} weight {k}: {got} {}", solution[u]);
        }
        let shifted = f64::from(dense.weight(&norm[2]).unwrap().data[channel]) - solution[unknown - 1];
        assert!((f64::from(model.weight(&norm[2]).unwrap().data[channel]) - shifted).abs() < 1e-4, "channel {channel}");
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

/// Without BatchNormalization weights and biases take the repair, and the written file has the new biases.
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
