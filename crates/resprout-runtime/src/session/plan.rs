//! Tuned plans, and the file that keeps them.

use super::options::SessionOptions;
use super::stage::StageStart;
use crate::error::{Error, Result};
use crate::formats::atomic;
use resprout_kernels::engine::Blocking;
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

/// The plan that a session has chosen. With it, a session of the same network on the same CPU starts without measuring.
#[doc(hidden)]
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Chosen {
    /// The parts of the network, in order.
    pub stages: Vec<StageStart>,
    /// The blocking of every convolution, in order.
    pub blockings: Vec<StoredBlocking>,
}

/// A plan, and what it was tuned for: [`StoredPlan::key`] fills in all but the plan.
#[doc(hidden)]
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StoredPlan {
    /// SHA-256 of the model's file, or any other text that identifies the network.
    pub model_sha256: String,
    /// As [`cpu_name`] returns it.
    pub cpu: String,
    /// The name of the instruction set.
    pub isa: String,
    /// `[C, H, W]`
    pub image: Vec<usize>,
    /// As [`SessionOptions::started_threads`] returns it.
    pub threads: usize,
    /// As [`SessionOptions::batch`].
    pub batch: usize,
    /// The plan.
    pub chosen: Chosen,
}

/// A convolution's [`Blocking`] as a file keeps it.
#[doc(hidden)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoredBlocking {
    /// As [`Blocking::rows`].
    pub rows: usize,
    /// As [`Blocking::columns`].
    pub columns: usize,
    /// As [`Blocking::block`].
    pub block: usize,
    /// As [`Blocking::channel_block`].
    pub channel_block: usize,
    /// As [`Blocking::split_channels`].
    pub split_channels: bool,
}

impl From<Blocking> for StoredBlocking {
    fn from(Blocking { rows, columns, block, channel_block, split_channels }: Blocking) -> StoredBlocking {
        StoredBlocking { rows, columns, block, channel_block, split_channels }
    }
}

impl From<StoredBlocking> for Blocking {
    fn from(StoredBlocking { rows, columns, block, channel_block, split_channels }: StoredBlocking) -> Blocking {
        Blocking { rows, columns, block, channel_block, split_channels }
    }
}

/// A JSON file of tuned plans, for any number of networks and CPUs.
///
/// ```no_run
/// use resprout_runtime::{model::Model, session::{PlanFile, Session, SessionOptions, StoredPlan}};
///
/// # fn main() -> resprout_runtime::Result<()> {
/// # let sha256 = String::new();
/// let model = Model::open("sparse.onnx")?;
/// let options = SessionOptions { threads: 4, tune: 30.0, ..SessionOptions::default() };
/// let mut file = PlanFile::open("plans.json".as_ref());
/// let key = StoredPlan::key(sha256, &[3, 224, 224], &options); // SHA-256 of the model's file
/// let session = match file.find(&key) {
///     Some(chosen) => Session::with_plan(&model, &[3, 224, 224], &options, chosen)?,
///     None => {
///         let session = Session::new(&model, &[3, 224, 224], &options)?;
///         file.keep(StoredPlan { chosen: session.chosen(), ..key })?;
///         session
///     }
/// };
/// # Ok(())
/// # }
/// ```
pub struct PlanFile {
    path: PathBuf,
    plans: Vec<StoredPlan>,
    /// Why the file or its plan is not used.
    pub note: Option<String>,
}

impl PlanFile {
    /// Reads the file. Without one there are no plans. If it cannot be read, there are none either, and a note.
    pub fn open(path: &Path) -> PlanFile {
        let (plans, note) = match std::fs::read(path) {
            Ok(bytes) => match serde_json::from_slice(&bytes) {
                Ok(plans) => (plans, None),
                Err(e) => (Vec::new(), Some(format!("{}: is no file of plans and is ignored ({e})", path.display()))),
            },
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => (Vec::new(), None),
            Err(e) => (Vec::new(), Some(format!("{}: cannot be read and is ignored ({e})", path.display()))),
        };
        PlanFile { path: path.to_path_buf(), plans, note }
    }

    /// The plan for this model on this CPU, if there is one. Leaves a note if there is one for another CPU only. The plan in
    /// `wanted` is not looked at.
    pub fn find(&mut self, wanted: &StoredPlan) -> Option<&Chosen> {
        let found = self.plans.iter().find(|plan| plan.cpu == wanted.cpu && plan.is_for(wanted));
        if found.is_none()
            && let Some(other) = self.plans.iter().find(|plan| plan.is_for(wanted))
        {
            self.note = Some(format!("{}: its plan is of another CPU ({}) and is ignored", self.path.display(), other.cpu));
        }
        found.map(|plan| &plan.chosen)
    }

    /// Adds or replaces a plan, and writes the file.
    ///
    /// # Errors
    /// Of kind `Io`, with the file's name.
    pub fn keep(&mut self, plan: StoredPlan) -> Result<()> {
        self.plans.retain(|old| old.cpu != plan.cpu || !old.is_for(&plan));
        self.plans.push(plan);
        let text = serde_json::to_vec_pretty(&self.plans).map_err(|e| Error::data(e.to_string()))?;
        atomic::write(&self.path, &text)
    }
}

impl StoredPlan {
    /// Whether both are for the same model and use, on any CPU.
    fn is_for(&self, other: &StoredPlan) -> bool {
        let key =
            |plan: &'_ StoredPlan| (plan.model_sha256.clone(), plan.isa.clone(), plan.image.clone(), plan.threads, plan.batch);
        key(self) == key(other)
    }

    /// An empty plan for this model, this CPU, and these images and options, to be looked up or filled in.
    pub fn key(model_sha256: String, image: &[usize], options: &SessionOptions) -> StoredPlan {
        StoredPlan {
            model_sha256,
            cpu: cpu_name(),
            isa: options.isa_name(),
            image: image.to_vec(),
            threads: options.started_threads(),
            batch: options.batch,
            chosen: Chosen { stages: Vec::new(), blockings: Vec::new() },
        }
    }
}

/// The CPU's name. Where the system has them, family and model follow: one name can stand for several generations.
#[doc(hidden)]
pub fn cpu_name() -> String {
    describe(&std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default())
}

fn describe(cpuinfo: &str) -> String {
    let field = |wanted: &str| {
        let mut fields = cpuinfo.lines().filter_map(|line| line.split_once(':'));
        fields.find(|(name, _)| name.trim() == wanted).map(|(_, value)| value.trim())
    };
    let name = field("model name").unwrap_or(std::env::consts::ARCH);
    match (field("cpu family"), field("model")) {
        (Some(family), Some(model)) => format!("{name} (family {family}, model {model})"),
        _ => name.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn generations_of_one_name_differ() {
        let info =
            "processor\t: 0\nvendor_id\t: A\ncpu family\t: 25\nmodel\t\t: 1\nmodel name\t: A B\n\nprocessor\t: 1\nmodel\t\t: 2\n";
        assert_eq!(describe(info), "A B (family 25, model 1)");
        assert_eq!(describe("model name : C\n"), "C");
        assert_eq!(describe(""), std::env::consts::ARCH);
    }
}
