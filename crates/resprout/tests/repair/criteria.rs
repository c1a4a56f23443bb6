//! Criteria that score with images.

use crate::{pictures, plain};
use resprout::forward::{Network, PlanOptions};
use resprout::model::PrunableRule;
use resprout::progress::Quiet;
use resprout::prune::{PruneOptions, prune};

/// The inputs are the activations' outputs, even where a plan fuses layer and activation.
#[test]
fn wanda_scores_by_the_inputs() {
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

/// Of two equal inputs one can replace the other, so their weights go first.
#[test]
fn obs_knows_what_other_weights_can_compensate() {
    let mut model = plain();
    model.params.f32_mut("conv.weight").unwrap().data.fill(1.0);
    let mut images = pictures(200);
    for image in images.data.chunks_exact_mut(3 * 64) {
        image.copy_within(..64, 64);
    }
    let ignore = vec!["re:grouped|gemm|matmul".to_string()];
    let rule = PrunableRule { ignore, include_grouped: false };
    let options =
        PruneOptions { sparsity: 0.3, criterion: "obs".into(), allocation: "global".into(), rule, ..PruneOptions::default() };
    prune(&mut model, &options, &images, &Quiet).unwrap();
    for row in model.masks.get("conv.weight").unwrap().0.chunks_exact(27) {
        assert!(row[18..].iter().all(|&kept| kept), "the third colour has no equal: {row:?}");
    }
}
