//! Evaluation: the accuracy where labels exist, and the distance from the dense network.

use crate::data::{ImageSet, Preprocess};
use crate::error::{Error, Result};
use crate::forward::{Network, Plan};
use crate::hash::hex;
pub use crate::hash::{files_sha256, images_sha256, sha256};
use crate::model::Layout;
use crate::progress::Progress;
use crate::tensor::Tensor;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// A measured value with its 95 % confidence interval over the images.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Estimate {
    /// The value.
    pub value: f64,
    /// Lower end of the interval.
    pub low: f64,
    /// Upper end of the interval.
    pub high: f64,
}

/// The normal distribution's 97.5 % quantile.
const Z: f64 = 1.959_963_984_540_054;

impl Estimate {
    /// A share of `hits` in `count`, with Wilson's interval.
    pub fn share(hits: usize, count: usize) -> Estimate {
        let (n, p) = (count as f64, hits as f64 / count as f64);
        let centre = (p + Z * Z / (2.0 * n)) / (1.0 + Z * Z / n);
        let half = Z * (p * (1.0 - p) / n + Z * Z / (4.0 * n * n)).sqrt() / (1.0 + Z * Z / n);
        // At the ends the interval touches 0 or 1. Rounding must not exclude the value.
        Estimate { value: p, low: (centre - half).max(0.0).min(p), high: (centre + half).min(1.0).max(p) }
    }

    /// The mean of `values`, with the normal interval of its standard error.
    pub fn mean(values: &[f64]) -> Estimate {
        let n = values.len() as f64;
        let value = values.iter().sum::<f64>() / n;
        let var = values.iter().map(|v| (v - value).powi(2)).sum::<f64>() / (n - 1.0).max(1.0);
        let half = Z * (var / n).sqrt();
        Estimate { value, low: value - half, high: value + half }
    }
}

/// The kind of a network's output.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum OutputKind {
    /// One unnormalised score per class.
    Logits,
    /// The graph ends in Softmax.
    Probabilities,
    /// The graph ends in LogSoftmax.
    LogProbabilities,
    /// Anything but one row of classes per image. Only the relative error is measured.
    Other,
}

/// The measurements of one network. What cannot be measured is `None`: accuracy without labels, the rest without a dense network.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Evaluation {
    /// Share of images whose highest class is the label.
    pub top1: Option<Estimate>,
    /// Share of images whose label is among the five highest classes; `None` up to five classes too.
    pub top5: Option<Estimate>,
    /// Share of images whose highest class is the dense network's.
    pub agreement: Option<Estimate>,
    /// Mean KL divergence from the dense network's class distribution, in nats.
    pub kl: Option<Estimate>,
    /// Mean over images of `|y - y_dense| / |y_dense|`, with Euclidean norms of the outputs.
    pub relative_error: Option<Estimate>,
    /// Images whose output is NaN or infinite. They count as wrong, and `kl` and `relative_error` leave them out.
    pub broken_images: usize,
}

/// An evaluation of several networks on the same images.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct EvaluationRun {
    /// Number of images.
    pub images: usize,
    /// SHA-256 of the preprocessed images (little-endian f32, `NCHW`).
    pub images_sha256: String,
    /// The kind of the outputs.
    pub output: OutputKind,
    /// One entry per network, in the order given.
    pub networks: Vec<Evaluation>,
}

/// Images that are decoded and run at a time.
const BATCH: usize = 256;

/// Runs every network on every image. With `compare`, the first network is the dense one, and the others are compared with it.
///
/// All networks take images of one shape. The first output of each is measured.
///
/// # Errors
/// Of kind `Data` for no network, and for images or labels that do not fit the networks; the errors of
/// [`ImageSet::load`], and `Interrupted`.
pub fn evaluate(
    networks: &[&Network],
    set: &ImageSet,
    preprocess: &Preprocess,
    compare: bool,
    progress: &dyn Progress,
) -> Result<EvaluationRun> {
    let first = networks.first().ok_or_else(|| Error::data("no network to evaluate"))?;
    let plan = first.plan();
    let channels = match preprocess.layout {
        Layout::ChannelsFirst => plan.input_shape.get(1).copied().unwrap_or(1),
        Layout::ChannelsLast => plan.input_shape.last().copied().unwrap_or(1),
    };
    let output = output_kind_of(plan);
    let mut tallies: Vec<Tally> = networks.iter().map(|_| Tally::default()).collect();
    let mut hash = Sha256::new();
    progress.begin("evaluate", (set.len() * networks.len()) as u64);
    for start in (0..set.len()).step_by(BATCH) {
        let range = start..set.len().min(start + BATCH);
        let images = set.load(range.clone(), channels, preprocess)?;
        hash.update(images.to_le_bytes());
        let labels = set.labels().map(|labels| &labels[range]);
        let mut dense = None;
        for (network, tally) in networks.iter().zip(&mut tallies) {
            progress.check()?;
            let results = network.run(&images)?.swap_remove(0);
            tally.add(&results, dense.as_ref().filter(|_| compare), labels, output)?;
            dense.get_or_insert(results);
            progress.advance(images.shape[0] as u64);
        }
    }
    progress.end();
    Ok(EvaluationRun {
        images: set.len(),
        images_sha256: hex(&hash.finalize()),
        output,
        networks: tallies.iter().map(Tally::finish).collect(),
    })
}

/// The kind of a planned network's first output.
#[doc(hidden)]
pub fn output_kind_of(plan: &Plan) -> OutputKind {
    output_kind(&plan.result_shapes[0], plan.output_ops.first().map_or("", String::as_str))
}

/// Compares outputs with the dense network's on the same images: agreement, KL divergence and relative error. With labels, the
/// accuracy too. Both tensors are `[N, classes, ...]`.
///
/// # Errors
/// Of kind `Data` for outputs of different shapes, and for labels that are no classes.
pub fn compare(results: &Tensor, dense: &Tensor, labels: Option<&[usize]>, output: OutputKind) -> Result<Evaluation> {
    let mut tally = Tally::default();
    tally.add(results, Some(dense), labels, output)?;
    Ok(tally.finish())
}

fn output_kind(shape: &[usize], op: &str) -> OutputKind {
    let classes = shape.get(1).copied().unwrap_or(0);
    let one_row = shape.len() >= 2 && classes > 1 && shape[2..].iter().all(|&dim| dim == 1);
    match op {
        _ if !one_row => OutputKind::Other,
        "Softmax" => OutputKind::Probabilities,
        "LogSoftmax" => OutputKind::LogProbabilities,
        _ => OutputKind::Logits,
    }
}

/// Counts over the images so far.
#[derive(Default)]
struct Tally {
    images: usize,
    labelled: bool,
    compared: bool,
    classes: usize,
    top1: usize,
    top5: usize,
    agree: usize,
    broken: usize,
    kl: Vec<f64>,
    error: Vec<f64>,
}

impl Tally {
    /// `results` and `dense`: `[N, classes, ...]`.
    fn add(&mut self, results: &Tensor, dense: Option<&Tensor>, labels: Option<&[usize]>, kind: OutputKind) -> Result<()> {
        let width: usize = results.shape[1..].iter().product();
        if dense.is_some_and(|dense| dense.shape != results.shape) {
            return Err(Error::data(format!(
                "the reference's output has the shape {:?}, the model's {:?}",
                dense.map(|d| &d.shape),
                results.shape
            )));
        }
        self.classes = width;
        self.compared = dense.is_some();
        self.labelled = labels.is_some() && kind != OutputKind::Other;
        for (i, row) in results.data.chunks_exact(width.max(1)).enumerate() {
            self.images += 1;
            let finite = row.iter().all(|v| v.is_finite());
            self.broken += usize::from(!finite);
            if let Some(&label) = labels.and_then(|labels| labels.get(i)).filter(|_| self.labelled) {
                if label >= width {
                    return Err(Error::data(format!("label {label}, but the model has {width} classes")));
                }
                let rank = rank(row, label);
                self.top1 += usize::from(finite && rank == 0);
                self.top5 += usize::from(finite && rank < 5);
            }
            if let Some(dense) = dense {
                let dense = &dense.data[i * width..][..width];
                self.compare(row, dense, finite && dense.iter().all(|v| v.is_finite()), kind);
            }
        }
        Ok(())
    }

    fn compare(&mut self, row: &[f32], dense: &[f32], finite: bool, kind: OutputKind) {
        if !finite {
            return;
        }
        let square = |values: &mut dyn Iterator<Item = f64>| values.map(|v| v * v).sum::<f64>();
        let difference = square(&mut row.iter().zip(dense).map(|(&a, &b)| f64::from(a) - f64::from(b)));
        let size = square(&mut dense.iter().map(|&v| f64::from(v)));
        self.error.push(if difference == 0.0 { 0.0 } else { (difference / size).sqrt() });
        if kind != OutputKind::Other {
            self.agree += usize::from(rank(row, highest(dense)) == 0);
            let (p, q) = (log_probabilities(dense, kind), log_probabilities(row, kind));
            self.kl.push(p.iter().zip(&q).map(|(p, q)| if p.exp() > 0.0 { p.exp() * (p - q) } else { 0.0 }).sum());
        }
    }

    fn finish(&self) -> Evaluation {
        let share = |hits: usize, defined: bool| defined.then(|| Estimate::share(hits, self.images.max(1)));
        let mean = |values: &[f64]| (!values.is_empty()).then(|| Estimate::mean(values));
        Evaluation {
            top1: share(self.top1, self.labelled),
            top5: share(self.top5, self.labelled && self.classes > 5),
            agreement: share(self.agree, self.compared && !self.kl.is_empty()),
            kl: mean(&self.kl),
            relative_error: mean(&self.error),
            broken_images: self.broken,
        }
    }
}

/// The number of classes before `class`: higher ones, and equal ones with a lower index.
fn rank(row: &[f32], class: usize) -> usize {
    let before = |(i, &v): (usize, &f32)| v > row[class] || (v == row[class] && i < class);
    row.iter().enumerate().filter(|&entry| before(entry)).count()
}

fn highest(row: &[f32]) -> usize {
    (0..row.len()).find(|&class| rank(row, class) == 0).unwrap_or(0)
}

/// The least probability above zero, so that the KL of saturated outputs is finite.
const SMALLEST: f64 = 1e-38;

fn log_probabilities(row: &[f32], kind: OutputKind) -> Vec<f64> {
    let row: Vec<f64> = row.iter().map(|&v| f64::from(v)).collect();
    match kind {
        OutputKind::Probabilities => row.iter().map(|p| p.max(SMALLEST).ln()).collect(),
        OutputKind::LogProbabilities => row,
        _ => {
            let largest = row.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            let sum = row.iter().map(|v| (v - largest).exp()).sum::<f64>().ln();
            row.iter().map(|v| v - largest - sum).collect()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn intervals() {
        // Wilson, 9 of 10: 0.5958 to 0.9821 (published example values).
        let share = Estimate::share(9, 10);
        assert!((share.low - 0.5958).abs() < 1e-4 && (share.high - 0.9821).abs() < 1e-4, "{share:?}");
        assert_eq!(Estimate::share(10, 10).high, 1.0);
        let mean = Estimate::mean(&[1.0, 2.0, 3.0]);
        assert!((mean.value - 2.0).abs() < 1e-12 && (mean.high - 2.0 - Z / 3f64.sqrt()).abs() < 1e-12);
    }

    fn tally(results: &[f32], dense: &[f32], labels: &[usize]) -> Evaluation {
        let tensor = |data: &[f32]| Tensor::new(vec![data.len() / 2, 2], data.to_vec());
        let mut tally = Tally::default();
        tally.add(&tensor(results), Some(&tensor(dense)), Some(labels), OutputKind::Logits).unwrap();
        tally.finish()
    }

    #[test]
    fn four_images_by_hand() {
        let run = tally(&[1.0, 0.0, 0.0, 0.0, 0.0, 2.0, f32::NAN, 0.0], &[1.0, 0.0, 0.0, 1.0, 0.0, 1.0, 1.0, 0.0], &[0, 0, 1, 0]);
        // Image 1 is a tie, and the lower class wins. Image 3 is broken and counts as wrong.
        assert_eq!(run.top1.unwrap().value, 0.75);
        assert_eq!(run.agreement.unwrap().value, 0.5);
        assert_eq!(run.broken_images, 1);
        assert_eq!(run.relative_error.unwrap().value, 2.0 / 3.0);
        let softplus = |x: f64| (1.0 + x.exp()).ln();
        let p = 1.0 / (1.0 + (-1.0f64).exp());
        let tie = p * (p.ln() - 0.5f64.ln()) + (1.0 - p) * ((1.0 - p).ln() - 0.5f64.ln());
        let sharper = (1.0 - p) * (-softplus(1.0) + softplus(2.0)) + p * (-softplus(-1.0) + softplus(-2.0));
        assert!((run.kl.unwrap().value - (tie + sharper) / 3.0).abs() < 1e-12);
    }

    #[test]
    fn a_label_beyond_the_classes_is_an_error() {
        let results = Tensor::new(vec![1, 2], vec![0.0, 1.0]);
        assert!(Tally::default().add(&results, None, Some(&[2]), OutputKind::Logits).is_err());
    }
}
