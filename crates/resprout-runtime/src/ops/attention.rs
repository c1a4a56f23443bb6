//! Attention over a sequence, and rotary positions.

use super::Attributes;
use super::fact::{Fact, operand, position};
use super::general::{General, Images};
use super::matrix;
use super::reduce::Softmax;
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
    /// Which scores are the fourth output: after the product, after the mask, or after normalisation.
    stage: i64,
    /// 0 for the result, 1 and 2 for all keys and values, 3 for the scores.
    output: usize,
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

/// The operands of an Attention by their input, and their shapes.
#[derive(Clone, Debug)]
struct Operands {
    q: Heads,
    /// Keys and values of this call.
    k: Heads,
    v: Heads,
    /// Keys of earlier calls that come first.
    past: usize,
    /// Where the mask, earlier keys, earlier values and the number of true keys are, if they are there.
    mask: Option<usize>,
    past_keys: Option<usize>,
    past_values: Option<usize>,
    lengths: Option<usize>,
    /// The mask's shape, whether it holds truth values, and how many keys it is for.
    mask_shape: Vec<usize>,
    truth: bool,
}

impl Operands {
    fn keys(&self) -> usize {
        self.past + self.k.length
    }

    /// All keys or values of one head, those of earlier calls first.
    fn rows(&self, inputs: &[&Tensor], of: Heads, at: usize, past: Option<usize>, [batch, head]: [usize; 2]) -> Vec<f32> {
        let old = Heads { length: self.past, packed: false, ..of };
        let mut rows = past.map_or_else(Vec::new, |past| old.matrix(&inputs[past].data, batch, head));
        rows.extend(of.matrix(&inputs[at].data, batch, head));
        rows
    }
}

impl Attention {
    pub(super) fn parse(a: &Attributes) -> Result<Attention> {
        let count = |name: &str| Ok::<_, Error>(a.optional_int(name)?.and_then(|n| usize::try_from(n).ok()));
        Ok(Attention {
            causal: a.flag("is_causal", false)?,
            heads: count("q_num_heads")?.zip(count("kv_num_heads")?).map(|(q, kv)| [q, kv]),
            scale: a.optional_float("scale")?,
            softcap: a.float("softcap", 0.0)?,
            window: [a.int("left_window_size", -1)?, a.int("right_window_size", -1)?],
            stage: a.int("qk_matmul_output_mode", 0)?,
            output: a.output,
        })
    }

    fn operands(&self, inputs: &[Option<Fact>]) -> Result<Operands> {
        let heads = |index: usize, of: usize| Heads::new(&operand(inputs, index)?.shape, self.heads.map(|heads| heads[of]));
        let (q, k, v) = (heads(0, 0)?, heads(1, 1)?, heads(2, 1)?);
        let fits = q.batch == k.batch && q.batch == v.batch && k.heads == v.heads && k.length == v.length && q.width == k.width;
        if !fits || k.heads == 0 || !q.heads.is_multiple_of(k.heads) {
            return Err(Error::data(format!("queries {q:?}, keys {k:?} and values {v:?} do not fit together")));
        }
        let fact = |index: usize| inputs.get(index).and_then(Option::as_ref);
        let past = fact(4).map_or(Some(0), |past| past.shape.get(2).copied());
        let expected = |of: Heads| past.map(|past| vec![of.batch, of.heads, past, of.width]);
        let cached = |index: usize, of: Heads| fact(index).is_none_or(|past| Some(&past.shape) == expected(of).as_ref());
        let (Some(past), true, true) = (past, cached(4, k), cached(5, v)) else {
            return Err(Error::data(format!("earlier keys or values that do not fit {k:?} and {v:?}")));
        };
        if fact(4).is_some() != fact(5).is_some() || fact(6).is_some_and(|lengths| lengths.shape != [q.batch]) {
            return Err(Error::data("earlier keys without values, or lengths that are not one for each image"));
        }
        let mask_shape = fact(3).map_or_else(Vec::new, |mask| mask.shape.clone());
        let grid = |keys: usize| [q.batch, q.heads, q.length, keys];
        // A mask may be for fewer keys than there are; it hides the others.
        let keys = mask_shape.last().copied().filter(|&keys| keys > 1).unwrap_or(past + k.length);
        let broadcast = super::binary::broadcast_shape(&mask_shape, &grid(keys)).ok();
        if keys > past + k.length || broadcast.as_deref() != Some(&grid(keys)[..]) {
            return Err(Error::data(format!("a mask of shape {mask_shape:?} for {:?}", grid(past + k.length))));
        }
        let [mask, past_keys, past_values, lengths] = [3, 4, 5, 6].map(|index| position(inputs, index));
        Ok(Operands {
            q,
            k,
            v,
            past,
            mask,
            past_keys,
            past_values,
            lengths,
            mask_shape,
            truth: fact(3).is_some_and(|m| m.integer),
        })
    }

    pub(super) fn resolve(&self, inputs: &[Option<Fact>]) -> Result<Resolved> {
        let all = self.operands(inputs)?;
        let (q, keys) = (all.q, all.keys());
        let grid = [q.batch, q.heads, q.length, keys];
        let width = all.v.width;
        let out = match self.output {
            0 if q.packed => vec![q.batch, q.length, q.heads * width],
            0 => vec![q.batch, q.heads, q.length, width],
            1 => vec![q.batch, all.k.heads, keys, all.k.width],
            2 => vec![q.batch, all.v.heads, keys, width],
            _ => grid.to_vec(),
        };
        let macs = element_count(&grid)? as u64 * (q.width + width) as u64;
        element_count(&out)?;
        // A mask of fewer axes is one for all images.
        let without = all.mask.filter(|_| all.mask_shape.len() < 4).into_iter().collect();
        let own = self.clone();
        let run = move |inputs: &[&Tensor], out: &mut Tensor, isa: Isa| match own.output {
            1 | 2 => own.cache(&all, inputs, out),
            _ => (0..q.batch).for_each(|batch| (0..q.heads).for_each(|head| own.head(&all, inputs, [batch, head], out, isa))),
        };
        let images = Images::First(without);
        Ok(Resolved { macs, ..General::new(7, images, run).shaped(out) })
    }

    /// Earlier and present keys, or values.
    fn cache(&self, all: &Operands, inputs: &[&Tensor], out: &mut Tensor) {
        let (of, at, past) = if self.output == 1 { (all.k, 1, all.past_keys) } else { (all.v, 2, all.past_values) };
        let heads = (0..of.batch).flat_map(|batch| (0..of.heads).map(move |head| [batch, head]));
        for (place, target) in heads.zip(out.data.chunks_exact_mut((all.keys() * of.width).max(1))) {
            target.copy_from_slice(&all.rows(inputs, of, at, past, place));
        }
    }

    /// One head of one image.
    fn head(&self, all: &Operands, inputs: &[&Tensor], [batch, head]: [usize; 2], out: &mut Tensor, isa: Isa) {
        let (q, v, keys) = (all.q, all.v, all.keys());
        let own = [batch, head / (q.heads / all.k.heads)];
        let (queries, values) = (q.matrix(&inputs[0].data, batch, head), all.rows(inputs, v, 2, all.past_values, own));
        let mut scores = vec![0.0; q.length * keys];
        let right = all.rows(inputs, all.k, 1, all.past_keys, own);
        PackedLinear::new(q.width, keys, &right, &[], Activation::None).run(isa, &queries, &mut scores);
        self.weigh(&mut scores, all, inputs, [batch, head]);
        if self.output == 3 {
            out.data[(batch * q.heads + head) * scores.len()..][..scores.len()].copy_from_slice(&scores);
            return;
        }
        let mut result = vec![0.0; q.length * v.width];
        let values = matrix::transposed(&values, keys, v.width);
        PackedLinear::new(keys, v.width, &values, &[], Activation::None).run(isa, &scores, &mut result);
        let to = Heads { width: v.width, ..q };
        for (at, row) in result.chunks_exact(v.width.max(1)).enumerate() {
            out.data[to.row(batch, head, at)..][..v.width].copy_from_slice(row);
        }
    }

    /// Scales, masks and normalises the scores of one head, up to the stage that is an output.
    fn weigh(&self, scores: &mut [f32], all: &Operands, inputs: &[&Tensor], [batch, head]: [usize; 2]) {
        let scale = self.scale.unwrap_or(1.0 / (all.q.width as f32).sqrt());
        let stage = if self.output == 3 { self.stage } else { 3 };
        for score in scores.iter_mut() {
            *score *= scale;
            if self.softcap > 0.0 {
                *score = self.softcap * (*score / self.softcap).tanh();
            }
        }
        if stage < 2 {
            return;
        }
        let keys = all.keys();
        // No sequence is longer, and no sum below overflows.
        let length = all.lengths.map(|at| inputs[at].data[batch].clamp(-1e9, 1e9) as i64);
        let before = length.map_or(all.past as i64, |length| length - all.q.length as i64);
        let [left, right] = self.window;
        for (i, score) in scores.iter_mut().enumerate() {
            let (query, key) = (i / keys, i % keys);
            let ahead = key as i64 - query as i64 - before;
            let hidden = (self.causal && ahead > 0) || (left >= 0 && -ahead > left) || (right >= 0 && ahead > right);
            match all.mask.map(|at| mask_at(&inputs[at].data, &all.mask_shape, [batch, head, query, key])) {
                Some(None) => *score = f32::NEG_INFINITY,
                Some(Some(shown)) if all.truth => *score = if shown == 0.0 { f32::NEG_INFINITY } else { *score },
                Some(Some(added)) => *score += added,
                None => {}
            }
            if hidden || length.is_some_and(|length| key as i64 >= length) {
                *score = f32::NEG_INFINITY;
            }
        }
        if stage > 2 {
            scores.chunks_exact_mut(keys.max(1)).for_each(softmax);
        }
    }
}

/// The mask at a place; `None` behind its last key.
fn mask_at(mask: &[f32], shape: &[usize], place: [usize; 4]) -> Option<f32> {
    let skipped = place.len() - shape.len();
    let at = shape.iter().zip(&place[skipped..]).try_fold(0, |at, (&dim, &index)| {
        let index = if dim == 1 { 0 } else { index };
        (index < dim).then_some(at * dim + index)
    });
    mask.get(at?).copied()
}

fn softmax(row: &mut [f32]) {
    // A query that sees no key has no weights.
    match row.iter().copied().fold(f32::NEG_INFINITY, f32::max) == f32::NEG_INFINITY {
        true => row.fill(0.0),
        false => Softmax::of_rows(row.len()).run(row),
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
        let wide = turned <= x.width && table.last() == Some(&half) && !table.contains(&0);
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
        let tables = if ids.is_some() { vec![1, 2] } else { Vec::new() };
        Ok(General::new(4, Images::First(tables), run).shaped(shape))
    }
}

fn places(x: Heads) -> impl Iterator<Item = (usize, usize, usize)> {
    let heads = move |batch| (0..x.heads).flat_map(move |head| (0..x.length).map(move |at| (batch, head, at)));
    (0..x.batch).flat_map(heads)
}
