//! Networks that take bytes or channels-last images. The golden values are from testdata/gen/inputs.py and ONNX Runtime.

use resprout::data::{ImageSet, LabelSource, Preprocess, gaussian};
use resprout::formats::onnx;
use resprout::forward::{Network, PlanOptions};
use resprout::model::{ElementType, Layout, Model};
use resprout::progress::Quiet;
use resprout::prune::{PruneOptions, prune};
use resprout::repair::{Chain, RepairOptions};
use resprout::session::{Session, SessionOptions};
use resprout::tensor::Tensor;
use safetensors::SafeTensors;
use std::collections::BTreeSet;

/// As in golden.rs.
const TOLERANCE: f32 = 3e-6;

struct Case {
    name: String,
    model: Model,
    input: Tensor,
    output: Tensor,
}

fn cases() -> Vec<Case> {
    let bytes = std::fs::read(concat!(env!("CARGO_MANIFEST_DIR"), "/../../testdata/golden/inputs.safetensors")).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let names: BTreeSet<String> =
        file.names().iter().filter_map(|name| name.strip_suffix(".model").map(str::to_string)).collect();
    let tensor = |name: String| {
        let view = file.tensor(&name).unwrap();
        let data = view.data().as_chunks::<4>().0.iter().map(|&b| f32::from_le_bytes(b)).collect();
        Tensor::new(view.shape().to_vec(), data)
    };
    let case = |name: String| Case {
        model: onnx::parse(file.tensor(&format!("{name}.model")).unwrap().data().to_vec(), None).unwrap(),
        input: tensor(format!("{name}.input")),
        output: tensor(format!("{name}.output")),
        name,
    };
    names.into_iter().map(case).collect()
}

fn case(name: &str) -> Case {
    cases().into_iter().find(|case| case.name == name).unwrap()
}

fn difference(a: &Tensor, b: &Tensor) -> f32 {
    assert_eq!(a.shape, b.shape);
    let largest = b.data.iter().fold(1e-6f32, |m, v| m.max(v.abs()));
    a.data.iter().zip(&b.data).map(|(a, b)| (a - b).abs() / largest).fold(0.0, f32::max)
}

#[test]
fn outputs_are_those_of_onnxruntime() {
    let all = cases();
    assert_eq!(all.len(), 7, "the golden file has lost cases");
    for Case { name, model, input, output } in &all {
        let image = &input.shape[1..];
        let network = Network::new(model, image, &PlanOptions::default()).unwrap_or_else(|e| panic!("{name}: {e}"));
        let far = difference(&network.run(input).unwrap()[0], output);
        assert!(far < TOLERANCE, "{name}: {far}");
        for threads in [1, 2] {
            let mut session = Session::new(model, image, &SessionOptions { threads, ..SessionOptions::default() }).unwrap();
            let far = difference(&session.run(input).unwrap()[0], output);
            assert!(far < TOLERANCE, "{name} in a session of {threads}: {far}");
        }
    }
}

#[test]
fn types_and_layouts_are_recognised() {
    for Case { name, model, .. } in cases() {
        let last = name.contains("last") || name == "bytes_moved";
        assert_eq!(model.graph.image_layout() == Layout::ChannelsLast, last, "{name}");
        let element = model.graph.inputs[0].element;
        assert_eq!(element == ElementType::Uint8, !name.contains("floats"), "{name}: {element}");
        assert_eq!(model.graph.image_channels(), Some(if name.contains("grey") { 1 } else { 3 }), "{name}");
        let names: Vec<&str> = model.graph.normalising_layers().iter().map(|layer| layer.op.name()).collect();
        let expected: &[&str] = match name.as_str() {
            "floats_last" => &[],
            "floats_last_normalised" => &["Sub", "Div"],
            "grey_last" => &["Cast", "Div"],
            "bytes_swapped" => &["Cast", "BatchNormalization"],
            _ => &["Cast", "Mul", "Sub", "Div"],
        };
        assert_eq!(names, expected, "{name}");
    }
}

/// A Transpose determines the layout, even if the axes are free. Without one the lengths of the axes do.
#[test]
fn layouts_by_their_axes() {
    use resprout::model::Dim::{self, Fixed, Free};
    let axes = |a: [Option<usize>; 3]| -> Vec<Dim> {
        [None].into_iter().chain(a).map(|dim| dim.map_or_else(|| Free(String::new()), Fixed)).collect()
    };
    let mut moved = case("floats_last").model;
    moved.graph.inputs[0].shape = axes([None, None, None]);
    assert_eq!(moved.graph.image_layout(), Layout::ChannelsLast);
    let mut model = case("bytes_first").model;
    for (shape, layout) in [
        ([Some(3), None, None], Layout::ChannelsFirst),
        ([None, None, Some(3)], Layout::ChannelsLast),
        ([Some(28), Some(28), Some(1)], Layout::ChannelsLast),
        ([Some(1), Some(28), Some(1)], Layout::ChannelsFirst),
        ([Some(224), Some(224), Some(4)], Layout::ChannelsLast),
        ([Some(8), Some(8), Some(2)], Layout::ChannelsFirst),
        ([None, None, None], Layout::ChannelsFirst),
    ] {
        model.graph.inputs[0].shape = axes(shape);
        assert_eq!(model.graph.image_layout(), layout, "{shape:?}");
    }
}

#[test]
fn images_are_laid_out_and_stay_bytes() {
    let set = ImageSet::from_bytes("two", (0..2 * 3 * 4).collect(), [2, 3, 2, 2], None).unwrap();
    let preprocess = Preprocess { layout: Layout::ChannelsLast, bytes: true, ..Preprocess::default() };
    let images = set.load(0..2, 3, &preprocess).unwrap();
    assert_eq!(images.shape, [2, 2, 2, 3]);
    assert_eq!(images.data[..6], [0.0, 4.0, 8.0, 1.0, 5.0, 9.0]);
    let noise = gaussian(3, [3, 4, 5], &preprocess, 1);
    assert_eq!(noise.shape, [3, 4, 5, 3]);
    assert!(noise.data.iter().all(|v| v.fract() == 0.0 && (0.0..=255.0).contains(v)));
    assert!(noise.data.iter().any(|&v| v > 200.0) && noise.data.iter().any(|&v| v < 50.0));
}

#[test]
fn arrays_that_are_no_bytes_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let load = |values: [f32; 4], scale: f32| {
        let header = format!("{:<117}\n", "{'descr': '<f4', 'fortran_order': False, 'shape': (1, 1, 2, 2), }");
        let data: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
        let path = folder.path().join("a.npy");
        std::fs::write(&path, [b"\x93NUMPY\x01\x00\x76\x00", header.as_bytes(), &data].concat()).unwrap();
        let preprocess = Preprocess { bytes: true, scale, ..Preprocess::default() };
        ImageSet::open(&path, &LabelSource::None).unwrap().load(0..1, 1, &preprocess)
    };
    assert_eq!(load([0.0, 1.0, 254.0, 255.0], 1.0).unwrap().data, [0.0, 1.0, 254.0, 255.0]);
    assert_eq!(load([0.0, 1.0 / 255.0, 77.0 / 255.0, 1.0], 255.0).unwrap().data, [0.0, 1.0, 77.0, 255.0]);
    assert_eq!(load([-0.001, 0.0, 0.0, 255.001], 1.0).unwrap().data.map_bits(), [0.0f32, 0.0, 0.0, 255.0].map(f32::to_bits));
    for values in [[0.0, 0.5, 0.0, 0.0], [0.0, -1.0, 0.0, 0.0], [0.0, 256.0, 0.0, 0.0]] {
        let message = load(values, 1.0).unwrap_err().to_string();
        assert!(message.contains("a.npy, image 0: pixel 1 is") && message.contains("scale 255"), "{message}");
    }
}

trait Bits {
    fn map_bits(&self) -> Vec<u32>;
}

impl Bits for Vec<f32> {
    fn map_bits(&self) -> Vec<u32> {
        self.iter().map(|v| v.to_bits()).collect()
    }
}

/// A repair on bytes equals the repair with the normalisation outside of the network.
#[test]
fn a_repair_on_bytes_is_the_repair_on_normalised_floats() {
    let Case { model: dense, input, .. } = case("bytes_first");
    let mut outside = dense.clone();
    // The first four layers normalise. The convolution now reads the input instead.
    outside.graph.layers.drain(..4);
    outside.graph.layers[0].inputs[0] = "x".into();
    outside.graph.inputs[0].element = ElementType::Float32;
    let set = ImageSet::from_bytes("noise", input.data.iter().map(|&v| v as u8).collect(), [3, 3, 12, 10], None).unwrap();
    let bytes = set.load(0..3, 3, &Preprocess { bytes: true, ..Preprocess::default() }).unwrap();
    assert_eq!(bytes, input);
    let imagenet = Preprocess { resize: None, crop: None, ..Preprocess::preset("imagenet").unwrap() };
    let floats = set.load(0..3, 3, &imagenet).unwrap();
    for chain in ["bn", "least-squares"] {
        let [inside, outside] = [(&dense, &bytes), (&outside, &floats)].map(|(dense, images)| {
            let mut model = dense.clone();
            let options = PruneOptions { sparsity: 0.5, ..PruneOptions::default() };
            prune(&mut model, &options, images, &Quiet).unwrap();
            Chain::parse(chain).unwrap().repair(&mut model, dense, images, &RepairOptions::default(), &Quiet).unwrap();
            Network::new(&model, &images.shape[1..], &PlanOptions::default()).unwrap().run(images).unwrap().swap_remove(0)
        });
        let far = difference(&inside, &outside);
        assert!(far < 1e-3, "{chain}: {far}");
    }
}

#[test]
fn unsupported_inputs_are_named() {
    let model = case("bytes_first").model;
    let message = |model: &Model| Network::new(model, &[3, 12, 10], &PlanOptions::default()).map(drop).unwrap_err().to_string();
    for name in ["int8", "float16", "float64"] {
        let mut other = model.clone();
        other.graph.inputs[0].element = ElementType::Other(name);
        let message = message(&other);
        assert!(message.contains(&format!("input \"x\" takes {name} numbers")) && message.contains("repair none"), "{message}");
    }
    let mut early = model.clone();
    early.graph.layers[1].inputs[0] = "x".into();
    assert!(message(&early).contains("layer \"mul_1\" (Mul): computes with the bytes (uint8) of input \"x\""));
}
