//! What `prune` is to do. Every option is decided and checked before anything is read.

use crate::args::{CalibrationCount, Format, ImageArgs, NetworkArgs, PruneArgs};
use crate::commands::{check_json_target, check_target, check_writable, format_of, memory_bytes};
use resprout::criteria::{GIVEN, pinned};
use resprout::model::PrunableRule;
use resprout::prune::channel;
use resprout::prune::{PruneOptions, check_sparsity};
use resprout::repair::{AUTO, Chain, RepairOptions};
use resprout::report::Compress;
use resprout::sparsify::{self, SparsifyOptions};
use resprout::structure::Pattern;
use resprout::{Error, ErrorKind, Result};
use resprout_train::REPAIRS;
use serde_json::{Value, json};
use std::path::PathBuf;

/// `--calibration-images auto` takes what it needs of this many images.
const AUTO_IMAGES: usize = 4096;

/// Everything that the arguments and their defaults come to.
pub struct Request {
    pub model: ModelRequest,
    pub images: ImageRequest,
    /// How it prunes and repairs.
    pub options: SparsifyOptions,
    pub output: OutputRequest,
    /// Every option as the report lists it. `preprocess` is null until the images are open.
    pub listed: Value,
}

/// What is pruned.
pub struct ModelRequest {
    pub file: PathBuf,
    pub network: NetworkArgs,
    /// The dense model that repair and measurement compare with, if it is another one.
    pub reference: Option<PathBuf>,
    /// Whether zeros that the model comes with may become weights again.
    pub regrow: bool,
}

/// Which images are read.
pub struct ImageRequest {
    pub calibration: Option<CalibrationSource>,
    /// The most calibration images that are read.
    pub most: usize,
    /// Every so many-th of them is left out.
    pub hold_out: Option<u32>,
    /// Whether fewer are used where the network's statistics settle earlier.
    pub settle: bool,
    /// Whether criterion or repair need calibration images. Without that they only check the written file.
    pub needed: bool,
    /// Images to measure on, if they are others.
    pub evaluation: Option<PathBuf>,
    /// Labels, limit and preprocessing.
    pub options: ImageArgs,
    /// Seed of the noise.
    pub seed: u64,
}

impl ImageRequest {
    /// Whether anything is computed of images.
    pub fn compute(&self) -> bool {
        let path = matches!(self.calibration, Some(CalibrationSource::Path(_)));
        self.needed || path || self.evaluation.is_some()
    }
}

/// Where calibration images come from.
pub enum CalibrationSource {
    Path(PathBuf),
    Noise,
}

/// What is measured and written.
pub struct OutputRequest {
    pub file: PathBuf,
    pub format: Format,
    /// Whether pruned channels are cut out of the file.
    pub shrink: bool,
    /// Whether every BatchNormalization goes into the layer in front of it.
    pub fold_bn: bool,
    /// Whether the networks are measured.
    pub evaluate: bool,
    /// Which files are compressed to report their size.
    pub compress: Compress,
    pub page: Option<PathBuf>,
    pub json: Option<PathBuf>,
}

impl Request {
    /// Decides what the arguments leave open, and refuses what does not go together.
    pub fn new(args: &PruneArgs) -> Result<Request> {
        let options = sparsify_options(args)?;
        let needed = needs_images(args, &options.prune)?;
        if let Some(every) = args.hold_out.filter(|_| !needed) {
            let message = format!("--hold-out {every}: neither criterion nor repair reads calibration images");
            return Err(Error::new(ErrorKind::Option, message));
        }
        check_writable(&args.output, "--output")?;
        let format = format_of(&args.output, &args.how)?;
        check_json_target(args.json.as_deref())?;
        check_target(args.page.as_deref(), "--page")?;
        let (most, settle) = match args.calibration_images {
            CalibrationCount::Exactly(count) => (count.get(), false),
            CalibrationCount::Auto => (AUTO_IMAGES, true),
        };
        let noise = args.data_free.then_some(CalibrationSource::Noise);
        let listed = listed(args, &options.prune, format);
        Ok(Request {
            model: ModelRequest {
                file: args.model.clone(),
                network: args.network.clone(),
                reference: args.reference.clone(),
                regrow: args.regrow,
            },
            images: ImageRequest {
                calibration: args.calibration.clone().map(CalibrationSource::Path).or(noise),
                most,
                hold_out: args.hold_out,
                settle,
                needed,
                evaluation: args.data.clone(),
                options: args.images.clone(),
                seed: args.seed,
            },
            options,
            output: OutputRequest {
                file: args.output.clone(),
                format,
                shrink: args.shrink,
                fold_bn: args.how.fold_bn,
                evaluate: !args.no_evaluation,
                compress: if args.sizes { Compress::Always } else { Compress::WhereQuick },
                page: args.page.clone(),
                json: args.json.clone(),
            },
            listed,
        })
    }

    /// Whether a repair acts.
    pub fn repairs(&self) -> bool {
        self.options.repair != "none"
    }

    /// The sparsity that is to be reached, where it is not the number of operations that decides.
    pub fn sparsity(&self) -> Option<f64> {
        self.options.prune.macs.is_none().then_some(self.options.prune.sparsity)
    }
}

fn sparsify_options(args: &PruneArgs) -> Result<SparsifyOptions> {
    if let Some(seconds) = args.seconds.filter(|seconds| !(*seconds > 0.0 && seconds.is_finite())) {
        return Err(Error::new(ErrorKind::Option, format!("--seconds {seconds}: a number above 0 is needed")));
    }
    if args.seconds.is_some() && args.repair == "none" {
        return Err(Error::new(ErrorKind::Option, "--seconds: bounds a repair, and there is none; see --repair"));
    }
    let options = SparsifyOptions {
        prune: prune_options(args)?,
        repair: args.repair.clone(),
        repair_rows: REPAIRS,
        repair_options: RepairOptions { memory: memory_bytes(args.memory)?, seconds: args.seconds },
        steps: args.steps,
        checkpoint: args.checkpoint.clone(),
    };
    sparsify::schedule(options.prune.sparsity, args.steps)?;
    if args.checkpoint.is_some() && args.steps < 2 {
        return Err(Error::new(ErrorKind::Option, "--checkpoint: keeps steps, and there is only one; see --steps"));
    }
    Ok(options)
}

fn prune_options(args: &PruneArgs) -> Result<PruneOptions> {
    let pattern = Pattern::parse(&args.pattern)?;
    let wrong = |message: String| Err(Error::new(ErrorKind::Option, message));
    let sparsity = match (pattern.sparsity(), args.sparsity, args.macs) {
        (Some(_), Some(sparsity), _) => {
            return wrong(format!("--sparsity {sparsity}: --pattern {} has a sparsity of its own; see mixed", args.pattern));
        }
        (_, _, Some(macs)) if pattern != Pattern::Channel => {
            return wrong(format!("--macs {macs}: goes with --pattern channel, not with {}", args.pattern));
        }
        (Some(sparsity), None, _) | (None, Some(sparsity), _) => sparsity,
        (None, None, Some(_)) => 0.0,
        (None, None, None) => return wrong("--sparsity: is needed, unless --pattern n:m or --macs says how much goes".into()),
    };
    check_sparsity(sparsity, "--sparsity")?;
    args.macs.map_or(Ok(()), channel::check_share)?;
    if let (Pattern::Nm { .. }, Some(allocation)) = (pattern, &args.allocation) {
        return wrong(format!("--allocation {allocation}: --pattern {} keeps the same in every layer; see mixed", args.pattern));
    }
    let (default, allocation) = pattern.default_methods();
    let criterion = match &args.scores {
        Some(file) if pattern == Pattern::Channel => {
            let message = format!("--scores {}: are of single weights, not of channels", file.display());
            return Err(Error::new(ErrorKind::Option, message));
        }
        Some(file) => pinned(&format!("{GIVEN}{}", file.display()))?,
        None => args.criterion.clone().unwrap_or_else(|| default.into()),
    };
    let layer = |text: &String| {
        let wrong = || Error::new(ErrorKind::Option, format!("--layer {text:?}: NAME=SPARSITY is needed"));
        let (name, sparsity) = text.rsplit_once('=').ok_or_else(wrong)?;
        Ok((name.to_string(), sparsity.parse().map_err(|_| wrong())?))
    };
    Ok(PruneOptions {
        sparsity,
        criterion,
        allocation: args.allocation.clone().unwrap_or_else(|| allocation.into()),
        rule: PrunableRule { ignore: args.ignore.clone(), include_grouped: args.include_grouped },
        layers: args.layer.iter().map(layer).collect::<Result<_>>()?,
        min_per_layer: args.min_per_layer,
        min_per_channel: args.min_per_channel,
        seed: args.seed,
        pattern,
        macs: args.macs,
        ..PruneOptions::default()
    })
}

/// Whether criterion or repair need images. Without any that is an error.
fn needs_images(args: &PruneArgs, options: &PruneOptions) -> Result<bool> {
    let repair = args.repair == AUTO || Chain::parse_with(&args.repair, REPAIRS)?.needs_images();
    let criterion = options.needs_images()?;
    if (repair || criterion) && args.calibration.is_none() && !args.data_free {
        let option = if repair { format!("--repair {}", args.repair) } else { format!("--criterion {}", options.criterion) };
        return Err(Error::new(
            ErrorKind::Option,
            format!("{option}: needs --calibration, a folder of unlabelled images (or --data-free, noise instead)"),
        ));
    }
    Ok(repair || criterion)
}

/// Every option, as given or by default.
fn listed(args: &PruneArgs, options: &PruneOptions, format: Format) -> Value {
    let path = |path: &Option<PathBuf>| path.as_ref().map(|path| path.display().to_string());
    json!({
        "sparsity": args.macs.is_none().then_some(options.sparsity),
        "regrow": args.regrow,
        "reference": path(&args.reference),
        "pattern": args.pattern,
        "macs": args.macs,
        "shrink": args.shrink,
        "format": format.to_string(),
        "criterion": options.criterion,
        "allocation": options.allocation,
        "repair": args.repair,
        "calibration": path(&args.calibration),
        "calibration_images": args.calibration_images.to_string(),
        "hold_out": args.hold_out,
        "data_free": args.data_free,
        "memory": args.memory,
        "seconds": args.seconds,
        "steps": args.steps,
        "checkpoint": path(&args.checkpoint),
        "data": path(&args.data),
        "no_evaluation": args.no_evaluation,
        "sizes": args.sizes,
        "labels": args.images.labels,
        "limit": args.images.limit,
        "preset": args.images.preset,
        "preprocess": null,
        "ignore": args.ignore,
        "layer": args.layer,
        "min_per_layer": args.min_per_layer,
        "min_per_channel": args.min_per_channel,
        "include_grouped": args.include_grouped,
        "weights": path(&args.network.weights),
        "fold_weights": args.network.fold_weights,
        "external_data": args.how.external_data,
        "fold_bn": args.how.fold_bn,
        "arch": args.network.arch,
    })
}
