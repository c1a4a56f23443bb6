//! Batches: the size that a model fixes, the microbatch, and the outputs of its chunks.

use crate::model::{Dim, Model};
use crate::tensor::Tensor;

/// The most elements of an image that shares a microbatch. A larger one fills vectors and caches alone.
const SMALL_IMAGE: usize = 16 * 1024;

/// The best microbatch for images of shape `[C, H, W]`, up to `most`.
pub(crate) fn default_microbatch(image: &[usize], most: usize) -> usize {
    if image.iter().product::<usize>() <= SMALL_IMAGE { most } else { 1 }
}

/// The number of arenas for so many images: one for each thread if every thread gets a microbatch, otherwise one.
/// All threads share each operation in a single arena.
pub(crate) fn workers(images: usize, microbatch: usize, threads: usize) -> usize {
    if images.div_ceil(microbatch) >= threads { threads } else { 1 }
}

/// The shape `[N, C, H, W]` of the network's input: `N` is the batch that the model fixes, or 1. `image` is `[C, H, W]`.
#[doc(hidden)]
pub fn with_batch(model: &Model, image: &[usize]) -> Vec<usize> {
    [&[fixed_batch(model).unwrap_or(1)], image].concat()
}

/// The batch size that the model fixes, if it does.
#[doc(hidden)]
pub fn fixed_batch(model: &Model) -> Option<usize> {
    match model.graph.inputs.first().and_then(|input| input.shape.first()) {
        Some(Dim::Fixed(batch)) => Some(*batch),
        _ => None,
    }
}

/// Zeroed tensors for the outputs of `count` images. `shapes` are those of one microbatch.
pub(crate) fn output_tensors(shapes: &[Vec<usize>], count: usize) -> Vec<Tensor> {
    let one = |shape: &Vec<usize>| {
        let shape = [&[count], &shape[1..]].concat();
        let data = vec![0.0; shape.iter().product()];
        Tensor::new(shape, data)
    };
    shapes.iter().map(one).collect()
}

/// The slices of every output that each microbatch fills. Those of the last one can be shorter.
pub(crate) fn chunk_outputs(outputs: &mut [Tensor], microbatch: usize) -> Vec<Vec<&mut [f32]>> {
    let count = outputs.first().map_or(0, |output| output.shape[0]);
    let mut chunks: Vec<Vec<&mut [f32]>> = (0..count.div_ceil(microbatch)).map(|_| Vec::new()).collect();
    for output in outputs {
        let each = microbatch * output.shape[1..].iter().product::<usize>();
        let mut rest = output.data.as_mut_slice();
        for chunk in &mut chunks {
            let (first, others) = rest.split_at_mut(each.min(rest.len()));
            chunk.push(first);
            rest = others;
        }
    }
    chunks
}

/// Copies the results of a microbatch to its outputs, without the padding of a last, shorter one.
pub(super) fn copy_results(outputs: &mut [&mut [f32]], results: &[Tensor]) {
    outputs.iter_mut().zip(results).for_each(|(output, result)| output.copy_from_slice(&result.data[..output.len()]));
}
