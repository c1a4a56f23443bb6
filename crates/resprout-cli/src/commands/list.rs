//! `resprout list`: every table.

use crate::args::ListArgs;
use crate::download::DOWNLOADS;
use crate::render::text;
use crate::reports::list::{ListRow, OptionRow};
use resprout::allocation::ALLOCATIONS;
use resprout::architectures::{ARCHITECTURES, INITS};
use resprout::criteria::CRITERIA;
use resprout::data::layouts::LAYOUTS;
use resprout::data::{DATASETS, PRESETS};
use resprout::lipschitz::INIT_REPAIRS;
use resprout::prune::channel::{CHANNEL_ALLOCATIONS, CHANNEL_CRITERIA};
use resprout::repair::{AUTO, REPAIRS};
use resprout::structure::PATTERNS;
use resprout::table::{Entry, OptionSpec};
use resprout_train::at_init::AT_INIT;
use resprout_train::at_init::ablation::ABLATIONS;
use resprout_train::device::DEVICES;
use resprout_train::methods::METHODS;
use resprout_train::rates::SCHEDULES;
use std::collections::BTreeMap;

pub fn run(args: &ListArgs) -> anyhow::Result<()> {
    let tables = [
        ("criteria", rows(CRITERIA)),
        ("allocations", rows(ALLOCATIONS)),
        ("patterns", rows(PATTERNS)),
        ("criteria of channels", rows(CHANNEL_CRITERIA)),
        ("allocations of channels", rows(CHANNEL_ALLOCATIONS)),
        ("repairs", rows(REPAIRS).into_iter().chain(rows(resprout_train::REPAIRS)).chain([auto()]).collect()),
        ("methods", rows(METHODS)),
        ("pruning at initialisation", rows(AT_INIT)),
        ("ablations", rows(ABLATIONS)),
        ("schedules", rows(SCHEDULES)),
        ("architectures", rows(ARCHITECTURES)),
        ("initialisations", rows(INITS)),
        ("repairs at initialisation", rows(INIT_REPAIRS)),
        ("datasets", rows(DATASETS)),
        ("layouts", rows(LAYOUTS)),
        ("downloads", rows(DOWNLOADS)),
        ("devices", rows(DEVICES)),
        ("presets", PRESETS.iter().map(|preset| plain(preset.name, preset.about)).collect()),
        ("instruction sets", resprout::isas().map(|(name, about, _)| plain(name, about)).collect()),
    ];
    if args.json {
        outln!("{}", serde_json::to_string_pretty(&BTreeMap::from(tables))?);
        return Ok(());
    }
    let usable = resprout::isas().filter(|(_, _, usable)| *usable).map(|(name, _, _)| name);
    text::list(&tables, &usable.collect::<Vec<_>>());
    Ok(())
}

fn rows<B>(table: &'static [Entry<B>]) -> Vec<ListRow> {
    let option = |o: &'static OptionSpec| OptionRow { name: o.name, about: o.about, default: o.default };
    let row = |e: &'static Entry<B>| ListRow {
        name: e.name,
        about: e.about,
        paper: e.paper,
        options: e.options.iter().map(option).collect(),
    };
    table.iter().map(row).collect()
}

/// What stands in the place of repairs.
fn auto() -> ListRow {
    plain(
        AUTO,
        "alone: tries several repairs and takes the one that comes closest to the dense network on images it has not seen",
    )
}

fn plain(name: &'static str, about: &'static str) -> ListRow {
    ListRow { name, about, paper: "", options: vec![] }
}
