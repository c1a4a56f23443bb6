//! The steps of a batch normalisation in training, each on one plane of one channel.
//!
//! Each is written once, for arrays of lanes, and compiled for every instruction set.

use crate::Isa;
use crate::dense::LANES;
use crate::isa::per_isa;

/// The normalisation of one channel: `y = x * scale + shift`, then optionally ReLU.
#[derive(Clone, Copy, Debug)]
pub struct Affine {
    /// Factor.
    pub scale: f32,
    /// Summand.
    pub shift: f32,
    /// Whether negative results become zero.
    pub relu: bool,
}

/// The coefficients of a channel's input gradient, `dx = a * dy + b * x + c`. `dy` is zero where the ReLU is.
#[derive(Clone, Copy, Debug)]
pub struct InputCoefficients {
    /// Factor of the output's gradient.
    pub a: f32,
    /// Factor of the input.
    pub b: f32,
    /// Summand.
    pub c: f32,
}

/// Count, mean and sum of squared distances from the mean, accumulated plane by plane.
#[derive(Clone, Copy, Debug, Default)]
pub struct Moments {
    count: f64,
    mean: f64,
    squares: f64,
}

impl Moments {
    /// Adds the values of a plane.
    pub fn add(&mut self, isa: Isa, plane: &[f32]) {
        let count = plane.len() as f64;
        let mean = sum(isa, plane) / count;
        let squares = squared_distances(isa, plane, mean as f32, mean);
        let (total, delta) = (self.count + count, mean - self.mean);
        self.squares += squares + delta * delta * self.count * count / total;
        self.mean += delta * count / total;
        self.count = total;
    }

    /// The mean.
    pub fn mean(&self) -> f64 {
        self.mean
    }

    /// The variance with divisor `n`.
    pub fn variance(&self) -> f64 {
        self.squares / self.count
    }
}

per_isa!(fn sum(plane: &[f32]) -> f64 = sum_body);
per_isa!(fn squared_distances(plane: &[f32], center: f32, mean: f64) -> f64 = squared_distances_body);
per_isa!(
    /// Writes `y`.
    pub fn normalise(x: &[f32], affine: Affine, y: &mut [f32]) = normalise_body);
per_isa!(
    /// The sums of `dy` and of `dy * (x - mean)`. `dy` is zero where the ReLU is.
    pub fn gradient_sums(x: &[f32], dy: &[f32], affine: Affine, mean: f32) -> (f64, f64) = gradient_sums_body);
per_isa!(
    /// Writes `dx`.
    pub fn input_gradient(x: &[f32], dy: &[f32], affine: Affine, coefficients: InputCoefficients, dx: &mut [f32])
        = input_gradient_body);

/// Sums `term(i)` for `i < len`: in `f32` over at most 64 terms per lane, these sums in `f64`.
#[inline(always)]
fn lane_sum(len: usize, term: impl Fn(usize) -> f32) -> f64 {
    lane_sums(len, |i| [term(i)])[0]
}

/// As [`lane_sum`], of several terms at once.
#[inline(always)]
fn lane_sums<const N: usize>(len: usize, terms: impl Fn(usize) -> [f32; N]) -> [f64; N] {
    const RUN: usize = 64 * LANES;
    let mut totals = [0.0f64; N];
    let mut first = 0;
    while first < len {
        let last = len.min(first + RUN);
        let mut lanes = [[0.0f32; LANES]; N];
        let whole = first + (last - first) / LANES * LANES;
        for at in (first..whole).step_by(LANES) {
            for lane in 0..LANES {
                let terms = terms(at + lane);
                for n in 0..N {
                    lanes[n][lane] += terms[n];
                }
            }
        }
        for at in whole..last {
            let terms = terms(at);
            for n in 0..N {
                lanes[n][at - whole] += terms[n];
            }
        }
        for n in 0..N {
            totals[n] += lanes[n].iter().map(|&lane| f64::from(lane)).sum::<f64>();
        }
        first = last;
    }
    totals
}

#[inline(always)]
fn sum_body(plane: &[f32]) -> f64 {
    lane_sum(plane.len(), |i| plane[i])
}

#[inline(always)]
fn squared_distances_body(plane: &[f32], center: f32, mean: f64) -> f64 {
    let around = lane_sum(plane.len(), |i| (plane[i] - center) * (plane[i] - center));
    // The rounded centre is not quite the mean.
    around - (f64::from(center) - mean).powi(2) * plane.len() as f64
}

#[inline(always)]
fn output(x: f32, affine: Affine) -> f32 {
    let y = x * affine.scale + affine.shift;
    // NaN stays NaN.
    if affine.relu && y < 0.0 { 0.0 } else { y }
}

/// `dy` where the ReLU passed `x` on.
#[inline(always)]
fn passed(x: f32, dy: f32, affine: Affine) -> f32 {
    if affine.relu && x * affine.scale + affine.shift <= 0.0 { 0.0 } else { dy }
}

#[inline(always)]
fn normalise_body(x: &[f32], affine: Affine, y: &mut [f32]) {
    y.iter_mut().zip(x).for_each(|(y, &x)| *y = output(x, affine));
}

#[inline(always)]
fn gradient_sums_body(x: &[f32], dy: &[f32], affine: Affine, mean: f32) -> (f64, f64) {
    let dy = &dy[..x.len()];
    let [sum, product] = lane_sums(x.len(), |i| {
        let dy = passed(x[i], dy[i], affine);
        [dy, dy * (x[i] - mean)]
    });
    (sum, product)
}

#[inline(always)]
fn input_gradient_body(x: &[f32], dy: &[f32], affine: Affine, coefficients: InputCoefficients, dx: &mut [f32]) {
    let InputCoefficients { a, b, c } = coefficients;
    for ((dx, &x), &dy) in dx.iter_mut().zip(x).zip(dy) {
        *dx = a * passed(x, dy, affine) + b * x + c;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ISAS;
    use crate::testing::values;

    #[test]
    fn moments_are_those_of_all_planes_together() {
        // A mean a thousand times the deviation: plain sums of squares in f32 would lose all digits.
        let data: Vec<f32> = values(5 * 333, 1).iter().map(|v| 1000.0 + v).collect();
        let mean = data.iter().map(|&v| f64::from(v)).sum::<f64>() / data.len() as f64;
        let variance = data.iter().map(|&v| (f64::from(v) - mean).powi(2)).sum::<f64>() / data.len() as f64;
        for isa in ISAS.iter().filter_map(|row| row.open()) {
            let mut moments = Moments::default();
            data.chunks(333).for_each(|plane| moments.add(isa, plane));
            assert!((moments.mean() - mean).abs() < 1e-3, "{}: {} {mean}", isa.name(), moments.mean());
            assert!((moments.variance() / variance - 1.0).abs() < 1e-3, "{}: {} {variance}", isa.name(), moments.variance());
        }
    }

    #[test]
    fn steps_are_the_formulas() {
        let (x, dy) = (values(77, 1), values(77, 2));
        for (isa, relu) in ISAS.iter().filter_map(|row| row.open()).flat_map(|isa| [(isa, false), (isa, true)]) {
            let affine = Affine { scale: -1.5, shift: 0.25, relu };
            let y: Vec<f32> = x.iter().map(|x| x * -1.5 + 0.25).map(|y| if relu { y.max(0.0) } else { y }).collect();
            let mut got = vec![f32::NAN; 77];
            normalise(isa, &x, affine, &mut got);
            let close = |got: &[f32], want: &[f32]| got.iter().zip(want).for_each(|(a, b)| assert!((a - b).abs() < 1e-6));
            close(&got, &y);
            let passed: Vec<f32> = dy.iter().zip(&y).map(|(&dy, &y)| if relu && y <= 0.0 { 0.0 } else { dy }).collect();
            let (sum, product) = gradient_sums(isa, &x, &dy, affine, 0.125);
            assert!((sum - passed.iter().map(|&v| f64::from(v)).sum::<f64>()).abs() < 1e-5);
            let expected: f64 = passed.iter().zip(&x).map(|(&d, &x)| f64::from(d) * f64::from(x - 0.125)).sum();
            assert!((product - expected).abs() < 1e-5);
            input_gradient(isa, &x, &dy, affine, InputCoefficients { a: 2.0, b: 3.0, c: -1.0 }, &mut got);
            let dx: Vec<f32> = passed.iter().zip(&x).map(|(d, x)| 2.0 * d + 3.0 * x - 1.0).collect();
            close(&got, &dx);
        }
    }
}
