//! Attention over a sequence, and rotary positions.

use super::Attributes;
use super::binary::expanded;
use super::fact::{Fact, operand, position};
use super::general::{General, Images};
use super::matrix;
use super::resolve::Resolved;
use crate::error::{Error, Result};
use crate::tensor::{Tensor, element_count};
use resprout_kernels::{Activation, Isa, PackedLinear};

/// Attributes of Attention.
#[derive(Clone, Debug, PartialEq)]
pub struct Attention {
    causal: bool,
    heads: Option<[usize; 2]>,
    scale: Option<f32>,
    softcap: f32,
    /// How many keys a query sees in front of its own place and behind it; all if negative.
    window: [i64; 2],
}

/// Batch, heads, length and width of a value, and whether its heads lie behind each other within the last axis.
#[derive(Clone, Copy, Debug)]
struct Heads {
    batch: usize,
    heads: usize,
    length: usize,
    width: usize,
    packed: bool,
}

impl Heads {
    fn new(shape: &[usize], heads: Option<usize>) -> Result<Heads> {
        let wrong = || Error::data(format!("attention of shape {shape:?} in {heads:?} heads"));
        match (shape, heads) {
            (&[batch, heads, length, width], _) => Ok(Heads { batch, heads, length, width, packed: false }),
            (&[batch, length, all], Some(heads)) if heads > 0 && all.is_multiple_of(heads) => {
                Ok(Heads { batch, heads, length, width: all / heads, packed: true })
            }
            _ => Err(wrong()),
        }
    }

    /// The matrix `[length, width]` of one head.
    fn matrix(&self, data: &[f32], batch: usize, head: usize) -> Vec<f32> {
        let row = |at: usize| self.row(batch, head, at);
        (0..self.length).flat_map(|at| data[row(at)..][..self.width].iter().copied()).collect()
    }

    fn row(&self, batch: usize, head: usize, at: usize) -> usize {
        match self.packed {
            true => ((batch * self.length + at) * self.heads + head) * self.width,
            false => ((batch * self.heads + head) * self.length + at) * self.width,
        }
    }
}

impl Attention {
    pub(super) fn parse(a: &Attributes) -> Result<Attention> {
        if a.output > 0 {
            return Err(Error::unsupported("Attention with a second output"));
        }
        let count = |name: &str| Ok::<_, Error>(a.optional_int(name)?.and_then(|n| usize::try_from(n).ok()));
        Ok(Attention {
            causal: a.flag("is_causal", false)?,
            heads: count("q_num_heads")?.zip(count("kv_num_heads")?).map(|(q, kv)| [q, kv]),
            scale: a.optional_float("scale")?,
            softcap: a.float("softcap", 0.0)?,
            window: [a.int("left_window_size", -1)?, a.int("right_window_size", -1)?],
        })
    }

    pub(super) fn resolve(&self, inputs: &[Option<Fact>]) -> Result<Resolved> {
        if (4..=6).any(|index| position(inputs, index).is_some()) {
            return Err(Error::unsupported("Attention with a cache of past keys"));
        }
        let heads = |index: usize, of: usize| Heads::new(&operand(inputs, index)?.shape, self.heads.map(|heads| heads[of]));
        let (q, k, v) = (heads(0, 0)?, heads(1, 1)?, heads(2, 1)?);
        let fits = q.batch == k.batch && q.batch == v.batch && k.heads == v.heads && k.length == v.length && q.width == k.width;
        if !fits || k.heads == 0 || !q.heads.is_multiple_of(k.heads) {
            return Err(Error::data(format!("queries {q:?}, keys {k:?} and values {v:?} do not fit together")));
        }
        let grid = [q.batch, q.heads, q.length, k.length];
        let (mask_at, truth) = (position(inputs, 3), inputs.get(3).and_then(Option::as_ref).is_some_and(|mask| mask.integer));
        let mask = inputs.get(3).and_then(Option::as_ref);
        if let Some(mask) = mask.filter(|mask| super::binary::broadcast_shape(&mask.shape, &grid).ok().as_deref() != Some(&grid[..])) {
            return Err(Error::data(format!("a mask of shape {:?} for {grid:?}", mask.shape)));
        }
        let to = Heads { width: v.width, ..q };
        let out = match q.packed {
            true => vec![q.batch, q.length, q.heads * v.width],
            false => vec![q.batch, q.heads, q.length, v.width],
        };
        let macs = element_count(&grid)? as u64 * (q.width + v.width) as u64;
        let own = self.clone();
        let run = move |inputs: &[&Tensor], out: &mut Tensor, isa: Isa| {
            let mask = mask_at.and_then(|at| expanded(inputs[at], &grid).ok());
            for batch in 0..q.batch {
                for head in 0..q.heads {
                    let (queries, kv) = (q.matrix(&inputs[0].data, batch, head), head / (q.heads / k.heads));
                    let (keys, values) = (k.matrix(&inputs[1].data, batch, kv), v.matrix(&inputs[2].data, batch, kv));
                    let mut scores = vec![0.0; q.length * k.length];
                    PackedLinear::new(q.width, k.length, &keys, &[], Activation::None).run(isa, &queries, &mut scores);
                    let start = (batch * q.heads + head) * scores.len();
                    let mask = mask.as_ref().map(|mask| &mask.data[start..][..scores.len()]);
                    own.weigh(&mut scores, mask, truth, [q.width, k.length]);
                    let mut result = vec![0.0; q.length * v.width];
                    let values = matrix::transposed(&values, v.length, v.width);
                    PackedLinear::new(v.length, v.width, &values, &[], Activation::None).run(isa, &scores, &mut result);
                    for (at, row) in result.chunks_exact(v.width.max(1)).enumerate() {
                        out.data[to.row(batch, head, at)..][..v.width].copy_from_slice(row);
                    }
                }
            }
        };
        let count = if mask_at.is_some() { 4 } else { 3 };
        Ok(Resolved { macs, ..General::new(count, Images::First, run).shaped(out) })
    }

    /// Scales, masks and normalises the scores of one head.
    fn weigh(&self, scores: &mut [f32], mask: Option<&[f32]>, truth: bool, [width, keys]: [usize; 2]) {
        let scale = self.scale.unwrap_or(1.0 / (width as f32).sqrt());
        for (i, score) in scores.iter_mut().enumerate() {
            *score *= scale;
            if self.softcap > 0.0 {
                *score = self.softcap * (*score / self.softcap).tanh();
            }
            match mask.map(|mask| mask[i]) {
                Some(0.0) if truth => *score = f32::NEG_INFINITY,
                Some(added) if !truth => *score += added,
                _ => {}
            }
            let ahead = (i % keys) as i64 - (i / keys) as i64;
            let [left, right] = self.window;
            if (self.causal && ahead > 0) || (left >= 0 && -ahead > left) || (right >= 0 && ahead > right) {
                *score = f32::NEG_INFINITY;
            }
        }
        for row in scores.chunks_exact_mut(keys.max(1)) {
            let largest = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
            // A query that sees no key has no weights.
            if largest == f32::NEG_INFINITY {
                row.fill(0.0);
                continue;
            }
            let sum: f64 = row.iter().map(|v| f64::from(v - largest).exp()).sum();
            row.iter_mut().for_each(|v| *v = (f64::from(*v - largest).exp() / sum) as f32);
        }
    }
}

/// Attributes of RotaryEmbedding.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RotaryEmbedding {
    interleaved: bool,
    heads: usize,
    width: usize,
}

impl RotaryEmbedding {
    pub(super) fn parse(a: &Attributes) -> Result<RotaryEmbedding> {
        let count = |name: &str| Ok::<_, Error>(usize::try_from(a.int(name, 0)?).unwrap_or(0));
        Ok(RotaryEmbedding {
            interleaved: a.flag("interleaved", false)?,
            heads: count("num_heads")?,
            width: count("rotary_embedding_dim")?,
        })
    }

    pub(super) fn resolve(&self, inputs: &[Option<Fact>]) -> Result<Resolved> {
        let shape = operand(inputs, 0)?.shape.clone();
        let x = Heads::new(&shape, Some(self.heads))?;
        let turned = if self.width == 0 { x.width } else { self.width };
        let (half, ids) = (turned / 2, position(inputs, 3));
        let table = &operand(inputs, 1)?.shape;
        let rows = match ids {
            Some(_) => table.len() == 2 && operand(inputs, 3)?.shape == [x.batch, x.length],
            None => *table == [x.batch, x.length, half],
        };
        let wide = turned <= x.width && table.last() == Some(&half) && half > 0;
        if !rows || !wide || operand(inputs, 2)?.shape != *table {
            return Err(Error::data(format!("angles of shape {table:?} for values of shape {shape:?}")));
        }
        let (interleaved, positions) = (self.interleaved, table[0]);
        let run = move |inputs: &[&Tensor], out: &mut Tensor, _: Isa| {
            out.data.copy_from_slice(&inputs[0].data);
            let place = |batch: usize, at: usize| match ids {
                Some(ids) => (inputs[ids].data[batch * x.length + at].max(0.0) as usize).min(positions - 1),
                None => batch * x.length + at,
            };
            for (batch, head, at) in places(x) {
                let (row, angle) = (x.row(batch, head, at), place(batch, at) * half);
                for i in 0..half {
                    let (a, b) = if interleaved { (row + 2 * i, row + 2 * i + 1) } else { (row + i, row + half + i) };
                    let (cos, sin) = (inputs[1].data[angle + i], inputs[2].data[angle + i]);
                    let (left, right) = (inputs[0].data[a], inputs[0].data[b]);
                    (out.data[a], out.data[b]) = (cos * left - sin * right, sin * left + cos * right);
                }
            }
        };
        Ok(General::new(4, Images::First, run).shaped(shape))
    }
}

fn places(x: Heads) -> impl Iterator<Item = (usize, usize, usize)> {
    let heads = move |batch| (0..x.heads).flat_map(move |head| (0..x.length).map(move |at| (batch, head, at)));
    (0..x.batch).flat_map(heads)
}
