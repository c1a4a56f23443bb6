//! The loss, its gradients and the optimiser against PyTorch (testdata/gen/distill.py), and the limits of training.

use super::pair::Pair;
use super::{Distill, blocks::block_outputs};
use crate::optimiser::Adam;
use crate::parameters::Parameters;
use resprout::architectures::{Shape, build};
use resprout::model::{Mask, Model};
use safetensors::SafeTensors;

#[path = "../../../../testdata/noise.rs"]
mod noise;
#[path = "../../../../testdata/resnet.rs"]
mod resnet;
use resnet::resnet;

const GOLDEN: &[u8] = include_bytes!("../../../../testdata/golden/distill.safetensors");

fn golden(name: &str) -> Vec<f64> {
    let file = SafeTensors::deserialize(GOLDEN).unwrap();
    let tensor = file.tensor(name).unwrap();
    tensor.data().as_chunks::<8>().0.iter().map(|&bytes| f64::from_le_bytes(bytes)).collect()
}

/// Its larger weights.
fn masked() -> Model {
    let mut model = resnet();
    let names: Vec<String> = model.params.iter().map(|(name, _)| name.to_string()).collect();
    for name in names {
        let Some(tensor) = model.params.f32_mut(&name) else { continue };
        if name == "linear.bias" {
            tensor.data.iter_mut().for_each(|value| *value = (0.9 * f64::from(*value)) as f32);
        }
        if tensor.shape.len() != 4 {
            continue;
        }
        let mut sizes: Vec<f32> = tensor.data.iter().map(|value| value.abs()).collect();
        sizes.sort_by(f32::total_cmp);
        let middle = sizes[sizes.len() / 2 - 1];
        let kept: Vec<bool> = tensor.data.iter().map(|value| value.abs() > middle).collect();
        model.masks.insert(name, Mask(kept));
    }
    model.apply_masks();
    model
}

fn pictures(count: usize) -> Vec<f32> {
    let pixel = |u: f64| ((((u / 3f64.sqrt() + 1.0) * 127.99).floor() / 255.0 - 0.5) / 0.25) as f32;
    noise::noise("images", count * 3 * 1024).into_iter().map(pixel).collect()
}

/// Twenty images fill one vector and a part of another.
#[test]
fn loss_and_gradients_are_pytorchs() {
    let (model, dense) = (masked(), resnet());
    let distill = Distill { batch: 20, ..Distill::default() };
    let mut pair = Pair::new(&distill, &model, &dense, &[3, 32, 32], usize::MAX).unwrap();
    assert_eq!(block_outputs(&dense).len(), 9);
    let losses = pair.losses(&pictures(20));
    let expected = golden("loss")[0];
    assert!((losses.value - expected).abs() < 1e-5 * expected, "{} {expected}", losses.value);
    let parameters = Parameters::new(&model).unwrap();
    let mut compared = 0;
    for (parameter, gradient) in parameters.trained.iter().zip(losses.gradients) {
        let mut gradient = gradient.unwrap();
        if let Some(mask) = &parameter.mask {
            gradient.iter_mut().zip(mask).filter(|(_, kept)| !**kept).for_each(|(value, _)| *value = 0.0);
        }
        let expected = golden(&format!("grad.{}", parameter.name));
        let (first, squares) = expected.split_at(expected.len() - 1);
        let largest = gradient.iter().fold(0f32, |largest, value| largest.max(value.abs()));
        for (got, expected) in gradient.iter().zip(first) {
            assert!((f64::from(*got) - expected).abs() <= 2e-4 * f64::from(largest), "{}: {got} {expected}", parameter.name);
        }
        let own: f64 = gradient.iter().map(|&value| f64::from(value).powi(2)).sum();
        assert!((own - squares[0]).abs() <= 2e-4 * squares[0], "{}: {own} {}", parameter.name, squares[0]);
        compared += 1;
    }
    assert_eq!(compared, 59);
}

#[test]
fn adam_is_torchs() {
    let mut model = build("lenet-300-100", &Shape { classes: None, image: None }, "kaiming-in", 0).unwrap();
    let single = |values: Vec<f64>| values.into_iter().map(|v| v as f32).collect::<Vec<f32>>();
    let name = model.params.iter().find(|(_, p)| p.f32().is_some_and(|t| t.data.len() == 100)).unwrap().0.to_string();
    model.params.f32_mut(&name).unwrap().data[..64].copy_from_slice(&single(noise::noise("value", 64)));
    let mut parameters = Parameters::new(&model).unwrap();
    let index = parameters.index(&name).unwrap();
    let adam = Adam { beta1: 0.9, beta2: 0.99, epsilon: 1e-8 };
    for step in 0..5 {
        let size = |(i, value): (usize, f64)| value * 10f64.powf(-0.1 * i as f64);
        let mut gradient = single(noise::noise(&format!("gradient.{step}"), 64).into_iter().enumerate().map(size).collect());
        gradient.resize(100, 0.0);
        let gradients = (0..parameters.trained.len()).map(|i| (i == index).then(|| gradient.clone())).collect();
        adam.step(&mut parameters, gradients, 3e-3, step + 1);
    }
    for (got, expected) in parameters.trained[index].value.iter().zip(golden("adam")) {
        assert!((f64::from(*got) - expected).abs() < 1e-6, "{got} {expected}");
    }
    // No gradient, no step.
    assert_eq!(parameters.trained[index].value[64..], model.weight(&name).unwrap().data[64..]);
}

/// A section's gradients are those of its own parameters, by its own output alone.
#[test]
fn sections_train_every_parameter_once() {
    let (model, dense) = (masked(), resnet());
    let distill = Distill { batch: 17, by_block: true, ..Distill::default() };
    let mut pair = Pair::new(&distill, &model, &dense, &[3, 32, 32], usize::MAX).unwrap();
    let images = pictures(17);
    let mut times = vec![0; Parameters::new(&model).unwrap().trained.len()];
    let sections = pair.sections();
    assert_eq!(sections.len(), 10);
    for section in sections {
        pair.enter(section);
        let losses = pair.losses(&images);
        assert!(losses.value > 0.0);
        let found: Vec<usize> = (0..times.len()).filter(|&i| losses.gradients[i].is_some()).collect();
        assert_eq!(found.len(), pair.trained());
        found.into_iter().for_each(|i| times[i] += 1);
    }
    assert!(times.iter().all(|&times| times == 1), "{times:?}");
}

#[test]
fn blocks_of_architectures() {
    let outputs = |name: &str, image: [usize; 3]| {
        block_outputs(&build(name, &Shape { classes: Some(10), image: Some(image) }, "kaiming-in", 0).unwrap()).len()
    };
    assert_eq!(outputs("resnet-56", [3, 32, 32]), 27);
    // Ten of the seventeen blocks have a shortcut.
    assert_eq!(outputs("mobilenet-v2", [3, 32, 32]), 10);
    // No sums and no concatenations: every layer but the last.
    assert_eq!(outputs("lenet-5", [1, 28, 28]), 3);
    assert_eq!(outputs("lenet-300-100", [1, 28, 28]), 2);
    assert_eq!(outputs("vgg-16-bn-cifar", [3, 32, 32]), 13);
    assert!(outputs("densenet-121-cifar", [3, 32, 32]) > 50);
}

#[test]
fn a_batch_beyond_the_memory_is_refused() {
    let error = Pair::new(&Distill::default(), &masked(), &resnet(), &[3, 32, 32], 1 << 20).err().unwrap().to_string();
    assert!(
        error.contains("a batch of 64 images takes about ") && error.contains("limit is 1 MB; give fewer as batch"),
        "{error}"
    );
}
