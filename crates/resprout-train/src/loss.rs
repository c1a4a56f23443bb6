//! Cross-entropy with label smoothing.

use burn_core::tensor::{Device, Tensor, TensorData, activation::log_softmax};

/// Targets of a batch as class distributions: `1 - smoothing` on the label, plus `smoothing` divided evenly among all classes.
/// As in torch; Szegedy et al., Rethinking the Inception architecture, 2016.
pub fn targets(labels: &[usize], classes: usize, smoothing: f32, device: &Device) -> Tensor<2> {
    let mut rows = vec![smoothing / classes as f32; labels.len() * classes];
    for (row, &label) in rows.chunks_exact_mut(classes).zip(labels) {
        row[label] += 1.0 - smoothing;
    }
    Tensor::from_data(TensorData::new(rows, [labels.len(), classes]), device)
}

/// The mean cross-entropy of the batch, in nats.
pub fn cross_entropy(logits: Tensor<2>, targets: Tensor<2>) -> Tensor<1> {
    let [count, _] = logits.dims();
    -(log_softmax(logits, 1) * targets).sum() / count as f32
}
