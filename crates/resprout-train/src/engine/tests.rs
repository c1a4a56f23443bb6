use super::layout::Layout;
use super::lower::lower;
use super::{Mode, TrainProgram};
use crate::parameters::Parameters;
use resprout::architectures::{Shape, build};
use resprout::random::SplitMix64;

fn gradients(
    program: &mut TrainProgram,
    parameters: &Parameters,
    images: &[f32],
    mode: Mode,
) -> (Vec<f32>, Vec<Option<Vec<f32>>>) {
    let forward = program.forward(parameters, images, mode);
    let logits = forward.logits.clone();
    // Something that depends on every logit.
    let grad: Vec<f32> = logits.iter().enumerate().map(|(i, logit)| (logit + i as f32).sin()).collect();
    (logits, program.backward(parameters, forward, mode, &grad))
}

/// Nineteen images fill one vector and a part of another.
#[test]
fn vectors_of_images_compute_what_single_images_do() {
    let cases = [
        ("lenet-5", [1, 28, 28], Mode::Training),
        ("resnet-20", [3, 32, 32], Mode::Training),
        ("lenet-300-100", [1, 28, 28], Mode::Training),
        // Its last images are single pixels: by nineteen numbers, normalisations would make much of rounding.
        ("mobilenet-v2", [3, 32, 32], Mode::Evaluation),
    ];
    for (name, image, mode) in cases {
        let shape = Shape { classes: Some(10), image: Some(image) };
        let model = build(name, &shape, "kaiming-in", 1).unwrap();
        let parameters = Parameters::without_masks(&model, |_, values| values.to_vec()).unwrap();
        let mut random = SplitMix64::new(3, 0);
        let images: Vec<f32> = (0..19 * image.iter().product::<usize>()).map(|_| random.next_normal() as f32).collect();
        let [one, many] = [1, 16].map(|lanes| {
            let shape = [&[19][..], &image].concat();
            let mut program = lower(&model, &parameters, &shape, Layout { images: 19, lanes }, &[]).unwrap();
            gradients(&mut program, &parameters, &images, mode)
        });
        let close = |a: &[f32], b: &[f32], what: &str| {
            let largest = a.iter().fold(1e-6f32, |largest, a| largest.max(a.abs()));
            let apart = a.iter().zip(b).fold(0f32, |apart, (a, b)| apart.max((a - b).abs()));
            assert!(a.len() == b.len() && apart <= 2e-4 * largest, "{name} {what}: {apart} of {largest}");
        };
        close(&one.0, &many.0, "logits");
        for (index, (a, b)) in one.1.iter().zip(&many.1).enumerate() {
            close(a.as_ref().unwrap(), b.as_ref().unwrap(), &parameters.trained[index].name);
        }
    }
}
