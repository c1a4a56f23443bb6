//! `compress`: from a wish to a network.

use crate::util::{DIGITS_NORM, Scratch, text};
use serde_json::Value;

/// A search on the digits with few images.
fn arguments<'a>(more: &[&'a str]) -> Vec<&'a str> {
    arguments_of("60", more)
}

fn arguments_of<'a>(count: &'a str, more: &[&'a str]) -> Vec<&'a str> {
    let images = ["--calibration", "digits-images-idx3-ubyte.gz", "--calibration-images", count];
    [&["compress", "digits.onnx", "--quiet"][..], &images, &DIGITS_NORM, more].concat()
}

fn report(scratch: &Scratch, folder: &str) -> Value {
    serde_json::from_slice(&std::fs::read(scratch.path(folder).join("report.json")).unwrap()).unwrap()
}

#[test]
fn a_wish_is_kept_and_its_network_made_again_by_the_command_that_is_printed() {
    let scratch = Scratch::new();
    let search = arguments(&["--parameters", "0.3", "--pattern", "both", "--max-loss", "90", "-o", "small"]);
    let printed = scratch.ok(&search);
    let first = report(&scratch, "small");
    let nearest = first["nearest"].as_u64().unwrap() as usize;
    assert_eq!(first["chosen"], first["nearest"]);
    assert!(first["rows"][nearest]["cost"]["parameters"].as_f64().unwrap() <= 0.3);
    assert!(printed.contains("It keeps the wish"), "{printed}");
    let page = std::fs::read_to_string(scratch.path("small/report.html")).unwrap();
    assert!(page.contains("<svg") && page.contains("Make it again"));
    for ending in ["svg", "pdf", "csv"] {
        assert!(scratch.path(&format!("small/points-lost-by-speed.{ending}")).is_file(), "{ending}");
    }

    // The command writes the same bytes.
    let network = std::fs::read(scratch.path("small/model.onnx")).unwrap();
    for command in first["commands"].as_array().unwrap() {
        scratch.ok(&command.as_str().unwrap().split(' ').skip(1).chain(["--quiet"]).collect::<Vec<_>>());
    }
    assert!(network == std::fs::read(scratch.path("small/model.onnx")).unwrap());

    // The same command again measures nothing, and another wish uses what is there.
    scratch.ok(&search);
    assert_eq!(report(&scratch, "small")["rows"], first["rows"]);
    scratch.ok(&arguments(&["--parameters", "0.3", "--pattern", "unstructured", "-o", "small"]));
    let rows = report(&scratch, "small")["rows"].as_array().unwrap().clone();
    assert_eq!(rows[..first["rows"].as_array().unwrap().len()], first["rows"].as_array().unwrap()[..]);
    let message = scratch.fails(2, &arguments(&["--parameters", "0.3", "--ignore", "fc", "-o", "small"]));
    assert!(message.contains("candidates.json"), "{message}");
}

#[test]
fn a_bound_on_the_loss_alone_gives_the_fastest_network_within_it() {
    let scratch = Scratch::new();
    scratch.ok(&arguments(&["--max-loss", "40", "--pattern", "unstructured", "-o", "small"]));
    let report = report(&scratch, "small");
    let full = |row: &&Value| row["stage"] == "full";
    let chosen = &report["rows"][report["chosen"].as_u64().unwrap() as usize];
    let within = |row: &Value| row["loss"]["points"].as_f64().unwrap() <= 40.0;
    assert!(within(chosen));
    let faster = |row: &Value| row["cost"]["faster"].as_f64().unwrap();
    let rows = report["rows"].as_array().unwrap();
    assert!(rows.iter().filter(full).filter(|row| within(row)).all(|row| faster(row) <= faster(chosen)));
}

#[test]
fn a_wish_that_no_network_keeps_is_an_error_with_the_frontier() {
    let scratch = Scratch::new();
    let output = scratch.run(&arguments_of("150", &["--macs", "0.1", "--max-loss", "0", "--pattern", "channel", "-o", "small"]));
    let message = text(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{message}");
    assert!(message.contains("no network keeps the wish") && message.contains("report.html"), "{message}");
    let report = report(&scratch, "small");
    let rows: Vec<&Value> = report["rows"].as_array().unwrap().iter().filter(|row| row["stage"] == "full").collect();
    let number = |row: &Value, part: &str, key: &str| row[part][key].as_f64().unwrap();
    // The frontier goes on where networks do more than wished, but lose less.
    let least = rows.iter().map(|row| number(row, "loss", "points")).fold(f64::INFINITY, f64::min);
    let small_enough = |row: &&&Value| number(row, "cost", "macs") <= 0.1;
    let least_of_small = rows.iter().filter(small_enough).map(|row| number(row, "loss", "points")).fold(f64::INFINITY, f64::min);
    assert!(report["kept"] == false && least < least_of_small, "{rows:?}");
    // The closest network misses the wish least in points and operations together.
    let miss = |row: &Value| number(row, "loss", "points") + (number(row, "cost", "macs") / 0.1 - 1.0).max(0.0);
    let nearest = &report["rows"][report["nearest"].as_u64().unwrap() as usize];
    assert!(rows.iter().all(|row| miss(row) >= miss(nearest) - 1e-9), "{nearest}");
}

#[test]
fn wrong_wishes_are_refused() {
    let scratch = Scratch::new();
    let refused = |code: i32, more: &[&str], expected: &str| {
        let message = scratch.fails(code, &arguments(&[more, &["-o", "small"]].concat()));
        assert!(message.contains(expected), "{message}");
    };
    refused(2, &[], "--max-loss");
    refused(2, &["--faster", "-2"], "faster -2");
    refused(2, &["--macs", "1.5"], "macs 1.5");
    refused(2, &["--max-loss", "nan"], "max-loss NaN");
    refused(2, &["--faster", "2", "--budget", "0"], "--budget 0");
    refused(2, &["--faster", "2", "--memory", "0"], "--memory 0");
    refused(2, &["--faster", "2", "--pattern", "2:4"], "2:4");
    refused(1, &["--faster", "2", "--data", "nothing"], "nothing");
    let few = ["compress", "digits.onnx", "--calibration", "digits-images-idx3-ubyte.gz", "--calibration-images", "11"];
    let message = scratch.fails(1, &[&few[..], &DIGITS_NORM, &["--faster", "2", "-o", "small"]].concat());
    assert!(message.contains("11 calibration images"), "{message}");
}
