//! Numbers that Rust tests and the scripts in gen/ draw alike, so that inputs and weights need not be stored.

/// Uniform with mean 0 and variance 1, from FNV-1a of the name and SplitMix64: `noise` in gen/architectures.py.
pub fn noise(name: &str, count: usize) -> Vec<f64> {
    let state = name.bytes().fold(0xCBF2_9CE4_8422_2325u64, |s, b| (s ^ u64::from(b)).wrapping_mul(0x0100_0000_01B3));
    let value = |i: u64| {
        let mut z = state.wrapping_add(i.wrapping_mul(0x9E37_79B9_7F4A_7C15));
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^= z >> 31;
        (2.0 * (z >> 11) as f64 / (1u64 << 53) as f64 - 1.0) * 3f64.sqrt()
    };
    (1..=count as u64).map(value).collect()
}

/// The numbers of a parameter of that name and shape: `fill` in gen/architectures.py.
pub fn parameter(name: &str, shape: &[usize]) -> Vec<f32> {
    let count: usize = shape.iter().product();
    let per_output = count / shape[0];
    let value = |u: f64| match name.rsplit('.').next().unwrap_or(name) {
        "running_var" => 1.0 + 0.5 * u.abs(),
        "running_mean" | "bias" => 0.1 * u,
        _ if shape.len() == 1 => 1.0 + 0.1 * u,
        _ => u * (1.5 / per_output as f64).sqrt(),
    };
    noise(name, count).into_iter().map(|u| value(u) as f32).collect()
}
