//! Recurrent layers: LSTM, GRU and RNN.

use super::fact::{Fact, operand, position};
use super::general::{General, Images};
use super::resolve::Resolved;
use super::{Attributes, UnaryOp};
use crate::error::{Error, Result};
use crate::tensor::{Tensor, element_count};
use resprout_kernels::Isa;

/// A recurrent layer.
#[derive(Clone, Debug, PartialEq)]
pub struct Recurrent {
    cell: Cell,
    directions: Vec<bool>,
    hidden: usize,
    activations: Vec<UnaryOp>,
    clip: Option<f32>,
    linear_before_reset: bool,
    input_forget: bool,
    batch_first: bool,
    output: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Cell {
    Lstm,
    Gru,
    Rnn,
}

impl Cell {
    /// Matrices of weights that each direction has.
    fn gates(self) -> usize {
        match self {
            Cell::Lstm => 4,
            Cell::Gru => 3,
            Cell::Rnn => 1,
        }
    }

    fn functions(self) -> &'static [&'static str] {
        match self {
            Cell::Lstm => &["Sigmoid", "Tanh", "Tanh"],
            Cell::Gru => &["Sigmoid", "Tanh"],
            Cell::Rnn => &["Tanh"],
        }
    }
}

impl Recurrent {
    pub(super) fn parse(kind: &str, a: &Attributes) -> Result<Option<Recurrent>> {
        let cell = match kind {
            "LSTM" => Cell::Lstm,
            "GRU" => Cell::Gru,
            "RNN" => Cell::Rnn,
            _ => return Ok(None),
        };
        if a.output > if cell == Cell::Lstm { 2 } else { 1 } {
            return Ok(None);
        }
        let directions = match a.text("direction")?.as_deref() {
            None | Some("forward") => vec![false],
            Some("reverse") => vec![true],
            Some("bidirectional") => vec![false, true],
            Some(other) => return Err(Error::format(format!("direction {other:?}"))),
        };
        let hidden = a.int("hidden_size", 0)?;
        let hidden = usize::try_from(hidden)
            .ok()
            .filter(|&n| (1..1 << 24).contains(&n))
            .ok_or_else(|| Error::format(format!("hidden_size {hidden}")))?;
        let activations = functions(cell, directions.len(), a)?;
        Ok(Some(Recurrent {
            cell,
            directions,
            hidden,
            activations,
            clip: a.optional_float("clip")?,
            linear_before_reset: a.flag("linear_before_reset", false)?,
            input_forget: a.flag("input_forget", false)?,
            batch_first: a.flag("layout", false)?,
            output: a.output,
        }))
    }

    /// The operation's name in ONNX.
    pub fn name(&self) -> &'static str {
        match self.cell {
            Cell::Lstm => "LSTM",
            Cell::Gru => "GRU",
            Cell::Rnn => "RNN",
        }
    }

    pub(super) fn resolve(&self, inputs: &[Option<Fact>]) -> Result<Resolved> {
        let x = operand(inputs, 0)?.shape.clone();
        let (directions, hidden, gates) = (self.directions.len(), self.hidden, self.cell.gates());
        let wrong =
            |what: &str, shape: &[usize]| Error::data(format!("{what} of shape {shape:?} for {hidden} hidden units of {x:?}"));
        let &[first, second, width] = &x[..] else { return Err(wrong("a sequence", &x)) };
        let (steps, batch) = if self.batch_first { (second, first) } else { (first, second) };
        let expected = |index: usize, what: &str, shape: &[usize]| match inputs.get(index).and_then(Option::as_ref) {
            Some(fact) if fact.shape != shape => Err(wrong(what, &fact.shape)),
            _ => Ok(()),
        };
        let state = if self.batch_first { [batch, directions, hidden] } else { [directions, batch, hidden] };
        expected(1, "weights", &[directions, gates * hidden, width])?;
        expected(2, "recurrent weights", &[directions, gates * hidden, hidden])?;
        expected(3, "a bias", &[directions, 2 * gates * hidden])?;
        expected(4, "lengths", &[batch])?;
        expected(5, "a first state", &state)?;
        expected(6, "a first cell", &state)?;
        expected(7, "peepholes", &[directions, 3 * hidden])?;
        let out = match (self.output, self.batch_first) {
            (0, false) => vec![steps, directions, batch, hidden],
            (0, true) => vec![batch, steps, directions, hidden],
            _ => state.to_vec(),
        };
        let at: Vec<Option<usize>> = (0..8).map(|index| position(inputs, index)).collect();
        let macs = element_count(&[steps, batch, directions, gates * hidden])? as u64 * (width + hidden) as u64;
        let own = self.clone();
        let run = move |inputs: &[&Tensor], out: &mut Tensor, _: Isa| {
            let part = |index: usize| at[index].map(|at| &inputs[at].data[..]);
            let layer = Layer { own: &own, part: &part, steps, batch, width };
            (0..directions).for_each(|direction| layer.run(direction, &mut out.data));
        };
        let axis = usize::from(!self.batch_first);
        let place = match self.output {
            0 if !self.batch_first => 2,
            _ => axis,
        };
        let images = Images::Axes((0..3).map(|at| (at == axis).then_some(place)).collect());
        Ok(Resolved { macs, ..General::new(inputs.len(), images, run).shaped(out) })
    }
}

fn functions(cell: Cell, directions: usize, a: &Attributes) -> Result<Vec<UnaryOp>> {
    let names = a
        .texts("activations")?
        .unwrap_or_else(|| (0..directions).flat_map(|_| cell.functions().iter().map(|name| name.to_string())).collect());
    let (alphas, betas) = (a.floats("activation_alpha")?.unwrap_or_default(), a.floats("activation_beta")?.unwrap_or_default());
    if names.len() != directions * cell.functions().len() {
        return Err(Error::format(format!("activations {names:?} for {directions} directions")));
    }
    let one = |(index, name): (usize, &String)| {
        let mut attributes = Attributes::new(20);
        for (key, values) in [("alpha", &alphas), ("beta", &betas)] {
            values.get(index).into_iter().for_each(|&v| attributes.insert(key.into(), super::Attribute::Float(v)));
        }
        let op = UnaryOp::parse(name, &attributes)?;
        op.ok_or_else(|| Error::unsupported(format!("a recurrent layer with the activation {name:?}")))
    };
    names.iter().enumerate().map(one).collect()
}

/// A layer with its operands.
struct Layer<'a> {
    own: &'a Recurrent,
    part: &'a dyn Fn(usize) -> Option<&'a [f32]>,
    steps: usize,
    batch: usize,
    width: usize,
}

impl Layer<'_> {
    fn run(&self, direction: usize, out: &mut [f32]) {
        let (own, hidden) = (self.own, self.own.hidden);
        let directions = own.directions.len();
        let state = |index: usize, image: usize| {
            let row = if own.batch_first { image * directions + direction } else { direction * self.batch + image };
            (self.part)(index).map_or_else(|| vec![0.0; hidden], |all| all[row * hidden..][..hidden].to_vec())
        };
        for image in 0..self.batch {
            let (mut h, mut c) = (state(5, image), state(6, image));
            let length = (self.part)(4).map_or(self.steps, |lengths| (lengths[image].max(0.0) as usize).min(self.steps));
            for step in 0..self.steps {
                let at = if own.directions[direction] { length.wrapping_sub(step + 1) } else { step };
                let at = if step < length { at } else { step };
                if step < length {
                    self.step(direction, image, at, &mut h, &mut c);
                }
                if own.output == 0 {
                    let row = match own.batch_first {
                        false => (at * directions + direction) * self.batch + image,
                        true => (image * self.steps + at) * directions + direction,
                    };
                    let target = &mut out[row * hidden..][..hidden];
                    // Behind the end of a shorter sequence there are zeros.
                    if step < length { target.copy_from_slice(&h) } else { target.fill(0.0) }
                }
            }
            if own.output > 0 {
                let row = if own.batch_first { image * directions + direction } else { direction * self.batch + image };
                out[row * hidden..][..hidden].copy_from_slice(if own.output == 1 { &h } else { &c });
            }
        }
    }

    /// The products of one gate with a vector, for all hidden units, and its bias.
    fn gate(&self, index: usize, direction: usize, gate: usize, x: &[f32]) -> Vec<f32> {
        let (hidden, gates) = (self.own.hidden, self.own.cell.gates());
        let bias = (self.part)(3).map(|bias| &bias[(direction * 2 + index - 1) * gates * hidden + gate * hidden..][..hidden]);
        let weights = (self.part)(index).unwrap_or_default();
        let start = (direction * gates + gate) * hidden * x.len();
        let sum = |unit: usize| {
            let row = weights.get(start + unit * x.len()..).unwrap_or_default();
            let sum: f64 = row.iter().zip(x).map(|(&w, &x)| f64::from(w) * f64::from(x)).sum();
            (sum + bias.map_or(0.0, |bias| f64::from(bias[unit]))) as f32
        };
        (0..hidden).map(sum).collect()
    }

    fn activate(&self, direction: usize, function: usize, x: f32) -> f32 {
        let x = self.own.clip.map_or(x, |clip| x.max(-clip.abs()).min(clip.abs()));
        self.own.activations[direction * self.own.cell.functions().len() + function].of(x)
    }

    fn step(&self, direction: usize, image: usize, at: usize, h: &mut [f32], c: &mut [f32]) {
        let row = if self.own.batch_first { image * self.steps + at } else { at * self.batch + image };
        let x = &(self.part)(0).unwrap_or_default()[row * self.width..][..self.width];
        let both = |gate: usize, h: &[f32]| -> Vec<f32> {
            self.gate(1, direction, gate, x).iter().zip(self.gate(2, direction, gate, h)).map(|(a, b)| a + b).collect()
        };
        match self.own.cell {
            Cell::Rnn => {
                let sums = both(0, h);
                h.iter_mut().zip(sums).for_each(|(h, sum)| *h = self.activate(direction, 0, sum));
            }
            Cell::Gru => self.gru(direction, x, h),
            Cell::Lstm => {
                let [i, o, f, g] = [0, 1, 2, 3].map(|gate| both(gate, h));
                let hidden = self.own.hidden;
                let peephole = |gate: usize, unit: usize, c: f32| {
                    (self.part)(7).map_or(0.0, |all| all[(direction * 3 + gate) * hidden + unit] * c)
                };
                for unit in 0..hidden {
                    let input = self.activate(direction, 0, i[unit] + peephole(0, unit, c[unit]));
                    let forget = match self.own.input_forget {
                        true => 1.0 - input,
                        false => self.activate(direction, 0, f[unit] + peephole(2, unit, c[unit])),
                    };
                    c[unit] = forget * c[unit] + input * self.activate(direction, 1, g[unit]);
                    let output = self.activate(direction, 0, o[unit] + peephole(1, unit, c[unit]));
                    h[unit] = output * self.activate_cell(direction, c[unit]);
                }
            }
        }
    }

    /// The activation of a cell's state, which is not clipped.
    fn activate_cell(&self, direction: usize, c: f32) -> f32 {
        self.own.activations[direction * 3 + 2].of(c)
    }

    fn gru(&self, direction: usize, x: &[f32], h: &mut [f32]) {
        let input = |gate: usize| self.gate(1, direction, gate, x);
        let own = |gate: usize, h: &[f32]| self.gate(2, direction, gate, h);
        let open = |gate: usize, h: &[f32]| -> Vec<f32> {
            input(gate).iter().zip(own(gate, h)).map(|(a, b)| self.activate(direction, 0, a + b)).collect()
        };
        let (update, reset) = (open(0, h), open(1, h));
        let fresh: Vec<f32> = if self.own.linear_before_reset {
            let kept = own(2, h);
            input(2).iter().zip(kept.iter().zip(&reset)).map(|(a, (b, r))| a + r * b).collect()
        } else {
            let kept: Vec<f32> = h.iter().zip(&reset).map(|(h, r)| h * r).collect();
            input(2).iter().zip(own(2, &kept)).map(|(a, b)| a + b).collect()
        };
        for ((h, z), fresh) in h.iter_mut().zip(&update).zip(fresh) {
            *h = (1.0 - z) * self.activate(direction, 1, fresh) + z * *h;
        }
    }
}
