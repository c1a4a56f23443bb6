//! What a plan is worth, and where the sparse path begins to pay.

use super::timing::{TURN, percentile, seconds, turn};
use crate::args::BenchArgs;
use crate::reports::bench::{BreakEvenRow, PlanLayer, Plans};
use resprout::Result;
use resprout::model::Model;
use resprout::session::{Paths, Session, SessionOptions, break_evens};
use resprout::tensor::Tensor;
use resprout_kernels::ConvShape;
use resprout_kernels::engine::BreakEven;

/// Runs of which each operation's least time is taken.
pub const LAYER_RUNS: usize = 20;

/// The plan beside all layers on one path.
pub fn plans(
    args: &BenchArgs,
    model: &Model,
    planned: &mut Session,
    images: &Tensor,
    options: &SessionOptions,
) -> anyhow::Result<Plans> {
    let on = |paths| Session::new(model, &images.shape[1..], &SessionOptions { paths, ..options.clone() });
    let (mut sparse, mut dense) = (on(Paths::Sparse)?, on(Paths::Dense)?);
    let mut times = [const { Vec::new() }; 3];
    let mut ratios = [const { Vec::new() }; 2];
    for round in 0..args.rounds {
        let mut sessions = [&mut *planned, &mut sparse, &mut dense];
        let mut medians = [0.0; 3];
        // The order changes each round: which session runs first must not matter.
        for index in (0..3).map(|step| (round + step) % 3) {
            let turn = turn(|| seconds(sessions[index], images))?;
            medians[index] = percentile(&turn, 0.5);
            times[index].extend(turn);
        }
        ratios.iter_mut().zip(&medians[1..]).for_each(|(ratios, other)| ratios.push(other / medians[0]));
    }
    // The lesser of two medians: the lesser of two times in each turn would mostly be noise.
    let [sparse_ratio, dense_ratio] = ratios.map(|ratios| percentile(&ratios, 0.5));
    let layers = plan_layers(planned, &mut sparse, &mut dense);
    let slower =
        layers.iter().filter(|layer| layer.planned_sparse && layer.density < 1.0).map(|layer| layer.dense / layer.planned);
    let [planned, all_sparse, all_dense] = times.map(|times| percentile(&times, 0.5));
    Ok(Plans {
        planned,
        all_sparse,
        all_dense,
        ratio: sparse_ratio.min(dense_ratio),
        worst_layer: slower.min_by(f64::total_cmp),
        layers,
    })
}

/// Convolutions that all three compute, in several turns. The least time of each counts.
fn plan_layers(planned: &mut Session, sparse: &mut Session, dense: &mut Session) -> Vec<PlanLayer> {
    let planned_sparse = planned.sparse_layers();
    let mut rows: Vec<PlanLayer> = Vec::new();
    for _ in 0..LAYER_RUNS / TURN {
        let [planned, sparse, dense] = [&mut *planned, &mut *sparse, &mut *dense].map(convolutions);
        let unmeasured = |(layer, &planned_sparse): (&(String, f64, f64), &bool)| PlanLayer {
            name: layer.0.clone(),
            density: layer.1,
            planned_sparse,
            planned: f64::INFINITY,
            sparse: f64::INFINITY,
            dense: f64::INFINITY,
        };
        if rows.is_empty() {
            rows = planned.iter().zip(&planned_sparse).map(unmeasured).collect();
        }
        for (row, ((planned, sparse), dense)) in rows.iter_mut().zip(planned.iter().zip(&sparse).zip(&dense)) {
            row.planned = row.planned.min(planned.2);
            row.sparse = row.sparse.min(sparse.2);
            row.dense = row.dense.min(dense.2);
        }
    }
    rows
}

/// Name, density and seconds per image of each: sessions may run different microbatches.
fn convolutions(session: &mut Session) -> Vec<(String, f64, f64)> {
    let layers = session.layers(TURN).into_iter();
    layers.filter_map(|layer| Some((layer.name, layer.density?, layer.seconds / layer.images as f64))).collect()
}

/// Densities that are measured.
const DENSITIES: [f64; 7] = [0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.7];

/// Seconds for each of their measurements.
const BREAK_EVEN_SECONDS: f64 = 0.1;

/// Of every shape of convolution in the model, the density below which the sparse path is faster.
pub fn break_even(model: &Model, image: &[usize], options: &SessionOptions) -> Result<Vec<BreakEvenRow>> {
    let all = break_evens(model, image, options, &DENSITIES, BREAK_EVEN_SECONDS)?;
    let row = |(layer, shape, found): (String, ConvShape, BreakEven)| BreakEvenRow {
        layer,
        shape: format!(
            "{}x{} {} > {} at {}x{}, step {}",
            shape.kernel[0], shape.kernel[1], shape.in_channels, shape.out_channels, shape.in_h, shape.in_w, shape.stride[0]
        ),
        density: found.density(),
        dense: found.dense,
        sparse: found.sparse,
    };
    Ok(all.into_iter().map(row).collect())
}
