//! Sessions equal the step-by-step plan on every architecture, instruction set and number of threads.

use resprout::architectures::{ARCHITECTURES, Shape, build};
use resprout::eval::sha256;
use resprout::forward::{Plan, PlanOptions, Slots};
use resprout::model::Model;
use resprout::progress::Quiet;
use resprout::prune::{PruneOptions, prune};
use resprout::random::SplitMix64;
use resprout::session::{Chosen, Paths, PlanFile, Session, SessionOptions, StageStart, StoredBlocking, StoredPlan};
use resprout::tensor::Tensor;
use resprout_kernels::{ISAS, Isa};
use std::time::{Duration, Instant};

fn noise(shape: Vec<usize>, seed: u64) -> Tensor {
    let mut random = SplitMix64::new(seed, 0);
    let data = (0..shape.iter().product()).map(|_| random.next_normal() as f32).collect();
    Tensor::new(shape, data)
}

fn pruned(name: &str, sparsity: f64) -> (Model, Vec<usize>) {
    let image = ARCHITECTURES.iter().find(|entry| entry.name == name).unwrap().build.image;
    (pruned_for(name, sparsity, image), image.to_vec())
}

fn pruned_for(name: &str, sparsity: f64, image: [usize; 3]) -> Model {
    let shape = Shape { classes: None, image: Some(image) };
    let mut model = build(name, &shape, "kaiming-out", 0).unwrap();
    let options = PruneOptions { sparsity, allocation: "erk".into(), ..PruneOptions::default() };
    prune(&mut model, &options, &Tensor::default(), &Quiet).unwrap();
    model
}

fn step_by_step(model: &Model, images: &Tensor) -> Tensor {
    let plan = Plan::new(model, &images.shape, &PlanOptions::default()).unwrap();
    plan.run(images.clone(), &mut Slots::default(), Isa::best(), false).swap_remove(0)
}

fn close(got: &Tensor, expected: &Tensor, place: &str) {
    assert_eq!(got.shape, expected.shape, "{place}");
    let largest = expected.data.iter().fold(1e-6f32, |largest, v| largest.max(v.abs()));
    let difference = got.data.iter().zip(&expected.data).fold(0.0f32, |most, (a, b)| most.max((a - b).abs()));
    // The order of sums differs, over up to 161 layers.
    assert!(difference <= 1e-4 * largest, "{place}: {difference} of {largest}");
}

#[test]
fn every_architecture_dense() {
    every_architecture(0.0);
}

#[test]
fn every_architecture_sparse() {
    every_architecture(0.9);
}

fn every_architecture(sparsity: f64) {
    for entry in ARCHITECTURES {
        // Deep networks take seconds each, and have the blocks of the shallow ones.
        if ["resnet-101", "resnet-152", "resnet-50"].contains(&entry.name) {
            continue;
        }
        let (model, image) = pruned(entry.name, sparsity);
        let images = noise([&[2], &image[..]].concat(), 1);
        let options = SessionOptions { threads: 2, batch: 2, ..SessionOptions::default() };
        let mut session = Session::new(&model, &image, &options).unwrap();
        let result = session.run(&images).unwrap().swap_remove(0);
        close(&result, &step_by_step(&model, &images), &format!("{} at {sparsity}", entry.name));
    }
}

#[test]
fn threads_batches_tuning_and_paths_change_no_bit() {
    let (model, image) = pruned("resnet-20", 0.8);
    let images = noise([&[19], &image[..]].concat(), 2);
    let mut first: Option<Tensor> = None;
    let default = [(1, 1, 0.0), (2, 1, 0.0), (2, 4, 0.0), (3, 16, 0.0), (2, 2, 0.3)].map(|(t, b, s)| (t, b, s, Paths::Any));
    let paths = [Paths::Sparse, Paths::Dense].map(|paths| [(1, 1, 0.0, paths), (2, 2, 0.1, paths)]);
    for (threads, batch, tune, paths) in default.into_iter().chain(paths.into_iter().flatten()) {
        let options = SessionOptions { threads, batch, tune, isa: None, paths, pin: false };
        let mut session = Session::new(&model, &image, &options).unwrap();
        for result in [session.run(&images).unwrap().swap_remove(0), session.run(&images).unwrap().swap_remove(0)] {
            let same = first.get_or_insert_with(|| result.clone());
            assert!(same.same_bits(&result), "{threads} threads, batch {batch}, tuned {tune} s, {paths:?}");
        }
        let all_alike = session.sparse_layers().iter().all(|sparse| *sparse == (paths == Paths::Sparse));
        assert!(paths == Paths::Any || all_alike, "{paths:?}");
        // A part of the batch alone.
        let some = session.run(&images.first(3)).unwrap().swap_remove(0);
        assert!(some.same_bits(&first.as_ref().unwrap().first(3)), "{threads} threads, batch {batch}: the first three");
    }
    close(first.as_ref().unwrap(), &step_by_step(&model, &images), "resnet-20");
}

#[test]
fn the_split_of_a_run_changes_no_bit() {
    let (model, image) = pruned("resnet-20", 0.9);
    // The session tries the calling thread alone in its first tens of milliseconds.
    for batch in [1, 4] {
        let images = noise([&[batch], &image[..]].concat(), 3);
        let options = SessionOptions { threads: 2, batch, ..SessionOptions::default() };
        let mut session = Session::new(&model, &image, &options).unwrap();
        let expected = session.run(&images).unwrap();
        let start = Instant::now();
        while start.elapsed() < Duration::from_millis(150) {
            assert_eq!(session.run(&images).unwrap(), expected);
        }
    }
}

#[test]
fn stages_change_no_bit() {
    let image = [3, 96, 96];
    let model = pruned_for("mobilenet-v2", 0.7, image);
    let images = noise([&[5], &image[..]].concat(), 6);
    let session = |batch: usize, tune: f64| {
        let options = SessionOptions { threads: 2, batch, tune, ..SessionOptions::default() };
        Session::new(&model, &image, &options).unwrap()
    };
    let (mut whole, mut staged, mut tuned) = (session(1, 0.0), session(8, 0.0), session(4, 0.5));
    assert_eq!(whole.microbatch(), [1]);
    // One large image fills the lanes of a vector: 96, 48, 24 and 12 pixels a side. At 6 and 3 more images are needed.
    let microbatch = staged.microbatch();
    assert!(
        microbatch.len() > 1 && microbatch[0] == 1 && microbatch.is_sorted() && microbatch.last() == Some(&8),
        "{microbatch:?}"
    );
    let expected = whole.run(&images).unwrap().swap_remove(0);
    assert!(staged.run(&images).unwrap()[0].same_bits(&expected));
    assert!(tuned.run(&images).unwrap()[0].same_bits(&expected));
    let options = SessionOptions { threads: 2, batch: 8, ..SessionOptions::default() };
    let mut again = Session::with_plan(&model, &image, &options, &staged.chosen()).unwrap();
    assert_eq!(again.chosen(), staged.chosen());
    assert!(again.run(&images).unwrap()[0].same_bits(&expected));
    close(&expected, &step_by_step(&model, &images), "mobilenet-v2");
}

#[test]
fn every_isa_agrees() {
    let (model, image) = pruned("mobilenet-v2", 0.7);
    let images = noise([&[1], &image[..]].concat(), 3);
    let expected = step_by_step(&model, &images);
    for row in ISAS.iter().filter(|row| row.open().is_some()) {
        let options = SessionOptions { isa: Some(row.name.into()), threads: 2, ..SessionOptions::default() };
        let result = Session::new(&model, &image, &options).unwrap().run(&images).unwrap().swap_remove(0);
        close(&result, &expected, row.name);
    }
}

#[test]
fn plans_are_kept_for_their_model_and_cpu() {
    let (model, image) = pruned("lenet-5", 0.5);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("plans.json");
    let options = SessionOptions { threads: 1, batch: 4, tune: 0.05, isa: None, paths: Paths::Any, pin: false };
    let mut session = Session::new(&model, &image, &options).unwrap();
    let key = StoredPlan::key(sha256(b"model"), &image, &options);
    let mut file = PlanFile::open(&path);
    assert!(file.find(&key).is_none() && file.note.is_none());
    file.keep(StoredPlan { chosen: session.chosen(), ..key.clone() }).unwrap();
    let mut file = PlanFile::open(&path);
    let chosen = file.find(&key).unwrap().clone();
    assert_eq!(chosen, session.chosen());
    let images = noise([&[4], &image[..]].concat(), 4);
    let mut again = Session::with_plan(&model, &image, &options, &chosen).unwrap();
    assert_eq!(again.chosen(), chosen);
    assert!(again.run(&images).unwrap()[0].same_bits(&session.run(&images).unwrap()[0]));
    // A plan of another CPU and a corrupt file are ignored with a note, a plan of another model in silence.
    let other = StoredPlan { cpu: "another".into(), ..key.clone() };
    assert!(file.find(&other).is_none() && file.note.as_ref().unwrap().contains("another CPU"));
    let other = StoredPlan { model_sha256: sha256(b"other"), ..key.clone() };
    assert!(PlanFile::open(&path).find(&other).is_none());
    std::fs::write(&path, "[{]").unwrap();
    let mut file = PlanFile::open(&path);
    assert!(file.find(&key).is_none() && file.note.as_ref().unwrap().contains("ignored"));
    // An invalid plan is corrected.
    let invalid = Chosen {
        stages: [7, 0, 2, 1, 99].map(|step| StageStart { step, microbatch: 1000 }).to_vec(),
        blockings: vec![StoredBlocking { rows: 99, columns: 0, block: 0, channel_block: 77, split_channels: true }; 9],
    };
    let mut session = Session::with_plan(&model, &image, &options, &invalid).unwrap();
    assert!(session.run(&images).unwrap()[0].same_bits(&again.run(&images).unwrap()[0]));
}

#[test]
fn invalid_options_are_named() {
    let (model, image) = pruned("lenet-5", 0.5);
    let fails = |options: SessionOptions| Session::new(&model, &image, &options).err().unwrap().to_string();
    assert!(fails(SessionOptions { threads: 0, ..SessionOptions::default() }).contains("threads: 0"));
    assert!(fails(SessionOptions { batch: 0, ..SessionOptions::default() }).contains("batch: 0"));
    assert!(fails(SessionOptions { isa: Some("abacus".into()), ..SessionOptions::default() }).contains("abacus"));
    let mut session = Session::new(&model, &image, &SessionOptions::default()).unwrap();
    assert!(session.run(&noise(vec![0, 1, 28, 28], 0)).is_err());
    assert!(session.run(&noise(vec![1, 1, 28, 27], 0)).unwrap_err().to_string().contains("28"));
    assert!(session.run(&Tensor::default()).is_err());
}
