//! `resprout data`: datasets from their official addresses.

use crate::args::FetchArgs;
use crate::download::{self, DOWNLOADS};
use resprout::progress::Progress;
use resprout::{Error, table};

/// Downloads a dataset's files, or what is missing of them.
pub fn fetch(args: &FetchArgs, progress: &dyn Progress) -> anyhow::Result<()> {
    let (entry, _) = table::find(DOWNLOADS, "dataset", &args.name)?;
    std::fs::create_dir_all(&args.output).map_err(|e| Error::io(&args.output, e))?;
    for file in entry.build {
        let path = download::fetch(file, &args.output, args.mirror.as_deref(), progress)?;
        if path.extension().is_some_and(|extension| extension == "tgz") || path.to_string_lossy().ends_with(".tar.gz") {
            download::unpack(&path, &args.output)?;
        }
        outln!("{}", path.display());
    }
    Ok(())
}
