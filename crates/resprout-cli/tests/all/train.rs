//! `resprout train`, `convert` and `data`: whole runs, resumed runs, and what they refuse.

use crate::util::{DIGIT_IMAGES, DIGIT_LABELS, Scratch, text};
use std::path::Path;
use std::time::Duration;

/// A residual network on the embedded digits: seconds, not minutes.
const SMALL: [&str; 12] =
    ["train", "--quiet", "--arch", "resnet-20", "--data", "digits", "--batch", "100", "--epochs", "6", "--rate", "0.1"];

fn json(text: &str) -> serde_json::Value {
    serde_json::from_str(text).unwrap_or_else(|e| panic!("{e}: {text}"))
}

fn with<'a>(more: &[&'a str]) -> Vec<&'a str> {
    [&SMALL[..], more].concat()
}

fn unpacked(gzip: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    std::io::Read::read_to_end(&mut flate2::read::GzDecoder::new(gzip), &mut bytes).unwrap();
    bytes
}

/// The journal without what a clock decides.
fn journal(folder: &Path) -> Vec<serde_json::Value> {
    let lines = std::fs::read_to_string(folder.join("journal.jsonl")).unwrap();
    let row = |line: &str| {
        let mut row = json(line);
        row.as_object_mut().unwrap().remove("images_per_second").unwrap();
        row
    };
    lines.lines().map(row).collect()
}

#[test]
fn every_method_trains_prunes_and_leaves_a_model() {
    let scratch = Scratch::new();
    for (method, levels) in [
        ("dense", 0),
        ("progressive:every=0.5", 1),
        ("gmp:every=0.5", 1),
        ("one-shot", 1),
        ("imp:levels=2:rewind=0.5", 2),
        ("random", 1),
    ] {
        let folder = format!("run-{}", method.split(':').next().unwrap());
        let report = json(&scratch.ok(&with(&["--method", method, "--sparsity", "0.8", "-o", &folder, "--json", "-"])));
        let outcome = &report["outcome"];
        let sparsity = outcome["sparsity"].as_f64().unwrap();
        let requested = if levels == 0 { 0.0 } else { 0.8 };
        assert!((sparsity - requested).abs() < 1e-4, "{method}: {sparsity}");
        assert_eq!(journal(&scratch.path(&folder)).len(), 6, "{method}");
        let accuracy = outcome["test"]["value"].as_f64().unwrap();
        assert!(accuracy > if method == "random" { 0.3 } else { 0.5 }, "{method}: {accuracy}");
        // What was written is an ordinary model, and as good as it was said to be.
        let file = format!("{folder}/model.onnx");
        let inspected = json(&scratch.ok(&["inspect", &file, "--json", "-"]));
        let zero = inspected["sparsity"]["of_prunable"].as_f64().unwrap();
        assert!((zero - requested).abs() < 1e-4, "{method}: {zero}");
        let page = std::fs::read_to_string(scratch.path(&format!("{folder}/report.html"))).unwrap();
        assert_eq!(page.matches("<svg").count(), 3, "{method}");
    }
}

#[test]
fn steps_are_timed_layer_by_layer_and_nothing_is_written() {
    let scratch = Scratch::new();
    let files = || std::fs::read_dir(scratch.path(".")).unwrap().count();
    let before = files();
    let report = json(&scratch.ok(&with(&["--allocation", "uniform", "--bench=2", "--json", "-"])));
    assert_eq!(files(), before);
    let networks = report["networks"].as_array().unwrap();
    assert_eq!(networks.len(), 2);
    assert!((networks[1]["sparsity"].as_f64().unwrap() - 0.9).abs() < 1e-3);
    let macs = |network: &serde_json::Value| -> [u64; 2] {
        let layers = network["layers"].as_array().unwrap().iter().filter(|layer| layer["macs"].is_array());
        layers.fold([0, 0], |[f, b], layer| [f + layer["macs"][0].as_u64().unwrap(), b + layer["macs"][1].as_u64().unwrap()])
    };
    // A tenth of the weights is computed, in both directions.
    let (dense, pruned) = (macs(&networks[0]), macs(&networks[1]));
    assert!((0..2).all(|i| (pruned[i] as f64 / dense[i] as f64 - 0.1).abs() < 0.02), "{dense:?} {pruned:?}");
    let dense_alone = json(&scratch.ok(&with(&["--sparsity", "0", "--bench=1", "--json", "-"])));
    assert_eq!(dense_alone["networks"].as_array().unwrap().len(), 1);
    assert!(scratch.fails(2, &with(&["--bench", "-o", "run"])).contains("--output"));
    assert!(scratch.fails(1, &["train", "--arch", "resnet-20", "--bench", "--rate", "1e30"]).contains("lower rate"));
}

#[test]
fn the_written_model_is_as_good_as_the_report_says() {
    let scratch = Scratch::new();
    let report = json(&scratch.ok(&with(&["--sparsity", "0.5", "-o", "run", "--json", "-"])));
    let digits = ["--data", "digits-images-idx3-ubyte.gz", "--scale", "1", "--mean", "4.884", "--std", "6.017", "--json", "-"];
    let all = json(&scratch.ok(&[&["eval", "run/model.onnx"], &digits[..]].concat()));
    let first = json(&scratch.ok(&[&["eval", "run/model.onnx", "--limit", "1000"], &digits[..]].concat()));
    let hits = |value: &serde_json::Value, images: f64| {
        let found = value.to_string();
        let top1 = found.split("\"top1\":{").nth(1).unwrap().split("\"value\":").nth(1).unwrap();
        (top1.split([',', '}']).next().unwrap().parse::<f64>().unwrap() * images).round()
    };
    let test = report["outcome"]["test"]["value"].as_f64().unwrap() * 797.0;
    assert_eq!(hits(&all, 1797.0) - hits(&first, 1000.0), test.round());
}

#[test]
fn killed_runs_go_on_to_the_same_bits() {
    for method in ["progressive:every=0.3", "imp:levels=2:rewind=0.5"] {
        let scratch = Scratch::new();
        let args = |folder| with(&["--method", method, "--sparsity", "0.8", "--crop", "1", "--resume", "-o", folder]);
        let started = std::time::Instant::now();
        scratch.ok(&args("whole"));
        let whole = started.elapsed();
        let mut kills = 0;
        for i in 1..=10u32 {
            let mut run = scratch.command(&args("killed")).spawn().unwrap();
            // Moments spread over a run's length; a fixed sequence that hits no rhythm of the run.
            std::thread::sleep(whole.mul_f64(f64::from(i * 37 % 100) / 100.0 * 0.6).max(Duration::from_millis(20)));
            run.kill().unwrap();
            kills += usize::from(!run.wait().unwrap().success());
        }
        assert!(kills >= 3, "{method}: only {kills} runs were killed before they ended");
        scratch.ok(&args("killed"));
        for file in ["model.onnx", "best.onnx"] {
            let read = |folder: &str| std::fs::read(scratch.path(&format!("{folder}/{file}"))).unwrap();
            assert!(read("whole") == read("killed"), "{method}: {file} differs");
        }
        assert_eq!(journal(&scratch.path("whole")), journal(&scratch.path("killed")), "{method}");
        let left: Vec<_> = std::fs::read_dir(scratch.path("killed")).unwrap().map(|e| e.unwrap().file_name()).collect();
        assert!(left.len() <= 9 + kills, "{left:?}");
    }
}

#[test]
fn networks_are_repaired_before_training_and_after_random_pruning() {
    let scratch = Scratch::new();
    let args = ["--method", "random", "--sparsity", "0.8", "--repair-init", "repair", "-o", "run", "--json", "-"];
    let report = json(&scratch.ok(&with(&args)));
    let rows = report["outcome"]["init_repair"].as_array().unwrap();
    assert_eq!(rows.len(), 20);
    assert_eq!(rows.iter().filter(|row| row["gamma"].is_string()).count(), 19);
    assert!((report["outcome"]["sparsity"].as_f64().unwrap() - 0.8).abs() < 1e-4);
    // The rows of a run that goes on are those of its beginning.
    let again = json(&scratch.ok(&["train", "--quiet", "--resume", "-o", "run", "--json", "-"]));
    assert_eq!(again["outcome"]["init_repair"], report["outcome"]["init_repair"]);
    let message = scratch.fails(2, &["train", "--arch", "lenet-300-100", "--repair-init", "repair:scope=all", "-o", "other"]);
    assert!(message.contains("scope"), "{message}");
    // ReI is the same repair on fresh weights.
    scratch.ok(&["convert", "--arch", "resnet-20", "--init", "rei", "-o", "rei.safetensors"]);
}

#[test]
fn networks_are_pruned_at_initialisation() {
    let scratch = Scratch::new();
    let score = ["score", "--arch", "resnet-20", "--seed", "4", "--sparsity", "0.9", "-o", "masks.safetensors", "--json", "-"];
    let scored = json(&scratch.ok(&[&score[..], &["--method", "synflow:rounds=5", "--scores", "scores.safetensors"]].concat()));
    assert!((scored["sparsity"]["of_prunable"].as_f64().unwrap() - 0.9).abs() < 1e-4);
    assert_eq!(scored["layers"].as_array().unwrap().len(), 20);
    assert!(scratch.path("scores.safetensors").exists());
    // The written masks are read back.
    let read = json(&scratch.ok(&["inspect", "masks.safetensors", "--arch", "resnet-20", "--json", "-"]));
    assert_eq!(read["sparsity"]["kept"], scored["sparsity"]["kept"]);
    let message = scratch.fails(2, &[&score[..], &["--method", "snip"]].concat());
    assert!(message.contains("--data"), "{message}");
    scratch.ok(&[&score[..], &["--method", "snip", "--data", "digits", "--batch", "50"]].concat());

    let args = ["--prune-at-init", "snip:batches=2", "--sparsity", "0.8", "--repair-init", "repair", "-o", "run", "--json", "-"];
    let report = json(&scratch.ok(&with(&args)));
    assert_eq!(report["recipe"]["method"], "dense");
    assert!(
        report["outcome"]["rows"].as_array().unwrap().iter().all(|row| (row["sparsity"].as_f64().unwrap() - 0.8).abs() < 1e-4)
    );
    assert!(report["outcome"]["test"]["value"].as_f64().unwrap() > 0.5);
    let message =
        scratch.fails(2, &["train", "--arch", "resnet-20", "--prune-at-init", "snip", "--method", "gmp", "-o", "other"]);
    assert!(message.contains("pruning at initialisation") && message.contains("gmp"), "{message}");
}

#[test]
fn recipes_say_the_same_as_options() {
    let scratch = Scratch::new();
    scratch.file(
        "recipe.yaml",
        b"arch: lenet-300-100\ndata: digits\nmethod: gmp\nsparsity: 0.7\nepochs: 3\nbatch: 50\naugment: {crop: 1, flip: false}\n",
    );
    let options = ["--arch", "lenet-300-100", "--method", "gmp", "--sparsity", "0.7", "--epochs", "3", "--batch", "50"];
    scratch.ok(&["train", "recipe.yaml", "-o", "a", "--quiet"]);
    scratch.ok(&[&["train", "-o", "b", "--quiet", "--crop", "1"], &options[..]].concat());
    let read = |file: &str| std::fs::read(scratch.path(file)).unwrap();
    assert!(read("a/model.onnx") == read("b/model.onnx"));
    assert_eq!(text(&read("a/recipe.yaml")), text(&read("b/recipe.yaml")));
    // What is typed wins over the recipe.
    scratch.ok(&["train", "recipe.yaml", "-o", "c", "--quiet", "--seed", "5"]);
    assert!(read("a/model.onnx") != read("c/model.onnx"));
}

#[test]
fn a_model_file_can_be_trained_further() {
    let scratch = Scratch::new();
    let args =
        ["--model", "digits.onnx", "--data", "digits", "--epochs", "2", "--batch", "32", "--rate", "0.01", "--sparsity", "0.9"];
    let report =
        json(&scratch.ok(&[&["train", "-o", "run", "--quiet", "--json", "-", "--method", "one-shot"], &args[..]].concat()));
    let accuracy = report["outcome"]["test"]["value"].as_f64().unwrap();
    // At 90 % and without training this network is right on a fifth of the images.
    assert!(accuracy > 0.8, "{accuracy}");
}

#[test]
fn converting_there_and_back_changes_nothing() {
    let scratch = Scratch::new();
    scratch.ok(&["convert", "--arch", "lenet-5", "--classes", "7", "--seed", "3", "-o", "a.onnx"]);
    for (from, to) in [("a.onnx", "a.pth"), ("a.onnx", "a.safetensors")] {
        scratch.ok(&["convert", from, "-o", to]);
        scratch.ok(&["convert", to, "--arch", "lenet-5", "--classes", "7", "-o", "b.onnx"]);
        let read = |file: &str| std::fs::read(scratch.path(file)).unwrap();
        assert!(read("a.onnx") == read("b.onnx"), "{to}");
    }
    let inspected = scratch.ok(&["inspect", "a.pth", "--arch", "lenet-5", "--classes", "7"]);
    assert!(inspected.contains("fc2"), "{inspected}");
}

#[test]
fn weights_that_do_not_fit_are_refused() {
    let scratch = Scratch::new();
    scratch.ok(&["convert", "--arch", "lenet-5", "-o", "a.pth"]);
    let message = scratch.fails(1, &["convert", "a.pth", "--arch", "lenet-300-100", "-o", "b.onnx"]);
    assert!(message.contains("a.pth") && message.contains("fc3.weight") && message.contains("conv1.weight"), "{message}");
    let message = scratch.fails(1, &["convert", "a.pth", "--arch", "lenet-5", "--classes", "3", "-o", "b.onnx"]);
    assert!(message.contains("[10]") && message.contains("[3]"), "{message}");
    let message = scratch.fails(2, &["convert", "a.pth", "-o", "b.onnx"]);
    assert!(message.contains("--arch"), "{message}");
    let message = scratch.fails(2, &["inspect", "digits.onnx", "--arch", "lenet-5"]);
    assert!(message.contains("digits.onnx"), "{message}");
    // A pickle that would run a command.
    scratch.file("evil.pth", b"\x80\x02cposix\nsystem\nX\x0b\x00\x00\x00touch pwnedtR.");
    let message = scratch.fails(1, &["convert", "evil.pth", "--arch", "lenet-5", "-o", "b.onnx"]);
    assert!(message.contains("evil.pth"), "{message}");
}

#[test]
fn wrong_recipes_are_refused_by_key() {
    let scratch = Scratch::new();
    for (yaml, what) in [
        ("arch: lenet-5\nepoch: 3\n", "epoch"),
        ("arch: lenet-5\nepochs: many\n", "epochs"),
        ("arch: [lenet-5\n", "r.yaml"),
        ("sparsity: 0.5\n", "arch"),
        ("arch: lenet-5\nmodel: digits.onnx\n", "only one"),
        ("arch: lenet-5\naugment: {mirror: true}\n", "mirror"),
    ] {
        scratch.file("r.yaml", yaml.as_bytes());
        let message = scratch.fails(2, &["train", "r.yaml", "-o", "run"]);
        assert!(message.contains(what), "{yaml}: {message}");
    }
    for (options, what) in [
        (&["--sparsity", "1.5"][..], "sparsity"),
        (&["--epochs", "0"], "epochs"),
        (&["--batch", "1"], "batch"),
        (&["--rate", "0"], "rate"),
        (&["--validation", "1"], "validation"),
        (&["--warm-up", "10"], "warm-up"),
        (&["--schedule", "multi-step:at=0.9/0.5"], "at"),
        (&["--method", "progressive:start=0.8:end=0.2"], "start=0.8"),
        (&["--method", "imp:levels=40"], "40 levels"),
        (&["--method", "magic"], "magic"),
        (&["--device", "wgpu"], "device"),
        (&["--init", "zeros"], "zeros"),
        (&["--criterion", "magic"], "magic"),
        (&["--criterion", "wanda"], "images"),
        (&["--allocation", "magic"], "magic"),
    ] {
        let message = scratch.fails(2, &[&["train", "--arch", "lenet-300-100", "-o", "run"], options].concat());
        assert!(message.contains(what), "{options:?}: {message}");
        assert!(!scratch.path("run").exists(), "{options:?}");
    }
}

#[test]
fn data_that_cannot_be_trained_on_are_refused() {
    let scratch = Scratch::new();
    let lenet = ["train", "--arch", "lenet-300-100", "-o", "run", "--quiet"];
    let message = scratch.fails(1, &[&lenet[..], &["--data", "nowhere"]].concat());
    assert!(message.contains("nowhere"), "{message}");
    // A folder of images without classes.
    scratch.file("plain/train-images-idx3-ubyte.gz", DIGIT_IMAGES);
    let message = scratch.fails(1, &[&lenet[..], &["--data", "plain"]].concat());
    assert!(message.contains("labels"), "{message}");
    // The network has ten classes, the labels eleven.
    let mut labels = unpacked(DIGIT_LABELS);
    *labels.last_mut().unwrap() = 10;
    scratch.file("more/train-images-idx3-ubyte", &unpacked(DIGIT_IMAGES));
    scratch.file("more/train-labels-idx1-ubyte", &labels);
    let message =
        scratch.fails(1, &["train", "--model", "digits.onnx", "--data", "more", "-o", "run", "--quiet", "--preset", "raw"]);
    assert!(message.contains("label 10") && message.contains("10 classes"), "{message}");
    let message =
        scratch.fails(1, &["train", "--model", "digits.onnx", "--data", "more", "--bench", "--quiet", "--preset", "raw"]);
    assert!(message.contains("label 10") && message.contains("10 classes"), "{message}");
}

#[test]
fn a_layer_without_any_weight_is_named_with_its_step() {
    let scratch = Scratch::new();
    let args = ["train", "--arch", "resnet-20", "--quiet", "--sparsity", "0.9995", "--epochs", "3", "-o", "run"];
    let printed = scratch.ok(&args);
    let row = journal(&scratch.path("run")).into_iter().find(|row| row["emptied"].is_array()).unwrap();
    let (emptied, epoch) = (&row["emptied"][0], &row["epoch"]);
    let (param, step) = (emptied["param"].as_str().unwrap(), emptied["step"].as_u64().unwrap());
    let named = format!("{param} (epoch {epoch}, before step {step})");
    assert!(step > 0 && printed.contains(&named), "{named}: {printed}");
    assert!(std::fs::read_to_string(scratch.path("run/report.html")).unwrap().contains(&named));
}

#[test]
fn a_loss_that_is_no_number_stops_and_keeps_the_last_good_state() {
    let scratch = Scratch::new();
    let args = |rate, more: &[&'static str]| {
        [
            &["train", "--arch", "resnet-20", "--quiet", "-o", "run", "--batch", "100", "--schedule", "constant", "--rate", rate],
            more,
        ]
        .concat()
    };
    let output = scratch.run(&args("1e30", &["--epochs", "3"]));
    let message = text(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{message}");
    assert!(message.contains("epoch 1, step ") && message.contains("layer \"") && message.contains("a lower rate"), "{message}");
    assert!(!scratch.path("run/last.safetensors").exists() && !scratch.path("run/model.onnx").exists());
}

/// A limit on the size of files stands in for a full disk: writing fails half-way in the same way.
#[cfg(unix)]
#[test]
fn a_full_disk_leaves_nothing_half_written() {
    let scratch = Scratch::new();
    let program = env!("CARGO_BIN_EXE_resprout");
    let script = format!(
        "trap '' XFSZ; ulimit -f 200; exec {program} train --quiet --arch lenet-5 --data digits28 --validation 0 --epochs 1 -o run"
    );
    // LeNet-5 needs images of 28x28.
    let pixels: Vec<u8> = (0..200u32 * 784).map(|i| (i * 31 % 256) as u8).collect();
    let header = |dims: &[u32]| {
        [&[0, 0, 8, dims.len() as u8][..], &dims.iter().flat_map(|d| d.to_be_bytes()).collect::<Vec<_>>()].concat()
    };
    scratch.file("digits28/train-images-idx3-ubyte", &[header(&[200, 28, 28]), pixels].concat());
    scratch.file("digits28/train-labels-idx1-ubyte", &[header(&[200]), (0..200).map(|i| i as u8 % 10).collect()].concat());
    let output = std::process::Command::new("sh").args(["-c", &script]).current_dir(scratch.folder.path()).output().unwrap();
    let message = text(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{message}");
    assert!(message.contains("last.safetensors"), "{message}");
    let mut left: Vec<_> = std::fs::read_dir(scratch.path("run")).unwrap().map(|e| e.unwrap().file_name()).collect();
    left.sort();
    assert_eq!(left, [resprout::lock::FILE, "recipe.yaml"]);
}

#[test]
fn a_run_is_not_overwritten_and_goes_on_only_with_its_own_recipe() {
    let scratch = Scratch::new();
    let args = ["train", "--arch", "lenet-300-100", "--quiet", "--epochs", "1", "-o", "run"];
    scratch.ok(&args);
    let message = scratch.fails(2, &args);
    assert!(message.contains("resume it"), "{message}");
    let message = scratch.fails(2, &[&args[..], &["--resume", "--seed", "9"]].concat());
    assert!(message.contains("another recipe"), "{message}");
    // A finished run resumed trains nothing more.
    let before = std::fs::read(scratch.path("run/model.onnx")).unwrap();
    scratch.ok(&["train", "--quiet", "--resume", "-o", "run"]);
    assert!(before == std::fs::read(scratch.path("run/model.onnx")).unwrap());
}

#[test]
fn datasets_come_from_a_table() {
    let scratch = Scratch::new();
    let message = scratch.fails(2, &["data", "fetch", "imagenet-22k", "-o", "data"]);
    assert!(message.contains("imagenet-22k") && message.contains("fashion-mnist"), "{message}");
    // Nobody listens there.
    let output = scratch.run(&["data", "fetch", "mnist", "-o", "data", "--mirror", "http://127.0.0.1:9/"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("http://127.0.0.1:9/train-images-idx3-ubyte.gz"), "{}", text(&output.stderr));
}
