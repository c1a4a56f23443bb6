//! Calibration images, the cache of the dense network, and limits on time and memory.

use crate::{all_repairs, digits, images, normed, pictures, plain, pruned, relative_error, repair, same_weights};
use resprout::calibrate::{ActivationCache, Dense, FAR, checkup, norm_distance};
use resprout::data::{Preprocess, gaussian};
use resprout::model::Model;
use resprout::progress::Quiet;
use resprout::repair::{Chain, RepairOptions, RepairOutcome};
use resprout::tensor::Tensor;

#[test]
fn a_cache_of_the_dense_network_changes_nothing() {
    let (all, fewer, others) = (images(96), images(32), images(128).pick(&(64..128).collect::<Vec<_>>()));
    for (dense, sets) in [
        (digits(), [all, fewer, others]),
        (plain(), [pictures(96), pictures(32), pictures(200).pick(&(110..200).collect::<Vec<_>>())]),
    ] {
        let cache = ActivationCache::new(&dense, &sets[0], usize::MAX, &Quiet).unwrap();
        let cached = Dense::cached(&dense, &cache);
        assert!(cache.is_some() && ActivationCache::new(&dense, &sets[0], 100_000, &Quiet).unwrap().is_none());
        for text in all_repairs() {
            for images in &sets {
                let (mut with, mut without) = (pruned(&dense, 0.8), pruned(&dense, 0.8));
                let outcome = Chain::parse(&text).unwrap().repair(&mut with, cached, images, &RepairOptions::default(), &Quiet);
                let plain = repair(&mut without, &dense, &text, images);
                let untimed = |outcome: RepairOutcome| RepairOutcome { expected_seconds: 0.0, seconds: 0.0, ..outcome };
                assert_eq!(untimed(outcome.unwrap()), untimed(plain.unwrap()), "{text}");
                assert!(same_weights(&with, &without), "{text}, {} images", images.shape[0]);
            }
        }
    }
}

#[test]
fn the_check_up_finds_bad_images() {
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

/// Running statistics tell images of the network's own kind from noise, and from a wrong preprocessing.
#[test]
fn the_check_up_sees_images_of_another_kind() {
    let (dense, good) = (digits(), images(128));
    let distance = |images: &Tensor| norm_distance(&dense, images, &Quiet).unwrap().unwrap();
    let found = checkup(&dense, &good, usize::MAX, &Quiet).unwrap();
    assert_eq!(found.distance, Some(distance(&good)));
    assert!(distance(&good) < FAR && found.warnings().iter().all(|warning| !warning.contains("far from")));
    let mut brighter = good.clone();
    brighter.data.iter_mut().for_each(|value| *value = 2.0 * *value + 1.0);
    let noise = gaussian(64, [1, 8, 8], &Preprocess::preset("raw").unwrap(), 3);
    for far in [&brighter, &noise] {
        assert!(distance(far) > FAR, "{}", distance(far));
    }
    assert_eq!(norm_distance(&plain(), &pictures(8), &Quiet).unwrap(), None);
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
    assert!(message(&images(4), &RepairOptions { memory: 1000, ..RepairOptions::default() }).contains("memory"));
    // Fewer images are used, with a warning.
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

/// A large limit acts as none, and a tiny limit allows statistics only.
#[test]
fn a_time_limit_leaves_layers_to_statistics() {
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
    assert!(outcome.warnings.iter().any(|warning| warning.contains("seconds")), "{:?}", outcome.warnings);
    let weights = |model: &Model| normed(model).iter().map(|(name, _)| model.weight(name).unwrap().clone()).collect::<Vec<_>>();
    assert_eq!(weights(&least), weights(&pruned(&dense, 0.8)), "weights of convolutions stay");
    let error = |model: &Model| relative_error(model, &dense, &images);
    assert!(error(&unlimited) < error(&least) && error(&least) < error(&pruned(&dense, 0.8)));
}
