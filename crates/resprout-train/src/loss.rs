//! Cross-entropy with label smoothing.

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
