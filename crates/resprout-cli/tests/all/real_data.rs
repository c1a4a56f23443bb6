//! Real models and data, where they are at hand: `RESPROUT_DATA` names the folder. Without it these
//! tests say that they were skipped.

use crate::util::{Scratch, skipped};
use image::ImageReader;
use std::path::{Path, PathBuf};

/// The folder with `models/`, `clients/`, `cifar10/` and, beside it, `reference/`, if there is one.
fn data(test: &str) -> Option<PathBuf> {
    let folder = std::env::var_os("RESPROUT_DATA").map(PathBuf::from);
    if folder.is_none() {
        skipped(test, "RESPROUT_DATA");
    }
    folder
}

/// The first `count` images of a mosaic of 100x100 tiles, as CIFAR-10 records; the class of tile n is n mod 10.
fn cifar(mosaic: &Path, count: usize) -> Vec<u8> {
    let image = ImageReader::open(mosaic).unwrap().decode().unwrap().into_rgb8();
    let mut out = Vec::with_capacity(count * 3073);
    for n in 0..count {
        out.push((n % 10) as u8);
        let (left, top) = ((n % 100) as u32 * 32, (n / 100) as u32 * 32);
        for channel in 0..3 {
            out.extend((0..32 * 32).map(|p| image.get_pixel(left + p % 32, top + p / 32)[channel]));
        }
    }
    out
}

const NORM: [&str; 4] = ["--mean", "0.485,0.456,0.406", "--std", "0.229,0.224,0.225"];

fn reference(data: &Path, model: &str) -> serde_json::Value {
    let text = std::fs::read_to_string(data.join(format!("../reference/{model}.json"))).unwrap();
    serde_json::from_str(&text).unwrap()
}

/// Every run of the independent implementation keeps as many weights in every layer, on one thread and on two.
#[test]
fn kept_counts_equal_an_independent_implementation() {
    let Some(data) = data("kept_counts_equal_an_independent_implementation") else { return };
    let scratch = Scratch::new();
    for model in ["cifar10_resnet20", "cifar10_resnet56", "imagenet_mobilenet_v2"] {
        let file = data.join(format!("models/{model}.onnx"));
        let reference = reference(&data, model);
        for run in reference["runs"].as_array().unwrap() {
            let (allocation, sparsity) = (run["allocation"].as_str().unwrap(), run["sparsity"].to_string());
            let prune = |threads: &str, output: &str| {
                let args = [
                    "prune",
                    file.to_str().unwrap(),
                    "-o",
                    output,
                    "-s",
                    &sparsity,
                    "--allocation",
                    allocation,
                    "--threads",
                    threads,
                    "--json",
                    "-",
                ];
                let report: serde_json::Value = serde_json::from_str(&scratch.ok(&args)).unwrap();
                let kept: Vec<u64> = report["layers"].as_array().unwrap().iter().map(|l| l["kept"].as_u64().unwrap()).collect();
                (kept, std::fs::read(scratch.path(output)).unwrap())
            };
            let one = prune("1", "one.onnx");
            let expected: Vec<u64> = run["kept"].as_array().unwrap().iter().map(|k| k.as_u64().unwrap()).collect();
            assert_eq!(one.0, expected, "{model} {allocation} {sparsity}");
            assert!(one == prune("2", "two.onnx"), "{model} {allocation} {sparsity}: threads change the file");
        }
    }
}

/// Accuracy of the dense, the pruned and the recalibrated ResNet-20 against the independent implementation.
#[test]
fn accuracy_equals_an_independent_implementation() {
    let Some(data) = data("accuracy_equals_an_independent_implementation") else { return };
    let scratch = Scratch::new();
    scratch.file("train.bin", &cifar(&data.join("cifar10/train_1.webp"), 1024));
    scratch.file("test.bin", &cifar(&data.join("cifar10/test.webp"), 10_000));
    let reference = reference(&data, "cifar10_resnet20");
    let run =
        reference["runs"].as_array().unwrap().iter().find(|run| run["allocation"] == "lamp" && run["sparsity"] == 0.8).unwrap();
    let file = data.join("models/cifar10_resnet20.onnx");
    let prune = [
        "prune",
        file.to_str().unwrap(),
        "-o",
        "out.onnx",
        "-s",
        "0.8",
        "--allocation",
        "lamp",
        "--repair",
        "bn",
        "--calibration",
        "train.bin",
    ];
    let report = scratch.ok(&[&prune[..], &["--data", "test.bin", "--json", "-"], &NORM].concat());
    let report: serde_json::Value = serde_json::from_str(&report).unwrap();
    let top1 = |network: usize| report["evaluation"]["networks"][network][1]["top1"]["value"].as_f64().unwrap() * 100.0;
    // 0.02 for the dense network, 0.3 points for the others: f32 sums in another order flip a few images.
    assert!((top1(0) - reference["dense"]["top1"].as_f64().unwrap()).abs() <= 0.02, "{}", top1(0));
    assert!((top1(1) - run["none"]["top1"].as_f64().unwrap()).abs() <= 0.3, "{}", top1(1));
    assert!((top1(2) - run["bn_recalibration"]["top1"].as_f64().unwrap()).abs() <= 0.3, "{}", top1(2));
}

/// Every file of the folder can be inspected, pruned and computed.
#[test]
fn every_file_can_be_pruned() {
    let Some(data) = data("every_file_can_be_pruned") else { return };
    let scratch = Scratch::new();
    for folder in ["models", "clients", "clients/onnx-light"] {
        for entry in std::fs::read_dir(data.join(folder)).unwrap() {
            let path = entry.unwrap().path();
            // Half a gigabyte of one repeated number: the other graphs show the same.
            if path.extension().is_none_or(|e| e != "onnx") || path.ends_with("light_vgg19.onnx") {
                continue;
            }
            let name = path.to_str().unwrap();
            let inspected: serde_json::Value = serde_json::from_str(&scratch.ok(&["inspect", name, "--json", "-"])).unwrap();
            assert!(inspected["forward_error"].is_null(), "{name}: {}", inspected["forward_error"]);
            scratch.ok(&["prune", name, "-o", "out.onnx", "--sparsity", "0.5", "--repair", "none"]);
            let pruned: serde_json::Value = serde_json::from_str(&scratch.ok(&["inspect", "out.onnx", "--json", "-"])).unwrap();
            assert!(pruned["sparsity"]["of_prunable"].as_f64().unwrap() >= 0.5 - 1e-6, "{name}: {}", pruned["sparsity"]);
        }
    }
}

/// Label-free repair of ResNet-20 at 90 % on 1024 images: far above recalibration's 43.5 %.
#[test]
fn least_squares_brings_a_residual_network_back() {
    let Some(data) = data("least_squares_brings_a_residual_network_back") else { return };
    let scratch = Scratch::new();
    scratch.file("train.bin", &cifar(&data.join("cifar10/train_1.webp"), 1024));
    // Agreement with the dense network needs no labels.
    scratch.file("test.bin", &cifar(&data.join("cifar10/test.webp"), 2000));
    let file = data.join("models/cifar10_resnet20.onnx");
    let agreement = |repair: &str, steps: &str| {
        let prune =
            ["prune", file.to_str().unwrap(), "-o", "out.onnx", "-s", "0.9", "--allocation", "global", "--repair", repair];
        let more = ["--steps", steps, "--calibration", "train.bin", "--data", "test.bin", "--json", "-"];
        let report: serde_json::Value = serde_json::from_str(&scratch.ok(&[&prune[..], &more, &NORM].concat())).unwrap();
        report["evaluation"]["networks"][2][1]["agreement"]["value"].as_f64().unwrap()
    };
    let (once, gradual) = (agreement("least-squares", "1"), agreement("least-squares", "6"));
    assert!(once > 0.75 && gradual > 0.8, "{once} {gradual}");
}
