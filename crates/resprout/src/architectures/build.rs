//! The building blocks of architectures, with fresh weights.

use crate::error::{Error, Result};
use crate::formats::onnx::{Attribute, GraphBuilder};
use crate::lipschitz::{self, Lipschitz, Matching, Scope};
use crate::model::Model;
use crate::ops::Op;
use crate::random::SplitMix64;
use crate::table::{self, Entry};
use crate::tensor::Tensor;

/// An initialisation of fresh weights, a row of [`INITS`]: their standard deviation by fan-in and fan-out, the numbers of inputs
/// and outputs of a unit.
pub struct Init {
    deviation: fn(fan_in: f64, fan_out: f64) -> f64,
    /// A change to the whole network afterwards.
    pub(super) repair: Option<Lipschitz>,
}

/// All initialisations. Weights of convolutions are drawn from the normal distribution. Weights of linear layers and all biases
/// are drawn from the uniform distribution on `±1/√fan_in`.
pub static INITS: &[Entry<Init>] = &[
    Entry {
        name: "kaiming-out",
        about: "convolutions: variance 2 / fan-out, as torchvision's residual networks",
        paper: "He, Zhang, Ren, Sun, Delving deep into rectifiers, ICCV 2015",
        options: &[],
        build: Init { deviation: |_, fan_out| (2.0 / fan_out).sqrt(), repair: None },
    },
    Entry {
        name: "kaiming-in",
        about: "convolutions: variance 2 / fan-in",
        paper: "He, Zhang, Ren, Sun, Delving deep into rectifiers, ICCV 2015",
        options: &[],
        build: Init { deviation: |fan_in, _| (2.0 / fan_in).sqrt(), repair: None },
    },
    Entry {
        name: "xavier",
        about: "convolutions: variance 2 / (fan-in + fan-out)",
        paper: "Glorot, Bengio, Understanding the difficulty of training deep feedforward neural networks, AISTATS 2010",
        options: &[],
        build: Init { deviation: |fan_in, fan_out| (2.0 / (fan_in + fan_out)).sqrt(), repair: None },
    },
    Entry {
        name: "rei",
        about: "kaiming-in, then every layer brought to Lipschitz scale one",
        paper: "ReI of RePaIR (pruning at initialisation), the author's code",
        options: &[],
        build: Init {
            deviation: |fan_in, _| (2.0 / fan_in).sqrt(),
            repair: Some(Lipschitz { scope: Scope::Both, matching: Matching::Graph }),
        },
    },
];

fn normal(shape: Vec<usize>, deviation: f64, random: &mut SplitMix64) -> Tensor {
    let count = shape.iter().product();
    Tensor::new(shape, (0..count).map(|_| (random.next_normal() * deviation) as f32).collect())
}

fn uniform(shape: Vec<usize>, bound: f64, random: &mut SplitMix64) -> Tensor {
    let count = shape.iter().product();
    Tensor::new(shape, (0..count).map(|_| ((2.0 * random.next_f64() - 1.0) * bound) as f32).collect())
}

/// Draws all weights and biases of a network again by `init`, a row of [`INITS`], and resets its batch normalisations. Masks
/// still apply.
///
/// # Errors
/// Of kind `Option` for an unknown initialisation.
pub fn redraw(model: &mut Model, init: &str, seed: u64) -> Result<()> {
    let (init, _) = table::find(INITS, "initialisation", init)?;
    let mut stream = 0;
    let mut random = || {
        stream += 1;
        SplitMix64::new(seed, stream)
    };
    for layer in model.graph.layers.clone() {
        let Some(shape) = layer.input(1).and_then(|name| model.params.f32(name)).map(|tensor| tensor.shape.clone()) else {
            continue;
        };
        let (weight, fan_in) = match (&layer.op, &shape[..]) {
            (Op::Conv(_), &[outputs, inputs, ref window @ ..]) => {
                let area = window.iter().product::<usize>() as f64;
                let (fan_in, fan_out) = (inputs as f64 * area, outputs as f64 * area);
                (normal(shape, (init.build.deviation)(fan_in, fan_out), &mut random()), fan_in)
            }
            (Op::Gemm { trans_b, .. }, &[rows, columns]) => {
                let fan_in = if *trans_b { columns } else { rows } as f64;
                (uniform(shape, 1.0 / fan_in.sqrt(), &mut random()), fan_in)
            }
            (Op::MatMul, &[rows, _]) => (uniform(shape, 1.0 / (rows as f64).sqrt(), &mut random()), rows as f64),
            (Op::BatchNorm { .. }, _) => {
                for (input, value) in (1..5).zip([1.0, 0.0, 0.0, 1.0]) {
                    if let Some(tensor) = layer.input(input).and_then(|name| model.params.f32_mut(name)) {
                        tensor.data.fill(value);
                    }
                }
                continue;
            }
            _ => continue,
        };
        let bias = layer.input(2).and_then(|name| model.params.f32_mut(name));
        if let Some(bias) = bias {
            *bias = uniform(bias.shape.clone(), 1.0 / fan_in.sqrt(), &mut random());
        }
        if let Some(tensor) = layer.input(1).and_then(|name| model.params.f32_mut(name)) {
            *tensor = weight;
        }
    }
    model.apply_masks();
    if let Some(how) = init.build.repair {
        lipschitz::repair(model, how)?;
    }
    Ok(())
}

/// A value of the network under construction: its name and its shape without the batch.
#[derive(Clone, Debug)]
pub struct Value {
    /// Name of the value.
    pub name: String,
    /// Channels.
    pub channels: usize,
    /// Height and width; `[1, 1]` after a flattening.
    pub size: [usize; 2],
}

/// Adds the layers of a network for `classes` classes, and returns the name of the output.
#[doc(hidden)]
pub type Build = fn(&mut Net, classes: usize) -> Result<String>;

/// An architecture, a row of [`ARCHITECTURES`](super::ARCHITECTURES): the default image and number of classes, and the layers.
pub struct Architecture {
    /// Channels, height and width of the default image.
    pub image: [usize; 3],
    /// Default number of classes.
    pub classes: usize,
    /// Adds the layers and returns the name of the output.
    pub layers: Build,
}

/// A network under construction.
pub struct Net {
    builder: GraphBuilder,
    image: [usize; 3],
    init: &'static Init,
    seed: u64,
    /// The number of drawn parameters. Each has its own stream of random numbers.
    drawn: u64,
}

/// The geometry of a convolution.
#[derive(Clone, Copy)]
pub struct Window {
    /// Side of the kernel.
    pub kernel: usize,
    /// Stride.
    pub stride: usize,
    /// Padding on every side.
    pub pad: usize,
}

impl Window {
    /// Kernel, stride and padding.
    pub const fn new(kernel: usize, stride: usize, pad: usize) -> Window {
        Window { kernel, stride, pad }
    }

    fn out(&self, size: [usize; 2]) -> Result<[usize; 2]> {
        let mut out = [0; 2];
        for axis in 0..2 {
            let span = (size[axis] + 2 * self.pad).checked_sub(self.kernel);
            let span = span.ok_or_else(|| {
                Error::option(format!("the image is too small: {size:?} pixels before a window of {}", self.kernel))
            })?;
            out[axis] = span / self.stride + 1;
        }
        Ok(out)
    }

    fn attributes(&self) -> Vec<(&'static str, Attribute)> {
        let (kernel, stride, pad) = (self.kernel as i64, self.stride as i64, self.pad as i64);
        vec![
            ("kernel_shape", Attribute::Ints(vec![kernel; 2])),
            ("strides", Attribute::Ints(vec![stride; 2])),
            ("pads", Attribute::Ints(vec![pad; 4])),
        ]
    }
}

impl Net {
    pub(crate) fn new(image: [usize; 3], init: &'static Init, seed: u64) -> Net {
        Net { builder: GraphBuilder::default(), image, init, seed, drawn: 0 }
    }

    pub(crate) fn finish(self, name: &str, output: &str, classes: usize) -> Result<Model> {
        self.builder.finish(name, self.image, output, classes)
    }

    /// The images.
    pub fn input(&self) -> Value {
        let [channels, height, width] = self.image;
        Value { name: "input".into(), channels, size: [height, width] }
    }

    fn random(&mut self) -> SplitMix64 {
        self.drawn += 1;
        SplitMix64::new(self.seed, self.drawn)
    }

    fn uniform(&mut self, shape: Vec<usize>, bound: f64) -> Tensor {
        uniform(shape, bound, &mut self.random())
    }

    fn constant(&mut self, name: &str, channels: usize, value: f32) {
        self.builder.tensor(name, &Tensor::vector(vec![value; channels]));
    }

    /// Convolution `NAME.weight`, with `NAME.bias` if `bias`.
    pub fn conv(&mut self, x: &Value, name: &str, channels: usize, window: Window, groups: usize, bias: bool) -> Result<Value> {
        let shape = vec![channels, x.channels / groups, window.kernel, window.kernel];
        let area = (window.kernel * window.kernel) as f64;
        // torch counts the output channels of all groups as fan-out.
        let (fan_in, fan_out) = (shape[1] as f64 * area, channels as f64 * area);
        let weight = normal(shape, (self.init.deviation)(fan_in, fan_out), &mut self.random());
        let (weight_name, bias_name) = (format!("{name}.weight"), format!("{name}.bias"));
        self.builder.tensor(&weight_name, &weight);
        let mut inputs = vec![x.name.as_str(), &weight_name];
        if bias {
            let values = self.uniform(vec![channels], 1.0 / fan_in.sqrt());
            self.builder.tensor(&bias_name, &values);
            inputs.push(&bias_name);
        }
        let mut attributes = window.attributes();
        attributes.push(("group", Attribute::Int(groups as i64)));
        let name = self.builder.node("Conv", name, &inputs, &attributes);
        Ok(Value { name, channels, size: window.out(x.size)? })
    }

    /// Batch normalisation with torch's parameter names and its epsilon of 1e-5.
    pub fn batch_norm(&mut self, x: &Value, name: &str) -> Value {
        let parts = ["weight", "bias", "running_mean", "running_var"].map(|part| format!("{name}.{part}"));
        for (part, value) in parts.iter().zip([1.0, 0.0, 0.0, 1.0]) {
            self.constant(part, x.channels, value);
        }
        let inputs = [&x.name, &parts[0], &parts[1], &parts[2], &parts[3]].map(String::as_str);
        let name = self.builder.node("BatchNormalization", name, &inputs, &[("epsilon", Attribute::Float(1e-5))]);
        Value { name, ..x.clone() }
    }

    /// `max(x, 0)`
    pub fn relu(&mut self, x: &Value) -> Value {
        let name = self.builder.node("Relu", &format!("{}.relu", x.name), &[&x.name], &[]);
        Value { name, ..x.clone() }
    }

    /// `min(max(x, 0), 6)`
    pub fn relu6(&mut self, x: &Value) -> Value {
        let bounds = [("relu6.low", 0.0), ("relu6.high", 6.0)];
        if !self.builder.has_tensor(bounds[0].0) {
            bounds.iter().for_each(|(name, value)| self.builder.tensor(name, &Tensor::new(vec![], vec![*value])));
        }
        let name = self.builder.node("Clip", &format!("{}.relu6", x.name), &[&x.name, bounds[0].0, bounds[1].0], &[]);
        Value { name, ..x.clone() }
    }

    /// The sum of two values of the same shape.
    pub fn add(&mut self, a: &Value, b: &Value, name: &str) -> Value {
        let name = self.builder.node("Add", name, &[&a.name, &b.name], &[]);
        Value { name, ..a.clone() }
    }

    /// The channels of several values, concatenated.
    pub fn concat(&mut self, values: &[Value], name: &str) -> Value {
        let names: Vec<&str> = values.iter().map(|value| value.name.as_str()).collect();
        let name = self.builder.node("Concat", name, &names, &[("axis", Attribute::Int(1))]);
        Value { name, channels: values.iter().map(|value| value.channels).sum(), size: values[0].size }
    }

    /// Largest value of each window.
    pub fn max_pool(&mut self, x: &Value, name: &str, window: Window) -> Result<Value> {
        self.pool("MaxPool", x, name, window)
    }

    /// Mean of each window.
    pub fn average_pool(&mut self, x: &Value, name: &str, window: Window) -> Result<Value> {
        self.pool("AveragePool", x, name, window)
    }

    fn pool(&mut self, op: &str, x: &Value, name: &str, window: Window) -> Result<Value> {
        let size = window.out(x.size)?;
        let name = self.builder.node(op, name, &[&x.name], &window.attributes());
        Ok(Value { name, channels: x.channels, size })
    }

    /// Mean over height and width.
    pub fn global_average(&mut self, x: &Value, name: &str) -> Value {
        let name = self.builder.node("GlobalAveragePool", name, &[&x.name], &[]);
        Value { name, channels: x.channels, size: [1, 1] }
    }

    /// One row per image.
    pub fn flatten(&mut self, x: &Value, name: &str) -> Value {
        let name = self.builder.node("Flatten", name, &[&x.name], &[("axis", Attribute::Int(1))]);
        Value { name, channels: x.channels * x.size[0] * x.size[1], size: [1, 1] }
    }

    /// Linear layer `NAME.weight`, `NAME.bias`.
    pub fn linear(&mut self, x: &Value, name: &str, outputs: usize) -> Value {
        let (weight, bias) = (format!("{name}.weight"), format!("{name}.bias"));
        let bound = 1.0 / (x.channels as f64).sqrt();
        let values = self.uniform(vec![outputs, x.channels], bound);
        self.builder.tensor(&weight, &values);
        let values = self.uniform(vec![outputs], bound);
        self.builder.tensor(&bias, &values);
        let name = self.builder.node("Gemm", name, &[&x.name, &weight, &bias], &[("transB", Attribute::Int(1))]);
        Value { name, channels: outputs, size: [1, 1] }
    }

    /// A shortcut without weights: every second pixel, padded with zero channels on both sides.
    pub fn pad_shortcut(&mut self, x: &Value, name: &str, channels: usize) -> Value {
        let names = ["starts", "ends", "axes", "steps"].map(|part| format!("shortcut.{part}"));
        if !self.builder.has_tensor(&names[0]) {
            for (name, values) in names.iter().zip([[0, 0], [i64::MAX, i64::MAX], [2, 3], [2, 2]]) {
                self.builder.integers(name, &values);
            }
        }
        let inputs = [&x.name, &names[0], &names[1], &names[2], &names[3]].map(String::as_str);
        let sliced = self.builder.node("Slice", &format!("{name}.slice"), &inputs, &[]);
        let before = ((channels - x.channels) / 2) as i64;
        let after = (channels - x.channels) as i64 - before;
        let pads = self.builder.integers(&format!("{name}.pads"), &[0, before, 0, 0, 0, after, 0, 0]);
        let name = self.builder.node("Pad", &format!("{name}.pad"), &[&sliced, &pads], &[]);
        Value { name, channels, size: x.size.map(|side| side.div_ceil(2)) }
    }
}
