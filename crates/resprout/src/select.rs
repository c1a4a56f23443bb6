//! Exact-K selection: keeps exactly the requested number of weights, with the same result on every machine.

use crate::error::{Error, Result};
use crate::model::{Mask, Prunable};
use rayon::prelude::*;
use std::borrow::Cow;

/// The scores of one layer, stored or computed on every use. Stored scores of all layers take twice the memory of the network.
/// Vectors and slices of `f64` are score lists.
pub trait ScoreList: Sync {
    /// The number of scores.
    fn len(&self) -> usize;

    /// Whether there are none.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// All scores, one per weight; the same on every call.
    fn scores(&self) -> Cow<'_, [f64]>;
}

impl<T: AsRef<[f64]> + Sync> ScoreList for T {
    fn len(&self) -> usize {
        self.as_ref().len()
    }

    fn scores(&self) -> Cow<'_, [f64]> {
        Cow::Borrowed(self.as_ref())
    }
}

/// The number of a layer's `size` weights that stay at a sparsity of its own. The number that goes is rounded half to even.
#[doc(hidden)]
pub fn kept_alone(size: usize, sparsity: f64) -> usize {
    size - (sparsity * size as f64).round_ties_even() as usize
}

/// The number of a network's `size` prunable weights that stay at a sparsity. It is rounded half to even.
pub fn kept_of_all(size: usize, sparsity: f64) -> usize {
    ((1.0 - sparsity) * size as f64).round_ties_even() as usize
}

/// The number of each list that stays if the `keep` highest of all scores stay. Among equal scores the first in (list,
/// index) order are pruned first.
pub fn global_counts<S: ScoreList>(lists: &[S], keep: usize) -> Vec<usize> {
    let total: usize = lists.iter().map(S::len).sum();
    let removed = total - keep.min(total);
    let Some(threshold) = threshold(lists, removed) else { return lists.iter().map(S::len).collect() };
    let counts: Vec<[usize; 3]> = lists.par_iter().map(|list| below_equal_above(&list.scores(), threshold)).collect();
    let mut ties = removed - counts.iter().map(|[below, ..]| below).sum::<usize>();
    let kept = |[_, equal, above]: [usize; 3]| {
        let dropped = equal.min(ties);
        ties -= dropped;
        above + equal - dropped
    };
    counts.into_iter().map(kept).collect()
}

/// The mask that keeps the `keep` highest scores. Among equal scores the first are pruned first.
#[doc(hidden)]
pub fn mask(scores: &[f64], keep: usize) -> Mask {
    let removed = scores.len() - keep.min(scores.len());
    let Some(threshold) = threshold(&[scores], removed) else { return Mask(vec![true; scores.len()]) };
    let [below, ..] = below_equal_above(scores, threshold);
    let mut kept: Vec<bool> = scores.iter().map(|score| score.total_cmp(&threshold).is_ge()).collect();
    let equal = (0..scores.len()).filter(|&index| scores[index].total_cmp(&threshold).is_eq());
    equal.take(removed - below).for_each(|index| kept[index] = false);
    Mask(kept)
}

/// The mask that keeps the highest scores, and at least `floor` of every output channel or all that an older mask has left there.
#[doc(hidden)]
pub fn mask_with_floor(layer: &Prunable, scores: &[f64], keep: usize, floor: usize, older: Option<&Mask>) -> Mask {
    if floor == 0 {
        return mask(scores, keep);
    }
    let mut channels: Vec<Vec<usize>> = vec![Vec::new(); layer.channels()];
    let left = (0..scores.len()).filter(|&index| older.is_none_or(|older| older.0[index]));
    left.for_each(|index| channels[layer.channel_of(index)].push(index));
    let mut raised = scores.to_vec();
    for channel in &mut channels {
        // Highest first; among equal scores the last, as elsewhere.
        channel.sort_by(|&a, &b| scores[b].total_cmp(&scores[a]).then(b.cmp(&a)));
        channel.iter().take(floor).for_each(|&index| raised[index] = f64::INFINITY);
    }
    mask(&raised, keep)
}

fn below_equal_above(scores: &[f64], threshold: f64) -> [usize; 3] {
    let below = scores.iter().filter(|score| score.total_cmp(&threshold).is_lt()).count();
    let equal = scores.iter().filter(|score| score.total_cmp(&threshold).is_eq()).count();
    [below, equal, scores.len() - below - equal]
}

/// The number of leading bits that determine the bucket of a score.
const BUCKET_BITS: u32 = 16;

/// The highest of the `removed` lowest scores; `None` if none is removed.
///
/// A radix select: it counts scores by their leading bits, then sorts the bucket of the threshold alone.
fn threshold<S: ScoreList>(lists: &[S], removed: usize) -> Option<f64> {
    let mut last = removed.checked_sub(1)?;
    let sizes = lists.par_iter().map(|list| bucket_sizes(&list.scores())).reduce_with(|mut a, b| {
        a.iter_mut().zip(&b).for_each(|(a, b)| *a += b);
        a
    })?;
    let mut target = 0;
    while last >= sizes[target] {
        last -= sizes[target];
        target += 1;
    }
    let of_bucket = |list: &S| list.scores().iter().copied().filter(|&score| bucket(score) == target).collect::<Vec<f64>>();
    let mut members: Vec<f64> = lists.par_iter().map(of_bucket).collect::<Vec<_>>().concat();
    Some(*members.select_nth_unstable_by(last, f64::total_cmp).1)
}

/// The bucket of a score. Buckets ascend in the order of `total_cmp`.
fn bucket(score: f64) -> usize {
    let bits = score.to_bits();
    let ordered = if bits >> 63 == 0 { bits | 1 << 63 } else { !bits };
    (ordered >> (64 - BUCKET_BITS)) as usize
}

fn bucket_sizes(scores: &[f64]) -> Vec<usize> {
    let mut sizes = vec![0; 1 << BUCKET_BITS];
    scores.iter().for_each(|&score| sizes[bucket(score)] += 1);
    sizes
}

/// Raises every count to its floor, and lowers the others in proportion to their excess over their own floor. The sum stays.
///
/// # Errors
/// Of kind `Option` if the floors need more than the sum.
#[doc(hidden)]
pub fn apply_floors(counts: &[usize], floors: &[usize]) -> Result<Vec<usize>> {
    let total: usize = counts.iter().sum();
    let needed: usize = floors.iter().sum();
    if needed > total {
        return Err(Error::option(format!("the floors need {needed} weights, the sparsity leaves {total}")));
    }
    let raised: Vec<usize> = counts.iter().zip(floors).map(|(&count, &floor)| count.max(floor)).collect();
    let excess = raised.iter().sum::<usize>() - total;
    let slack: Vec<f64> = raised.iter().zip(floors).map(|(&count, &floor)| (count - floor) as f64).collect();
    let all_slack: f64 = slack.iter().sum();
    if excess == 0 {
        return Ok(raised);
    }
    let shares: Vec<f64> = slack.iter().map(|slack| slack * excess as f64 / all_slack).collect();
    let less = largest_remainder(&shares, excess);
    Ok(raised.iter().zip(less).map(|(count, less)| count - less).collect())
}

/// Lowers every count to its cap, and raises the others in proportion to their distance from their own cap. The sum stays as
/// far as the caps allow.
#[doc(hidden)]
pub fn apply_caps(counts: &[usize], caps: &[usize]) -> Vec<usize> {
    let lowered: Vec<usize> = counts.iter().zip(caps).map(|(&count, &cap)| count.min(cap)).collect();
    let slack: Vec<usize> = lowered.iter().zip(caps).map(|(count, cap)| cap - count).collect();
    let all_slack: usize = slack.iter().sum();
    let excess = (counts.iter().sum::<usize>() - lowered.iter().sum::<usize>()).min(all_slack);
    if excess == 0 {
        return lowered;
    }
    let shares: Vec<f64> = slack.iter().map(|&slack| slack as f64 * excess as f64 / all_slack as f64).collect();
    let more = largest_remainder(&shares, excess);
    // Rounding up may exceed a cap by one.
    let mut raised: Vec<usize> =
        lowered.iter().zip(more).zip(caps).map(|((count, more), &cap)| (count + more).min(cap)).collect();
    let mut short = excess + lowered.iter().sum::<usize>() - raised.iter().sum::<usize>();
    for (count, cap) in raised.iter_mut().zip(caps) {
        let more = (cap - *count).min(short);
        *count += more;
        short -= more;
    }
    raised
}

/// Rounds shares to integers of the given sum: all down first, then the largest remainders up.
pub fn largest_remainder(shares: &[f64], total: usize) -> Vec<usize> {
    let mut rounded: Vec<usize> = shares.iter().map(|share| share.floor() as usize).collect();
    let missing = total.saturating_sub(rounded.iter().sum());
    let mut order: Vec<usize> = (0..shares.len()).collect();
    let remainder = |i: usize| shares[i] - shares[i].floor();
    order.sort_by(|&a, &b| remainder(b).total_cmp(&remainder(a)));
    order.into_iter().take(missing).for_each(|i| rounded[i] += 1);
    rounded
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn ties_go_by_layer_then_index() {
        assert_eq!(global_counts(&[vec![1.0, 1.0], vec![1.0, 2.0]], 2), [0, 2]);
        assert_eq!(mask(&[1.0, 2.0, 1.0, 1.0], 2), Mask(vec![false, true, false, true]));
        assert_eq!(mask(&[0.0; 3], 0).kept(), 0);
        assert_eq!(mask(&[0.0; 3], 3).kept(), 3);
    }

    #[test]
    fn floors_keep_the_sum() {
        assert_eq!(apply_floors(&[0, 10, 20], &[3, 1, 1]).unwrap(), [3, 9, 18]);
        assert!(apply_floors(&[1, 1], &[2, 1]).is_err());
    }

    #[test]
    fn channel_floor_keeps_the_best_of_each_channel() {
        let layer = Prunable { param: "w".into(), layer: "l".into(), shape: vec![2, 2], out_axis: 0 };
        assert_eq!(mask_with_floor(&layer, &[9.0, 8.0, 1.0, 2.0], 2, 1, None), Mask(vec![true, false, false, true]));
        let transposed = Prunable { out_axis: 1, ..layer };
        assert_eq!(mask_with_floor(&transposed, &[9.0, 1.0, 8.0, 2.0], 2, 1, None), Mask(vec![true, false, false, true]));
    }

    proptest! {
        #[test]
        fn the_threshold_is_that_of_a_full_sort(scores in prop::collection::vec(-4.0f64..4.0, 1..200), share in 0.0f64..1.0) {
            let removed = (share * scores.len() as f64) as usize + 1;
            let mut sorted = scores.clone();
            sorted.sort_by(f64::total_cmp);
            prop_assert_eq!(threshold(&[&scores[..scores.len() / 2], &scores[scores.len() / 2..]], removed), Some(sorted[removed - 1]));
        }

        #[test]
        fn counts_are_exact_and_agree_with_a_full_sort(
            lists in prop::collection::vec(prop::collection::vec(0u8..6, 1..20), 1..5), share in 0.0f64..1.0,
        ) {
            let lists: Vec<Vec<f64>> = lists.into_iter().map(|l| l.into_iter().map(f64::from).collect()).collect();
            let total: usize = lists.iter().map(Vec::len).sum();
            let keep = (share * total as f64) as usize;
            let mut order: Vec<(usize, usize)> = (0..lists.len()).flat_map(|l| (0..lists[l].len()).map(move |i| (l, i))).collect();
            order.sort_by(|a, b| lists[a.0][a.1].total_cmp(&lists[b.0][b.1]));
            let mut expected = vec![0; lists.len()];
            order[total - keep..].iter().for_each(|(l, _)| expected[*l] += 1);
            prop_assert_eq!(global_counts(&lists, keep), expected);
        }

        #[test]
        fn caps_hold_for_any_counts(pairs in prop::collection::vec((0usize..50, 0usize..50), 1..8)) {
            let (counts, caps): (Vec<usize>, Vec<usize>) = pairs.into_iter().unzip();
            let out = apply_caps(&counts, &caps);
            let (total, most) = (counts.iter().sum::<usize>(), caps.iter().sum::<usize>());
            prop_assert_eq!(out.iter().sum::<usize>(), total.min(most));
            prop_assert!(out.iter().zip(&caps).all(|(out, cap)| out <= cap));
            if counts.iter().zip(&caps).all(|(count, cap)| count <= cap) {
                prop_assert_eq!(out, counts);
            }
        }

        #[test]
        fn floors_hold_for_any_counts(pairs in prop::collection::vec((0usize..50, 0usize..10), 1..8)) {
            let (counts, floors): (Vec<usize>, Vec<usize>) = pairs.into_iter().unzip();
            if let Ok(out) = apply_floors(&counts, &floors) {
                prop_assert_eq!(out.iter().sum::<usize>(), counts.iter().sum::<usize>());
                prop_assert!(out.iter().zip(&floors).all(|(o, f)| o >= f));
            }
        }
    }
}
