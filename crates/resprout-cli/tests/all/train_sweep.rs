//! `resprout sweep` with grids of training.

use crate::util::Scratch;
use std::process::Stdio;
use std::time::Duration;

/// Two dense cells, and eight of two methods, with two seeds. LeNets of the embedded digits: a cell takes well under a second.
const RECIPE: &str = "train:\n  architectures: [lenet-300-100]\n  methods: [\"gmp:every=0.5\"]\n  prune_at_init: [snip]\n  \
                      sparsities: [0.8, 0.95]\n  seeds: [0, 1]\n  epochs: 3\n  batch: 50\n  rate: 0.05\n";

fn scratch() -> Scratch {
    let scratch = Scratch::new();
    scratch.file("recipe.yaml", RECIPE.as_bytes());
    scratch
}

fn read(scratch: &Scratch, file: &str) -> String {
    crate::util::read(&scratch.path(file))
}

#[test]
fn a_cell_says_what_train_says() {
    let scratch = scratch();
    let shown = scratch.ok(&["sweep", "recipe.yaml", "-o", "study"]);
    assert!(shown.contains("10 cells measured now") && shown.contains("Best at 95.00 %: "), "{shown}");
    let args = ["--method", "gmp:every=0.5", "--sparsity", "0.95", "--seed", "1", "--epochs", "3", "--batch", "50"];
    let run = ["train", "--arch", "lenet-300-100", "--rate", "0.05", "-o", "run", "--quiet", "--json", "-"];
    let report: serde_json::Value = serde_json::from_str(&scratch.ok(&[&run[..], &args].concat())).unwrap();
    let journal = read(&scratch, "study/journal.jsonl");
    let records = journal.lines().map(|line| serde_json::from_str(line.splitn(3, ' ').nth(2).unwrap()).unwrap());
    let records: Vec<serde_json::Value> = records.collect();
    let wanted = |cell: &serde_json::Value| cell["method"] == "gmp:every=0.5" && cell["sparsity"] == 0.95 && cell["seed"] == 1;
    let result = &records.iter().find(|record| wanted(&record["cell"])).unwrap()["result"];
    assert_eq!(result["test"], report["outcome"]["test"]);
    assert_eq!(result["best"], report["outcome"]["best"]);
    for (ours, theirs) in result["epochs"].as_array().unwrap().iter().zip(report["outcome"]["rows"].as_array().unwrap()) {
        assert!(ours["loss"] == theirs["loss"] && ours["validation_accuracy"] == theirs["validation_accuracy"]);
    }
    assert!(!journal.contains("second") && !scratch.path("study/runs").exists());
    // Means over both seeds, everywhere.
    let study: serde_json::Value = serde_json::from_str(&read(&scratch, "study/study.json")).unwrap();
    let curve = &study["networks"][0]["curves"][1];
    let mean = curve["points"][1]["value"].as_f64().unwrap();
    assert_eq!(curve["points"][1]["seeds"], 2);
    let words = format!("{:.2} ± {:.2}", mean * 100.0, curve["points"][1]["sd"].as_f64().unwrap() * 100.0);
    assert!(shown.contains(&words) && read(&scratch, "study/table.md").contains(&words), "{words}: {shown}");
    assert!(read(&scratch, "study/table.tex").contains(&words.replace('±', "$\\pm$")));
    assert_eq!(read(&scratch, "study/table.csv").lines().count(), 1 + 1 + 4);
    let page = read(&scratch, "study/report.html");
    assert!(page.contains("snip before training") && page.contains("<svg") && !page.contains("src=\"http"));
    let figure = read(&scratch, "study/figures/lenet-300-100-validation-accuracy-by-epoch-at-95.csv");
    assert_eq!(figure.lines().count(), 1 + 3 * 3, "{figure}");
    let rows = scratch.ok(&["compare", "study", "run", "--format", "csv"]);
    assert_eq!(rows.lines().count(), 1 + 5 + 1, "{rows}");
    // A study of another kind does not go into this folder, and nothing is dropped.
    scratch.file("repairs.yaml", b"models: [digits]\nrepairs: [none]\n");
    let message = scratch.fails(1, &["sweep", "repairs.yaml", "-o", "study", "--repair-journal"]);
    assert!(message.contains("line 1 is of another kind of study"), "{message}");
    assert_eq!(read(&scratch, "study/journal.jsonl"), journal);
}

#[test]
fn shards_jobs_and_order_change_no_bit() {
    let scratch = scratch();
    scratch.ok(&["sweep", "recipe.yaml", "-o", "whole"]);
    scratch.ok(&["sweep", "recipe.yaml", "-o", "shards", "--shard", "2/2", "--jobs", "2"]);
    scratch.ok(&["sweep", "recipe.yaml", "-o", "elsewhere", "--shard", "1/2", "--threads", "1"]);
    let merge = ["sweep", "recipe.yaml", "-o", "shards", "--merge", "elsewhere/journal-1-of-2.jsonl"];
    let merged = scratch.ok(&merge);
    assert!(merged.contains("0 cells measured now"), "{merged}");
    for file in ["journal.jsonl", "study.json", "table.csv"] {
        assert_eq!(read(&scratch, &format!("shards/{file}")), read(&scratch, &format!("whole/{file}")), "{file}");
    }
    // A cell has the same line under other lists, and images that lie elsewhere.
    let other = RECIPE.replace("seeds: [0, 1]", "seeds: [1, 0]").replace("sparsities: [0.8, 0.95]", "sparsities: [0.95, 0.8]");
    scratch.file("other.yaml", other.as_bytes());
    scratch.ok(&["sweep", "other.yaml", "-o", "other"]);
    let sorted = |folder: &str| {
        let journal = read(&scratch, &format!("{folder}/journal.jsonl"));
        let mut lines: Vec<String> = journal.lines().map(String::from).collect();
        lines.sort();
        lines
    };
    assert_eq!(sorted("other"), sorted("whole"));
}

#[test]
fn killed_in_the_middle_of_cells_it_ends_as_if_it_had_not_been() {
    let scratch = Scratch::new();
    // Longer cells, so that kills hit them between epochs.
    let recipe = RECIPE.replace("epochs: 3", "epochs: 8").replace("lenet-300-100", "resnet-20").replace("[0.8, 0.95]", "[0.8]");
    scratch.file("recipe.yaml", recipe.replace("seeds: [0, 1]", "seeds: [0]").as_bytes());
    let started = std::time::Instant::now();
    scratch.ok(&["sweep", "recipe.yaml", "-o", "whole"]);
    let cell = started.elapsed() / 3;
    let mut resumed = 0;
    for moment in 0..4u32 {
        let mut child = scratch.command(&["sweep", "recipe.yaml", "-o", "killed"]).stdout(Stdio::null()).spawn().unwrap();
        std::thread::sleep(cell.mul_f64(0.4 + 0.1 * f64::from(moment)).max(Duration::from_millis(50)));
        child.kill().unwrap();
        child.wait().unwrap();
        let runs = std::fs::read_dir(scratch.path("killed/runs")).into_iter().flatten().flatten();
        resumed += runs.filter(|run| run.path().join("last.safetensors").exists()).count();
    }
    assert!(resumed > 0, "no kill left a checkpoint");
    scratch.ok(&["sweep", "recipe.yaml", "-o", "killed"]);
    for file in ["journal.jsonl", "study.json"] {
        assert_eq!(read(&scratch, &format!("killed/{file}")), read(&scratch, &format!("whole/{file}")), "{file}");
    }
    assert!(!scratch.path("killed/runs").exists());
    assert!(scratch.ok(&["sweep", "recipe.yaml", "-o", "killed"]).contains("0 cells measured now"));
}

#[test]
fn wrong_grids_are_refused_by_file_and_key() {
    let scratch = scratch();
    let wrong = |from: &str, to: &str, code: i32, expected: &str| {
        assert!(RECIPE.contains(from));
        scratch.file("wrong.yaml", RECIPE.replace(from, to).as_bytes());
        let message = scratch.fails(code, &["sweep", "wrong.yaml", "-o", "study"]);
        assert!(message.contains("wrong.yaml: train: ") && message.contains(expected), "{to}: {message}");
    };
    wrong("[\"gmp:every=0.5\"]", "[magic]", 2, "methods: method \"magic\"");
    wrong("[\"gmp:every=0.5\"]", "[gmp, gmp]", 2, "methods: gmp is there twice");
    wrong("[\"gmp:every=0.5\"]", "[dense]", 2, "methods: dense");
    wrong("[\"gmp:every=0.5\"]", "gmp", 2, "methods: invalid type");
    wrong("[\"gmp:every=0.5\"]", "[\"imp:levels=9\"]", 2, "methods: method imp: 9 levels");
    wrong("[snip]", "[snap]", 2, "prune_at_init: pruning at initialisation \"snap\"");
    wrong("[0.8, 0.95]", "[0.8, 1.0]", 2, "sparsities: 1");
    wrong("[0.8, 0.95]", "[0]", 2, "sparsities: 0");
    wrong("[0.8, 0.95]", "[]", 2, "sparsities: at least one");
    wrong("[lenet-300-100]", "[lenet-3]", 2, "architectures: architecture \"lenet-3\"");
    wrong("  epochs: 3", "  repair_init: [bn]\n  epochs: 3", 2, "repair_init: ");
    wrong("  epochs: 3", "  calibration_images: [64]\n  epochs: 3", 2, "calibration_images: there is no such key");
    wrong("  epochs: 3", "  epoch: 3", 2, "did you mean epochs?");
    wrong("  epochs: 3", "  sparsity: 0.9\n  epochs: 3", 2, "sparsity: a grid has a list of them, sparsities");
    wrong("  epochs: 3", "  epochs: 0", 2, "epochs 0");
    wrong("  epochs: 3", "  data: nowhere\n  epochs: 3", 1, "data: nowhere");
    wrong("  epochs: 3", "  data: digits-images-idx3-ubyte.gz\n  epochs: 3", 2, "test");
    scratch.file("both.yaml", format!("{RECIPE}models: [digits]\n").as_bytes());
    let message = scratch.fails(2, &["sweep", "both.yaml", "-o", "study"]);
    assert!(message.contains("both.yaml: models: "), "{message}");
    let message = scratch.fails(2, &["sweep", "recipe.yaml", "-o", "study", "--delta", "3"]);
    assert!(message.contains("--delta"), "{message}");
}

#[test]
fn a_cell_that_cannot_be_trained_does_not_stop_the_others() {
    let scratch = Scratch::new();
    // LeNet-5 needs images of 28x28.
    scratch.file("recipe.yaml", RECIPE.replace("[lenet-300-100]", "[lenet-5, lenet-300-100]").as_bytes());
    let output = scratch.run(&["sweep", "recipe.yaml", "-o", "study"]);
    assert_eq!(output.status.code(), Some(1));
    let message = crate::util::text(&output.stderr);
    assert!(
        message.contains("lenet-5: snip before training at 80.00 %, seed 1: ") && message.contains("10 of the study"),
        "{message}"
    );
    assert_eq!(read(&scratch, "study/journal.jsonl").lines().count(), 10);
}

/// A stand-in for `sbatch` runs the scripts at once, the array in reverse order.
#[cfg(unix)]
#[test]
fn a_slurm_array_gives_the_journal_of_one_run() {
    use std::os::unix::fs::PermissionsExt;
    let scratch = scratch();
    scratch.ok(&["sweep", "recipe.yaml", "-o", "whole"]);
    let script = "#!/bin/sh\nfor script; do :; done\ncase $script in\n*sweep.sbatch) for i in 3 2 1; do SLURM_ARRAY_TASK_ID=$i sh $script; done;;\n\
                  *) sh $script;;\nesac >&2\necho 7\n";
    let path = scratch.file("bin/sbatch", script.as_bytes());
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    let paths = std::env::join_paths([scratch.path("bin"), "/usr/bin".into(), "/bin".into()]).unwrap();
    let args = ["sweep", "recipe.yaml", "-o", "slurm", "--launcher", "slurm", "--shards", "3"];
    let output = scratch.command(&args).env("PATH", paths).output().unwrap();
    assert!(output.status.success(), "{}", crate::util::text(&output.stderr));
    assert!(scratch.path("slurm/journal-3-of-3.jsonl").exists());
    assert_eq!(read(&scratch, "slurm/journal.jsonl"), read(&scratch, "whole/journal.jsonl"));
}
