//! How files are written: data beside the graph, BatchNormalization fused.

use crate::util::{DIGITS_NORM, Scratch, model, node, tensor};

fn json(text: &str) -> serde_json::Value {
    serde_json::from_str(text).unwrap()
}

#[test]
fn external_data_hold_the_same_network_and_count_in_reports() {
    let scratch = Scratch::new();
    scratch.ok(&["convert", "digits.onnx", "--external-data", "-o", "apart.onnx"]);
    let size = |name: &str| std::fs::metadata(scratch.path(name)).unwrap().len();
    assert!(size("apart.onnx") < size("digits.onnx") / 4 && size("apart.onnx.data") > size("digits.onnx") / 2);
    let prune = |model: &str, out: &str, more: &[&str]| {
        json(&scratch.ok(&[&["prune", model, "-o", out, "-s", "0.8", "--json", "-"][..], more].concat()))
    };
    let inline = prune("digits.onnx", "a.onnx", &[]);
    let apart = prune("apart.onnx", "b.onnx", &["--external-data"]);
    assert_eq!(inline["layers"], apart["layers"]);
    assert_eq!(apart["model"]["bytes"], size("apart.onnx") + size("apart.onnx.data"));
    assert_eq!(apart["output"]["bytes"], size("b.onnx") + size("b.onnx.data"));
    assert_eq!(apart["size"]["sparse"]["raw"], apart["output"]["bytes"]);
    // Back into one file it is the same network, to the bit.
    scratch.ok(&["convert", "b.onnx", "-o", "c.onnx"]);
    let weights = |name: &str| {
        scratch.ok(&["convert", name, "-o", "weights.safetensors"]);
        std::fs::read(scratch.path("weights.safetensors")).unwrap()
    };
    assert_eq!(weights("a.onnx"), weights("b.onnx"));
    assert_eq!(weights("a.onnx"), weights("c.onnx"));
    let message = scratch.fails(2, &["convert", "digits.onnx", "--external-data", "--format", "onnx-sparse", "-o", "d.onnx"]);
    assert!(message.contains("--external-data"), "{message}");
    std::fs::remove_file(scratch.path("apart.onnx.data")).unwrap();
    let message = scratch.fails(1, &["inspect", "apart.onnx"]);
    assert!(message.contains("apart.onnx") && message.contains("apart.onnx.data"), "{message}");
}

#[test]
fn batch_normalisation_is_fused_on_writing_and_the_network_stays_the_same() {
    let scratch = Scratch::new();
    let prune = ["prune", "digits.onnx", "-s", "0.8", "--repair", "bn", "--calibration", "digits-images-idx3-ubyte.gz"];
    let data = ["--data", "digits-images-idx3-ubyte.gz", "--calibration-images", "200", "--json", "-"];
    let run = |more: &[&str]| json(&scratch.ok(&[&prune[..], &data, &DIGITS_NORM, more].concat()));
    run(&["-o", "nodes.onnx"]);
    let report = run(&["-o", "fused.onnx", "--fold-bn"]);
    assert!(report["merged_norms"]["merged"].as_u64().unwrap() > 0);
    assert_eq!(report["merged_norms"]["left"].as_array().unwrap().len(), 0);
    let inspect = json(&scratch.ok(&["inspect", "fused.onnx", "--json", "-"]));
    assert!(inspect["operations"]["BatchNormalization"].is_null(), "{inspect}");
    assert_eq!(inspect["sparsity"]["kept"], report["sparsity"]["kept"]);
    let eval = ["eval", "fused.onnx", "--reference", "nodes.onnx", "--data", "digits-images-idx3-ubyte.gz", "--json", "-"];
    let eval = json(&scratch.ok(&[&eval[..], &DIGITS_NORM].concat()));
    let error = eval["evaluation"]["networks"][1][1]["relative_error"]["value"].as_f64();
    assert!(error.is_some_and(|error| error < 1e-4), "{eval}");
    let message = scratch.fails(2, &["convert", "fused.onnx", "--fold-bn", "-o", "again.onnx"]);
    assert!(message.contains("--fold-bn") && message.contains("no BatchNormalization"), "{message}");
}

#[test]
fn a_repair_with_little_time_says_what_it_left_to_statistics() {
    let scratch = Scratch::new();
    let prune =
        ["prune", "digits.onnx", "-s", "0.8", "--repair", "least-squares", "--calibration", "digits-images-idx3-ubyte.gz"];
    let run = |more: &[&str]| {
        json(&scratch.ok(&[&prune[..], &["--calibration-images", "100", "--json", "-"], &DIGITS_NORM, more].concat()))
    };
    let (free, enough) = (run(&["-o", "free.onnx"]), run(&["-o", "enough.onnx", "--seconds", "600"]));
    assert_eq!(std::fs::read(scratch.path("free.onnx")).unwrap(), std::fs::read(scratch.path("enough.onnx")).unwrap());
    assert_eq!(free["repair"]["statistics_only"], serde_json::json!([]));
    let none = run(&["-o", "none.onnx", "--seconds", "1e-6"]);
    assert_eq!(none["repair"]["fitted"], serde_json::json!([]));
    assert_eq!(none["repair"]["statistics_only"], enough["repair"]["fitted"], "every layer that would have been fitted");
    let warnings = none["warnings"].to_string();
    assert!(warnings.contains("seconds"), "{warnings}");
    assert_eq!(enough["options"]["seconds"], 600.0);
    for seconds in ["0", "-1", "nan", "inf"] {
        let message = scratch.fails(2, &[&prune[..], &["-o", "x.onnx", "--seconds", seconds]].concat());
        assert!(message.contains("--seconds"), "{message}");
    }
    let message = scratch.fails(2, &["prune", "digits.onnx", "-s", "0.8", "-o", "x.onnx", "--seconds", "5"]);
    assert!(message.contains("--seconds") && message.contains("--repair"), "{message}");
}

#[test]
fn large_files_are_compressed_for_the_report_only_where_asked() {
    let scratch = Scratch::new();
    // 1500 x 1500 weights: nine megabytes.
    let weights: Vec<f32> = (0..1500 * 1500).map(|i| (i % 1999) as f32 / 1000.0 - 1.0).collect();
    scratch.file("large.onnx", &model(&[node("MatMul", &["x", "w"], "y")], &[tensor("w", &[1500, 1500], &weights)]));
    let sizes = |model: &str, more: &[&str]| {
        let args = [&["prune", model, "-s", "0.5", "--no-evaluation", "-o", "out.onnx", "--json", "-"][..], more].concat();
        json(&scratch.ok(&args))["size"]["sparse"].clone()
    };
    let (quick, all) = (sizes("large.onnx", &[]), sizes("large.onnx", &["--sizes"]));
    assert!(quick["gzip"].is_null() && quick["zstd"].is_null(), "{quick}");
    assert_eq!(quick["raw"], all["raw"]);
    assert!(all["gzip"].as_u64().unwrap() < all["raw"].as_u64().unwrap(), "{all}");
    assert!(sizes("digits.onnx", &[])["gzip"].is_u64(), "small files take no time");
}
