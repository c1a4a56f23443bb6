//! Text files of ours: the first byte chooses the kind. An error, or what can be written and read again.
#![no_main]

use libfuzzer_sys::fuzz_target;
use resprout::session::PlanFile;
use resprout::study::{Record, journal};
use resprout_train::recipe::Recipe;
use std::path::PathBuf;
use std::sync::LazyLock;

static FILE: LazyLock<PathBuf> = LazyLock::new(|| std::env::temp_dir().join(format!("resprout-fuzz-{}", std::process::id())));

fuzz_target!(|bytes: &[u8]| {
    let Some((kind, bytes)) = bytes.split_first() else { return };
    std::fs::write(&*FILE, bytes).expect("room for the input");
    match kind % 3 {
        0 => {
            if let Ok(recipe) = Recipe::read(&FILE)
                && recipe.check().is_ok()
            {
                let _ = recipe.segments();
                recipe.write(&FILE).expect("what was read can be written");
                assert_eq!(Recipe::read(&FILE).expect("what was written can be read"), recipe);
            }
        }
        1 => {
            if let Ok(lines) = journal::read::<Record>(&FILE) {
                let _ = journal::check(&lines, &FILE);
            }
        }
        _ => {
            let _ = PlanFile::open(&FILE);
        }
    }
});
