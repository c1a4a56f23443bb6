//! `resprout compress`: from a wish to a network.

use super::{check_computable, check_json_target, file_info, images, memory_bytes, read_model, write_json};
use crate::args::{CompressArgs, Patterns};
use crate::render::{compress_page, text};
use crate::reports::compress::CompressReport;
use resprout::compress::{Examiner, Family, Found, HOLD_OUT, Loss, Search, SearchOptions, Split, Wish};
use resprout::data::{ImageSet, LabelSource, Preprocess};
use resprout::eval::{evaluate, images_sha256, sha256};
use resprout::formats::{atomic, safetensors};
use resprout::forward::{Network, PlanOptions};
use resprout::model::{Model, PrunableRule};
use resprout::progress::Progress;
use resprout::report::SCHEMA_VERSION;
use resprout::session::{SessionOptions, cpu_name};
use resprout::{Error, ErrorKind, Result};
use std::time::Instant;

pub fn run(args: &CompressArgs, threads: usize, progress: &dyn Progress) -> anyhow::Result<()> {
    let options = search_options(args, threads)?;
    check_json_target(args.json.as_deref())?;
    let report = search(args, &options, progress)?;
    let json = serde_json::to_string_pretty(&report)?;
    atomic::write(&args.output.join("report.json"), format!("{json}\n").as_bytes())?;
    let page = args.output.join("report.html");
    let figure = compress_page::figure(&report);
    atomic::write(&page, compress_page::page(&report, &figure).as_bytes())?;
    figure.write(&args.output)?;
    if write_json(&report, args.json.as_deref())? {
        text::compress(&report, &args.output);
    }
    if report.kept {
        return Ok(());
    }
    let message = "no network keeps the wish";
    let page = page.display();
    Err(Error::data(format!("{message}; {page} has the frontier, and model.onnx beside it is the network that comes closest"))
        .into())
}

/// Searches, writes the network, and measures it.
fn search(args: &CompressArgs, options: &SearchOptions, progress: &dyn Progress) -> Result<CompressReport> {
    let started = Instant::now();
    let dense = read_model(&args.model, &args.network)?;
    check_computable(&dense, &args.model)?;
    let (preprocess, mut warnings) = images::preprocess(&args.images, &dense)?;
    let mut set = ImageSet::open(&args.calibration, &LabelSource::None)?;
    set.truncate(args.calibration_images.get());
    warnings.extend(set.left_out());
    let calibration = set.load(0..set.len(), images::channels(&dense), &preprocess)?;
    let split = Split::new(&calibration)?;
    let measured = args.data.as_ref().map(|path| images::open(path, &args.images)).transpose()?;
    // Another wish or more time may use what was measured before.
    let determined = (&options.rule, &options.session, options.memory);
    let weights = sha256(&safetensors::encode(&dense)?);
    let key = sha256(format!("{weights} {} {determined:?}", images_sha256(&calibration)).as_bytes());
    let search = Search::open(&dense, &split, options, &args.output, &key, progress)?;
    let dense_bytes = search.dense_bytes();
    let found = search.run()?;
    let (check, labelled) = check(measured.as_ref(), &dense, &found.network, &split, &preprocess, progress)?;
    found.network.save(args.output.join("model.onnx"))?;
    warnings.extend(found.notes.iter().cloned());
    Ok(CompressReport {
        schema_version: SCHEMA_VERSION,
        tool_version: env!("CARGO_PKG_VERSION"),
        model: file_info(&args.model)?,
        wish: options.wish,
        preprocess,
        images: [&split.repair, &split.choose, &split.check].map(|images| images.shape[0]),
        cpu: cpu_name(),
        threads: options.session.started_threads(),
        batch: options.session.batch,
        dense_bytes,
        commands: commands(args, &found),
        rows: found.rows,
        kept: found.chosen.is_some() && options.wish.keeps_loss(&check),
        chosen: found.chosen,
        nearest: found.nearest,
        check,
        labelled,
        seconds: started.elapsed().as_secs_f64(),
        warnings,
    })
}

fn search_options(args: &CompressArgs, threads: usize) -> Result<SearchOptions> {
    let wish = Wish {
        faster: args.faster,
        bytes: args.file_size.as_ref().map(|size| size.0),
        macs: args.macs,
        parameters: args.parameters,
        max_loss: args.max_loss,
    };
    wish.check().map_err(|error| {
        Error::new(ErrorKind::Option, format!("{error}; see --faster, --file-size, --macs, --parameters, --max-loss"))
    })?;
    let seconds = args.budget * 60.0;
    if !(seconds > 0.0 && seconds.is_finite()) {
        let message = format!("--budget {}: a number of minutes above 0 is needed", args.budget);
        return Err(Error::new(ErrorKind::Option, message));
    }
    let of = |family: &Family| match family {
        Family::Weights(_) => Patterns::Unstructured,
        Family::Channels => Patterns::Channel,
        Family::Both(..) => Patterns::Both,
    };
    Ok(SearchOptions {
        wish,
        rule: PrunableRule { ignore: args.ignore.clone(), ..PrunableRule::default() },
        session: SessionOptions { threads, batch: args.batch.get(), ..SessionOptions::default() },
        memory: memory_bytes(args.memory)?,
        seconds,
        families: Family::ALL.into_iter().filter(|family| args.pattern.contains(&of(family))).collect(),
    })
}

/// The loss on images that nothing was chosen by, and whether it is accuracy.
fn check(
    measured: Option<&ImageSet>,
    dense: &Model,
    network: &Model,
    split: &Split,
    preprocess: &Preprocess,
    progress: &dyn Progress,
) -> Result<(Loss, bool)> {
    let Some(set) = measured else {
        return Ok((Examiner::new(dense, split.check.clone())?.examine(network)?, false));
    };
    let image = images::shape(set, dense, preprocess)?;
    let networks = [dense, network].map(|model| Network::new(model, &image, &PlanOptions::default()));
    let [dense, network] = networks;
    let run = evaluate(&[&dense?, &network?], set, preprocess, true, progress)?;
    Ok((Loss::of(&run.networks[0], &run.networks[1])?, run.networks[0].top1.is_some()))
}

/// The commands that make the nearest network again.
fn commands(args: &CompressArgs, found: &Found) -> Vec<String> {
    let row = &found.rows[found.nearest];
    let mut how = vec![
        format!("--repair {} --steps {}", row.repair, row.steps),
        format!("--calibration {}", args.calibration.display()),
        format!("--calibration-images {} --hold-out {HOLD_OUT}", args.calibration_images),
    ];
    how.extend(args.ignore.iter().map(|name| format!("--ignore {name}")));
    how.extend(preprocessing(args));
    let (model, output) = (args.model.display().to_string(), args.output.join("model.onnx").display().to_string());
    row.candidate.commands(&model, &output, &how.join(" "))
}

/// The options of preprocessing, as they were typed.
fn preprocessing(args: &CompressArgs) -> Vec<String> {
    let numbers = |values: &[f32]| values.iter().map(f32::to_string).collect::<Vec<_>>().join(",");
    let images = &args.images;
    let network = &args.network;
    [
        images.preset.as_ref().map(|name| format!("--preset {name}")),
        images.mean.as_ref().map(|mean| format!("--mean {}", numbers(mean))),
        images.std.as_ref().map(|std| format!("--std {}", numbers(std))),
        images.scale.map(|scale| format!("--scale {scale}")),
        images.resize.map(|pixels| format!("--resize {pixels}")),
        images.crop.as_ref().map(|size| format!("--crop {size}")),
        network.arch.as_ref().map(|name| format!("--arch {name}")),
        network.classes.map(|count| format!("--classes {count}")),
        network.weights.as_ref().map(|path| format!("--weights {}", path.display())),
        network.fold_weights.then(|| "--fold-weights".into()),
    ]
    .into_iter()
    .flatten()
    .collect()
}
