//! Images and labels in files: the first byte chooses the kind. An error, or images that can be loaded.
#![no_main]

use libfuzzer_sys::fuzz_target;
use resprout::data::{ImageSet, LabelSource, Preprocess};
use std::path::PathBuf;
use std::sync::LazyLock;

/// Names by which the kinds are told apart.
const NAMES: [&str; 6] = ["a.npy", "a.npz", "a.bin", "a-images-idx3-ubyte", "labels.csv", "labels.npy"];

static FOLDER: LazyLock<PathBuf> = LazyLock::new(|| {
    let folder = std::env::temp_dir().join(format!("resprout-fuzz-{}", std::process::id()));
    std::fs::create_dir_all(folder.join("four")).expect("a folder for the inputs");
    std::fs::write(folder.join("four/images-idx3-ubyte"), [&[0, 0, 8, 3, 0, 0, 0, 4, 0, 0, 0, 1, 0, 0, 0, 1][..], &[7; 4]].concat())
        .expect("four images of a pixel");
    folder
});

fuzz_target!(|bytes: &[u8]| {
    let Some((kind, bytes)) = bytes.split_first() else { return };
    let name = NAMES[usize::from(*kind) % NAMES.len()];
    let path = FOLDER.join(name);
    std::fs::write(&path, bytes).expect("room for the input");
    if name.starts_with("labels") {
        let _ = ImageSet::open(&FOLDER.join("four/images-idx3-ubyte"), &LabelSource::File(path));
        return;
    }
    if let Ok(set) = ImageSet::open(&path, &LabelSource::Auto) {
        assert!(!set.is_empty() && set.labels().is_none_or(|labels| labels.len() == set.len()));
        for channels in [1, 3] {
            let _ = set.load(0..1, channels, &Preprocess::default());
        }
    }
});
