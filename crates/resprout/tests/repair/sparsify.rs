//! Pruning and repair in steps: quality, the automatic choice, determinism, and resumed runs.

use crate::{digits, images, outputs, run, same_weights};
use resprout::ErrorKind;
use resprout::data::{ImageSet, Preprocess};
use resprout::eval::{OutputKind, compare};
use resprout::progress::Quiet;
use resprout::prune::PruneOptions;
use resprout::repair::{AUTO, Judge, RepairOptions};
use resprout::sparsify::{SparsifyOptions, sparsify};

#[test]
fn the_stronger_repair_comes_closer() {
    let (dense, seen, test) = (digits(), images(256), images(1400).pick(&(1000..1400).collect::<Vec<_>>()));
    let kl = |text: &str, steps: usize| {
        let result = run(&dense, &seen, text, 0.95, steps).unwrap();
        compare(&outputs(&result.repaired, &test), &outputs(&dense, &test), None, OutputKind::Logits).unwrap().kl.unwrap().value
    };
    let (none, bn, fitted, gradual) = (kl("none", 1), kl("bn", 1), kl("least-squares", 1), kl("least-squares", 6));
    assert!(gradual < fitted && fitted < 0.5 * bn && bn < none, "{none} {bn} {fitted} {gradual}");
}

#[test]
fn auto_is_never_worse_than_no_repair_by_its_own_measure() {
    let dense = digits();
    for (count, sparsity) in [(4, 0.2), (16, 0.5), (100, 0.9), (100, 0.97)] {
        let images = images(count);
        let result = run(&dense, &images, AUTO, sparsity, 1).unwrap();
        let chosen: Vec<_> = result.candidates.iter().filter(|candidate| candidate.chosen).collect();
        assert_eq!((chosen.len(), result.candidates.len()), (1, Judge::CANDIDATES.len()));
        // Every fourth image is held out.
        let held: Vec<usize> = (0..count).filter(|i| i % 4 == 3).collect();
        let again = compare(
            &outputs(&result.repaired, &images.pick(&held)),
            &outputs(&dense, &images.pick(&held)),
            None,
            OutputKind::Logits,
        );
        assert_eq!(chosen[0].evaluation, Some(again.unwrap()));
        let of = |i: usize| result.candidates[i].evaluation.clone().unwrap();
        let best = chosen[0].evaluation.clone().unwrap();
        assert!(
            best.kl.unwrap().value <= of(0).kl.unwrap().value && best.agreement.unwrap().value >= of(0).agreement.unwrap().value
        );
    }
    assert_eq!(run(&dense, &images(3), AUTO, 0.5, 1).unwrap_err().kind(), ErrorKind::Data);
}

/// Other labels and other numbers of threads give the same network, to the bit.
#[test]
fn neither_labels_nor_threads_matter() {
    let bytes: Vec<u8> = (0..30 * 64).map(|i| (i * 37 % 17) as u8).collect();
    let set = |labels: Vec<usize>| ImageSet::from_bytes("made up", bytes.clone(), [30, 1, 8, 8], Some(labels)).unwrap();
    let preprocess = Preprocess::preset("raw").unwrap();
    let dense = digits();
    let result = |labels: Vec<usize>, threads: usize| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        let images = set(labels).load(0..30, 1, &preprocess).unwrap();
        pool.install(|| run(&dense, &images, "asr,bn,least-squares", 0.8, 2).unwrap().repaired)
    };
    let first = result(vec![0; 30], 1);
    assert!(same_weights(&first, &result((0..30).map(|i| i % 10).collect(), 2)));
    assert!(same_weights(&first, &result(vec![9; 30], 3)));
}

#[test]
fn an_interrupted_run_resumes() {
    let (dense, images) = (digits(), images(40));
    let folder = tempfile::tempdir().unwrap();
    let options = |checkpoint| SparsifyOptions {
        prune: PruneOptions { sparsity: 0.9, ..PruneOptions::default() },
        repair: "least-squares".into(),
        repair_rows: &[],
        repair_options: RepairOptions::default(),
        steps: 4,
        checkpoint,
    };
    let whole = sparsify(&dense, &images, &options(None), &Quiet).unwrap().repaired;
    // Stops at the second layer of the third step.
    let stop = StopAfter { left: std::sync::atomic::AtomicUsize::new(70) };
    let error = sparsify(&dense, &images, &options(Some(folder.path().into())), &stop).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Interrupted);
    let names = || std::fs::read_dir(folder.path()).unwrap().map(|file| file.unwrap().file_name().into_string().unwrap());
    assert_eq!(names().filter(|name| name != resprout::lock::FILE).count(), 2, "a network and its state");
    // As if it had been killed while it wrote the next network.
    let network = names().find(|name| name.ends_with(".safetensors")).unwrap();
    let (run, steps) = network.strip_suffix(".safetensors").unwrap().rsplit_once('-').unwrap();
    let next = format!("{run}-{}.safetensors", steps.parse::<usize>().unwrap() + 1);
    std::fs::write(folder.path().join(next), b"half of").unwrap();
    let resumed = sparsify(&dense, &images, &options(Some(folder.path().into())), &Quiet).unwrap().repaired;
    assert!(same_weights(&whole, &resumed) && whole.masks == resumed.masks);
    let other = SparsifyOptions { steps: 5, ..options(Some(folder.path().into())) };
    let error = sparsify(&dense, &images, &other, &Quiet).unwrap_err();
    assert!(error.kind() == ErrorKind::Option && error.to_string().contains("checkpoint"), "{error}");
}

struct StopAfter {
    left: std::sync::atomic::AtomicUsize,
}

impl resprout::progress::Progress for StopAfter {
    fn cancelled(&self) -> bool {
        use std::sync::atomic::Ordering;
        self.left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)).is_err()
    }
}
