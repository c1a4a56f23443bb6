//! `score = |w| * |x|`: the magnitude of a weight times the norm of its input.

use super::{Build, Criterion};
use crate::calibrate::WeightSite;
use crate::calibrate::normal::InputSums;
use crate::calibrate::sample::Sample;
use crate::error::Result;
use crate::table::{Entry, OptionSpec};

pub(super) const ENTRY: Entry<Build> = Entry {
    name: "wanda",
    about: "the absolute value by the root mean square of the input it multiplies; needs images",
    paper: "Sun et al., A simple and effective pruning approach for large language models, ICLR 2024",
    options: &[OptionSpec { name: "rows", about: "about how many positions of all images are used per layer", default: "65536" }],
    build: |options, seed| Ok(Box::new(Wanda { rows: options.parse("rows", "a number from 1 on", |&r: &usize| r > 0)?, seed })),
};

struct Wanda {
    rows: usize,
    seed: u64,
}

impl Criterion for Wanda {
    fn needs_images(&self) -> bool {
        true
    }

    fn score_site(&self, site: &WeightSite) -> Result<Option<Vec<f64>>> {
        let Some(inputs) = site.inputs() else { return Ok(None) };
        let sample = Sample::new(site, &inputs, self.rows, self.seed);
        let mut scores = Vec::with_capacity(site.weights.data.len());
        for group in 0..inputs.groups() {
            let sums = InputSums::new(site, &inputs, &sample, group);
            let size: Vec<f64> = (0..site.weights.len).map(|i| (sums.product(i, i) / sums.count).max(0.0).sqrt()).collect();
            for row in inputs.outputs(group) {
                scores.extend(site.weights.row(row).iter().zip(&size).map(|(w, size)| f64::from(w.abs()) * size));
            }
        }
        Ok(Some(scores))
    }
}
