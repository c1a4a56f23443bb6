//! Whether a network without its pruned channels computes what the masked one does.

use crate::commands::{VERIFY_IMAGES, outputs};
use resprout::model::Model;
use resprout::random::SplitMix64;
use resprout::tensor::Tensor;
use resprout::{Error, ErrorKind, Result};

/// The most by which outputs may differ with channels cut out, by the largest output.
const SAME: f32 = 1e-4;

/// Fails if the network without its pruned channels computes something else than the masked one, or cannot be compared.
/// Sums in another order may differ in the last digits.
pub fn check_same(masked: &Model, small: &Model, images: Option<&Tensor>) -> Result<()> {
    let refused = |why: String| Err(Error::new(ErrorKind::Data, format!("--pattern channel: {why}; nothing was written")));
    let (before, images) = match images.filter(|images| !images.is_empty()) {
        Some(images) => {
            let images = images.first(images.shape[0].min(VERIFY_IMAGES));
            (outputs(masked, &images), images)
        }
        None => outputs_of_noise(masked),
    };
    let (before, after) = match before.and_then(|before| Ok((before, outputs(small, &images)?))) {
        Ok(both) => both,
        Err(e) => {
            return refused(format!("whether the cut changes the outputs cannot be checked, the network does not run: {e}"));
        }
    };
    for (a, b) in before.iter().zip(&after) {
        let largest = a.data.iter().fold(0.0f32, |largest, value| largest.max(value.abs()));
        let same = |(a, b): (&f32, &f32)| a.to_bits() == b.to_bits() || (a - b).abs() <= SAME * largest;
        if a.shape != b.shape || !a.data.iter().zip(&b.data).all(same) {
            return refused("without the pruned channels the network computes something else".into());
        }
    }
    Ok(())
}

/// What the model computes of two images of noise, and the images. Their size is the one that the model fixes, or the first
/// common one that it takes.
fn outputs_of_noise(model: &Model) -> (Result<Vec<Tensor>>, Tensor) {
    let mut last = (Err(Error::new(ErrorKind::Data, "it has no input")), Tensor::default());
    for image in resprout::model::possible_images(model) {
        let shape = [&[2], &image[..]].concat();
        let mut random = SplitMix64::new(0, 0);
        let data = (0..shape.iter().product()).map(|_| (2.0 * random.next_f64() - 1.0) as f32).collect();
        let images = Tensor::new(shape, data);
        let result = outputs(model, &images);
        let runs = result.is_ok();
        last = (result, images);
        if runs {
            break;
        }
    }
    last
}
