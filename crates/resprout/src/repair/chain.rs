//! Several repairs in order.

use super::{AUTO, REPAIRS, Repair, RepairOutcome, Rows, Stage};
use crate::calibrate::walk::walk_within;
use crate::calibrate::{Dense, Needs, Visitor, bytes_per_image};
use crate::error::{Error, Result};
use crate::model::Model;
use crate::progress::Progress;
use crate::table;
use crate::tensor::Tensor;

/// How a chain of repairs runs. By default within 4 GiB and without a limit on the time.
#[derive(Clone, Debug)]
pub struct RepairOptions {
    /// The most bytes of the images' values in one walk. Fewer images are used if they exceed it, with a warning in the outcome.
    pub memory: usize,
    /// About the most seconds of all repairs. If they need more, the layers that gain least per second get statistics only: the
    /// dense network's means, and BatchNormalizations measured again. `None` for no limit.
    pub seconds: Option<f64>,
}

impl Default for RepairOptions {
    fn default() -> RepairOptions {
        RepairOptions { memory: 4 << 30, seconds: None }
    }
}

/// Repairs in order, written `first,second`.
///
/// ```
/// use resprout::repair::Chain;
///
/// let chain = Chain::parse("bn,stats").unwrap();
/// assert!(chain.needs_images());
/// assert!(Chain::parse("bn,luck").is_err());
/// ```
///
/// Repairs of ascending [stage](Stage) share a walk. At each layer they act in order, on what the repaired layers before it
/// compute. A new walk begins where the stage falls or a repair comes again. A [`NetworkRepair`](super::NetworkRepair) stands
/// alone between walks.
#[derive(Default)]
pub struct Chain {
    text: String,
    repairs: Vec<Box<dyn Repair>>,
    names: Vec<&'static str>,
    /// The repairs of each walk.
    walks: Vec<std::ops::Range<usize>>,
    /// Stage and walk of the last repair.
    last: Option<(Stage, usize)>,
}

impl Chain {
    /// Reads `name:option=value,name,...` of [`REPAIRS`].
    ///
    /// # Errors
    /// Of kind `Option` for unknown repairs or options, for [`AUTO`], and for repairs of one walk with different batch sizes.
    pub fn parse(text: &str) -> Result<Chain> {
        Chain::parse_with(text, &[])
    }

    /// As [`parse`](Self::parse), of [`REPAIRS`] and of `rows`.
    ///
    /// # Errors
    /// As [`parse`](Self::parse).
    pub fn parse_with(text: &str, rows: Rows) -> Result<Chain> {
        let mut chain = Chain::default();
        chain.push_rows(text, rows)?;
        chain.check_batches()?;
        Ok(chain)
    }

    /// Appends the repairs of a text.
    pub(crate) fn push_rows(&mut self, text: &str, rows: Rows) -> Result<()> {
        for part in text.split(',') {
            if part == AUTO {
                return Err(Error::option(format!("repair {text}: auto tries several repairs and stands alone, in `prune`")));
            }
            let (entry, options) = table::find_among(&[REPAIRS, rows], &[AUTO], "repair", part)?;
            self.add(part, entry.name, (entry.build)(&options)?);
        }
        Ok(())
    }

    /// Appends a repair.
    pub(crate) fn push(&mut self, name: &'static str, repair: Box<dyn Repair>) {
        self.add(name, name, repair);
    }

    fn add(&mut self, text: &str, name: &'static str, repair: Box<dyn Repair>) {
        let (stage, index) = (repair.stage(), self.repairs.len());
        let start = match self.last {
            Some((before, start)) if before <= stage && stage != Stage::Network && !self.names[start..].contains(&name) => start,
            _ => index,
        };
        match self.walks.last_mut() {
            Some(walk) if walk.start == start => walk.end = index + 1,
            _ => self.walks.push(start..index + 1),
        }
        self.last = Some((stage, start));
        self.names.push(name);
        self.repairs.push(repair);
        self.text = if self.text.is_empty() { text.into() } else { format!("{},{text}", self.text) };
    }

    /// Fails if repairs of one walk need different batch sizes.
    pub(crate) fn check_batches(&self) -> Result<()> {
        for walk in &self.walks {
            let batches: Vec<usize> = self.repairs[walk.clone()].iter().filter_map(|repair| repair.needs().batch).collect();
            if batches.windows(2).any(|pair| pair[0] != pair[1]) {
                return Err(Error::option(format!("repair {}: repairs of one walk need the same batch size", self.text)));
            }
        }
        Ok(())
    }

    /// The chain as text, as [`parse`](Self::parse) reads it.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Whether it needs calibration images.
    pub fn needs_images(&self) -> bool {
        self.repairs.iter().any(|repair| repair.needs().images)
    }

    /// Whether it reads the dense network beside the pruned form of `model`.
    pub fn needs_dense(&self, model: &Model) -> bool {
        self.repairs.iter().any(|repair| repair.needs_for(model).dense)
    }

    /// The images without those that a repair from `next` on judges by; `None` if there is no such repair.
    fn unseen(&self, next: usize, images: &Tensor) -> Option<Tensor> {
        let count = images.shape.first().copied().unwrap_or(0);
        let every = self.repairs[next..].iter().find_map(|repair| repair.network()?.holds_out(count))?;
        Some(images.hold_out(every).0)
    }

    /// Repairs `model`, the pruned form of `dense`. `images: [N, C, H, W]` are preprocessed. Pruned weights stay zero.
    ///
    /// `dense` is a [`Model`], or a [`Dense`] that keeps its activations for several repairs. A chain that needs no images
    /// changes nothing.
    ///
    /// # Errors
    /// * `Data` for no images, or images that do not fit the network.
    /// * `Option` where one image exceeds the memory, or a last batch has one image.
    /// * `Unsupported` for a network that cannot be computed; `Interrupted`. A failed walk leaves `model` partly repaired.
    pub fn repair<'d>(
        &self,
        model: &mut Model,
        dense: impl Into<Dense<'d>>,
        images: &Tensor,
        options: &RepairOptions,
        progress: &dyn Progress,
    ) -> Result<RepairOutcome> {
        let dense = dense.into();
        let mut outcome = RepairOutcome::default();
        for range in &self.walks {
            let left = options.seconds.map(|seconds| (seconds - outcome.seconds).max(0.0));
            if let Some(repair) = self.repairs[range.start].network() {
                check_images(images)?;
                let options = RepairOptions { seconds: left, ..options.clone() };
                let done = repair.repair(model, dense.model(), images, &options, progress)?;
                model.apply_masks();
                outcome.add(done);
                continue;
            }
            let repairs: Vec<&dyn Visitor> = self.repairs[range.clone()].iter().map(|repair| &**repair as &dyn Visitor).collect();
            let needs = Needs::of(&repairs, model);
            if !needs.images {
                continue;
            }
            let unseen = self.unseen(range.end, images);
            let images = within_memory(model, unseen.as_ref().unwrap_or(images), &needs, options, &mut outcome)?;
            check_batches(&images, needs.batch)?;
            let done = walk_within(left.unwrap_or(f64::INFINITY), model, dense, &images, &repairs, "repair", progress)?;
            // A repair may have set the masked scale and shift of a pruned channel.
            model.apply_masks();
            for (index, acted) in range.clone().zip(&done.acted).filter(|(index, _)| self.repairs[*index].needs().images) {
                if !acted {
                    let (name, why) = (self.names[index], self.repairs[index].nothing());
                    outcome.warnings.push(format!("repair {name}: there was nothing to repair in this network: {why}"));
                }
            }
            outcome.add(done);
        }
        Ok(outcome)
    }
}

impl RepairOutcome {
    /// Adds what the next walk has done.
    fn add(&mut self, done: RepairOutcome) {
        self.changed += done.changed;
        self.acted.extend(done.acted);
        // A repeated repair acts on the same layers.
        self.batch_norms = self.batch_norms.max(done.batch_norms);
        self.folded = self.folded.max(done.folded);
        self.added_bias.extend(done.added_bias);
        self.warnings.extend(done.warnings);
        self.fitted.extend(done.fitted);
        self.statistics_only.extend(done.statistics_only);
        self.trained = done.trained.or(self.trained.take());
        self.expected_seconds += done.expected_seconds;
        self.seconds += done.seconds;
    }
}

fn check_images(images: &Tensor) -> Result<usize> {
    match images.shape.first() {
        None | Some(0) => Err(Error::data("no calibration images")),
        Some(&count) => Ok(count),
    }
}

/// Fails on a last batch of one image, which has no variance.
fn check_batches(images: &Tensor, batch: Option<usize>) -> Result<()> {
    let count = images.shape[0];
    match batch {
        Some(batch) if count % batch == 1 => Err(Error::option(format!(
            "repair: {count} images in batches of {batch} leave a last batch of one image; its variance has no meaning"
        ))),
        _ => Ok(()),
    }
}

/// The images that fit into memory, with a warning if these are not all.
fn within_memory<'t>(
    model: &Model,
    images: &'t Tensor,
    needs: &Needs,
    options: &RepairOptions,
    outcome: &mut RepairOutcome,
) -> Result<std::borrow::Cow<'t, Tensor>> {
    use std::borrow::Cow;
    let image = images.shape.get(1..).unwrap_or_default();
    let all = check_images(images)?;
    let each = bytes_per_image(model, image, needs)?.max(1);
    let fit = options.memory / each;
    if fit >= all {
        return Ok(Cow::Borrowed(images));
    }
    if fit == 0 {
        return Err(Error::option(format!(
            "memory: {} bytes are fewer than the {each} that one calibration image takes",
            options.memory
        )));
    }
    outcome.warnings.push(format!(
        "{fit} of {all} calibration images were used: each takes {:.1} MB, and the memory limit is {:.1} GB",
        each as f64 / 1e6,
        options.memory as f64 / 1e9
    ));
    Ok(Cow::Owned(images.first(fit)))
}
