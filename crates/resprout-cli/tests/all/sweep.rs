//! `resprout sweep` and `resprout compare`.

use crate::util::{Scratch, text};
use std::process::Stdio;
use std::time::Duration;

/// 24 cells and the dense one, a second or so.
const RECIPE: &str = "models: [digits]\nallocations: [erk, lamp]\nsparsities: [0.5, 0.7, 0.8, 0.9]\nrepairs: [none, bn, \"asr,bn\"]\n\
                      calibration_images: [64]\ncontrols: false\nlimit: 200\ndiagnostic_images: 16\n";

fn scratch() -> Scratch {
    let scratch = Scratch::new();
    scratch.file("recipe.yaml", RECIPE.as_bytes());
    scratch
}

fn journal(scratch: &Scratch, folder: &str) -> String {
    std::fs::read_to_string(scratch.path(folder).join("journal.jsonl")).unwrap()
}

fn study(scratch: &Scratch, folder: &str) -> serde_json::Value {
    serde_json::from_slice(&std::fs::read(scratch.path(folder).join("study.json")).unwrap()).unwrap()
}

#[test]
fn a_sweep_says_what_prune_says() {
    let scratch = scratch();
    scratch.ok(&["sweep", "recipe.yaml", "-o", "study"]);
    let study = study(&scratch, "study");
    let model = &study["models"][0];
    assert_eq!(model["metric"], "top1");
    assert_eq!(model["curves"].as_array().unwrap().len(), 6);
    let curves = model["curves"].as_array().unwrap();
    let curve =
        curves.iter().find(|c| c["configuration"]["repair"] == "asr,bn" && c["configuration"]["allocation"] == "lamp").unwrap();
    let point = &curve["points"][3];
    // The embedded images as files: the first 1000 calibrate, the ones behind are measured on.
    let images = crate::util::digits_split(&scratch, 64, 200);
    let args = ["prune", "digits.onnx", "-o", "a.onnx", "--sparsity", "0.9", "--allocation", "lamp", "--repair", "asr,bn"];
    let more = ["--calibration", &images[0], "--data", &images[1], "--labels", &images[2], "--json", "-"];
    let report = scratch.ok(&[&args[..], &more, &crate::util::DIGITS_NORM].concat());
    let report: serde_json::Value = serde_json::from_str(&report).unwrap();
    let networks = report["evaluation"]["networks"].as_array().unwrap();
    let repaired = &networks.iter().find(|network| network[0] == "repaired").unwrap()[1];
    assert_eq!(point["value"], repaired["top1"]["value"]);
    assert_eq!(point["kl"], repaired["kl"]["value"]);
    assert_eq!(point["realised"], report["sparsity"]["of_prunable"]);
    let page = std::fs::read_to_string(scratch.path("study/report.html")).unwrap();
    assert!(page.contains("<svg") && !page.contains("src=\"http"));
    // Files are named by what they show.
    let name = "study/figures/digits-density-of-each-layer-at-90";
    let figure = std::fs::read_to_string(scratch.path(&format!("{name}.svg"))).unwrap();
    assert!(figure.contains("<rect") && !figure.contains("NaN"));
    assert!(scratch.path(&format!("{name}.csv")).is_file());
    assert!(std::fs::read(scratch.path(&format!("{name}.pdf"))).unwrap().starts_with(b"%PDF-"));
}

#[test]
fn killed_twenty_times_it_ends_as_if_it_had_not_been() {
    let scratch = scratch();
    scratch.ok(&["sweep", "recipe.yaml", "-o", "whole"]);
    let whole = journal(&scratch, "whole");
    let mut before = 0;
    for moment in 0..20u64 {
        let mut child = scratch.command(&["sweep", "recipe.yaml", "-o", "killed"]).stdout(Stdio::null()).spawn().unwrap();
        std::thread::sleep(Duration::from_millis(20 + (moment * 7919) % 230));
        child.kill().unwrap();
        child.wait().unwrap();
        // What was finished stays.
        let lines = std::fs::read_to_string(scratch.path("killed/journal.jsonl")).unwrap_or_default().lines().count();
        assert!(lines + 1 >= before, "{before} lines became {lines}");
        before = lines;
    }
    scratch.ok(&["sweep", "recipe.yaml", "-o", "killed", "--jobs", "2"]);
    assert_eq!(journal(&scratch, "killed"), whole);
    // Nothing is measured again.
    assert!(scratch.ok(&["sweep", "recipe.yaml", "-o", "killed"]).contains("0 cells measured now"));
}

#[test]
fn shards_merge_to_the_whole() {
    let scratch = scratch();
    scratch.ok(&["sweep", "recipe.yaml", "-o", "whole", "--jobs", "2"]);
    scratch.ok(&["sweep", "recipe.yaml", "-o", "shards", "--shard", "2/2"]);
    scratch.ok(&["sweep", "recipe.yaml", "-o", "elsewhere", "--shard", "1/2"]);
    let merged = scratch.ok(&["sweep", "recipe.yaml", "-o", "shards", "--merge", "elsewhere/journal-1-of-2.jsonl"]);
    assert!(merged.contains("0 cells measured now"), "{merged}");
    assert_eq!(journal(&scratch, "shards"), journal(&scratch, "whole"));
    let message = scratch.fails(2, &["sweep", "recipe.yaml", "-o", "whole", "--merge", "nowhere.jsonl"]);
    assert!(message.contains("nowhere.jsonl"), "{message}");
}

#[test]
fn a_corrupt_line_is_refused_by_its_number_and_can_be_dropped() {
    let scratch = scratch();
    scratch.ok(&["sweep", "recipe.yaml", "-o", "study"]);
    let whole = journal(&scratch, "study");
    let broken = whole
        .lines()
        .enumerate()
        .map(|(i, line)| if i == 2 { line.replacen("\"value\":0.", "\"value\":1.", 1) + "\n" } else { format!("{line}\n") });
    scratch.file("study/journal.jsonl", broken.collect::<String>().as_bytes());
    let message = scratch.fails(1, &["sweep", "recipe.yaml", "-o", "study"]);
    assert!(message.contains("line 3 is corrupt") && message.contains("repair the journal"), "{message}");
    assert!(scratch.ok(&["sweep", "recipe.yaml", "-o", "study", "--repair-journal"]).contains("1 cells measured now"));
    assert_eq!(journal(&scratch, "study"), whole);
}

#[test]
fn one_missing_model_does_not_stop_the_others() {
    let scratch = scratch();
    let three = RECIPE.replace("models: [digits]", "models: [digits, gone.onnx, {path: digits, name: again}]");
    scratch.file("three.yaml", three.as_bytes());
    let output = scratch.run(&["sweep", "three.yaml", "-o", "study"]);
    assert_eq!(output.status.code(), Some(1));
    let (message, shown) = (text(&output.stderr), text(&output.stdout));
    assert!(message.contains("gone") && shown.contains("failed: gone"), "{message} {shown}");
    let study = study(&scratch, "study");
    assert_eq!(study["models"].as_array().unwrap().len(), 2);
    assert_eq!(study["failures"][0]["cell"]["model"], "gone");
}

#[test]
fn wrong_recipes_and_options_are_named() {
    let scratch = scratch();
    let wrong = |yaml: &str, expected: &str| {
        scratch.file("wrong.yaml", yaml.as_bytes());
        let message = scratch.fails(2, &["sweep", "wrong.yaml", "-o", "study"]);
        assert!(message.contains(expected), "{message}");
    };
    wrong("models: [digits]\nsparsity: [0.5]\n", "did you mean sparsities?");
    wrong("models: [digits]\nsigns_images: 8\n", "signs_images: this key is called diagnostic_images now");
    wrong("models: [digits]\nsparsities: [1.5]\n", "1.5");
    wrong("models: [digits]\nrepairs: [auto]\n", "auto");
    wrong("models: [digits\n", "wrong.yaml");
    for (args, expected) in [
        (&["--shard", "3/2"][..], "I/N"),
        (&["--delta", "-1"], "--delta"),
        (&["--kappa", "2"], "--kappa"),
        (&["--at-most-loss", "-1"], "--at-most-loss"),
        (&["--at-most-bytes", "4XB"], "--at-most-bytes"),
        (&["--jobs", "0"], "--jobs"),
    ] {
        let message = scratch.fails(2, &[&["sweep", "recipe.yaml", "-o", "study"], args].concat());
        assert!(message.contains(expected), "{message}");
    }
}

/// A process may be forbidden to write more than so much, as on a full disk.
#[cfg(unix)]
#[test]
fn a_full_disk_ends_the_sweep_and_loses_nothing() {
    let scratch = scratch();
    scratch.ok(&["sweep", "recipe.yaml", "-o", "whole"]);
    let program = env!("CARGO_BIN_EXE_resprout");
    let script = format!("trap '' XFSZ; ulimit -f 16; exec '{program}' sweep recipe.yaml -o full");
    let output = std::process::Command::new("bash").args(["-c", &script]).current_dir(scratch.folder.path()).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("cannot write"), "{}", text(&output.stderr));
    scratch.ok(&["sweep", "recipe.yaml", "-o", "full"]);
    assert_eq!(journal(&scratch, "full"), journal(&scratch, "whole"));
}

#[test]
fn constraints_lead_to_a_recommendation() {
    let scratch = scratch();
    let shown = scratch.ok(&["sweep", "recipe.yaml", "-o", "study", "--at-most-loss", "2"]);
    assert!(shown.contains("Recommended: "), "{shown}");
    let best = &study(&scratch, "study")["models"][0];
    let loss = best["dense_value"].as_f64().unwrap() - best["recommended"]["point"]["value"].as_f64().unwrap();
    assert!(loss <= 0.02 + 1e-9, "{loss}");
    let shown = scratch.ok(&["sweep", "recipe.yaml", "-o", "study", "--at-most-bytes", "100"]);
    assert!(shown.contains("no measured point"), "{shown}");
}

#[test]
fn all_kinds_of_results_stand_side_by_side() {
    let scratch = scratch();
    let images = crate::util::digits_split(&scratch, 64, 200);
    let norm = crate::util::DIGITS_NORM;
    scratch.ok(&["sweep", "recipe.yaml", "-o", "study"]);
    let prune = ["prune", "digits.onnx", "-o", "sparse.onnx", "--sparsity", "0.9", "--repair", "bn", "--calibration", &images[0]];
    scratch.ok(&[&prune[..], &["--json", "sparse.json"], &norm].concat());
    scratch.ok(&["train", "--arch", "lenet-300-100", "--data", "digits", "--epochs", "1", "-o", "run"]);
    let measured = ["--data", &images[1], "--labels", &images[2], "--filter", "bn", "--json", "-"];
    let paths = ["compare", "digits.onnx", "sparse.onnx", "sparse.json", "run", "study"];
    let rows = scratch.ok(&[&paths[..], &measured, &norm].concat());
    let rows: serde_json::Value = serde_json::from_str(&rows).unwrap();
    let rows = rows.as_array().unwrap();
    // Two models, three networks of the report, a run, and of the study two repairs with bn of two allocations at four sparsities.
    assert_eq!(rows.len(), 2 + 3 + 1 + 16);
    assert!(rows[0]["agreement"].is_null() && rows[1]["agreement"].is_f64());
    assert_eq!(rows[1]["sparsity"], rows[3]["sparsity"]);
    assert!(rows[1]["top1"].as_f64().unwrap() > 0.5 && rows[5]["top1"].is_f64());
    assert!(scratch.ok(&["compare", "digits.onnx", "sparse.onnx"]).contains("smaller"));
    let shown = |format: &str| scratch.ok(&["compare", "digits.onnx", "sparse.onnx", "--format", format]);
    let csv = shown("csv");
    let lines: Vec<&str> = csv.lines().collect();
    assert!(lines.len() == 3 && lines[0].starts_with("name,sparsity,") && lines[1].starts_with("digits.onnx,"), "{csv}");
    assert!(lines[2].split(',').nth(1).unwrap().parse::<f64>().is_ok_and(|sparsity| (sparsity - 0.9).abs() < 1e-3), "{csv}");
    let markdown = shown("md");
    assert!(markdown.lines().count() == 4 && markdown.lines().all(|line| line.starts_with("| ") && line.ends_with(" |")));
    assert_eq!(shown("json"), scratch.ok(&["compare", "digits.onnx", "sparse.onnx", "--json", "-"]));
    assert!(scratch.fails(2, &["compare", "digits.onnx", "--format", "csv", "--json", "-"]).contains("--format"));
    scratch.file("other.json", b"{\"a\": 1}");
    assert!(scratch.fails(1, &["compare", "other.json"]).contains("other.json"));
    assert!(scratch.fails(2, &["compare", "run", "--data", &images[1]]).contains("--data"));
    assert!(scratch.fails(1, &["compare", "nowhere"]).contains("nowhere"));
}

#[test]
fn a_study_of_schema_version_1_is_read_under_its_old_keys() {
    let study = crate::util::root().join("record/2026-11-21-study-cifar.json");
    let shown = Scratch::new().ok(&["compare", study.to_str().unwrap(), "--filter", "least-squares"]);
    assert!(shown.lines().count() > 1 && shown.contains("ResNet-20"), "{shown}");
}
