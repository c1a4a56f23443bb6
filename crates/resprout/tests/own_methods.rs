//! The public API: typed methods, and a criterion, an allocation and a repair of the caller.

use resprout::allocation::{Allocation, Erk, Global, Lamp, LayerScores, Totals, Uniform, UniformPlus};
use resprout::calibrate::{Needs, Visitor, WeightSite};
use resprout::criteria::{Criterion, Magnitude, Rms, ScoreInput};
use resprout::data::{ImageSet, LabelSource, Preprocess};
use resprout::formats::onnx;
use resprout::model::Model;
use resprout::repair::{LeastSquares, Repair, Stage};
use resprout::sparsify::{AnyAllocation, AnyCriterion, Budget, Sparsified, Sparsify};
use resprout::structure::Pattern;
use resprout::tensor::Tensor;
use resprout::{ErrorKind, Result};
use std::path::Path;

/// The square of the weight.
struct Energy;

impl Criterion for Energy {
    fn score(&self, layer: &ScoreInput) -> Vec<f64> {
        layer.weights.iter().map(|w| f64::from(*w).powi(2)).collect()
    }
}

/// The weight's share of the output: its magnitude times the root mean square of its input, as wanda has it.
struct Share;

impl Criterion for Share {
    fn needs_images(&self) -> bool {
        true
    }

    fn score_site(&self, site: &WeightSite) -> Result<Option<Vec<f64>>> {
        let Some(inputs) = site.input_rms(65536, 0) else { return Ok(None) };
        // To the order of the file and back.
        let inputs = site.from_file_order(&site.in_file_order(&inputs));
        Ok(Some(site.weights.data.iter().zip(&inputs).map(|(w, x)| f64::from(w.abs()) * x).collect()))
    }
}

/// Every layer keeps the same number of weights, or all it has.
struct Equal;

impl Allocation for Equal {
    fn allocate(&self, layers: &[LayerScores], totals: Totals) -> Result<Vec<usize>> {
        let mut left = totals.keep;
        let mut order: Vec<usize> = (0..layers.len()).collect();
        order.sort_by_key(|&i| layers[i].scores.len());
        let mut kept = vec![0; layers.len()];
        for (done, &i) in order.iter().enumerate() {
            kept[i] = (left / (layers.len() - done)).min(layers[i].scores.len());
            left -= kept[i];
        }
        Ok(kept)
    }
}

/// Rescales each layer so that the mean deviation of its outputs is the dense network's.
struct Rescale;

impl Visitor for Rescale {
    fn needs(&self) -> Needs {
        Needs { images: true, dense: true, weights: true, ..Needs::default() }
    }

    fn weights(&self, site: &mut WeightSite) -> Result<()> {
        let pair = site.pair()?;
        let deviation = |var: &[f64]| var.iter().map(|v| v.sqrt()).sum::<f64>();
        let gain = (deviation(&pair.dense.var) / deviation(&pair.sparse.var).max(1e-12)) as f32;
        site.weights.data.iter_mut().for_each(|w| *w *= gain);
        site.touch();
        Ok(())
    }
}

impl Repair for Rescale {
    fn stage(&self) -> Stage {
        Stage::Weights
    }
}

fn digits() -> (Model, Tensor) {
    let assets = Path::new(env!("CARGO_MANIFEST_DIR")).join("../resprout-cli/assets");
    let images = ImageSet::open(&assets.join("digits-images-idx3-ubyte.gz"), &LabelSource::None).unwrap();
    let images = images.load(0..64, 1, &Preprocess::preset("raw").unwrap()).unwrap();
    (onnx::read(&assets.join("digits.onnx")).unwrap(), images)
}

fn run(sparsify: Sparsify) -> Sparsified {
    let (dense, images) = digits();
    sparsify.run(&dense, &images).unwrap()
}

/// The error, which must be of this kind.
fn refused(sparsify: Sparsify, kind: ErrorKind) -> String {
    let (dense, images) = digits();
    let error = sparsify.run(&dense, &images).map(drop).unwrap_err();
    assert_eq!(error.kind(), kind, "{error}");
    error.to_string()
}

fn bytes(sparse: &Sparsified) -> Vec<u8> {
    onnx::encode(&sparse.repaired).unwrap()
}

fn at_90() -> Sparsify {
    Sparsify::new(Budget::sparsity(0.9))
}

#[test]
fn the_callers_criterion_ranks() {
    // Squares have the order of absolute values.
    assert_eq!(bytes(&run(at_90().criterion(Energy).allocation("global"))), bytes(&run(at_90().allocation(Global))));
}

#[test]
fn the_callers_criterion_measures_inputs() {
    assert_eq!(bytes(&run(at_90().criterion(Share))), bytes(&run(at_90().criterion("wanda"))));
}

#[test]
fn zeros_of_a_sparse_network_stay_unless_they_may_regrow() {
    let (dense, images) = digits();
    // A file has no masks: zeros alone tell that it was pruned.
    let half = at_90().run(&dense, &images).unwrap().repaired;
    let sparse = onnx::parse(onnx::encode(&half).unwrap(), None).unwrap();
    let repaired = |sparsify: Sparsify| sparsify.repair(LeastSquares::default()).run(&sparse, &images).unwrap();
    let kept = |done: &Sparsified| done.outcome.kept.iter().sum::<usize>();
    assert_eq!(kept(&repaired(Sparsify::new(Budget::sparsity(0.0)))), 7707);
    assert_eq!(kept(&repaired(Sparsify::new(Budget::sparsity(0.0)).regrow(true))), 77_072);
}

#[test]
fn the_callers_allocation_applies() {
    let sparse = run(at_90().allocation(Equal));
    let sizes: Vec<usize> = sparse.outcome.layers.iter().map(|layer| layer.len()).collect();
    assert_eq!(sparse.outcome.kept.iter().sum::<usize>(), 7707);
    let most = sparse.outcome.kept.iter().max().unwrap();
    assert!(sparse.outcome.kept.iter().zip(&sizes).all(|(kept, size)| kept.abs_diff(*size.min(most)) <= 1), "{sizes:?}");
}

#[test]
fn the_callers_repair_acts_alone_and_with_rows() {
    let none = run(at_90());
    for sparse in [run(at_90().repair(Rescale)), run(at_90().repair(Rescale).repair("bn")), run(at_90().repair(Rescale).steps(2))]
    {
        assert_ne!(bytes(&sparse), bytes(&none));
        let (layer, kept) = (&sparse.outcome.layers[0], sparse.outcome.kept[0]);
        let weights = sparse.repaired.params.get(&layer.param).unwrap().value().unwrap().as_f32().unwrap().data.clone();
        assert!(weights.iter().filter(|w| **w != 0.0).count() <= kept);
    }
}

#[test]
fn typed_methods_are_the_rows_of_the_tables() {
    let criteria: [(AnyCriterion, &str); 2] = [(Magnitude.into(), "magnitude"), (Rms.into(), "rms")];
    for (typed, row) in criteria {
        assert_eq!(bytes(&run(at_90().criterion(typed))), bytes(&run(at_90().criterion(row))), "{row}");
    }
    let allocations: [(AnyAllocation, &str); 5] = [
        (Uniform.into(), "uniform"),
        (UniformPlus.into(), "uniform+"),
        (Global.into(), "global"),
        (Erk::default().into(), "erk"),
        (Lamp.into(), "lamp"),
    ];
    for (typed, row) in allocations {
        assert_eq!(bytes(&run(at_90().allocation(typed))), bytes(&run(at_90().allocation(row))), "{row}");
    }
    assert_eq!(bytes(&run(at_90().repair(LeastSquares::default()))), bytes(&run(at_90().repair("least-squares"))));
}

#[test]
fn invalid_combinations_are_errors() {
    let refused = |sparsify: Sparsify| refused(sparsify, ErrorKind::Option);
    let channels = Budget::sparsity(0.5).pattern(Pattern::Channel);
    assert!(refused(Sparsify::new(channels).criterion(Energy)).contains("Energy"));
    assert!(refused(Sparsify::new(channels).allocation(Equal)).contains("Equal"));
    assert!(refused(Sparsify::new(Budget::n_of_m(2, 4)).allocation(Equal)).contains("Equal"));
    assert!(refused(Sparsify::new(Budget::n_of_m(2, 4)).allocation("erk")).contains("erk"));
    assert!(refused(Sparsify::new(Budget::sparsity(0.5).pattern(Pattern::Nm { n: 2, m: 4 }))).contains("0.5"));
    assert!(refused(Sparsify::new(Budget::macs(0.5).pattern(Pattern::Unstructured))).contains("multiply-accumulates"));
    assert!(refused(Sparsify::new(Budget::n_of_m(5, 4))).contains("5:4"));
    assert!(refused(at_90().steps(0)).contains("steps"));
    assert!(refused(Sparsify::new(Budget::n_of_m(2, 4).pattern(Pattern::Unstructured))).contains("n:m"));
    assert!(refused(Sparsify::new(Budget::sparsity(0.5).pattern(Pattern::Mixed { m: 0 }))).contains("mixed"));
    let (mut erk, mut fit) = (Erk::default(), LeastSquares::default());
    (erk.power, fit.rows) = (f64::NAN, 0);
    assert!(refused(at_90().allocation(erk)).contains("power"));
    assert!(refused(at_90().repair(fit)).contains("rows"));
    assert!(refused(at_90().repair("none").repair("auto").repair(Rescale)).contains("auto"));
}

/// A criterion that measures, and leaves the last weight out.
struct Short;

impl Criterion for Short {
    fn needs_images(&self) -> bool {
        true
    }

    fn score_site(&self, site: &WeightSite) -> Result<Option<Vec<f64>>> {
        Ok(Some(vec![1.0; site.weights.data.len() - 1]))
    }
}

/// A criterion and an allocation with invalid results.
struct Wrong(f64, usize);

impl Criterion for Wrong {
    fn score(&self, layer: &ScoreInput) -> Vec<f64> {
        vec![self.0; layer.weights.len() - self.1]
    }
}

impl Allocation for Wrong {
    fn allocate(&self, layers: &[LayerScores], totals: Totals) -> Result<Vec<usize>> {
        Ok(vec![totals.keep * 10; layers.len() - self.1])
    }
}

#[test]
fn invalid_results_of_the_callers_methods_are_errors() {
    let refused = |sparsify: Sparsify| refused(sparsify, ErrorKind::Data);
    assert!(refused(at_90().criterion(Wrong(f64::NAN, 0))).contains("a score is NaN"));
    assert!(refused(at_90().criterion(Wrong(-1.0, 0))).contains("a score is -1"));
    assert!(refused(at_90().criterion(Wrong(1.0, 1))).contains("scores for"));
    assert!(refused(at_90().criterion(Short)).contains("scores for"));
    assert!(refused(at_90().allocation(Wrong(0.0, 0))).contains("is to keep"));
    assert!(refused(at_90().allocation(Wrong(0.0, 1))).contains("counts for"));
}

#[test]
fn measured_takes_the_allocation_of_the_least_loss() {
    let done = run(at_90().allocation("measured:images=64:passes=1").repair("bn"));
    assert_eq!(done.outcome.kept.iter().sum::<usize>(), 7707);
    let losses: Vec<f64> = done.allocations.iter().filter_map(|tried| tried.loss).collect();
    // Three rows, four mixtures, and what exchanges have come to, if any lowered the loss.
    assert!((7..=8).contains(&losses.len()), "{:?}", done.allocations);
    assert!(losses.is_sorted() && done.allocations[0].chosen, "{:?}", done.allocations);
    assert!(run(at_90().allocation(Global)).allocations.is_empty());
    // It cannot choose without images, and is asked for in steps as well.
    let (dense, images) = digits();
    let error = at_90().allocation("measured").run(&dense, &Tensor::default()).map(drop).unwrap_err();
    assert!(error.to_string().contains("calibration images"), "{error}");
    let steps = at_90().allocation("measured:mixtures=0:passes=0").steps(2).run(&dense, &images).unwrap();
    assert_eq!((steps.allocations.len(), steps.outcome.kept.iter().sum::<usize>()), (3, 7707));
    assert!(refused(at_90().allocation("measured:images=3"), ErrorKind::Option).contains("images"));
}
