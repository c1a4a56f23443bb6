//! Puts the tensors of a file into a model's parameters: all of them, or none.

use super::MASK_SUFFIX;
use super::names::{Names, count, some};
use super::stored::{Number, Stored};
use crate::error::{Error, Result};
use crate::model::{BIAS_SUFFIX, Layer, Mask, Model};
use crate::ops::Op;
use crate::tensor::Tensor;
use std::collections::{BTreeMap, BTreeSet};

/// The tensors from which a parameter is computed.
#[derive(Clone, Debug)]
enum Source<'f> {
    Plain(Stored<'f>),
    /// A weight times its mask (`torch.nn.utils.prune`).
    Pruned(Stored<'f>, Stored<'f>),
    /// Length and direction (`weight_norm`).
    Norm(Stored<'f>, Stored<'f>),
}

impl Source<'_> {
    /// The tensor that has the parameter's shape.
    fn main(&self) -> &Stored<'_> {
        match self {
            Source::Plain(stored) | Source::Pruned(stored, _) | Source::Norm(_, stored) => stored,
        }
    }
}

/// Replaces the model's weights, biases and statistics, and takes over masks. Nothing is changed unless all of it fits.
pub(in crate::formats) fn place(model: &mut Model, mut names: Names) -> Result<Vec<String>> {
    let expected = state_names(model);
    let mut notes = Vec::new();
    names.simplify(&expected, &mut notes);
    let mut next = model.clone();
    let mut table = Table::new(names)?;
    table.compute(model, &mut notes)?;
    table.add_biases(&mut next)?;
    table.drop_aliases(&next, &mut notes);
    table.drop_integers(&next, &mut notes);
    table.check_names(&next, &expected)?;
    table.put(&mut next, &mut notes)?;
    next.apply_masks();
    *model = next;
    Ok(notes)
}

/// The tensors of a file on their way into a model.
struct Table<'f> {
    tensors: BTreeMap<String, Stored<'f>>,
    sources: BTreeMap<String, Source<'f>>,
    /// Masks named as [`MASK_SUFFIX`] says.
    masks: BTreeMap<String, Stored<'f>>,
}

impl<'f> Table<'f> {
    fn new(names: Names<'f>) -> Result<Table<'f>> {
        let mut table = Table { tensors: BTreeMap::new(), sources: BTreeMap::new(), masks: BTreeMap::new() };
        for (name, stored) in names.tensors {
            if table.tensors.insert(name.clone(), stored).is_some() {
                return Err(Error::data(format!("{name:?} is there twice, once what is around the names is taken off")));
            }
        }
        Ok(table)
    }

    /// Finds the parameters that are stored in several parts.
    fn compute(&mut self, model: &Model, notes: &mut Vec<String>) -> Result<()> {
        let pruned = self.pairs(model, "_orig", |base| [format!("{base}_orig"), format!("{base}_mask")], Source::Pruned);
        let old = self.pairs(model, "_g", |base| [format!("{base}_g"), format!("{base}_v")], Source::Norm);
        let part = |base: &str, part: &str| match base.rsplit_once('.') {
            Some((module, name)) => format!("{module}.parametrizations.{name}.{part}"),
            None => format!("parametrizations.{base}.{part}"),
        };
        let new = self.parametrized(|base| [part(base, "original0"), part(base, "original1")]);
        if pruned > 0 {
            notes.push(format!("{} came with a mask of torch.nn.utils.prune", count(pruned, "parameter")));
        }
        if old + new > 0 {
            notes.push(format!("{} computed from length and direction (weight_norm)", count(old + new, "weight")));
        }
        self.refuse_parts()?;
        for (name, stored) in std::mem::take(&mut self.tensors) {
            match name.strip_suffix(MASK_SUFFIX).filter(|_| stored.number == Number::Bool) {
                Some(of) => drop(self.masks.insert(of.to_string(), stored)),
                None => drop(self.sources.insert(name, Source::Plain(stored))),
            }
        }
        Ok(())
    }

    /// Joins every two tensors with such names to one source, unless the model has a parameter of that name.
    fn pairs(
        &mut self,
        model: &Model,
        suffix: &str,
        parts: fn(&str) -> [String; 2],
        source: fn(Stored<'f>, Stored<'f>) -> Source<'f>,
    ) -> usize {
        let names = self.tensors.keys().filter(|name| model.params.get(name).is_none());
        let bases: Vec<String> = names.filter_map(|name| name.strip_suffix(suffix).map(String::from)).collect();
        bases.iter().filter(|base| self.pair(base, parts(base), source)).count()
    }

    fn parametrized(&mut self, parts: impl Fn(&str) -> [String; 2]) -> usize {
        let base = |name: &String| {
            let (module, rest) = name.split_once("parametrizations.")?;
            Some(format!("{module}{}", rest.strip_suffix(".original0")?))
        };
        let bases: Vec<String> = self.tensors.keys().filter_map(base).collect();
        bases.iter().filter(|base| self.pair(base, parts(base), Source::Norm)).count()
    }

    fn pair(&mut self, base: &str, [first, second]: [String; 2], source: fn(Stored<'f>, Stored<'f>) -> Source<'f>) -> bool {
        let (Some(a), Some(b)) = (self.tensors.get(&first).cloned(), self.tensors.get(&second).cloned()) else { return false };
        self.tensors.remove(&first);
        self.tensors.remove(&second);
        self.sources.insert(base.to_string(), source(a, b));
        true
    }

    /// Fails on a weight that is computed in an unsupported way.
    fn refuse_parts(&self) -> Result<()> {
        for name in self.tensors.keys() {
            let advice = match name.strip_suffix("_orig") {
                Some(base) if self.tensors.contains_key(&format!("{base}_u")) => "torch.nn.utils.remove_spectral_norm",
                _ if name.contains("parametrizations.") => "torch.nn.utils.parametrize.remove_parametrizations",
                _ => continue,
            };
            return Err(Error::unsupported(format!(
                "{name:?}: the weight is computed from it in a way that is not known here; call {advice} before saving"
            )));
        }
        Ok(())
    }

    /// Adds the biases that a repair gave to layers: the model that was read does not have them.
    fn add_biases(&self, model: &mut Model) -> Result<()> {
        let new = self.sources.iter().filter(|(name, _)| model.params.get(name).is_none()).collect::<Vec<_>>();
        new.into_iter().try_for_each(|(name, source)| add_bias(model, name, &source.main().shape))
    }

    /// Drops second names of weights that layers share: the graph has one name.
    fn drop_aliases(&mut self, model: &Model, notes: &mut Vec<String>) {
        let (known, new): (Vec<_>, Vec<_>) = self.sources.iter().partition(|(name, _)| model.params.get(name).is_some());
        let is_alias = |(_, source): &(&String, &Source)| known.iter().any(|(_, other)| other.main().is_same_as(source.main()));
        let aliases: Vec<String> = new.into_iter().filter(is_alias).map(|(name, _)| name.clone()).collect();
        if !aliases.is_empty() {
            notes.push(format!("left out: second names of tensors that are there ({})", some(&aliases)));
            aliases.iter().for_each(|name| drop(self.sources.remove(name)));
        }
    }

    /// Drops integers that the model does not have.
    fn drop_integers(&mut self, model: &Model, notes: &mut Vec<String>) {
        let out = |(name, source): &(&String, &Source)| {
            let is_integer = matches!(source.main().number, Number::Integer(_) | Number::Bool);
            is_integer && model.params.get(name).is_none()
        };
        let names: Vec<String> = self.sources.iter().filter(out).map(|(name, _)| name.clone()).collect();
        if !names.is_empty() {
            notes.push(format!("left out: {} of integers ({})", count(names.len(), "tensor"), some(&names)));
            names.iter().for_each(|name| drop(self.sources.remove(name)));
        }
    }

    /// Fails unless the file holds all weights and statistics of the model and nothing else. A file may hold masks alone.
    fn check_names(&self, model: &Model, expected: &BTreeSet<String>) -> Result<()> {
        let masks_alone = self.sources.is_empty() && !self.masks.is_empty();
        let missing: Vec<&String> = expected.iter().filter(|name| !masks_alone && !self.sources.contains_key(*name)).collect();
        let stored = self.sources.keys().chain(self.masks.keys());
        let unexpected: BTreeSet<&String> = stored.filter(|name| model.params.f32(name).is_none()).collect();
        let named = |found: usize, names: String| if found == 0 { String::new() } else { format!(" ({names})") };
        match (missing.len(), unexpected.len()) {
            (0, 0) if self.sources.is_empty() && self.masks.is_empty() => Err(Error::format("holds no tensors")),
            (0, 0) => Ok(()),
            (less, more) => Err(Error::data(format!(
                "the file's names are not the model's: {less} missing of {}{}, {more} unexpected{}",
                expected.len(),
                named(less, some(&missing)),
                named(more, some(&unexpected)),
            ))),
        }
    }

    fn put(&self, model: &mut Model, notes: &mut Vec<String>) -> Result<()> {
        let mut converted: BTreeMap<&str, usize> = BTreeMap::new();
        for (name, source) in &self.sources {
            let (values, mask) = read(model, name, source).map_err(|e| e.at(format!("{name:?}")))?;
            let main = source.main();
            if main.number != Number::F32 {
                *converted.entry(main.type_name()).or_default() += 1;
            }
            let seen = model.as_seen(name, Tensor::new(main.shape.clone(), values))?;
            if let Some(tensor) = model.params.f32_mut(name) {
                tensor.data = seen.data;
            }
            if let Some(mask) = mask {
                let mask = model.seen_mask(name, Mask(mask))?;
                model.masks.insert(name.clone(), mask);
            }
        }
        for (name, stored) in &self.masks {
            check_shape(model, name, stored).map_err(|e| e.at(format!("mask of {name:?}")))?;
            let mask = model.seen_mask(name, Mask(stored.flags()?))?;
            model.masks.insert(name.clone(), mask);
        }
        let row = |(name, number): (&str, usize)| format!("{} of type {name} became 32-bit floats", count(number, "tensor"));
        notes.extend(converted.into_iter().map(row));
        Ok(())
    }
}

/// The numbers of a parameter, and its mask.
fn read(model: &Model, name: &str, source: &Source) -> Result<(Vec<f32>, Option<Vec<bool>>)> {
    check_shape(model, name, source.main())?;
    match source {
        Source::Plain(stored) => Ok((stored.floats()?, None)),
        Source::Pruned(stored, mask) => {
            check_shape(model, name, mask).map_err(|e| e.at("its mask"))?;
            let mut values = stored.floats()?;
            if mask.is_float() {
                values.iter_mut().zip(mask.floats()?).for_each(|(value, factor)| *value *= factor);
            }
            Ok((values, Some(mask.flags()?)))
        }
        Source::Norm(lengths, directions) => Ok((weight_norm(lengths, directions)?, None)),
    }
}

fn check_shape(model: &Model, name: &str, stored: &Stored) -> Result<()> {
    if let Err(why) = &stored.bytes {
        return Err(Error::unsupported(why.clone()));
    }
    model.weight(name)?;
    let expected = model.stored_shape(name)?.unwrap_or_default();
    match expected == stored.shape {
        true => Ok(()),
        false => Err(Error::data(format!("shape {:?} in the file, {expected:?} in the model", stored.shape))),
    }
}

/// `g v / |v|`. The norm is over the axes along which `g` has length 1, or over all of them if `g` is a scalar.
fn weight_norm(lengths: &Stored, directions: &Stored) -> Result<Vec<f32>> {
    let shape = &directions.shape;
    let fits = |(axis, &length): (usize, &usize)| length == 1 || shape.get(axis) == Some(&length);
    let scalar = lengths.shape.is_empty();
    if !scalar && (lengths.shape.len() != shape.len() || !lengths.shape.iter().enumerate().all(fits)) {
        return Err(Error::data(format!("lengths of shape {:?} for directions of shape {shape:?} (weight_norm)", lengths.shape)));
    }
    let (g, v) = (lengths.floats()?, directions.floats()?);
    // The index in `g` for each index in `v`.
    let target = |mut index: usize| {
        let (mut target, mut step) = (0, 1);
        for axis in (0..lengths.shape.len()).rev() {
            let at = index % shape[axis];
            index /= shape[axis];
            if lengths.shape[axis] > 1 {
                target += at * step;
                step *= lengths.shape[axis];
            }
        }
        target
    };
    let mut squares = vec![0.0f64; g.len()];
    v.iter().enumerate().for_each(|(index, &value)| squares[target(index)] += f64::from(value) * f64::from(value));
    if let Some(zero) = squares.iter().position(|square| *square == 0.0) {
        let message = format!("direction {zero} is all zeros, so that weight_norm divides by zero, in PyTorch too");
        return Err(Error::data(format!("{message}; remove weight_norm before filters are pruned")));
    }
    let one = |(index, &value): (usize, &f32)| {
        let at = target(index);
        (f64::from(g[at]) * f64::from(value) / squares[at].sqrt()) as f32
    };
    Ok(v.iter().enumerate().map(one).collect())
}

/// The parameters of a model that a state dict holds: weights, biases and statistics.
pub(in crate::formats) fn state_names(model: &Model) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for layer in &model.graph.layers {
        let inputs: &[usize] = match layer.op {
            Op::Conv(_) | Op::ConvTranspose(_) | Op::Gemm { .. } => &[1, 2],
            Op::MatMul => &[0, 1],
            Op::BatchNorm { .. } => &[1, 2, 3, 4],
            _ => &[],
        };
        let read = inputs.iter().filter_map(|&index| layer.input(index));
        names.extend(read.filter(|name| model.params.f32(name).is_some()).map(String::from));
    }
    names
}

/// Gives a layer the bias that a file holds for it, if the layer has none and can have one.
pub(in crate::formats) fn add_bias(model: &mut Model, name: &str, shape: &[usize]) -> Result<()> {
    let Some(weight) = name.strip_suffix(BIAS_SUFFIX) else { return Ok(()) };
    let without = |layer: &Layer| {
        matches!(layer.op, Op::Conv(_) | Op::Gemm { .. }) && layer.input(1) == Some(weight) && layer.input(2).is_none()
    };
    let &[length] = shape else { return Ok(()) };
    let outputs = model.weight(weight).map(|tensor| tensor.shape.first().copied());
    match model.graph.layers.iter().position(without) {
        Some(layer)
            if outputs.is_ok_and(|outputs| outputs == Some(length))
                || matches!(model.graph.layers[layer].op, Op::Gemm { .. }) =>
        {
            model.give_bias(layer, vec![0.0; length]).map(drop)
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_direction_of_zeros_is_refused() {
        let bytes = [1.0f32, 2.0, 3.0, 4.0].map(f32::to_le_bytes).concat();
        let pruned = [3.0f32, 4.0, 0.0, 0.0].map(f32::to_le_bytes).concat();
        let stored = |shape: &[usize], bytes| Stored::contiguous(shape.to_vec(), "F32".into(), Number::F32, bytes);
        let lengths = stored(&[2, 1], &bytes[..8]);
        assert_eq!(weight_norm(&lengths, &stored(&[2, 2], &bytes)).unwrap()[2..], [1.2, 1.6]);
        let error = weight_norm(&lengths, &stored(&[2, 2], &pruned)).unwrap_err().to_string();
        assert!(error.contains("direction 1 is all zeros"), "{error}");
    }
}
