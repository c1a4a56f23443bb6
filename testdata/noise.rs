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
