//! Activations and maxima held as they are at one point, so that a network is smooth around it.
//!
//! A rectifier's second derivative is zero but for a jump. Differences of gradients between two points see the
//! jumps that lie between them, and these do not vanish with the distance, because the shorter it is the
//! more each of them counts. Held gates leave the derivative that exists almost everywhere.

use super::ops::unary::{slope, value};
use resprout::ops::UnaryOp;
use std::collections::HashMap;
use std::sync::Arc;

/// What is done about activations and maxima in a pass.
pub(crate) enum Hold<'a> {
    /// They are computed.
    Free,
    /// They are computed, and noted.
    Note(&'a mut Gates),
    /// They are as they were noted.
    Keep(&'a Gates),
}

/// The gates of a pass, by the slot that is written.
#[derive(Default)]
pub(crate) struct Gates(HashMap<usize, Gate>);

/// A gate.
#[derive(Clone)]
pub(super) enum Gate {
    Line(Arc<Line>),
    Maxima(Arc<Vec<u16>>),
}

/// What a piecewise linear function does at each element.
pub(super) struct Line {
    pub slope: Vec<f32>,
    pub offset: Vec<f32>,
}

impl Hold<'_> {
    /// The gate that is held for this slot.
    pub(super) fn kept(&self, slot: usize) -> Option<&Gate> {
        if let Hold::Keep(gates) = self { gates.0.get(&slot) } else { None }
    }

    /// Notes a gate, if gates are noted.
    pub(super) fn note(&mut self, slot: usize, gate: impl FnOnce() -> Option<Gate>) {
        if let Hold::Note(gates) = self {
            gates.0.extend(gate().map(|gate| (slot, gate)));
        }
    }

    pub(super) fn is_free(&self) -> bool {
        matches!(self, Hold::Free)
    }
}

impl Line {
    /// The function's line at each element; `None` for functions that are smooth, or curved between their bends.
    pub fn of(op: UnaryOp, x: &[f32]) -> Option<Line> {
        match op {
            UnaryOp::Relu | UnaryOp::LeakyRelu { .. } | UnaryOp::Clamp { .. } | UnaryOp::HardSigmoid { .. } => {}
            _ => return None,
        }
        // Inside of its pieces, value and argument are on one side of each bend.
        let slope: Vec<f32> = x.iter().map(|&x| slope(op, x)).collect();
        let offset = x.iter().zip(&slope).map(|(&x, slope)| value(op, x) - x * slope).collect();
        Some(Line { slope, offset })
    }
}
