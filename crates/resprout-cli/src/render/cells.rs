//! Tables before they are text or HTML: what stands in them.

use super::numbers::{bytes, macs, number_estimate, percent, percent_estimate};
use crate::reports::compare::Compared;
use resprout::eval::Evaluation;
use resprout::repair::Candidate;
use resprout::report::{Bytes, EvaluationReport, LayerRow, SizeInfo};
use resprout::sparsify::AllocationLoss;

/// A header and rows of as many cells. The first column is text, the others are numbers.
pub struct Cells {
    pub header: Vec<&'static str>,
    pub rows: Vec<Vec<String>>,
}

impl Cells {
    fn new<T>(header: &[&'static str], rows: &[T], row: impl Fn(&T) -> Vec<String>) -> Cells {
        Cells { header: header.to_vec(), rows: rows.iter().map(row).collect() }
    }

    /// Adds a column on the right.
    fn with<T>(mut self, name: &'static str, rows: &[T], cell: impl Fn(&T) -> String) -> Cells {
        self.header.push(name);
        self.rows.iter_mut().zip(rows).for_each(|(cells, row)| cells.push(cell(row)));
        self
    }
}

/// What is left of each layer.
pub fn layers(rows: &[LayerRow]) -> Cells {
    let header = ["weight", "shape", "density", "kept", "effective", "MACs", "dead channels"];
    Cells::new(&header, rows, |row| {
        vec![
            row.param.clone(),
            row.shape.iter().map(usize::to_string).collect::<Vec<_>>().join("x"),
            format!("{:.4}", row.density),
            row.kept.to_string(),
            row.effective.to_string(),
            macs(row.macs),
            format!("{}/{}", row.dead_channels, row.channels),
        ]
    })
}

/// Bytes of the file before and after.
pub fn sizes(size: &SizeInfo) -> Cells {
    let rows: [(&str, &Bytes); 2] = [("dense", &size.dense), ("sparse", &size.sparse)];
    Cells::new(&["size", "file", "gzip", "zstd", "as sparse file"], &rows, |(name, size)| {
        let sizes = [Some(size.raw), size.gzip, size.zstd, Some(size.sparse)];
        [name.to_string()].into_iter().chain(sizes.map(|size| size.map_or("see --sizes".into(), bytes))).collect()
    })
}

/// How networks do on images.
pub fn evaluation(run: &EvaluationReport) -> Cells {
    let header = ["network", "top-1", "top-5", "agreement", "KL (nats)", "relative error"];
    Cells::new(&header, &run.networks, |(name, e)| {
        vec![
            name.clone(),
            percent_estimate(e.top1),
            percent_estimate(e.top5),
            percent_estimate(e.agreement),
            number_estimate(e.kl),
            number_estimate(e.relative_error),
        ]
    })
}

/// Repairs that were tried.
pub fn candidates(candidates: &[Candidate]) -> Cells {
    let of = |e: Option<&Evaluation>| match e {
        Some(e) => [percent_estimate(e.agreement), number_estimate(e.kl), number_estimate(e.relative_error)],
        None => ["failed".to_string(), "-".into(), "-".into()],
    };
    Cells::new(&["repair", "agreement", "KL (nats)", "relative error"], candidates, |c| {
        [vec![marked(&c.repair, c.chosen)], of(c.evaluation.as_ref()).to_vec()].concat()
    })
}

/// Allocations that were tried.
pub fn allocations(tried: &[AllocationLoss]) -> Cells {
    Cells::new(&["allocation", "loss"], tried, |tried| {
        vec![marked(&tried.allocation, tried.chosen), tried.loss.map_or("-".into(), |loss| format!("{loss:.4}"))]
    })
}

fn marked(name: &str, chosen: bool) -> String {
    format!("{} {name}", if chosen { '*' } else { ' ' })
}

/// Runs, studies and models side by side. Times have a column where there are any.
pub fn compared(rows: &[Compared]) -> Cells {
    let share = |value: Option<f64>| value.map_or("-".into(), percent);
    let ratio = |value: Option<f64>| value.map_or("-".into(), |x| format!("{x:.2}x"));
    let header = ["", "sparsity", "smaller", "MACs", "MACs saved", "bytes", "top-1", "agreement", "KL (nats)"];
    let cells = Cells::new(&header, rows, |row| {
        vec![
            row.name.clone(),
            share(row.sparsity),
            ratio(row.compression_ratio),
            macs(row.macs),
            ratio(row.theoretical_speedup),
            row.bytes.map_or("-".into(), bytes),
            share(row.top1),
            share(row.agreement),
            row.kl.map_or("-".into(), |kl| format!("{kl:.4}")),
        ]
    });
    match rows.iter().any(|row| row.milliseconds.is_some()) {
        true => cells.with("ms", rows, |row| row.milliseconds.map_or("-".into(), |time| format!("{time:.3}"))),
        false => cells,
    }
}
