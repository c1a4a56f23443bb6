//! Prunes by a criterion of its own: weights whose input channel says little go first.
//!
//! ```console
//! cargo run --release -p resprout --example own_criterion
//! ```

use resprout::Result;
use resprout::criteria::{Criterion, ScoreInput};
use resprout::model::Model;
use resprout::sparsify::{Budget, Sparsify};
use resprout::tensor::Tensor;
use std::path::Path;

/// The absolute weight, times the norm of all weights that the same input channel has in the layer.
struct InputNorm;

impl Criterion for InputNorm {
    fn score(&self, input: &ScoreInput) -> Vec<f64> {
        let per_output = input.weights.len() / input.layer.shape[0];
        let taps: usize = input.layer.shape[2..].iter().product();
        let channel = |index: usize| index % per_output / taps;
        let mut squares = vec![0.0; per_output / taps];
        for (index, weight) in input.weights.iter().enumerate() {
            squares[channel(index)] += f64::from(*weight).powi(2);
        }
        let score = |(index, weight): (usize, &f32)| f64::from(weight.abs()) * squares[channel(index)].sqrt();
        input.weights.iter().enumerate().map(score).collect()
    }
}

fn main() -> Result<()> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../resprout-cli/assets");
    let dense = Model::open(folder.join("digits.onnx"))?;
    let sparse = Sparsify::new(Budget::sparsity(0.9)).criterion(InputNorm).allocation("erk").run(&dense, &Tensor::default())?;
    for (layer, kept) in sparse.outcome.layers.iter().zip(&sparse.outcome.kept) {
        println!("{}: {kept} of {} weights left", layer.param, layer.len());
    }
    Ok(())
}
