//! What works, from the outside.

use crate::util::{DIGITS_NORM, Scratch, field, model, node, number};

fn json(text: &str) -> serde_json::Value {
    serde_json::from_str(text).unwrap()
}

fn top1(evaluation: &serde_json::Value, network: usize) -> f64 {
    evaluation["networks"][network][1]["top1"]["value"].as_f64().unwrap()
}

#[test]
fn the_demo_collapses_and_recovers() {
    let scratch = Scratch::new();
    let table = scratch.ok(&["demo", "--output", "demo"]);
    assert!(table.contains("recalibrated"), "{table}");
    let report = json(&std::fs::read_to_string(scratch.path("demo/report.json")).unwrap());
    let top1 = |e: &serde_json::Value| e["top1"]["value"].as_f64().unwrap();
    assert!(top1(&report["dense"]) > 0.97);
    let row = &report["rows"][3];
    assert_eq!(row["sparsity"]["requested"], 0.9);
    assert!(top1(&row["pruned"]) < 0.3 && top1(&row["recalibrated"]) > 0.9, "{row}");
    let again = scratch.ok(&["inspect", row["file"].as_str().unwrap(), "--json", "-"]);
    assert_eq!(json(&again)["sparsity"]["kept"], row["sparsity"]["kept"]);
}

#[test]
fn prune_then_eval_tell_the_same() {
    let scratch = Scratch::new();
    let data = [&["--data", "digits-images-idx3-ubyte.gz"][..], &DIGITS_NORM, &["--json", "-"]].concat();
    let prune =
        ["prune", "digits.onnx", "-o", "out.onnx", "-s", "0.9", "--repair", "bn", "--calibration", "digits-images-idx3-ubyte.gz"];
    let report = json(&scratch.ok(&[&prune[..], &["--calibration-images", "256"], &data].concat()));
    assert_eq!(report["schema_version"], 2);
    assert_eq!(report["calibration"]["images"], 256);
    assert_eq!(report["evaluation"]["images"], 1797);
    assert_eq!(
        report["sparsity"]["kept"],
        report["layers"].as_array().unwrap().iter().map(|l| l["kept"].as_u64().unwrap()).sum::<u64>()
    );
    let eval = json(&scratch.ok(&[&["eval", "out.onnx", "--reference", "digits.onnx"][..], &data].concat()));
    assert_eq!(
        eval["evaluation"]["networks"][1][1], report["evaluation"]["networks"][2][1],
        "the written file does what was measured"
    );
    assert_eq!(eval["evaluation"]["images_sha256"], report["evaluation"]["images_sha256"]);
    assert!(top1(&report["evaluation"], 0) > 0.98 && top1(&report["evaluation"], 2) > 0.9);
    assert_eq!(eval["model"]["sha256"], report["output"]["sha256"]);
}

#[test]
fn without_test_images_the_report_says_what_was_measured_on() {
    let scratch = Scratch::new();
    let prune =
        ["prune", "digits.onnx", "-o", "out.onnx", "-s", "0.8", "--repair", "bn", "--calibration", "digits-images-idx3-ubyte.gz"];
    let table = scratch.ok(&[&prune[..], &DIGITS_NORM].concat());
    assert!(table.contains("the calibration images themselves"), "{table}");
    assert!(!table.contains("top-1  %"), "labels of calibration images are never read");
    let quiet = scratch.ok(&[&prune[..], &DIGITS_NORM, &["--no-evaluation"]].concat());
    assert!(!quiet.contains("agreement"), "{quiet}");
}

#[test]
fn every_kind_of_data_gives_the_same_pixels() {
    let scratch = Scratch::new();
    let pixels: Vec<u8> = (0..6 * 64u32).map(|i| (i * 37 % 251) as u8).collect();
    for (i, image) in pixels.chunks(64).enumerate() {
        let path = scratch.file(&format!("pngs/{i}.png"), b"");
        image::GrayImage::from_raw(8, 8, image.to_vec()).unwrap().save(path).unwrap();
        std::fs::create_dir_all(scratch.path(&format!("classes/c{}", i / 3))).unwrap();
        std::fs::copy(scratch.path(&format!("pngs/{i}.png")), scratch.path(&format!("classes/c{}/{i}.png", i / 3))).unwrap();
    }
    scratch.file("six-images-idx3-ubyte", &[&[0, 0, 8, 3, 0, 0, 0, 6, 0, 0, 0, 8, 0, 0, 0, 8][..], &pixels].concat());
    for (name, shape) in [("chw.npy", "(6, 1, 8, 8)"), ("hw.npy", "(6, 8, 8)"), ("hwc.npy", "(6, 8, 8, 1)")] {
        let header = format!("{:<117}\n", format!("{{'descr': '|u1', 'fortran_order': False, 'shape': {shape}, }}"));
        scratch.file(name, &[b"\x93NUMPY\x01\x00\x76\x00", header.as_bytes(), &pixels].concat());
    }
    let hash = |data: &str| {
        let run = json(&scratch.ok(&[&["eval", "digits.onnx", "--data", data][..], &DIGITS_NORM, &["--json", "-"]].concat()));
        (run["evaluation"]["images_sha256"].clone(), run["evaluation"]["networks"][0][1]["top1"].is_null())
    };
    let (expected, unlabelled) = hash("pngs");
    assert!(unlabelled);
    for data in ["six-images-idx3-ubyte", "chw.npy", "hw.npy", "hwc.npy"] {
        assert_eq!(hash(data), (expected.clone(), true), "{data}");
    }
    assert_eq!(hash("classes"), (expected, false), "class folders are labels");
}

#[test]
fn threads_do_not_change_the_file() {
    let scratch = Scratch::new();
    let run = |threads: &str, output: &str| {
        let prune = [
            "--threads",
            threads,
            "prune",
            "digits.onnx",
            "-o",
            output,
            "-s",
            "0.9",
            "--repair",
            "bn",
            "--calibration",
            "digits-images-idx3-ubyte.gz",
        ];
        scratch.ok(&[&prune[..], &DIGITS_NORM].concat());
        std::fs::read(scratch.path(output)).unwrap()
    };
    assert_eq!(run("1", "one.onnx"), run("2", "two.onnx"));
}

#[test]
fn weights_go_out_and_in_again() {
    let scratch = Scratch::new();
    scratch.ok(&["prune", "digits.onnx", "-o", "w.safetensors", "-s", "0.75"]);
    scratch.ok(&["prune", "digits.onnx", "-o", "w.onnx", "-s", "0.75"]);
    let from = |args: &[&str]| json(&scratch.ok(&[args, &["--json", "-"]].concat()))["layers"].clone();
    assert_eq!(from(&["inspect", "w.onnx"]), from(&["inspect", "digits.onnx", "--weights", "w.safetensors"]));
}

#[test]
fn a_sparse_file_takes_the_place_of_the_model() {
    let scratch = Scratch::new();
    scratch.ok(&["prune", "digits.onnx", "-o", "w.onnx", "-s", "0.9"]);
    let bytes = |name: &str| std::fs::read(scratch.path(name)).unwrap();
    let inspect = |name: &str| json(&scratch.ok(&["inspect", name, "--json", "-"]))["layers"].clone();
    for (format, name) in [("onnx-sparse", "s.onnx"), ("safetensors-sparse", "s.safetensors")] {
        let report = json(&scratch.ok(&["prune", "digits.onnx", "-o", name, "-s", "0.9", "--format", format, "--json", "-"]));
        assert_eq!(report["options"]["format"], format);
        assert_eq!(report["size"]["sparse"]["raw"].as_u64().unwrap(), bytes(name).len() as u64);
        assert!(bytes(name).len() * 2 < bytes("w.onnx").len());
        assert_eq!(inspect(name), inspect("w.onnx"));
        let classes =
            |model: &str| json(&scratch.ok(&["run", model, "digits-images-idx3-ubyte.gz", "--limit", "9", "--json", "-"]));
        assert_eq!(classes(name)["images"], classes("w.onnx")["images"]);
        scratch.ok(&["convert", name, "-o", "back.onnx"]);
        assert_eq!(inspect("back.onnx"), inspect("w.onnx"));
        // Pruned weights of the model it is read from stay pruned.
        scratch.ok(&["prune", name, "-o", "more.safetensors", "-s", "0.95", "--format", "safetensors-sparse"]);
        let sparsity = json(&scratch.ok(&["inspect", "more.safetensors", "--json", "-"]))["sparsity"]["of_prunable"].clone();
        assert!((sparsity.as_f64().unwrap() - 0.95).abs() < 1e-3, "{sparsity}");
    }
    let size = json(&scratch.ok(&["prune", "digits.onnx", "-o", "w.onnx", "-s", "0.9", "--json", "-"]))["size"]["sparse"].clone();
    assert_eq!(size["sparse"].as_u64().unwrap(), bytes("s.safetensors").len() as u64);
    assert!(size["zstd"].as_u64().unwrap() < size["raw"].as_u64().unwrap());

    let message = scratch.fails(2, &["convert", "w.onnx", "-o", "x.onnx", "--format", "safetensors-sparse"]);
    assert!(message.contains("--format safetensors-sparse") && !scratch.path("x.onnx").exists(), "{message}");
    scratch.file("cut.safetensors", &bytes("s.safetensors")[..5000]);
    let message = scratch.fails(1, &["inspect", "cut.safetensors"]);
    assert!(message.contains("cut.safetensors: not a safetensors file"), "{message}");
}

#[test]
fn a_hint_where_the_preprocessing_was_chosen() {
    let scratch = Scratch::new();
    let table = scratch.ok(&["eval", "digits.onnx", "--data", "digits-images-idx3-ubyte.gz"]);
    assert!(table.contains("no --preset was given: \"raw\" was chosen"), "{table}");
}

#[test]
fn typed_data_and_fills_are_written_back_in_kind() {
    let scratch = Scratch::new();
    let floats: Vec<u8> = [1.0f32, 2.0, 3.0, 4.0].iter().flat_map(|v| v.to_le_bytes()).collect();
    let typed =
        [number(1, 1), number(1, 1), number(1, 1), number(1, 4), number(2, 1), field(8, b"w"), field(4, &floats)].concat();
    let before = model(&[node("Conv", &["x", "w"], "y")], &[typed]);
    scratch.file("typed.onnx", &before);
    scratch.ok(&["prune", "typed.onnx", "-o", "out.onnx", "-s", "0.5", "--allocation", "global"]);
    let after = std::fs::read(scratch.path("out.onnx")).unwrap();
    let changed = before.iter().zip(&after).filter(|(a, b)| a != b).count();
    assert_eq!(after.len(), before.len(), "still typed data");
    // 1.0 is 00 00 80 3f and 2.0 is 00 00 00 40: three bytes become zero.
    assert_eq!(changed, 3);

    // A weight that a node fills with zeros is spelled out only if it changes.
    let shape: Vec<u8> = [1u64, 1, 1, 4].iter().flat_map(|dim| dim.to_le_bytes()).collect();
    let shape = [number(1, 4), number(2, 7), field(8, b"shape"), field(9, &shape)].concat();
    let one = [number(1, 1), number(2, 1), field(9, &1.5f32.to_le_bytes())].concat();
    let value = [field(1, b"value"), field(5, &one), number(20, 4)].concat();
    let fill = [node("ConstantOfShape", &["shape"], "w"), field(5, &value)].concat();
    scratch.file("filled.onnx", &model(&[fill, node("Conv", &["x", "w"], "y")], &[shape]));
    scratch.ok(&["prune", "filled.onnx", "-o", "same.onnx", "-s", "0"]);
    assert_eq!(std::fs::read(scratch.path("same.onnx")).unwrap(), std::fs::read(scratch.path("filled.onnx")).unwrap());
    scratch.ok(&["prune", "filled.onnx", "-o", "half.onnx", "-s", "0.5", "--allocation", "global"]);
    let layers = json(&scratch.ok(&["inspect", "half.onnx", "--json", "-"]))["layers"].clone();
    assert_eq!((&layers[0]["kept"], &layers[0]["weights"]), (&2.into(), &4.into()));
}

/// `prune` of the digits at this sparsity with these options, as JSON.
fn pruned(scratch: &Scratch, sparsity: &str, more: &[&str]) -> serde_json::Value {
    let prune = ["prune", "digits.onnx", "-o", "out.onnx", "-s", sparsity, "--json", "-"];
    json(&scratch.ok(&[&prune[..], &DIGITS_NORM, more].concat()))
}

const CALIBRATION: [&str; 4] = ["--calibration", "digits-images-idx3-ubyte.gz", "--calibration-images", "256"];

#[test]
fn auto_shows_all_candidates_and_its_choice() {
    let scratch = Scratch::new();
    let more = [&["--repair", "auto", "--data", "digits-images-idx3-ubyte.gz"][..], &CALIBRATION].concat();
    let report = pruned(&scratch, "0.95", &more);
    let candidates = report["repair"]["candidates"].as_array().unwrap();
    let chosen: Vec<_> = candidates.iter().filter(|c| c["chosen"] == true).collect();
    assert!(candidates.len() > 3 && chosen.len() == 1);
    assert_eq!(report["repair"]["chain"], chosen[0]["repair"]);
    let kl = |c: &serde_json::Value| c["evaluation"]["kl"]["value"].as_f64().unwrap();
    assert!(candidates.iter().all(|c| kl(chosen[0]) <= kl(c)));
    assert!(top1(&report["evaluation"], 2) > top1(&report["evaluation"], 1) + 0.5, "it works on all images");
    let prune = ["prune", "digits.onnx", "-o", "out2.onnx", "-s", "0.95", "--repair", "auto"];
    let table = scratch.ok(&[&prune[..], &DIGITS_NORM, &CALIBRATION].concat());
    assert!(table.contains("* least-squares") && table.contains("which the repair had not seen"), "{table}");
}

#[test]
fn steps_are_reported_and_kept() {
    let scratch = Scratch::new();
    let repair = [&["--repair", "least-squares", "--steps", "4"][..], &CALIBRATION].concat();
    let report = pruned(&scratch, "0.9", &repair);
    let steps: Vec<f64> = report["repair"]["steps"].as_array().unwrap().iter().map(|s| s.as_f64().unwrap()).collect();
    assert!(steps.len() == 4 && steps.windows(2).all(|pair| pair[0] < pair[1]) && steps[3] == 0.9, "{steps:?}");
    let whole = std::fs::read(scratch.path("out.onnx")).unwrap();
    for _ in 0..2 {
        // The second run finds three steps done.
        pruned(&scratch, "0.9", &[&repair[..], &["--checkpoint", "kept"]].concat());
        assert_eq!(std::fs::read(scratch.path("out.onnx")).unwrap(), whole);
    }
}

#[test]
fn as_many_images_as_it_takes() {
    let scratch = Scratch::new();
    let images = ["--repair", "bn", "--calibration", "digits-images-idx3-ubyte.gz", "--calibration-images", "auto"];
    let report = pruned(&scratch, "0.8", &images);
    let settled = report["repair"]["checkup"]["settled"].as_u64().unwrap();
    assert_eq!(report["calibration"]["images"], 2 * settled);
    assert_eq!(report["repair"]["checkup"]["images"], 1797);
}

#[test]
fn noise_in_place_of_images_is_marked() {
    let scratch = Scratch::new();
    let report = pruned(&scratch, "0.8", &["--repair", "bn", "--data-free", "--calibration-images", "64"]);
    assert_eq!(report["calibration"]["data_free"], true);
    assert_eq!(report["calibration"]["images"], 64);
    assert!(report["evaluation"].is_null(), "noise is nothing to measure on");
    assert!(report["warnings"].as_array().unwrap().iter().any(|w| w.as_str().unwrap().starts_with("DATA-FREE")));
}

#[test]
fn a_network_without_batch_norm_gets_biases_and_they_are_reported() {
    let scratch = Scratch::new();
    scratch.file("plain.onnx", include_bytes!("../../../../testdata/golden/plain.onnx"));
    let prune = ["prune", "plain.onnx", "-o", "out.onnx", "-s", "0.5", "--repair", "least-squares", "--data-free", "--crop", "8"];
    let report = json(&scratch.ok(&[&prune[..], &["--json", "-"]].concat()));
    assert_eq!(report["repair"]["added_bias"], serde_json::json!(["conv.weight.bias", "depthwise.weight.bias"]));
    assert!(report["warnings"].as_array().unwrap().iter().any(|w| w.as_str().unwrap().contains("were given a bias")));
    scratch.ok(&["inspect", "out.onnx"]);
}

#[test]
fn a_shrunk_model_is_smaller_and_does_what_the_masked_one_does() {
    let scratch = Scratch::new();
    let data =
        ["--calibration", "digits-images-idx3-ubyte.gz", "--calibration-images", "512", "--data", "digits-images-idx3-ubyte.gz"];
    let prune = |output: &str, more: &[&str]| {
        let base = ["prune", "digits.onnx", "-o", output, "--pattern", "channel", "--repair", "least-squares", "--json", "-"];
        json(&scratch.ok(&[&base[..], &data, &DIGITS_NORM, more].concat()))
    };
    let masked = prune("masked.onnx", &["--macs", "0.5"]);
    let small = prune("small.onnx", &["--macs", "0.5", "--shrink"]);
    assert!(masked["shrunk"].is_null() && masked["sparsity"]["requested"].is_null());
    let macs = small["shrunk"]["macs"].as_array().unwrap();
    let share = macs[1].as_f64().unwrap() / macs[0].as_f64().unwrap();
    assert!(share <= 0.5 && share > 0.4, "{share}");
    assert_eq!(masked["evaluation"], small["evaluation"]);
    let size = |name: &str| std::fs::metadata(scratch.path(name)).unwrap().len() as f64;
    assert!(size("small.onnx") < 0.8 * size("masked.onnx"));
    let eval = ["eval", "small.onnx", "--reference", "masked.onnx", "--data", "digits-images-idx3-ubyte.gz", "--json", "-"];
    let eval = json(&scratch.ok(&[&eval[..], &DIGITS_NORM].concat()));
    assert_eq!(eval["evaluation"]["networks"][1][1]["agreement"]["value"], 1.0, "{eval}");
    assert_eq!(top1(&eval["evaluation"], 1), top1(&small["evaluation"], 2));
    // Nothing is left to cut, and n:m finds its groups in what is left.
    let again =
        scratch.ok(&["prune", "small.onnx", "-o", "nm.onnx", "--pattern", "mixed:m=2", "-s", "0.3", "--shrink", "--json", "-"]);
    assert!(json(&again)["shrunk"].is_null());
}

#[test]
fn shells_and_manuals_know_every_command() {
    let scratch = Scratch::new();
    let bash = scratch.ok(&["completions", "bash"]);
    for name in ["prune", "sweep", "--sparsity", "--calibration"] {
        assert!(bash.contains(name), "{name}");
    }
    assert!(scratch.fails(2, &["completions", "cmd"]).contains("possible values"));
    let written = scratch.ok(&["man", "-o", "man"]);
    assert_eq!(written.lines().count(), crate::util::files(&scratch.path("man")).len());
    let page = std::fs::read_to_string(scratch.path("man/resprout-prune.1")).unwrap();
    assert!(page.contains("resprout-prune") && page.contains("sparsity"), "{page}");
    assert!(scratch.path("man/resprout-data-fetch.1").is_file() && scratch.path("man/resprout.1").is_file());
    assert!(scratch.fails(2, &["man", "-o", "digits.onnx"]).contains("is a file"));
    assert!(scratch.ok(&["--version"]).starts_with("resprout 0."));
}

#[test]
fn scores_of_a_file_prune_as_the_criterion_that_they_come_from() {
    let scratch = Scratch::new();
    let score = ["score", "digits.onnx", "--method", "magnitude", "--sparsity", "0.5", "--quiet"];
    scratch.ok(&[&score[..], &["-o", "masks.safetensors", "--scores", "scores.safetensors"]].concat());
    let prune = |how: &[&str], output: &str| {
        scratch.ok(&[&["prune", "digits.onnx", "--sparsity", "0.9", "--quiet", "-o", output], how].concat());
        std::fs::read(scratch.path(output)).unwrap()
    };
    let given = prune(&["--scores", "scores.safetensors"], "given.onnx");
    assert!(given == prune(&["--criterion", "magnitude"], "magnitude.onnx"));
    assert!(given != prune(&["--criterion", "random"], "random.onnx"));

    let refused = |code: i32, how: &[&str], expected: &str| {
        let message = scratch.fails(code, &[&["prune", "digits.onnx", "-s", "0.9", "-o", "no.onnx", "--quiet"], how].concat());
        assert!(message.contains(expected), "{message}");
    };
    refused(1, &["--scores", "nothing.safetensors"], "nothing.safetensors");
    refused(1, &["--scores", "digits.onnx"], "digits.onnx: not a safetensors file");
    refused(2, &["--scores", "scores.safetensors", "--pattern", "channel"], "--scores scores.safetensors");
    refused(2, &["--scores", "scores.safetensors", "--criterion", "rms"], "--criterion");
    scratch.ok(&["convert", "digits.onnx", "-o", "weights.safetensors"]);
    refused(1, &["--scores", "weights.safetensors"], "a score is -");
    scratch
        .ok(&[&score[..], &["--ignore", "fc.weight", "-o", "some.safetensors", "--scores", "some-scores.safetensors"]].concat());
    refused(1, &["--scores", "some-scores.safetensors"], "0 scores for 640 weights");
}
