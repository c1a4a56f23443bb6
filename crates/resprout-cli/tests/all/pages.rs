//! Pages of `prune` and `compare`.

use crate::util::{DIGITS_NORM, Scratch, digits_split};

/// The digits at 90 %, with report and page.
fn prune(scratch: &Scratch, more: &[&str]) {
    let [calibration, ..] = digits_split(scratch, 64, 100);
    let arguments =
        ["prune", "digits.onnx", "-s", "0.9", "-o", "sparse.onnx", "--json", "report.json", "--calibration", &calibration];
    scratch.ok(&[&arguments[..], &DIGITS_NORM, more].concat());
}

#[test]
fn the_page_of_prune_says_what_the_report_says() {
    let scratch = Scratch::new();
    prune(&scratch, &["--repair", "auto", "--ignore", "fc", "--page", "report.html"]);
    let page = crate::util::read(&scratch.path("report.html"));
    let report: serde_json::Value = serde_json::from_str(&crate::util::read(&scratch.path("report.json"))).unwrap();
    let share = format!("{:.2} %", 100.0 * report["sparsity"]["of_prunable"].as_f64().unwrap());
    let chain = report["repair"]["chain"].as_str().unwrap();
    for part in [
        &share,
        "<svg",
        "Kept weights of each layer",
        "calibration images",
        chain,
        "fc.weight",
        "Options",
        "&quot;sparsity&quot;: 0.9",
    ] {
        assert!(page.contains(part), "{part}: {page}");
    }
    for layer in report["layers"].as_array().unwrap() {
        assert!(page.contains(&format!("<td>{}", layer["param"].as_str().unwrap())), "{layer}");
    }
    let message = scratch.fails(2, &["prune", "digits.onnx", "-s", "0.5", "-o", "out.onnx", "--page", "nowhere/a.html"]);
    assert!(message.contains("nowhere") && !scratch.path("out.onnx").exists(), "{message}");
}

#[test]
fn compare_lays_accuracy_beside_latency() {
    let scratch = Scratch::new();
    prune(&scratch, &["--repair", "bn"]);
    for model in ["digits", "sparse"] {
        scratch.ok(&["bench", &format!("{model}.onnx"), "--rounds", "2", "--json", &format!("{model}-times.json")]);
    }
    let compare = ["compare", "report.json", "digits-times.json", "sparse-times.json"];
    let rows = scratch.ok(&[&compare[..], &["--page", "latency.html", "--json", "-"]].concat());
    let rows: serde_json::Value = serde_json::from_str(&rows).unwrap();
    let timed: Vec<bool> = rows.as_array().unwrap().iter().map(|row| row["milliseconds"].is_f64()).collect();
    // Dense, pruned and repaired: the second network was never written.
    assert_eq!(timed, [true, false, true], "{rows}");
    let page = crate::util::read(&scratch.path("latency.html"));
    assert!(page.contains("<svg") && page.contains("Agreement by latency") && page.matches("<circle").count() == 2, "{page}");
    assert!(scratch.ok(&compare).lines().next().unwrap().ends_with("ms"));
    // Times alone have no picture.
    let message = scratch.fails(2, &["compare", "digits-times.json", "--page", "other.html"]);
    assert!(message.contains("--page other.html") && message.contains("--data"), "{message}");
    assert!(!scratch.path("other.html").exists());
}
