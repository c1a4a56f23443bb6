//! Images of noise, for networks without calibration images. Repairs with them are worse than with real images.

use super::preprocess::Preprocess;
use crate::random::SplitMix64;
use crate::tensor::Tensor;

/// `count` images of `shape` `[C, H, W]`, as `preprocess` would return them.
///
/// Every value is a sum of twelve uniform numbers with mean 0 and variance 1, which is nearly normal, clamped to the range of a
/// pixel of 0 to 255. Where the network takes bytes, the mean is 127.5 and the deviation 64. The layout is that of the
/// preprocessing.
pub fn gaussian(count: usize, shape: [usize; 3], preprocess: &Preprocess, seed: u64) -> Tensor {
    let [channels, height, width] = shape;
    let plane = height * width;
    let each = |values: &[f32], c: usize| values[if values.len() == 1 { 0 } else { c }];
    let mut data = Vec::with_capacity(count * channels * plane);
    for image in 0..count {
        let mut random = SplitMix64::new(seed, image as u64);
        if preprocess.bytes {
            let byte = |_| (normal(&mut random) * 64.0 + 127.5).round().clamp(0.0, 255.0);
            data.extend(preprocess.layout.arrange((0..channels * plane).map(byte).collect(), channels));
            continue;
        }
        let mut planes = Vec::with_capacity(channels * plane);
        for c in 0..channels {
            let (mean, std) = (each(&preprocess.mean, c), each(&preprocess.std, c));
            let (low, high) = (-mean / std, (255.0 * preprocess.scale - mean) / std);
            let (low, high) = (low.min(high), low.max(high));
            planes.extend((0..plane).map(|_| normal(&mut random).clamp(low, high)));
        }
        data.extend(preprocess.layout.arrange(planes, channels));
    }
    Tensor::new([&[count][..], &preprocess.layout.shape(shape)].concat(), data)
}

/// The sum of twelve uniform numbers, less six. It needs additions only, so it is the same on every machine.
fn normal(random: &mut SplitMix64) -> f32 {
    ((0..12).map(|_| random.next_f64()).sum::<f64>() - 6.0) as f32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mean_variance_range_and_seed() {
        let preprocess = Preprocess::preset("cifar10").unwrap();
        let images = gaussian(20, [3, 16, 16], &preprocess, 1);
        let mean = images.data.iter().map(|&v| f64::from(v)).sum::<f64>() / images.len() as f64;
        let var = images.data.iter().map(|&v| f64::from(v).powi(2)).sum::<f64>() / images.len() as f64 - mean * mean;
        // Within a few times 1/sqrt(15360) of 0; the clamped tails lower the variance.
        assert!(mean.abs() < 0.03 && (0.8..1.02).contains(&var), "{mean} {var}");
        let low = -0.4914 / 0.2470;
        assert!(images.data[..256].iter().all(|&v| v >= low - 1e-6));
        assert_eq!(images, gaussian(20, [3, 16, 16], &preprocess, 1));
        assert_ne!(images, gaussian(20, [3, 16, 16], &preprocess, 2));
    }
}
