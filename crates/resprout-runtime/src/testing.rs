//! Builds small networks for the tests of this crate.

use crate::formats::onnx::{Attribute, GraphBuilder};
use crate::model::Model;
use crate::tensor::Tensor;

/// A network under construction. Every weight is another value of a sine.
#[derive(Default)]
pub struct Net {
    graph: GraphBuilder,
    drawn: usize,
}

impl Net {
    fn weights(&mut self, name: &str, shape: Vec<usize>) {
        let count = shape.iter().product::<usize>();
        let first = self.drawn;
        self.drawn += count;
        let data = (first..first + count).map(|i| (i as f32 * 1.7).sin() * 0.5).collect();
        self.graph.tensor(name, &Tensor::new(shape, data));
    }

    /// A convolution of shape `[M, C / groups, side, side]` that keeps the size of the image.
    pub fn conv(&mut self, input: &str, name: &str, shape: [usize; 4], groups: i64, bias: bool) -> String {
        let [weight, bias_name] = ["weight", "bias"].map(|part| format!("{name}.{part}"));
        self.weights(&weight, shape.to_vec());
        let mut inputs = vec![input, &weight];
        if bias {
            self.weights(&bias_name, vec![shape[0]]);
            inputs.push(&bias_name);
        }
        let mut attributes = window(shape[2]);
        attributes.push(("group", Attribute::Int(groups)));
        self.graph.node("Conv", name, &inputs, &attributes)
    }

    /// A batch normalisation.
    pub fn batch_norm(&mut self, input: &str, name: &str, channels: usize) -> String {
        let parts = ["weight", "bias", "running_mean", "running_var"].map(|part| format!("{name}.{part}"));
        for (part, shift) in parts.iter().zip([1.0, 0.0, 0.0, 1.0]) {
            let values = (0..channels).map(|i| shift + 0.2 * (i as f32 + shift).cos()).collect();
            self.graph.tensor(part, &Tensor::vector(values));
        }
        let inputs = [input, &parts[0], &parts[1], &parts[2], &parts[3]];
        self.graph.node("BatchNormalization", name, &inputs, &[("epsilon", Attribute::Float(1e-5))])
    }

    /// The largest value of each window of three pixels, at every pixel.
    pub fn max_pool(&mut self, input: &str, name: &str) -> String {
        self.graph.node("MaxPool", name, &[input], &window(3))
    }

    /// The sum of two values.
    pub fn add(&mut self, left: &str, right: &str, name: &str) -> String {
        self.graph.node("Add", name, &[left, right], &[])
    }

    /// Finishes the network with a mean over the pixels and a linear layer.
    pub fn classify(mut self, input: &str, channels: usize, image: [usize; 3], classes: usize) -> Model {
        let mean = self.graph.node("GlobalAveragePool", "mean", &[input], &[]);
        let flat = self.graph.node("Flatten", "flat", &[&mean], &[("axis", Attribute::Int(1))]);
        self.weights("classes.weight", vec![classes, channels]);
        self.weights("classes.bias", vec![classes]);
        let inputs = [flat.as_str(), "classes.weight", "classes.bias"];
        let output = self.graph.node("Gemm", "classes", &inputs, &[("transB", Attribute::Int(1))]);
        self.graph.finish("test", image, &output, classes).unwrap()
    }
}

/// Attributes of a window of this side around every pixel.
fn window(side: usize) -> Vec<(&'static str, Attribute)> {
    let [kernel, pad] = [side, side / 2].map(|size| size as i64);
    vec![
        ("kernel_shape", Attribute::Ints(vec![kernel; 2])),
        ("strides", Attribute::Ints(vec![1; 2])),
        ("pads", Attribute::Ints(vec![pad; 4])),
    ]
}
