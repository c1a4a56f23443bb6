//! The repair `distill`: masks, threads, do no harm, chains and steps, and bad input.

use resprout::architectures::{Shape, build};
use resprout::data::{ImageSet, Preprocess, gaussian};
use resprout::eval::compare;
use resprout::formats::onnx;
use resprout::forward::{Network, PlanOptions};
use resprout::model::Model;
use resprout::ops::{Op, UnaryOp};
use resprout::progress::{Progress, Quiet};
use resprout::prune::{PruneOptions, prune};
use resprout::repair::{AUTO, Chain, RepairOptions, RepairOutcome};
use resprout::sparsify::{Budget, Sparsified, Sparsify, SparsifyOptions, sparsify};
use resprout::tensor::Tensor;
use resprout::{ErrorKind, Result};
use resprout_train::{Distill, REPAIRS};
use std::sync::atomic::{AtomicUsize, Ordering};

const DIGITS: &[u8] = include_bytes!("../../resprout-cli/assets/digits.onnx");
const IMAGES: &[u8] = include_bytes!("../../resprout-cli/assets/digits-images-idx3-ubyte.gz");
const LABELS: &[u8] = include_bytes!("../../resprout-cli/assets/digits-labels-idx1-ubyte.gz");

/// Few steps of few images.
const QUICK: &str = "distill:steps=60:batch=32";

fn digits() -> Model {
    onnx::parse(DIGITS.to_vec(), None).unwrap()
}

fn images(range: std::ops::Range<usize>) -> Tensor {
    let preprocess = Preprocess { mean: vec![4.884], std: vec![6.017], ..Preprocess::default() };
    ImageSet::from_idx("digits", IMAGES, LABELS).unwrap().load(range, 1, &preprocess).unwrap()
}

fn pruned(dense: &Model, sparsity: f64) -> Model {
    let mut model = dense.clone();
    let options = PruneOptions { sparsity, ..PruneOptions::default() };
    prune(&mut model, &options, &Tensor::default(), &Quiet).unwrap();
    model
}

fn repair(model: &mut Model, dense: &Model, text: &str, images: &Tensor) -> Result<RepairOutcome> {
    Chain::parse_with(text, REPAIRS)?.repair(model, dense, images, &RepairOptions::default(), &Quiet)
}

fn refused(model: &Model, text: &str, images: &Tensor) -> String {
    let mut sparse = pruned(model, 0.5);
    let before = onnx::encode(&sparse).unwrap();
    let error = repair(&mut sparse, model, text, images).unwrap_err().to_string();
    assert_eq!(onnx::encode(&sparse).unwrap(), before, "{error}");
    error
}

fn outputs(model: &Model, images: &Tensor) -> Tensor {
    Network::new(model, &images.shape[1..], &PlanOptions::default()).unwrap().run(images).unwrap().swap_remove(0)
}

fn kl(model: &Model, dense: &Model, images: &Tensor) -> f64 {
    let kind = resprout::eval::OutputKind::Logits;
    compare(&outputs(model, images), &outputs(dense, images), None, kind).unwrap().kl.unwrap().value
}

fn bits(model: &Model) -> Vec<u32> {
    model.params.iter().filter_map(|(_, param)| param.f32()).flat_map(|tensor| tensor.data.iter().map(|v| v.to_bits())).collect()
}

fn on_threads<T: Send>(count: usize, work: impl FnOnce() -> T + Send) -> T {
    rayon::ThreadPoolBuilder::new().num_threads(count).build().unwrap().install(work)
}

#[test]
fn it_brings_a_network_nearer_to_the_dense_one_and_keeps_masks_and_statistics() {
    let (dense, seen, unseen) = (digits(), images(0..256), images(256..512));
    for scope in ["network", "block"] {
        let mut model = pruned(&dense, 0.9);
        let start = model.clone();
        let outcome = repair(&mut model, &dense, &format!("distill:steps=150:batch=32:scope={scope}"), &seen).unwrap();
        let trained = outcome.trained.unwrap();
        assert_eq!((trained.steps, trained.images), (150, 32));
        assert!(trained.distance[1] < 0.5 * trained.distance[0], "{scope} {trained:?}");
        assert!(kl(&model, &dense, &unseen) < 0.5 * kl(&start, &dense, &unseen), "{scope}");
        assert_eq!(model.masks, start.masks);
        for (name, mask) in model.masks.iter() {
            let weights = &model.weight(name).unwrap().data;
            assert!(weights.iter().zip(&mask.0).all(|(weight, &kept)| kept || weight.to_bits() == 0), "{scope} {name}");
        }
        for layer in dense.graph.layers.iter().filter(|layer| matches!(layer.op, Op::BatchNorm { .. })) {
            let same = |index: usize| {
                let name = &layer.inputs[index];
                model.weight(name).unwrap().same_bits(start.weight(name).unwrap())
            };
            assert!(!same(1) && !same(2) && same(3) && same(4), "{scope} {}", layer.name);
        }
    }
}

#[test]
fn threads_change_no_bit_and_seeds_do() {
    let (dense, seen) = (digits(), images(0..100));
    let run = |threads: usize, text: &str| {
        on_threads(threads, || {
            let mut model = pruned(&dense, 0.8);
            repair(&mut model, &dense, text, &seen).unwrap();
            bits(&model)
        })
    };
    let text = "distill:steps=25:batch=24:flip=yes:shift=1";
    let one = run(1, text);
    assert_eq!(one, run(3, text));
    assert_ne!(one, run(2, &format!("{text}:seed=1")));
}

/// Training of every kind keeps the best state by its own measure: a rate far too high changes nothing, and neither does a start
/// that is the dense network.
#[test]
fn it_is_never_worse_than_its_start_by_its_own_measure() {
    let (dense, seen) = (digits(), images(0..128));
    let mut same = dense.clone();
    let outcome = repair(&mut same, &dense, QUICK, &seen).unwrap();
    assert_eq!(bits(&same), bits(&dense));
    assert!(outcome.warnings.iter().any(|w| w.contains("no state was nearer")), "{:?}", outcome.warnings);
    let mut model = pruned(&dense, 0.3);
    let start = bits(&model);
    let outcome = repair(&mut model, &dense, "distill:steps=3:batch=32:rate=0.3", &seen).unwrap();
    assert_eq!(bits(&model), start);
    assert_eq!(outcome.trained.unwrap().steps, 3);
    // Another number of images, and images that come several times in a batch.
    let mut model = pruned(&dense, 0.9);
    let trained = repair(&mut model, &dense, "distill:steps=40", &images(0..20)).unwrap().trained.unwrap();
    assert!(trained.images == 2 && trained.distance[1] <= trained.distance[0]);
}

#[test]
fn images_of_another_kind_are_not_trained_on() {
    let dense = digits();
    let mut model = pruned(&dense, 0.8);
    let start = bits(&model);
    let noise = gaussian(64, [1, 8, 8], &Preprocess::preset("raw").unwrap(), 3);
    let outcome = repair(&mut model, &dense, QUICK, &noise).unwrap();
    assert_eq!(bits(&model), start);
    assert!(outcome.trained.is_none() && outcome.warnings[0].contains("far from those"), "{:?}", outcome.warnings);
    assert!(repair(&mut model, &dense, "distill:steps=20:domain=any", &noise).unwrap().trained.is_some());
}

#[test]
fn it_stands_in_chains_and_between_steps() {
    let (dense, seen, unseen) = (digits(), images(0..600), images(600..1000));
    let run = |repair: &str, steps: usize| -> Sparsified {
        let options = SparsifyOptions {
            prune: PruneOptions { sparsity: 0.95, ..PruneOptions::default() },
            repair: repair.into(),
            repair_rows: REPAIRS,
            repair_options: RepairOptions::default(),
            steps,
            checkpoint: None,
        };
        sparsify(&dense, &seen, &options, &Quiet).unwrap()
    };
    let distance = |done: &Sparsified| kl(&done.repaired, &dense, &unseen);
    let fitted = run("least-squares", 3);
    let both = run("least-squares,distill:steps=200:batch=32", 3);
    assert!(distance(&both) < distance(&fitted), "{} {}", distance(&both), distance(&fitted));
    assert_eq!(both.outcome.kept.iter().sum::<usize>(), fitted.outcome.kept.iter().sum::<usize>());
    // A value in place of a row, and a text in the same expression.
    let mut distill = Distill::default();
    (distill.steps, distill.batch) = (200, 32);
    let own = Sparsify::new(Budget::sparsity(0.95)).steps(3).repair("least-squares").repair(distill).run(&dense, &seen).unwrap();
    assert_eq!(bits(&own.repaired), bits(&both.repaired));
    let text = Sparsify::new(Budget::sparsity(0.95)).repair_rows(REPAIRS).repair("bias,distill:steps=1").run(&dense, &seen);
    assert!(text.is_ok());
    let unknown = Sparsify::new(Budget::sparsity(0.95)).repair("distill").run(&dense, &seen).unwrap_err().to_string();
    assert!(unknown.contains("distill"), "{unknown}");
}

/// What training is judged by has not been fitted before: with the images that are held out replaced by others, repairs before it
/// give the same bits.
#[test]
fn repairs_before_it_do_not_get_the_images_that_it_judges_by() {
    let (dense, seen) = (digits(), images(0..64));
    let mut others = seen.clone();
    let (each, unseen) = (seen.data.len() / 64, images(900..908));
    for (index, image) in unseen.data.chunks(each).enumerate() {
        others.data[(8 * index + 7) * each..][..each].copy_from_slice(image);
    }
    let run = |chain: &str, images: &Tensor| {
        let mut model = pruned(&dense, 0.8);
        repair(&mut model, &dense, chain, images).unwrap();
        bits(&model)
    };
    // No training: in no time the start is kept.
    let chain = "least-squares,distill:seconds=1e-9:batch=16";
    assert_eq!(run(chain, &seen), run(chain, &others));
    assert_ne!(run("least-squares", &seen), run("least-squares", &others));
}

/// With a limit on the time the choice tries it last, in the time that is left.
#[test]
fn auto_tries_it_where_the_time_is_limited() {
    let (dense, seen) = (digits(), images(0..128));
    let run = |seconds: Option<f64>| {
        let options = SparsifyOptions {
            prune: PruneOptions { sparsity: 0.9, ..PruneOptions::default() },
            repair: AUTO.into(),
            repair_rows: REPAIRS,
            repair_options: RepairOptions { seconds, ..RepairOptions::default() },
            steps: 1,
            checkpoint: None,
        };
        let result = sparsify(&dense, &seen, &options, &Quiet).unwrap();
        result.candidates.into_iter().map(|candidate| candidate.repair).collect::<Vec<String>>()
    };
    assert!(!run(None).contains(&"least-squares,distill".to_string()));
    assert_eq!(run(Some(4.0)).last().unwrap(), "least-squares,distill");
}

#[test]
fn a_limit_on_the_time_shortens_training() {
    let (dense, seen) = (digits(), images(0..64));
    let mut model = pruned(&dense, 0.8);
    let outcome = repair(&mut model, &dense, "distill:steps=1000000:seconds=1.5:batch=16", &seen).unwrap();
    assert!(outcome.seconds < 15.0, "{}", outcome.seconds);
    assert!((1..1_000_000).contains(&outcome.trained.unwrap().steps));
    let options = RepairOptions { seconds: Some(0.0), ..RepairOptions::default() };
    let chain = Chain::parse_with(QUICK, REPAIRS).unwrap();
    assert_eq!(chain.repair(&mut model, &dense, &seen, &options, &Quiet).unwrap().trained.unwrap().steps, 0);
}

#[test]
fn bad_input_is_named() {
    let dense = digits();
    let few = refused(&dense, QUICK, &images(0..1));
    assert!(few.contains("repair distill: 1 calibration images; at least 16"), "{few}");
    let broken = refused(&dense, "distill:steps=40:batch=16:rate=1e30", &images(0..64));
    assert!(broken.contains("the loss became") && broken.contains("in step ") && broken.contains("layer"), "{broken}");
    let mut nan = images(0..64);
    nan.data[100] = f32::NAN;
    let nan = refused(&dense, "distill:steps=4:domain=any", &nan);
    assert!(nan.contains("the dense network's layer"), "{nan}");
    let option = |text: &str| Chain::parse_with(text, REPAIRS).err().unwrap().to_string();
    for (text, expected) in [
        ("distill:steps=0", "a number from 1 on"),
        ("distill:batch=1", "from 2 on"),
        ("distill:rate=-1", "above 0"),
        ("distill:temperature=0", "above 0"),
        ("distill:mix=1.5", "from 0 to 1"),
        ("distill:scope=layer", "block or network"),
        ("distill:flip=maybe", "yes, no or auto"),
        ("distill:stepz=3", "did you mean steps?"),
    ] {
        assert!(option(text).contains(expected), "{}", option(text));
    }
    let mut distill = Distill::default();
    distill.mix = f64::NAN;
    let wrong = Sparsify::new(Budget::sparsity(0.5)).repair(distill).run(&dense, &images(0..32)).unwrap_err();
    assert_eq!(wrong.kind(), ErrorKind::Option);
}

/// Images that are all equal, and black ones.
#[test]
fn images_without_variance_do_no_harm() {
    let dense = digits();
    let one = images(0..1);
    let equal = Tensor::new(vec![32, 1, 8, 8], one.data.repeat(32));
    for images in [equal, Tensor::new(vec![32, 1, 8, 8], vec![-0.8; 32 * 64])] {
        let mut model = pruned(&dense, 0.8);
        let trained = repair(&mut model, &dense, "distill:steps=10:batch=8:domain=any", &images).unwrap().trained.unwrap();
        assert!(trained.distance[1] <= trained.distance[0], "{trained:?}");
        model.check_finite().unwrap();
    }
}

/// An operation without an instruction is one error that names it, and nothing is changed.
#[test]
fn what_cannot_be_trained_is_named() {
    let mut dense = digits();
    let relu = dense.graph.layers.iter_mut().find(|layer| matches!(layer.op, Op::Unary(UnaryOp::Relu))).unwrap();
    relu.op = Op::Softmax { axis: 1, flatten: false, log: false };
    let error = refused(&dense, QUICK, &images(0..32));
    assert!(error.starts_with("repair distill: ") && error.contains("Softmax") && error.contains("cannot be trained"), "{error}");
}

/// Outputs that are no classes are matched as numbers.
#[test]
fn outputs_without_classes_are_matched_too() {
    let shape = Shape { classes: Some(1), image: Some([1, 28, 28]) };
    let dense = build("lenet-5", &shape, "kaiming-in", 5).unwrap();
    let pictures = gaussian(256, [1, 28, 28], &Preprocess::preset("raw").unwrap(), 1);
    let mut model = pruned(&dense, 0.5);
    let trained =
        repair(&mut model, &dense, "distill:steps=150:batch=32:rate=0.0003:shift=0:mix=0", &pictures).unwrap().trained.unwrap();
    assert!(trained.agreement.is_none() && trained.distance[1] < trained.distance[0], "{trained:?}");
}

/// Stops after some units of work.
struct Stop(AtomicUsize);

impl Progress for Stop {
    fn cancelled(&self) -> bool {
        self.0.fetch_add(1, Ordering::Relaxed) > 20
    }
}

#[test]
fn an_interruption_leaves_the_network_as_it_was() {
    let (dense, seen) = (digits(), images(0..64));
    let mut model = pruned(&dense, 0.8);
    let start = bits(&model);
    let chain = Chain::parse_with(QUICK, REPAIRS).unwrap();
    let stopped = chain.repair(&mut model, &dense, &seen, &RepairOptions::default(), &Stop(AtomicUsize::new(0)));
    assert_eq!(stopped.unwrap_err().kind(), ErrorKind::Interrupted);
    assert_eq!(bits(&model), start);
}
