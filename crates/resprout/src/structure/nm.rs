//! n:m: of every m neighbours along the input channels, n weights stay.

use super::Pattern;
use crate::error::{Error, Result};
use crate::model::{LeftDense, Mask, Prunable};

/// The number of input channels, and the distance of neighbours along their axis.
fn inputs(layer: &Prunable) -> (usize, usize) {
    let axis = 1 - layer.out_axis;
    (layer.shape[axis], layer.shape[axis + 1..].iter().product())
}

/// Keeps the layers whose input channels are a multiple of `m`; the others are added to `left_dense`.
///
/// # Errors
/// Of kind `Option` if there is no such layer.
pub fn divisible(layers: Vec<Prunable>, m: usize, left_dense: &mut Vec<LeftDense>) -> Result<Vec<Prunable>> {
    let (fit, rest): (Vec<Prunable>, Vec<Prunable>) = layers.into_iter().partition(|layer| inputs(layer).0.is_multiple_of(m));
    left_dense.extend(rest.into_iter().map(|layer| LeftDense {
        reason: format!("{} input channels are no multiple of {m}", inputs(&layer).0),
        weights: layer.len(),
        layer: layer.layer,
        param: layer.param,
    }));
    if fit.is_empty() {
        return Err(Error::option(format!("pattern: no layer has input channels in a multiple of {m}")));
    }
    Ok(fit)
}

/// The number of `m` weights that each layer keeps, from one to all. `counts` are those of the allocation.
pub fn kept_of_group(pattern: Pattern, sparsity: f64, layers: &[Prunable], counts: &[usize]) -> Vec<usize> {
    match pattern {
        // Earlier steps of a stepwise pruning have a larger n.
        Pattern::Nm { n, m } => vec![n.max(((1.0 - sparsity) * m as f64 - 1e-9).ceil() as usize).min(m); layers.len()],
        // Sparsity 0 prunes nothing, whatever earlier masks have left.
        Pattern::Mixed { m } if sparsity == 0.0 => vec![m; layers.len()],
        Pattern::Mixed { m } => {
            let steps: Vec<f64> = layers.iter().map(|layer| layer.len() as f64 / m as f64).collect();
            let shares: Vec<f64> =
                counts.iter().zip(&steps).map(|(&count, step)| (count as f64 / step).clamp(1.0, m as f64)).collect();
            round_to_budget(&shares, &steps, counts.iter().sum::<usize>() as f64, m)
        }
        _ => Vec::new(),
    }
}

/// Rounds shares to integers from 1 to `m` within the budget: all down first, then up where rounding removed most. If layers that
/// cannot go below 1 exceed the budget, the densest layers give way.
fn round_to_budget(shares: &[f64], costs: &[f64], budget: f64, m: usize) -> Vec<usize> {
    let mut rounded: Vec<usize> = shares.iter().map(|share| share.floor() as usize).collect();
    let mut order: Vec<usize> = (0..shares.len()).collect();
    let remainder = |i: usize| shares[i] - shares[i].floor();
    order.sort_by(|&a, &b| remainder(b).total_cmp(&remainder(a)));
    let mut spent: f64 = rounded.iter().zip(costs).map(|(&n, cost)| n as f64 * cost).sum();
    while spent > budget
        && let Some(i) = (0..rounded.len()).filter(|&i| rounded[i] > 1).max_by_key(|&i| (rounded[i], i))
    {
        rounded[i] -= 1;
        spent -= costs[i];
    }
    for i in order {
        if rounded[i] < m && spent + costs[i] <= budget {
            rounded[i] += 1;
            spent += costs[i];
        }
    }
    rounded
}

/// The mask that keeps the `n` highest scores of every group of `m`. Among equal scores the first are pruned first.
///
/// # Panics
/// Where input channels are no multiple of `m`.
pub fn mask(layer: &Prunable, scores: &[f64], n: usize, m: usize) -> Mask {
    let (channels, distance) = inputs(layer);
    let mut kept = vec![false; scores.len()];
    let mut order = Vec::with_capacity(m);
    for outer in (0..scores.len()).step_by(channels * distance) {
        for first in (0..channels).step_by(m) {
            for inner in 0..distance {
                order.clear();
                order.extend((first..first + m).map(|channel| outer + channel * distance + inner));
                order.sort_by(|&a, &b| scores[b].total_cmp(&scores[a]).then(b.cmp(&a)));
                order[..n].iter().for_each(|&index| kept[index] = true);
            }
        }
    }
    Mask(kept)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layer(shape: &[usize], out_axis: usize) -> Prunable {
        Prunable { param: "w".into(), layer: "l".into(), shape: shape.to_vec(), out_axis }
    }

    #[test]
    fn groups_lie_along_the_input_channels() {
        // [2 outputs, 4 inputs, 1, 2]: a group is every second weight.
        let scores: Vec<f64> = (0..16).map(f64::from).collect();
        let kept = mask(&layer(&[2, 4, 1, 2], 0), &scores, 1, 2);
        let expected: Vec<bool> = (0..16).map(|i| i / 2 % 2 == 1).collect();
        assert_eq!(kept.0, expected);
        // [4 inputs, 2 outputs]: along the first axis.
        assert_eq!(
            mask(&layer(&[4, 2], 1), &[9., 0., 1., 5., 2., 4., 3., 8.], 1, 4).0,
            [true, false, false, false, false, false, false, true]
        );
        // Among equal scores the first go first.
        assert_eq!(mask(&layer(&[1, 4], 0), &[1.0; 4], 2, 4).0, [false, false, true, true]);
    }

    #[test]
    fn mixed_numbers_stay_within_the_budget() {
        let layers = [layer(&[8, 8], 0), layer(&[4, 8], 0), layer(&[1, 8], 0)];
        for (counts, sparsity) in [([10, 20, 8], 0.6), ([1, 1, 1], 0.97), ([64, 32, 8], 0.0)] {
            let kept = kept_of_group(Pattern::Mixed { m: 4 }, sparsity, &layers, &counts);
            assert!(kept.iter().all(|n| (1..=4).contains(n)), "{kept:?}");
            let weights: usize = layers.iter().zip(&kept).map(|(layer, n)| layer.len() * n / 4).sum();
            let floor: usize = layers.iter().map(|layer| layer.len() / 4).sum();
            assert!(weights <= counts.iter().sum::<usize>().max(floor), "{kept:?} of {counts:?}");
        }
        let pattern = Pattern::Nm { n: 1, m: 4 };
        assert_eq!(kept_of_group(pattern, 0.5, &layers[..1], &[]), [2]);
        assert_eq!(kept_of_group(pattern, 0.75, &layers[..1], &[]), [1]);
        assert_eq!(kept_of_group(pattern, 0.9, &layers[..1], &[]), [1]);
    }
}
