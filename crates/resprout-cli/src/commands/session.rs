//! Sessions as the options describe them.

use super::file_info;
use crate::args::SessionArgs;
use resprout::Result;
use resprout::model::Model;
use resprout::session::{Paths, PlanFile, Session, SessionOptions, StoredPlan};
use std::path::Path;

/// The options of a session.
pub fn session_options(args: &SessionArgs, threads: usize, batch: usize) -> SessionOptions {
    SessionOptions { threads, batch, tune: args.tune, isa: args.isa.clone(), paths: Paths::Any, pin: args.pin }
}

/// A session with the plan that the file keeps for this model, CPU and options. Without one the plan is measured and kept,
/// unless the machine is too busy. Notes say what was not done.
pub fn open_session(
    path: &Path,
    model: &Model,
    image: &[usize],
    options: &SessionOptions,
    plans: Option<&Path>,
) -> Result<(Session, Vec<String>)> {
    let own = |session: &Session| session.note().map(str::to_string);
    let Some(plans) = plans else {
        let session = Session::new(model, image, options)?;
        let note = own(&session);
        return Ok((session, note.into_iter().collect()));
    };
    let mut file = PlanFile::open(plans);
    let key = StoredPlan::key(file_info(path)?.sha256, image, options);
    if let Some(chosen) = file.find(&key) {
        return Ok((Session::with_plan(model, image, options, &chosen.clone())?, Vec::new()));
    }
    let session = Session::new(model, image, options)?;
    let (own, note) = (own(&session), file.note.clone());
    if own.is_none() {
        file.keep(StoredPlan { chosen: session.chosen(), ..key })?;
    }
    Ok((session, own.into_iter().chain(note).collect()))
}

/// A note where fewer threads run than the options name.
pub fn thread_note(options: &SessionOptions) -> Option<String> {
    let (named, started) = (options.threads, options.started_threads());
    (started < named).then(|| format!("--threads {named}: this process can use {started} at once, so {started} run"))
}
