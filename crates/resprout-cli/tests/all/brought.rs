//! What users bring: weights of other programs, models that came sparse, smaller networks, interruptions.

use crate::util::{DIGITS_NORM, Scratch, digits_split, root, text};
use serde_json::Value;

fn golden(scratch: &Scratch, name: &str) {
    let path = root().join("testdata/golden/weights").join(name);
    scratch.file(name, &std::fs::read(path).unwrap());
}

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap()
}

#[test]
fn what_was_left_out_of_a_checkpoint_is_said() {
    let scratch = Scratch::new();
    ["network.onnx", "checkpoint.pth", "pruned.pth", "module.pth"].iter().for_each(|name| golden(&scratch, name));
    let output = scratch.run(&["convert", "network.onnx", "--weights", "checkpoint.pth", "-o", "out.onnx"]);
    let said = text(&output.stderr);
    assert!(output.status.success(), "{said}");
    for part in ["note: checkpoint.pth: ", "\"_orig_mod.\" was taken off", "\"optimizer\" (18 tensors)", "num_batches_tracked"] {
        assert!(said.contains(part), "{part}: {said}");
    }
    // The contents tell what a file is, not its name.
    std::fs::rename(scratch.path("checkpoint.pth"), scratch.path("checkpoint.pth.tar")).unwrap();
    scratch.ok(&["convert", "network.onnx", "--weights", "checkpoint.pth.tar", "-o", "same.onnx"]);
    assert!(std::fs::read(scratch.path("out.onnx")).unwrap() == std::fs::read(scratch.path("same.onnx")).unwrap());
    let message = scratch.fails(2, &["inspect", "checkpoint.pth.tar"]);
    assert!(message.contains("--arch"), "{message}");

    let prune = ["prune", "network.onnx", "--weights", "pruned.pth", "-s", "0", "-o", "kept.safetensors", "--json", "-"];
    let report = json(&scratch.ok(&prune));
    assert_eq!(report["came_sparse"], serde_json::json!({"zeros": 36, "prunable": 84, "regrown": false}));
    assert_eq!(report["layers"][0]["kept"], 36);
    assert!(report["warnings"].to_string().contains("came with a mask of torch.nn.utils.prune"), "{}", report["warnings"]);
    let message = scratch.fails(1, &["inspect", "network.onnx", "--weights", "module.pth"]);
    assert!(message.contains("__main__.Network") && message.contains("state_dict()"), "{message}");
    scratch.file("weights.h5", b"\x89HDF\r\n\x1a\nrest");
    let message = scratch.fails(1, &["inspect", "weights.h5", "--arch", "lenet-5"]);
    assert!(message.contains("weights.h5: is an HDF5 file"), "{message}");
}

#[test]
fn a_model_that_came_sparse_keeps_its_zeros() {
    let scratch = Scratch::new();
    let [calibration, ..] = digits_split(&scratch, 64, 10);
    scratch.ok(&["prune", "digits.onnx", "-s", "0.9", "-o", "sparse.onnx"]);
    let repair = [&["--repair", "least-squares", "--calibration", &calibration, "--no-evaluation"][..], &DIGITS_NORM].concat();
    let prune = |more: &[&str]| scratch.ok(&[&["prune", "sparse.onnx", "-o", "out.onnx"], more, &repair].concat());
    let shown = prune(&["-s", "0", "--reference", "digits.onnx"]);
    assert!(shown.contains("came with 90.00 % zeros, kept as mask") && !shown.contains("compared with itself"), "{shown}");
    let report = json(&prune(&["-s", "0", "--reference", "digits.onnx", "--json", "-"]));
    assert!((report["sparsity"]["of_prunable"].as_f64().unwrap() - 0.9).abs() < 1e-4);
    assert!(report["repair"]["changed"].as_u64().unwrap() > 0 && report["reference"]["path"] == "digits.onnx");
    assert!(prune(&["-s", "0.95", "--steps", "2"]).contains("compared with itself"));
    let regrown = json(&prune(&["-s", "0.5", "--regrow", "--reference", "digits.onnx", "--json", "-"]));
    assert_eq!((&regrown["came_sparse"]["regrown"], &regrown["sparsity"]["requested"]), (&Value::Bool(true), &Value::from(0.5)));
    // Zeros may become weights again, so that the sparsity is the requested one.
    assert!((regrown["sparsity"]["of_prunable"].as_f64().unwrap() - 0.5).abs() < 1e-4);
    let message = scratch.fails(2, &["prune", "sparse.onnx", "-s", "0.5", "-o", "less.onnx"]);
    assert!(message.contains("sparsity 0.5") && message.contains("90.00") && message.contains("regrow"), "{message}");

    let recipe = "models: [sparse.onnx]\nallocations: [lamp]\nsparsities: [0.8, 0.95]\nrepairs: [none, least-squares]\n\
                  calibration_images: [32]\ncontrols: false\nlimit: 50\ndiagnostic_images: 0\ncalibration: CAL\ndata: CAL\n\
                  scale: 1\nmean: [4.884]\nstd: [6.017]\n";
    let recipe = recipe.replace("CAL", &calibration);
    scratch.file("kept.yaml", recipe.as_bytes());
    scratch.file("regrown.yaml", format!("{recipe}regrow: true\n").as_bytes());
    let kept = scratch.run(&["sweep", "kept.yaml", "-o", "kept"]);
    let said = text(&kept.stderr);
    assert!(!kept.status.success() && said.contains("gone already") && said.contains("came with 90.00 % zeros"), "{said}");
    let study = |name: &str| json(&std::fs::read_to_string(scratch.path(name).join("study.json")).unwrap());
    let points = study("kept")["models"][0]["curves"][0]["points"].as_array().unwrap().len();
    assert_eq!(points, 1);
    scratch.ok(&["sweep", "regrown.yaml", "-o", "regrown"]);
    assert_eq!(study("regrown")["models"][0]["curves"][0]["points"].as_array().unwrap().len(), 2);
}

#[test]
fn compare_credits_a_smaller_network() {
    let scratch = Scratch::new();
    let prune =
        ["prune", "digits.onnx", "--pattern", "channel", "-s", "0.5", "--shrink", "-o", "small.onnx", "--json", "small.json"];
    scratch.ok(&prune);
    let rows = json(&scratch.ok(&["compare", "digits.onnx", "small.onnx", "small.json", "--json", "-"]));
    let number = |row: usize, key: &str| rows[row][key].as_f64().unwrap_or_else(|| panic!("{key}: {rows}"));
    assert!(
        number(1, "sparsity") >= 0.5 && number(1, "compression_ratio") > 1.9 && number(1, "theoretical_speedup") > 1.2,
        "{rows}"
    );
    assert!(number(1, "macs") < number(0, "macs") && number(1, "bytes") < 0.6 * number(0, "bytes"), "{rows}");
    // The report of the same network says the same of it.
    for key in ["sparsity", "compression_ratio", "theoretical_speedup"] {
        assert!((number(1, key) - number(2, key)).abs() < 0.01 * number(2, key), "{key}: {rows}");
    }
    // Another network is none that was cut.
    scratch.ok(&["convert", "--arch", "lenet-5", "-o", "lenet.onnx"]);
    let rows = json(&scratch.ok(&["compare", "digits.onnx", "lenet.onnx", "--json", "-"]));
    assert_eq!(rows[1]["compression_ratio"], 1.0);
    let train = [
        "train",
        "--arch",
        "lenet-300-100",
        "--data",
        "digits",
        "--epochs",
        "1",
        "-o",
        "run",
        "--prune-at-init",
        "synflow:rounds=2",
    ];
    scratch.ok(&train);
    assert!(scratch.ok(&["compare", "run"]).contains("run · synflow:rounds=2 before training"));
}

#[test]
fn score_names_layers_that_nothing_passes() {
    let scratch = Scratch::new();
    let score = ["score", "--arch", "lenet-300-100", "--method", "random", "-o", "out.safetensors"];
    let shown = scratch.ok(&[&score[..], &["--sparsity", "0.9999"]].concat());
    assert!(shown.contains("no path is left from the input to an output") && shown.contains("nothing passes is fc"), "{shown}");
    let healthy = scratch.ok(&[&score[..], &["--sparsity", "0.5"]].concat());
    assert!(!healthy.contains("note:"), "{healthy}");
}

#[cfg(unix)]
#[test]
fn an_interrupted_run_says_how_it_goes_on() {
    let scratch = Scratch::new();
    let train = ["train", "--arch", "lenet-300-100", "--data", "digits", "--epochs", "100000", "-o", "run"];
    let child = scratch.command(&train).stderr(std::process::Stdio::piped()).spawn().unwrap();
    let journal = scratch.path("run/journal.jsonl");
    for _ in 0..600 {
        if journal.exists() && scratch.path("run/last.safetensors").exists() {
            break;
        }
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
    std::process::Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
    let output = child.wait_with_output().unwrap();
    let said = text(&output.stderr);
    let epochs = std::fs::read_to_string(&journal).unwrap().lines().count();
    assert!(said.contains(&format!("interrupted; the run as it was after epoch {epochs} is kept in run")), "{said}");
    assert!(said.contains("resprout train -o run --resume"), "{said}");
}
