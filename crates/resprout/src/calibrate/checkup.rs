//! Checks the calibration images: their quality, and whether there are enough of them.

use super::needs::{Needs, bytes_per_image};
use super::site::{NormSite, WeightSite};
use super::stats::ChannelStats;
use super::visitor::Visitor;
use super::walk::walk;
use crate::error::Result;
use crate::model::Model;
use crate::progress::Progress;
use crate::tensor::Tensor;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::collections::HashSet;
use std::sync::Mutex;

/// The result of [`checkup()`].
#[doc(hidden)]
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Checkup {
    /// The number of images.
    pub images: usize,
    /// Images equal to an earlier one.
    pub duplicates: usize,
    /// Images of one colour.
    pub constant: usize,
    /// Images whose neighbouring pixels are uncorrelated.
    pub noise_like: usize,
    /// For 16, 32, 64, ... images: the change of the dense network's statistics with twice as many. It is the mean over all
    /// channels of all layers with weights, in standard deviations.
    pub curve: Vec<(usize, f64)>,
    /// The least number of images on the curve whose change is at most [`SETTLED`].
    pub settled: Option<usize>,
    /// How far the images are from those that the network was trained on, by its BatchNormalizations: the mean over all channels
    /// of `|mean - running mean| / s + |deviation / s - 1|`, with `s` the running deviation. `None` without any.
    #[serde(default)]
    pub distance: Option<f64>,
}

/// The largest change of settled statistics with twice the images, in standard deviations.
pub const SETTLED: f64 = 0.05;

/// The largest [`Checkup::distance`] of images that look like those that the network was trained on. On three networks it is 0.15
/// to 0.19 for such images, 0.2 to 0.3 for other photographs in the same format, and above 0.3 for images of one class, in grey,
/// too dark, of another size or with a wrong preprocessing.
#[doc(hidden)]
pub const FAR: f64 = 0.3;

/// Images with a lower correlation of neighbours are noise-like.
const NOISE: f64 = 0.1;

/// The least number of images on the curve: one chunk.
const FIRST: usize = 16;

/// Checks preprocessed `images: [N, C, H, W]`, and the dense network on as many of them as fit into `memory` bytes.
///
/// # Errors
/// Of kind `Data` or `Unsupported` for images or a network that cannot be run, and `Interrupted`.
///
/// # Panics
/// If there are no images.
#[doc(hidden)]
pub fn checkup(dense: &Model, images: &Tensor, memory: usize, progress: &dyn Progress) -> Result<Checkup> {
    let (count, shape) = (images.shape[0], &images.shape[1..]);
    let each: usize = shape.iter().product();
    let pixels = || images.data.chunks_exact(each.max(1));
    let mut seen = HashSet::new();
    let mut hash = |image: &[f32]| {
        let mut sha = Sha256::new();
        image.iter().for_each(|v| sha.update(v.to_le_bytes()));
        !seen.insert(sha.finalize())
    };
    let layout = dense.graph.image_layout();
    let [channels, height, width] = match *shape {
        [a, b, c] => layout.channels_first([a, b, c]),
        _ => [shape[0], shape.get(1).copied().unwrap_or(1), shape.last().copied().unwrap_or(1)],
    };
    let constant = |image: &[f32]| image.chunks_exact((each / channels).max(1)).all(|plane| plane.iter().all(|v| *v == plane[0]));
    let quality = |image: &[f32]| {
        let planes = layout.planes(image, channels);
        (constant(&planes), neighbour_correlation(&planes, width, height) < NOISE)
    };
    let qualities: Vec<(bool, bool)> = pixels().map(quality).collect();
    let fit = (memory / bytes_per_image(dense, shape, &Needs::default())?.max(1)).clamp(1, count);
    let (curve, distance) = curve(dense, &images.first(fit), progress)?;
    Ok(Checkup {
        images: count,
        duplicates: pixels().filter(|image| hash(image)).count(),
        constant: qualities.iter().filter(|(constant, _)| *constant).count(),
        noise_like: qualities.iter().filter(|(constant, noise)| !constant && *noise).count(),
        settled: curve.iter().find(|(_, change)| *change <= SETTLED).map(|(count, _)| *count),
        curve,
        distance,
    })
}

impl Checkup {
    /// Warnings for the user.
    pub fn warnings(&self) -> Vec<String> {
        let share =
            |count: usize, what: &str| (count > 0).then(|| format!("calibration: {count} of {} images {what}", self.images));
        let unsettled = match (self.settled, self.curve.last()) {
            (None, Some((count, change))) => Some(format!(
                "calibration: the network's statistics still change by {change:.3} standard deviations from {count} to {} images; \
                 more images would help",
                2 * count
            )),
            (None, None) => Some(format!("calibration: {} images are too few to see whether statistics settle", self.images)),
            _ => None,
        };
        [
            share(self.duplicates, "are equal to an earlier one"),
            share(self.constant, "are of one colour"),
            share(self.noise_like, "look like noise"),
            self.distance.filter(|distance| *distance > FAR).map(|distance| {
                format!(
                    "calibration: the images are far from those that the network was trained on: statistics in front of its \
                     BatchNormalizations differ from the running ones by {distance:.2}, and {FAR} is much; check --preset, and \
                     whether these are images of the network's task"
                )
            }),
            unsettled,
        ]
        .into_iter()
        .flatten()
        .collect()
    }
}

/// The correlation of pixels with their right or lower neighbours over all channels, whichever is higher.
fn neighbour_correlation(image: &[f32], width: usize, height: usize) -> f64 {
    let rows = || image.chunks_exact(width.max(1));
    let right = || rows().flat_map(|row| row.iter().zip(&row[1..]));
    // The last row of a channel is paired with the first of the next channel. It is one pair among many.
    let below = || rows().zip(rows().skip(1)).flat_map(|(row, next)| row.iter().zip(next));
    match (width > 1, height > 1) {
        (true, true) => correlation(right).max(correlation(below)),
        (false, _) => correlation(below),
        _ => correlation(right),
    }
}

fn correlation<'p, I: Iterator<Item = (&'p f32, &'p f32)>>(pairs: impl Fn() -> I) -> f64 {
    let pairs = || pairs().map(|(&x, &y)| (f64::from(x), f64::from(y)));
    let count = pairs().count().max(1) as f64;
    let (a, b) = pairs().fold((0.0, 0.0), |(a, b), (x, y)| (a + x / count, b + y / count));
    let (mut cov, mut var_a, mut var_b) = (0.0, 0.0, 0.0);
    for (x, y) in pairs() {
        cov += (x - a) * (y - b);
        var_a += (x - a) * (x - a);
        var_b += (y - b) * (y - b);
    }
    let norm = (var_a * var_b).sqrt();
    // An image without variance is not noise.
    if norm > 0.0 { cov / norm } else { 1.0 }
}

/// Numbers of images, and the change of statistics with twice as many.
type Curve = Vec<(usize, f64)>;

/// The curve, and the distance from running statistics.
fn curve(dense: &Model, images: &Tensor, progress: &dyn Progress) -> Result<(Curve, Option<f64>)> {
    let counts: Vec<usize> =
        std::iter::successors(Some(FIRST), |count| Some(count * 2)).take_while(|&c| c <= images.shape[0]).collect();
    let (watcher, running) = (Watcher { counts: counts.clone(), changes: Mutex::default() }, Running::default());
    walk(&mut dense.clone(), dense, images, &[&watcher, &running], "look at the images", progress)?;
    let changes = watcher.changes.into_inner().unwrap_or_default();
    let mean = |i: usize| {
        let (sum, channels) = changes.iter().fold((0.0, 0.0), |(sum, n), layer| (sum + layer[i].0, n + layer[i].1));
        sum / f64::max(channels, 1.0)
    };
    Ok(((0..counts.len().saturating_sub(1)).map(|i| (counts[i], mean(i))).collect(), running.distance()))
}

/// How far the images are from those that the network was trained on: see [`Checkup::distance`].
#[doc(hidden)]
pub fn norm_distance(dense: &Model, images: &Tensor, progress: &dyn Progress) -> Result<Option<f64>> {
    let running = Running::default();
    walk(&mut dense.clone(), dense, images, &[&running], "look at the images", progress)?;
    Ok(running.distance())
}

/// Sums the distances of channels from running statistics, and counts them.
#[derive(Default)]
struct Running(Mutex<(f64, f64)>);

impl Running {
    fn distance(self) -> Option<f64> {
        let (sum, channels) = self.0.into_inner().unwrap_or_default();
        (channels > 0.0).then(|| sum / channels)
    }
}

impl Visitor for Running {
    fn needs(&self) -> Needs {
        Needs { images: true, ..Needs::default() }
    }

    fn norm(&self, site: &mut NormSite) -> Result<()> {
        let (stats, params) = (site.stats(), &site.params);
        let channel = |c: usize| {
            let s = (params.var[c] + params.epsilon).sqrt();
            (stats.mean[c] - params.mean[c]).abs() / s + ((stats.var[c] + params.epsilon).sqrt() / s - 1.0).abs()
        };
        if let Ok(mut found) = self.0.lock() {
            found.0 += (0..params.channels()).map(channel).sum::<f64>();
            found.1 += params.channels() as f64;
        }
        Ok(())
    }
}

/// Collects the summed change and the number of channels, per layer and per doubling of the images.
struct Watcher {
    counts: Vec<usize>,
    changes: Mutex<Vec<Vec<(f64, f64)>>>,
}

impl Visitor for Watcher {
    fn needs(&self) -> Needs {
        Needs { images: true, weights: true, ..Needs::default() }
    }

    fn weights(&self, site: &mut WeightSite) -> Result<()> {
        let stats = site.stats_of_first(&self.counts)?;
        let change = |pair: &[ChannelStats]| {
            let (fewer, more) = (&pair[0], &pair[1]);
            let live = (0..more.var.len()).filter(|&c| more.var[c] > 0.0);
            live.fold((0.0, 0.0), |(sum, n), c| {
                let sd = more.var[c].sqrt();
                let change = (fewer.mean[c] - more.mean[c]).abs() + (fewer.var[c].sqrt() - sd).abs();
                (sum + change / sd, n + 1.0)
            })
        };
        if let Ok(mut all) = self.changes.lock() {
            all.push(stats.windows(2).map(change).collect());
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neighbours_are_correlated_in_pictures_and_not_in_noise() {
        let ramp: Vec<f32> = (0..64).map(|i| (i % 8) as f32).collect();
        assert!(neighbour_correlation(&ramp, 8, 8) > 0.99);
        let mut random = crate::random::SplitMix64::new(1, 0);
        let noise: Vec<f32> = (0..4096).map(|_| random.next_f64() as f32).collect();
        assert!(neighbour_correlation(&noise, 64, 64).abs() < NOISE);
        assert_eq!(neighbour_correlation(&[1.0; 16], 4, 4), 1.0);
    }
}
