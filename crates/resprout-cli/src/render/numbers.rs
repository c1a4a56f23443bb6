//! Numbers as people read them.

use resprout::eval::Estimate;

/// A share, in percent.
pub fn percent(share: f64) -> String {
    format!("{:.2} %", share * 100.0)
}

pub fn percent_estimate(estimate: Option<Estimate>) -> String {
    estimate.map_or("-".into(), |e| format!("{:.2} % [{:.2}, {:.2}]", e.value * 100.0, e.low * 100.0, e.high * 100.0))
}

pub fn number_estimate(estimate: Option<Estimate>) -> String {
    estimate.map_or("-".into(), |e| format!("{:.4} [{:.4}, {:.4}]", e.value, e.low, e.high))
}

pub fn bytes(count: u64) -> String {
    match count {
        0..10_000 => format!("{count} B"),
        10_000..10_000_000 => format!("{:.1} kB", count as f64 / 1e3),
        _ => format!("{:.1} MB", count as f64 / 1e6),
    }
}

pub fn macs(count: Option<u64>) -> String {
    count.map_or("-".into(), |count| format!("{:.2} M", count as f64 / 1e6))
}

pub fn ms(seconds: f64) -> String {
    format!("{:.3}", seconds * 1e3)
}

pub fn us(seconds: f64) -> String {
    format!("{:.1}", seconds * 1e6)
}
