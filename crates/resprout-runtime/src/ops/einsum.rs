//! Sums of products by an equation over axes.

use super::fact::{Fact, shapes};
use super::general::{General, Images};
use super::resolve::Resolved;
use crate::error::{Error, Result};
use crate::tensor::{Tensor, element_count, strides, value_count};
use std::collections::BTreeMap;

/// An equation: the axes of each operand and of the result, by a letter each. Axes of an ellipsis are digits.
struct Equation {
    operands: Vec<Vec<char>>,
    output: Vec<char>,
    lengths: BTreeMap<char, usize>,
}

impl Equation {
    fn read(text: &str, shapes: &[&[usize]]) -> Result<Equation> {
        let wrong = || Error::data(format!("the equation {text:?} for shapes {shapes:?}"));
        let text: String = text.chars().filter(|c| !c.is_whitespace()).collect();
        let (left, right) = text.split_once("->").map_or((text.as_str(), None), |(left, right)| (left, Some(right)));
        let terms: Vec<&str> = left.split(',').collect();
        if terms.len() != shapes.len() {
            return Err(wrong());
        }
        let free = |term: &str, shape: &[usize]| shape.len().saturating_sub(term.replace("...", "").chars().count());
        let most = terms.iter().zip(shapes).filter(|(term, _)| term.contains("...")).map(|(term, shape)| free(term, shape)).max();
        // The axes of an ellipsis align at the last one.
        let dots = |count: usize| {
            (most.unwrap_or(0).saturating_sub(count)..most.unwrap_or(0)).filter_map(|i| char::from_digit(i as u32, 10))
        };
        let letters =
            |term: &str, count: usize| term.replace("...", &dots(count).collect::<String>()).chars().collect::<Vec<char>>();
        let operands: Vec<Vec<char>> = terms.iter().zip(shapes).map(|(term, shape)| letters(term, free(term, shape))).collect();
        let mut lengths: BTreeMap<char, usize> = BTreeMap::new();
        for (letters, shape) in operands.iter().zip(shapes) {
            if letters.len() != shape.len() {
                return Err(wrong());
            }
            for (&letter, &dim) in letters.iter().zip(*shape) {
                let known = lengths.entry(letter).or_insert(dim);
                match (*known, dim) {
                    (a, b) if a == b || b == 1 => {}
                    (1, b) => *known = b,
                    _ => return Err(wrong()),
                }
            }
        }
        let output = match right {
            Some(right) => letters(right, most.unwrap_or(0)),
            None => {
                let once = |letter: &&char| operands.iter().flatten().filter(|other| other == letter).count() == 1;
                lengths.keys().filter(|letter| letter.is_ascii_digit() || once(letter)).copied().collect()
            }
        };
        if output.iter().any(|letter| !lengths.contains_key(letter)) {
            return Err(wrong());
        }
        Ok(Equation { operands, output, lengths })
    }

    /// Steps of some letters in an operand: repeated letters add up, axes of length 1 are broadcast.
    fn steps(&self, operand: usize, shape: &[usize], letters: &[char]) -> Vec<usize> {
        let own = strides(shape);
        let step = |letter: &char| {
            let axes = self.operands[operand].iter().enumerate().filter(|(_, other)| *other == letter);
            axes.filter(|(axis, _)| shape[*axis] > 1).map(|(axis, _)| own[axis]).sum()
        };
        letters.iter().map(step).collect()
    }
}

/// Resolves a sum of products.
pub(super) fn einsum(text: &str, inputs: &[Option<Fact>]) -> Result<Resolved> {
    let shapes = shapes(inputs);
    let equation = Equation::read(text, &shapes)?;
    let dims = |letters: &[char]| letters.iter().map(|letter| equation.lengths[letter]).collect::<Vec<usize>>();
    let summed: Vec<char> = equation.lengths.keys().filter(|letter| !equation.output.contains(letter)).copied().collect();
    let (out, inner) = (dims(&equation.output), dims(&summed));
    value_count(&out)?;
    if element_count(&inner)? > 1 << 28 {
        return Err(Error::unsupported(format!("an Einsum that adds {inner:?} products")));
    }
    let macs = (element_count(&out)? as u64).saturating_mul(element_count(&inner)? as u64);
    let offsets = |dims: &[usize], steps: &[usize]| -> Vec<usize> {
        let mut all = vec![0];
        for (&dim, &step) in dims.iter().zip(steps) {
            all = all.iter().flat_map(|&at| (0..dim).map(move |i| at + i * step)).collect();
        }
        all
    };
    let plan: Vec<(Vec<usize>, Vec<usize>)> = (0..shapes.len())
        .map(|operand| {
            let steps = |letters: &[char]| equation.steps(operand, shapes[operand], letters);
            (offsets(&out, &steps(&equation.output)), offsets(&inner, &steps(&summed)))
        })
        .collect();
    let count: usize = inner.iter().product();
    // Images are along the first axis of every operand that has the letter.
    let letter = equation.output.first().copied();
    let without = |operand: &usize| letter.is_none_or(|letter| !equation.operands[*operand].contains(&letter));
    let without: Vec<usize> = (0..shapes.len()).filter(without).collect();
    let first = |(operand, letters): (usize, &Vec<char>)| without.contains(&operand) || letters.first().copied() == letter;
    let all_first = equation.operands.iter().enumerate().all(first);
    let images = if all_first { Images::First(without) } else { Images::Axes(vec![None; shapes[0].len()]) };
    let run = move |inputs: &[&Tensor], out: &mut Tensor, _: resprout_kernels::Isa| {
        for (place, target) in out.data.iter_mut().enumerate() {
            let product = |i: usize| {
                let factors = inputs.iter().zip(&plan).map(|(input, (outer, inner))| input.data[outer[place] + inner[i]]);
                factors.map(f64::from).product::<f64>()
            };
            *target = (0..count).map(product).sum::<f64>() as f32;
        }
    };
    let general = General::new(shapes.len(), images, run);
    Ok(Resolved { macs, ..general.shaped(out) })
}
