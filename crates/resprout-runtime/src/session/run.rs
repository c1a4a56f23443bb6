//! A session: the stages of a network and the threads that run them.

use super::plan::Chosen;
use super::stage::Stage;
use crate::error::{Error, Result};
use crate::forward::LayerTime;
use crate::tensor::Tensor;
use resprout_kernels::engine::{Blocking, Program, ThreadPool};

/// A network ready to run images of one size, with threads and memory of its own.
///
/// [`Session::builder`] makes one. Nothing of the [`Model`](crate::model::Model) is needed after that.
pub struct Session {
    pub(super) stages: Vec<Stage>,
    pub(super) pool: ThreadPool,
    pub(super) image: Vec<usize>,
    pub(super) batch: usize,
    pub(super) note: Option<String>,
}

impl Session {
    /// Finds out from now on whether several threads pay.
    pub(super) fn adaptive(mut self) -> Session {
        self.stages.iter_mut().for_each(Stage::adapt);
        self
    }

    /// The microbatch of each stage: the images that run together in it.
    pub fn microbatch(&self) -> Vec<usize> {
        self.stages.iter().map(|stage| stage.compiled.microbatch).collect()
    }

    /// Runs preprocessed `images: [N, C, H, W]`; returns the network's outputs in the graph's order, each with `N` as its first
    /// axis. `N` may be another number than the typical batch.
    ///
    /// # Errors
    /// Of kind `Data` for no images, and for images of another shape than the session's.
    pub fn run(&mut self, images: &Tensor) -> Result<Vec<Tensor>> {
        let count = images.shape.first().copied().unwrap_or(0);
        if count == 0 || images.shape[1..] != self.image {
            return Err(Error::data(format!("images of shape {:?}, the session is for [N, {:?}]", images.shape, self.image)));
        }
        Ok(self.run_images(&images.data, count))
    }

    /// As [`run`](Self::run), for images that lie one after another anywhere in memory; they are not copied.
    ///
    /// # Errors
    /// Of kind `Data` for no images, and if the values are no multiple of an image's.
    pub fn run_slice(&mut self, images: &[f32]) -> Result<Vec<Tensor>> {
        let each: usize = self.image.iter().product();
        let count = images.len() / each.max(1);
        if count == 0 || images.len() != count * each {
            return Err(Error::data(format!("{} values, the session is for images of {:?}", images.len(), self.image)));
        }
        Ok(self.run_images(images, count))
    }

    fn run_images(&mut self, images: &[f32], count: usize) -> Vec<Tensor> {
        let Session { stages, pool, .. } = self;
        for index in 0..stages.len() {
            let (before, rest) = stages.split_at_mut(index);
            // A single value connects two stages.
            let input = before.last().and_then(|stage| stage.outputs.first());
            rest[0].run(input.map_or(images, |output| &output.data), count, pool);
        }
        stages.last_mut().map_or(Vec::new(), |last| std::mem::take(&mut last.outputs))
    }

    /// Why autotuning was given up, if it was: the machine was too busy.
    pub fn note(&self) -> Option<&str> {
        self.note.as_deref()
    }

    /// The chosen plan, to be kept for [`SessionBuilder::plan`](super::SessionBuilder::plan).
    pub fn chosen(&self) -> Chosen {
        Chosen {
            stages: self.stages.iter().map(|stage| stage.start).collect(),
            blockings: self.blockings().into_iter().map(Into::into).collect(),
        }
    }

    fn programs(&self) -> impl Iterator<Item = &Program> {
        self.stages.iter().flat_map(|stage| stage.compiled.programs())
    }

    /// The blockings of all stages.
    pub(super) fn blockings(&self) -> Vec<Blocking> {
        self.stages.iter().flat_map(Stage::blockings).collect()
    }

    /// For each convolution in order, whether it leaves zero weights out.
    pub fn sparse_layers(&self) -> Vec<bool> {
        self.programs().flat_map(Program::blockings).map(|blocking| blocking.channel_block == 1).collect()
    }

    /// Applies the blockings of all stages.
    pub(super) fn apply(&mut self, blockings: &[Blocking]) {
        let mut blockings = blockings.iter().copied();
        for program in self.stages.iter_mut().flat_map(|stage| stage.compiled.programs_mut()) {
            let own: Vec<Blocking> = blockings.by_ref().take(program.blockings().len()).collect();
            program.apply(&own);
        }
    }

    /// The time of every operation in a typical batch, with multiply-accumulates and density of convolutions. The least of
    /// `runs` counts.
    pub fn layers(&mut self, runs: usize) -> Vec<LayerTime> {
        self.stages.iter().flat_map(|stage| stage.compiled.time(&mut self.pool, self.batch, runs)).collect()
    }
}
