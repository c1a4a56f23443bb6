//! A pruned network in training, and the dense network beside it.

use super::Distill;
use super::blocks::block_outputs;
use crate::engine::{Mode, TapGradient, TrainProgram};
use crate::error::{data, option};
use crate::loss;
use crate::optimiser::Adam;
use crate::parameters::Parameters;
use resprout::Result;
use resprout::eval::{OutputKind, output_kind_of};
use resprout::forward::{Network, PlanOptions};
use resprout::model::Model;

/// What a step trains: the parameters between two block outputs.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Section {
    /// The block output before it; the images for `None`.
    from: Option<usize>,
    /// The block output that it ends with; the network's output for `None`.
    to: Option<usize>,
}

/// Both networks.
pub(super) struct Pair<'o> {
    options: &'o Distill,
    parameters: Parameters,
    student: TrainProgram,
    dense: Parameters,
    teacher: TrainProgram,
    blocks: usize,
    /// Whether outputs are compared as classes.
    classes: bool,
    section: Section,
    adam: Adam,
    /// Steps of the optimiser in this section.
    steps: usize,
}

/// A loss, and its gradients.
pub(super) struct Losses {
    /// All of it.
    pub value: f64,
    /// Of the parameters, in order.
    pub gradients: Vec<Option<Vec<f32>>>,
}

impl<'o> Pair<'o> {
    /// For images `[C, H, W]`. Fails on the first layer that cannot be trained, by name.
    pub fn new(options: &'o Distill, model: &Model, dense: &Model, image: &[usize], memory: usize) -> Result<Pair<'o>> {
        let taps = block_outputs(dense);
        let shape = [&[options.batch], image].concat();
        let parameters = Parameters::new(model)?;
        // Layers of both have the same outputs, whatever the names of their values are.
        let student = TrainProgram::tapped(model, &parameters, &shape, &same_layers(dense, model, &taps))?;
        let of_dense = Parameters::new(dense)?;
        let mut teacher = TrainProgram::tapped(dense, &of_dense, &shape, &taps)?;
        teacher.forward_only();
        let bytes = student.bytes() + teacher.bytes();
        if bytes > memory {
            return Err(option(format!(
                "a batch of {} images takes about {:.0} MB, and the memory limit is {:.0} MB; give fewer as batch",
                options.batch,
                bytes as f64 / 1e6,
                memory as f64 / 1e6
            )));
        }
        let plan = Network::new(dense, image, &PlanOptions::default())?;
        let classes = output_kind_of(plan.plan()) != OutputKind::Other;
        Ok(Pair {
            options,
            parameters,
            student,
            dense: of_dense,
            teacher,
            blocks: taps.len(),
            classes,
            section: Section { from: None, to: None },
            adam: Adam { beta1: 0.9, beta2: 0.99, epsilon: 1e-8 },
            steps: 0,
        })
    }

    /// What is trained, in order: the network, or its blocks.
    pub fn sections(&self) -> Vec<Section> {
        if !self.options.by_block {
            return vec![Section { from: None, to: None }];
        }
        let edge = |i: usize| i.checked_sub(1);
        (0..=self.blocks).map(|i| Section { from: edge(i), to: (i < self.blocks).then_some(i) }).collect()
    }

    /// Trains this section from now on.
    pub fn enter(&mut self, section: Section) {
        self.section = section;
        self.student.restrict(section.from, section.to);
        self.teacher.restrict(None, section.to);
        self.steps = 0;
        self.parameters.trained.iter_mut().for_each(|parameter| (parameter.momentum, parameter.squares) = (None, None));
    }

    /// The number of layers' tensors that the section trains.
    pub fn trained(&self) -> usize {
        self.student.trained_parameters().len()
    }

    /// The loss of preprocessed images `[batch, C, H, W]`, and its gradients.
    pub fn losses(&mut self, images: &[f32]) -> Losses {
        let target = self.teacher.forward(&self.dense, images, Mode::Evaluation);
        let forward = self.student.forward(&self.parameters, images, Mode::Evaluation);
        let (mut value, logits) = match (self.section.to, self.classes) {
            (Some(_), _) => (0.0, Vec::new()),
            (None, true) => loss::distillation(&forward.logits, &target.logits, self.student.classes(), self.options.temperature),
            (None, false) => loss::squared_error(&forward.logits, &target.logits),
        };
        let (taps, weight) = match (self.options.by_block, self.section.to) {
            (false, _) => (0..self.blocks, self.options.blocks / self.blocks.max(1) as f64),
            (true, Some(block)) => (block..block + 1, 1.0),
            (true, None) => (0..0, 0.0),
        };
        let mut gradients: Vec<TapGradient> = Vec::new();
        for tap in taps.filter(|_| weight > 0.0) {
            let (own, target) = (self.student.tap(&forward, tap), self.teacher.tap(&target, tap));
            if let Some((error, gradient)) = self.student.tap_error(tap, own, target, weight) {
                value += weight * error;
                gradients.push(gradient);
            }
        }
        self.teacher.finish(target);
        let gradients = self.student.backward_from(&self.parameters, forward, Mode::Evaluation, &logits, gradients);
        Losses { value, gradients }
    }

    /// One training step. Returns the loss.
    pub fn step(&mut self, images: &[f32], rate: f64, step: usize) -> Result<f64> {
        let Losses { value, gradients } = self.losses(images);
        if !value.is_finite() {
            return Err(self.broken(images, value, step));
        }
        self.steps += 1;
        self.adam.step(&mut self.parameters, gradients, rate, self.steps);
        Ok(value)
    }

    /// The error for a loss that is not finite.
    fn broken(&mut self, images: &[f32], loss: f64, step: usize) -> resprout::Error {
        if let Some(layer) = self.teacher.first_broken_layer(&self.dense, images, Mode::Evaluation) {
            return data(format!(
                "the dense network's layer {layer:?} computes numbers that are not finite in step {}",
                step + 1
            ));
        }
        let layer = self.student.first_broken_layer(&self.parameters, images, Mode::Evaluation);
        let layer = layer.map_or("the loss alone".into(), |layer| format!("layer {layer:?} first"));
        data(format!("the loss became {loss} in step {} ({layer}): a lower rate may help", step + 1))
    }

    /// Writes the parameters into the model.
    pub fn store(&self, model: &mut Model) {
        self.parameters.store(model);
    }
}

/// The names in `model` of values that have these names in `dense`: both have the same layers in the same order.
fn same_layers(dense: &Model, model: &Model, names: &[String]) -> Vec<String> {
    let outputs = |model: &Model| -> Vec<String> { model.graph.layers.iter().flat_map(|layer| layer.outputs.clone()).collect() };
    let (from, to) = (outputs(dense), outputs(model));
    let find = |name: &String| from.iter().position(|other| other == name).and_then(|at| to.get(at)).unwrap_or(name).clone();
    names.iter().map(find).collect()
}
