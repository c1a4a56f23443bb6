//! What `bench` measures.

use resprout::forward::LayerTime;
use resprout::report::FileInfo;
use serde::Serialize;

/// What `bench` measures.
#[derive(Serialize)]
pub struct BenchReport {
    pub schema_version: u32,
    pub tool_version: &'static str,
    pub cpu: String,
    /// The instruction set.
    pub isa: String,
    pub model: FileInfo,
    pub image: Vec<usize>,
    /// Busy threads that ran beside.
    pub contend: u16,
    pub load: Load,
    /// One per batch size and number of threads.
    pub rows: Vec<BenchRow>,
    pub warnings: Vec<String>,
}

/// One batch size on one number of threads.
#[derive(Serialize)]
pub struct BenchRow {
    pub batch: usize,
    pub threads: usize,
    /// Images per run of each stage.
    pub microbatch: Vec<usize>,
    pub ours: Times,
    pub baseline: Option<BaselineTimes>,
    /// The most multiply-accumulates with nonzero weights that the machine can do per second. It is measured on a convolution
    /// that stays in the first-level cache.
    pub peak: f64,
    pub layers: Vec<LayerTime>,
    pub plans: Option<Plans>,
    pub break_even: Vec<BreakEvenRow>,
}

/// Seconds from the file to a session that is ready, without measuring plans: medians.
#[derive(Serialize)]
pub struct Load {
    pub ours: f64,
    pub baseline: Option<f64>,
    /// The median of the baseline's time by ours.
    pub ratio: Option<f64>,
}

/// What the plan is worth.
#[derive(Serialize)]
pub struct Plans {
    /// Seconds of one batch: the median.
    pub planned: f64,
    pub all_sparse: f64,
    pub all_dense: f64,
    /// The better of the other two by the plan: the lesser median of the ratios turn by turn.
    pub ratio: f64,
    /// Of the layers that the plan computes sparse, the least ratio of the dense path's time to the plan's.
    pub worst_layer: Option<f64>,
    /// One per convolution.
    pub layers: Vec<PlanLayer>,
}

/// Seconds of a convolution.
#[derive(Serialize)]
pub struct PlanLayer {
    pub name: String,
    pub density: f64,
    pub planned_sparse: bool,
    pub planned: f64,
    pub sparse: f64,
    pub dense: f64,
}

/// A shape of convolution with random masks.
#[derive(Serialize)]
pub struct BreakEvenRow {
    /// The first layer of this shape.
    pub layer: String,
    pub shape: String,
    /// Seconds on the dense path.
    pub dense: f64,
    /// Density, and seconds on the sparse path.
    pub sparse: Vec<(f64, f64)>,
    /// Below it the sparse path is faster.
    pub density: f64,
}

/// Of one batch, in seconds.
#[derive(Serialize)]
pub struct Times {
    pub p50: f64,
    pub p90: f64,
    /// Where other programs interrupt batches, this says more than the median: it counts the interruptions in their proportion.
    pub mean: f64,
    pub images_per_second: f64,
}

/// The other engine.
#[derive(Serialize)]
pub struct BaselineTimes {
    pub name: String,
    pub times: Times,
    /// The median of the baseline's time by ours, turn by turn: above 1 we are faster.
    pub ratio: f64,
    /// The largest difference of the outputs, by the largest output; only where both run the same file.
    pub difference: Option<f64>,
}
