//! Losses: cross-entropy with label smoothing, and distances from another network's outputs.

/// The mean over a batch of the cross-entropy of its logits, in nats, and its gradient with respect to them.
///
/// Targets are class distributions: `1 - smoothing` on the label and `smoothing` spread evenly over all classes
/// (Szegedy et al., Rethinking the Inception architecture, 2016; as torch counts it). Logits are divided by `temperature` first.
pub fn cross_entropy(logits: &[f32], labels: &[usize], smoothing: f64, temperature: f64) -> (f64, Vec<f32>) {
    let classes = logits.len() / labels.len();
    let even = smoothing / classes as f64;
    let mut loss = 0.0;
    let mut gradient = Vec::with_capacity(logits.len());
    for (row, &label) in logits.chunks_exact(classes).zip(labels) {
        let row: Vec<f64> = row.iter().map(|&logit| f64::from(logit) / temperature).collect();
        let largest = row.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let sum = largest + row.iter().map(|logit| (logit - largest).exp()).sum::<f64>().ln();
        for (class, logit) in row.iter().enumerate() {
            let target = even + if class == label { 1.0 - smoothing } else { 0.0 };
            loss -= target * (logit - sum);
            gradient.push((((logit - sum).exp() - target) / (labels.len() as f64 * temperature)) as f32);
        }
    }
    (loss / labels.len() as f64, gradient)
}

/// The mean over a batch of `T^2 KL(p || q)`, in nats, with `p` and `q` the softmax of `targets / T` and of `logits / T`, and its
/// gradient with respect to `logits`: `T (q - p) / N`.
///
/// It is the soft part of equation 4 in Hinton, Vinyals, Dean, Distilling the knowledge in a neural network, 2015, with their
/// factor `T^2`. The divergence differs from their cross-entropy by the entropy of `p`, which has no gradient.
pub fn distillation(logits: &[f32], targets: &[f32], classes: usize, temperature: f64) -> (f64, Vec<f32>) {
    let images = logits.len() / classes;
    let mut loss = 0.0;
    let mut gradient = Vec::with_capacity(logits.len());
    for (row, target) in logits.chunks_exact(classes).zip(targets.chunks_exact(classes)) {
        let (q, p) = (log_softmax(row, temperature), log_softmax(target, temperature));
        for (q, p) in q.into_iter().zip(p) {
            let share = p.exp();
            // A class of probability zero adds nothing, though its logarithm may be infinite.
            loss += if share > 0.0 { share * (p - q) } else { share };
            gradient.push((temperature * (q.exp() - share) / images as f64) as f32);
        }
    }
    (loss * temperature * temperature / images as f64, gradient)
}

fn log_softmax(row: &[f32], temperature: f64) -> Vec<f64> {
    let row: Vec<f64> = row.iter().map(|&logit| f64::from(logit) / temperature).collect();
    let largest = row.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let sum = largest + row.iter().map(|logit| (logit - largest).exp()).sum::<f64>().ln();
    row.into_iter().map(|logit| logit - sum).collect()
}

/// The mean squared error of `outputs` from `targets`, by the variance of all targets, and its gradient.
pub fn squared_error(outputs: &[f32], targets: &[f32]) -> (f64, Vec<f32>) {
    let count = targets.len() as f64;
    let mean = targets.iter().map(|&t| f64::from(t)).sum::<f64>() / count;
    let variance = targets.iter().map(|&t| (f64::from(t) - mean).powi(2)).sum::<f64>() / count;
    let scale = 1.0 / (count * if variance > 0.0 { variance } else { 1.0 });
    let difference = || outputs.iter().zip(targets).map(|(&output, &target)| f64::from(output) - f64::from(target));
    let loss = difference().map(|d| d * d).sum::<f64>() * scale;
    (loss, difference().map(|d| (2.0 * d * scale) as f32).collect())
}
