//! How files are written: data beside the graph, BatchNormalization fused.

use crate::util::{DIGITS_NORM, Scratch};

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
