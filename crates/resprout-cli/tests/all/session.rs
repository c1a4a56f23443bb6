//! `resprout run` and `resprout bench`.

use crate::util::{DIGITS_NORM, Scratch, digits_split, text};

fn json(text: &str) -> serde_json::Value {
    serde_json::from_str(text).unwrap()
}

#[test]
fn run_finds_the_classes_that_eval_counts() {
    let scratch = Scratch::new();
    let [calibration, images, labels] = digits_split(&scratch, 64, 300);
    let prune = [
        "prune",
        "digits.onnx",
        "-o",
        "sparse.onnx",
        "--sparsity",
        "0.9",
        "--repair",
        "least-squares",
        "--calibration",
        &calibration,
    ];
    scratch.ok(&[&prune[..], &DIGITS_NORM].concat());
    let evaluated = json(
        &scratch
            .ok(&[&["eval", "sparse.onnx", "--data", &images, "--labels", &labels, "--json", "-"][..], &DIGITS_NORM].concat()),
    );
    let share = evaluated["evaluation"]["networks"][0][1]["top1"]["value"].as_f64().unwrap();
    let labels = std::fs::read(&labels).unwrap();
    for extra in [
        &["--threads", "1"][..],
        &["--threads", "2", "--tune", "0.1", "--plan", "plans.json"],
        &["--threads", "2", "--plan", "plans.json"],
    ] {
        let found = json(&scratch.ok(&[&["run", "sparse.onnx", &images, "--json", "-"][..], &DIGITS_NORM, extra].concat()));
        let found = found["images"].as_array().unwrap();
        let right = found.iter().zip(&labels[8..]).filter(|(image, label)| image["classes"][0][0] == **label).count();
        assert!((right as f64 / 300.0 - share).abs() < 1e-9, "{extra:?}");
        assert_eq!(found[0]["classes"].as_array().unwrap().len(), 5);
    }
    let text = scratch.ok(&[&["run", "sparse.onnx", &images, "--limit", "3", "--top", "2"][..], &DIGITS_NORM].concat());
    assert_eq!(text.lines().filter(|line| line.contains("image ")).count(), 3, "{text}");
}

#[test]
fn bench_measures_batches_threads_and_layers() {
    let scratch = Scratch::new();
    let shown = scratch.ok(&[
        "bench",
        "digits.onnx",
        "--batch",
        "1,4",
        "--bench-threads",
        "1,2",
        "--rounds",
        "2",
        "--json",
        "-",
        "--layers",
    ]);
    let rows = json(&shown)["rows"].as_array().unwrap().clone();
    assert_eq!(rows.len(), 4);
    for row in &rows {
        assert!(row["ours"]["p50"].as_f64().unwrap() > 0.0 && row["ours"]["p90"].as_f64() >= row["ours"]["p50"].as_f64());
        assert!(row["peak"].as_f64().unwrap() > 1e8 && row["baseline"].is_null());
        let convs = row["layers"].as_array().unwrap().iter().filter(|layer| layer["macs"].is_u64()).count();
        // Nine convolutions and the classifier.
        assert_eq!(convs, 10);
    }
    assert!(scratch.ok(&["bench", "digits.onnx", "--rounds", "1", "--layers"]).contains("of the peak"));
    let shown =
        json(&scratch.ok(&["bench", "digits.onnx", "--rounds", "1", "--plans", "--break-even", "--tune", "0.2", "--json", "-"]));
    assert!(shown["load"]["ours"].as_f64().unwrap() > 0.0 && shown["load"]["baseline"].is_null());
    let row = &shown["rows"][0];
    assert_eq!(row["plans"]["layers"].as_array().unwrap().len(), 10);
    for shape in row["break_even"].as_array().unwrap() {
        assert!(shape["dense"].as_f64().unwrap() > 0.0 && (0.0..=1.0).contains(&shape["density"].as_f64().unwrap()), "{shape}");
    }
    assert!(scratch.ok(&["bench", "digits.onnx", "--rounds", "1", "--plans", "--break-even"]).contains("break-even"));
    // A corrupt file of plans is ignored with a note, and replaced.
    scratch.file("plans.json", b"not json");
    let plan = ["bench", "digits.onnx", "--rounds", "1", "--plan", "plans.json", "--threads", "1"];
    assert!(scratch.ok(&plan).contains("ignored"));
    assert!(!scratch.ok(&plan).contains("ignored"));
    let other = std::fs::read_to_string(scratch.path("plans.json")).unwrap().replace("\"cpu\": \"", "\"cpu\": \"Another ");
    scratch.file("plans.json", other.as_bytes());
    assert!(scratch.ok(&plan).contains("another CPU"));
}

#[test]
fn a_busy_machine_keeps_the_default_plan_and_says_so() {
    let scratch = Scratch::new();
    let busy = (4 * std::thread::available_parallelism().unwrap().get()).to_string();
    let tuned =
        ["bench", "digits.onnx", "--rounds", "1", "--contend", &busy, "--tune", "0.1", "--plan", "plans.json", "--json", "-"];
    let shown = json(&scratch.ok(&tuned));
    assert_eq!(shown["contend"].to_string(), busy);
    assert!(shown["warnings"][0].as_str().unwrap().contains("too busy"), "{}", shown["warnings"]);
    assert!(!scratch.path("plans.json").exists());
    // More threads than CPUs are not started.
    let many = json(&scratch.ok(&["bench", "digits.onnx", "--rounds", "1", "--threads", "200", "--pin", "--json", "-"]));
    assert!(many["warnings"][0].as_str().unwrap().contains("--threads 200"), "{}", many["warnings"]);
    let mut command = scratch.command(&["bench", "digits.onnx"]);
    let output = command.env("RESPROUT_SPIN", "long").output().unwrap();
    assert!(output.status.code() == Some(2) && text(&output.stderr).contains("RESPROUT_SPIN=long"), "{}", text(&output.stderr));
}

#[test]
fn what_cannot_be_run_is_named() {
    let scratch = Scratch::new();
    for (args, expected) in [
        (&["bench", "digits.onnx", "--batch", "0"][..], "batch: 0"),
        (&["bench", "digits.onnx", "--bench-threads", "0"], "threads: 0"),
        (&["bench", "digits.onnx", "--isa", "abacus"], "abacus"),
        (&["bench", "digits.onnx", "--kernel", "x"], "called --isa now"),
        (&["run", "digits.onnx", ".", "--kernel", "x"], "called --isa now"),
        (&["bench", "digits.onnx", "--rival-model", "x"], "called --baseline-model now"),
        (&["bench", "digits.onnx", "--rounds", "0"], "--rounds 0"),
        (&["bench", "digits.onnx", "--tune", "-1"], "--tune"),
        (&["bench", "digits.onnx", "--input-shape", "1,8"], "--input-shape"),
        (&["bench", "digits.onnx", "--baseline-model", "digits.onnx"], "--against"),
        (&["run", "digits.onnx", ".", "--top", "0"], "--top"),
    ] {
        let message = scratch.fails(2, args);
        assert!(message.contains(expected), "{args:?}: {message}");
    }
    let message = scratch.fails(1, &["bench", "digits.onnx", "--against", "onnxruntime", "--python", "no-such-python"]);
    assert!(message.contains("no-such-python"), "{message}");
    assert!(scratch.fails(1, &["bench", "digits.onnx", "--input-shape", "1,9,9"]).contains("1, 9, 9]"));
    assert!(scratch.fails(1, &["run", "digits.onnx", "nowhere"]).contains("nowhere"));
}
