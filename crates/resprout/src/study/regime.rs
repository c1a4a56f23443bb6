//! The transition regimes of repairs, the best allocations, and layer collapse.
//!
//! Curves are linear between measured sparsities.

use super::curves::{Configuration, Curve};
use serde::{Deserialize, Serialize};

/// The repair that a transition regime compares with.
#[doc(hidden)]
pub const RECALIBRATION: &str = "bn";

/// The thresholds of failure and recovery.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Thresholds {
    /// The least advantage of a repair over recalibration, as a share of the images; 0.05 by default.
    pub delta: f64,
    /// The least value of a repair, as a share of the range from chance to the dense network; 0.1 by default.
    pub kappa: f64,
    /// A layer has collapsed if its outputs keep less than this share of the dense variance; 0.01 by default.
    pub dead: f64,
}

impl Default for Thresholds {
    fn default() -> Thresholds {
        Thresholds { delta: 0.05, kappa: 0.1, dead: 0.01 }
    }
}

/// The sparsities where recalibration fails and a repair recovers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Transition {
    /// The configuration of the repair.
    pub configuration: Configuration,
    /// Measured sparsities inside.
    pub measured: Vec<f64>,
    /// From, to: interpolated between measured sparsities.
    pub ranges: Vec<[f64; 2]>,
    /// Whether a range ends where the study ends, and may be wider.
    pub open: bool,
    /// The total width of the ranges.
    pub width: f64,
}

/// The regime of every repair's curve for which the recalibrated curve exists. `chance` is the metric of guessing.
#[doc(hidden)]
pub fn transitions(curves: &[Curve], dense: f64, chance: f64, thresholds: &Thresholds) -> Vec<Transition> {
    let floor = chance + thresholds.kappa * (dense - chance);
    let one = |curve: &Curve| {
        let recalibrated = curves
            .iter()
            .find(|c| c.configuration.repair == RECALIBRATION && c.configuration.same_but_repair(&curve.configuration))?;
        let inside = |(sparsity, value): (f64, f64)| {
            let recalibrated = recalibrated.at(sparsity)?.value;
            Some((sparsity, (value - recalibrated - thresholds.delta).min(value - floor)))
        };
        let margins: Vec<(f64, f64)> = curve.points.iter().filter_map(|p| inside((p.sparsity, p.value))).collect();
        let ranges = not_negative(&margins);
        let ends = [margins.first()?.0, margins.last()?.0];
        Some(Transition {
            configuration: curve.configuration.clone(),
            measured: margins.iter().filter(|(_, margin)| *margin >= 0.0).map(|(sparsity, _)| *sparsity).collect(),
            open: ranges.iter().any(|range| range[0] == ends[0] || range[1] == ends[1]),
            width: ranges.iter().fold(0.0, |width, range| width + range[1] - range[0]),
            ranges,
        })
    };
    curves
        .iter()
        .filter(|curve| ![RECALIBRATION, "none"].contains(&curve.configuration.repair.as_str()))
        .filter_map(one)
        .collect()
}

/// The ranges where the lines through the points are not negative.
fn not_negative(points: &[(f64, f64)]) -> Vec<[f64; 2]> {
    let mut ranges: Vec<[f64; 2]> = Vec::new();
    let mut add = |from: f64, to: f64| match ranges.last_mut() {
        Some(last) if last[1] == from => last[1] = to,
        _ => ranges.push([from, to]),
    };
    if let [(at, value)] = *points
        && value >= 0.0
    {
        add(at, at);
    }
    for pair in points.windows(2) {
        let [(a, fa), (b, fb)] = [pair[0], pair[1]];
        match (fa >= 0.0, fb >= 0.0) {
            (true, true) => add(a, b),
            (true, false) => add(a, zero((a, fa), (b, fb))),
            (false, true) => add(zero((a, fa), (b, fb)), b),
            (false, false) => {}
        }
    }
    ranges
}

/// The zero of the line through two points of different signs.
fn zero((a, fa): (f64, f64), (b, fb): (f64, f64)) -> f64 {
    a + (b - a) * fa / (fa - fb)
}

/// A crossing of two allocations.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Crossing {
    /// The configuration that is better before. Nothing but the allocation differs.
    pub configuration: Configuration,
    /// The allocation that is better after.
    pub then: String,
    /// The sparsity.
    pub at: f64,
    /// Whether on each side the intervals are apart at some sparsity.
    pub clear: bool,
}

/// The crossings of curves that differ by the allocation alone.
#[doc(hidden)]
pub fn crossings(curves: &[Curve]) -> Vec<Crossing> {
    let mut found = Vec::new();
    for (i, a) in curves.iter().enumerate() {
        for b in curves[i + 1..].iter().filter(|b| b.configuration.same_but_allocation(&a.configuration)) {
            found.extend(crossings_of(a, b));
        }
    }
    found
}

fn crossings_of(a: &Curve, b: &Curve) -> Vec<Crossing> {
    // Sparsity, difference, and whether the intervals are apart.
    let differences: Vec<(f64, f64, bool)> = a
        .points
        .iter()
        .filter_map(|p| {
            let q = b.at(p.sparsity)?;
            let apart = p.interval[0] > q.interval[1] || q.interval[0] > p.interval[1];
            Some((p.sparsity, p.value - q.value, apart))
        })
        .filter(|(_, difference, _)| *difference != 0.0)
        .collect();
    let clear = |part: &[(f64, f64, bool)], sign: f64| part.iter().any(|(_, d, apart)| *apart && d * sign > 0.0);
    let change = |i: &usize| differences[*i].1 * differences[*i + 1].1 < 0.0;
    let crossing = |i: usize| {
        let ((s, d, _), (t, e, _)) = (differences[i], differences[i + 1]);
        let (first, then) = if d > 0.0 { (a, b) } else { (b, a) };
        Crossing {
            configuration: first.configuration.clone(),
            then: then.configuration.allocation.clone(),
            at: zero((s, d), (t, e)),
            clear: clear(&differences[..=i], d) && clear(&differences[i + 1..], e),
        }
    };
    (0..differences.len().saturating_sub(1)).filter(change).map(crossing).collect()
}

/// The best allocation at one sparsity under one repair.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Winner {
    /// The best configuration.
    pub configuration: Configuration,
    /// The sparsity.
    pub sparsity: f64,
    /// The metric.
    pub value: f64,
    /// The second best allocation, and its distance.
    pub second: Option<(String, f64)>,
    /// Whether the intervals of both are apart.
    pub clear: bool,
}

/// The best allocation of curves that differ by the allocation alone.
#[doc(hidden)]
pub fn winners(curves: &[Curve]) -> Vec<Winner> {
    let mut found: Vec<Winner> = Vec::new();
    for (i, curve) in curves.iter().enumerate() {
        let alternatives: Vec<&Curve> =
            curves.iter().filter(|other| other.configuration.same_but_allocation(&curve.configuration)).collect();
        // Once for each set of alternatives.
        if alternatives.len() < 2 || curves[..i].iter().any(|other| other.configuration.same_but_allocation(&curve.configuration))
        {
            continue;
        }
        for sparsity in curve.points.iter().map(|point| point.sparsity) {
            let mut points: Vec<_> =
                alternatives.iter().filter_map(|curve| Some((&curve.configuration, curve.at(sparsity)?))).collect();
            // Equal values keep the order of the grid.
            points.sort_by(|(_, a), (_, b)| b.value.total_cmp(&a.value));
            let [(configuration, best), rest @ ..] = &points[..] else { continue };
            let second = rest.first();
            found.push(Winner {
                configuration: (*configuration).clone(),
                sparsity,
                value: best.value,
                second: second.map(|(configuration, point)| (configuration.allocation.clone(), best.value - point.value)),
                clear: second.is_some_and(|(_, point)| best.interval[0] > point.interval[1]),
            });
        }
    }
    found
}

/// The first collapsed layer of a curve.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Collapse {
    /// The configuration.
    pub configuration: Configuration,
    /// The lowest measured sparsity with a collapsed layer.
    pub sparsity: f64,
    /// The first collapsed layer in the order of the network.
    pub layer: String,
    /// Its index among the prunable layers, from 0 on.
    pub index: usize,
    /// The number of collapsed layers at that sparsity.
    pub layers: usize,
    /// The share of its variance that remains.
    pub kept_variance: f64,
}

/// The first layer collapse of each curve.
#[doc(hidden)]
pub fn collapses(curves: &[Curve], layers: &[String], thresholds: &Thresholds) -> Vec<Collapse> {
    let of_curve = |curve: &Curve| {
        curve.points.iter().find_map(|point| {
            let collapsed =
                |(index, kept): (usize, &Option<f64>)| kept.filter(|kept| *kept < thresholds.dead).map(|kept| (index, kept));
            let mut collapsed = point.diagnostics.kept_variance.iter().enumerate().filter_map(collapsed);
            let (index, kept_variance) = collapsed.next()?;
            Some(Collapse {
                configuration: curve.configuration.clone(),
                sparsity: point.sparsity,
                layer: layers.get(index)?.clone(),
                index,
                layers: 1 + collapsed.count(),
                kept_variance,
            })
        })
    };
    curves.iter().filter_map(of_curve).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::study::LayerDiagnostics;
    use crate::study::curves::Point;

    fn curve(allocation: &str, repair: &str, points: &[(f64, f64)]) -> Curve {
        let configuration = Configuration {
            pattern: "unstructured".into(),
            criterion: "magnitude".into(),
            allocation: allocation.into(),
            repair: repair.into(),
            calibration_images: 64,
        };
        let point = |&(sparsity, value): &(f64, f64)| Point {
            sparsity,
            realised: sparsity,
            compression_ratio: 1.0,
            theoretical_speedup: None,
            sparse_bytes: 0,
            value,
            interval: [value - 0.01, value + 0.01],
            sd: None,
            seeds: 1,
            kl: None,
            diagnostics: LayerDiagnostics { kept_variance: vec![Some(1.0), Some(value * 0.02)], ..LayerDiagnostics::default() },
        };
        Curve { configuration, points: points.iter().map(point).collect() }
    }

    #[test]
    fn the_regime_begins_and_ends_between_the_points() {
        let recalibrated = curve("erk", "bn", &[(0.8, 0.9), (0.9, 0.8), (0.95, 0.1)]);
        let repaired = curve("erk", "asr", &[(0.8, 0.9), (0.9, 0.9), (0.95, 0.2)]);
        let found = transitions(&[recalibrated, repaired], 0.9, 0.1, &Thresholds::default());
        // Margins: -0.05 at 0.8, 0.05 at 0.9, min(0.05, 0.2 - 0.18 = 0.02) at 0.95.
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].measured, [0.9, 0.95]);
        assert!((found[0].ranges[0][0] - 0.85).abs() < 1e-12 && found[0].ranges[0][1] == 0.95 && found[0].open);
        assert!((found[0].width - 0.1).abs() < 1e-12);
        assert!(not_negative(&[(0.5, -1.0), (0.6, 1.0), (0.7, -1.0)]).len() == 1);
    }

    #[test]
    fn allocations_cross_and_win() {
        let a = curve("erk", "bn", &[(0.8, 0.9), (0.9, 0.6)]);
        let b = curve("lamp", "bn", &[(0.8, 0.8), (0.9, 0.9)]);
        let found = crossings(&[a.clone(), b.clone()]);
        assert_eq!(found.len(), 1);
        assert!((found[0].at - 0.825).abs() < 1e-12 && found[0].clear);
        assert_eq!((found[0].configuration.allocation.as_str(), found[0].then.as_str()), ("erk", "lamp"));
        let won = winners(&[a, b]);
        let names: Vec<(&str, bool)> = won.iter().map(|w| (w.configuration.allocation.as_str(), w.clear)).collect();
        assert_eq!(names, [("erk", true), ("lamp", true)]);
    }

    #[test]
    fn the_first_collapsed_layer_is_named() {
        let curves = [curve("erk", "none", &[(0.8, 0.9), (0.9, 0.2)])];
        let names = ["a".to_string(), "b".to_string()];
        let found = collapses(&curves, &names, &Thresholds::default());
        assert_eq!((found[0].sparsity, found[0].layer.as_str(), found[0].index, found[0].layers), (0.9, "b", 1, 1));
    }
}
