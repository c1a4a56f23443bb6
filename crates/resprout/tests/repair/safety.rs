//! Invariants of every repair, alone and in chains.

use crate::{all_repairs, check_masks, digits, images, normed, outputs, pictures, plain, pruned, repair};
use proptest::prelude::*;
use resprout::ErrorKind;
use resprout::ops::Op;
use resprout::progress::Quiet;
use resprout::prune::{PruneOptions, prune};
use resprout::repair::Chain;
use resprout::tensor::Tensor;

/// Every repair, alone and in chains, on masks with dead channels and dead layers.
#[test]
fn every_repair_is_safe_with_dead_channels() {
    // A channel that is dead in the dense network.
    let mut dead = digits();
    dead.params.f32_mut(&normed(&digits())[1].0).unwrap().data[..144].fill(0.0);
    for (dense, images) in [(digits(), images(60)), (dead, images(60)), (plain(), pictures(60))] {
        for text in all_repairs() {
            let mut model = pruned(&dense, 0.6);
            let (layers, _) = model.prunable(&Default::default()).unwrap();
            // The masks empty two output channels of the first layer, and the whole second layer.
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

#[test]
fn shared_parameters_do_not_change() {
    let mut dense = digits();
    let norms: Vec<usize> =
        (0..dense.graph.layers.len()).filter(|&i| matches!(dense.graph.layers[i].op, Op::BatchNorm { .. })).collect();
    let shared = dense.graph.layers[norms[0]].inputs[3].clone();
    dense.graph.layers[norms[1]].inputs[3] = shared.clone();
    let error = repair(&mut pruned(&dense, 0.5), &dense, "bn", &images(20)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    assert!(error.to_string().contains(&dense.graph.layers[norms[0]].name) && error.to_string().contains(&shared), "{error}");
    // Two layers share their weights: both stay, the others are repaired.
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
        ("bn,", "repair \"\" is not known"),
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
