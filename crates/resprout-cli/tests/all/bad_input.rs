//! Bad input: one clear message that names the culprit, an exit code other than 0, nothing written.

use crate::util::{DIGITS, DIGITS_NORM, Scratch, field, files, model, node, number, skipped, tensor, text};
use std::process::Stdio;

/// Prunes `name` and expects a message with all of `parts`.
fn refuses(scratch: &Scratch, code: i32, name: &str, more: &[&str], parts: &[&str]) {
    let base = ["prune", name, "-o", "out.onnx", "--sparsity", "0.5"];
    // A second --sparsity would be a usage error of its own.
    let base = if more.iter().any(|arg| arg.starts_with("--sparsity")) { &base[..4] } else { &base[..] };
    let message = scratch.fails(code, &[base, more].concat());
    for part in parts {
        assert!(message.contains(part), "{message:?} does not say {part:?}");
    }
    assert_eq!(message.lines().filter(|line| line.starts_with("error")).count(), 1, "{message}");
}

/// A model of one convolution with this weight.
fn conv(weight: Vec<u8>) -> Vec<u8> {
    model(&[node("Conv", &["x", "w"], "y")], &[weight])
}

#[test]
fn truncated_model() {
    let scratch = Scratch::new();
    for length in [10, 5000, DIGITS.len() - 1] {
        scratch.file("cut.onnx", &DIGITS[..length]);
        refuses(&scratch, 1, "cut.onnx", &[], &["cut.onnx", "cut off"]);
    }
}

#[test]
fn random_bytes() {
    let scratch = Scratch::new();
    let noise: Vec<u8> = (0..5000u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    scratch.file("noise.onnx", &noise);
    refuses(&scratch, 1, "noise.onnx", &[], &["noise.onnx", "not an ONNX model"]);
}

#[test]
fn empty_and_missing_model() {
    let scratch = Scratch::new();
    scratch.file("empty.onnx", b"");
    refuses(&scratch, 1, "empty.onnx", &[], &["empty.onnx", "the file is empty"]);
    refuses(&scratch, 1, "missing.onnx", &[], &["missing.onnx", "No such file"]);
    scratch.file("text.onnx", &number(1, 8));
    refuses(&scratch, 1, "text.onnx", &[], &["it has no graph"]);
}

#[test]
fn dimensions_that_overflow_or_do_not_fit() {
    let scratch = Scratch::new();
    scratch.file("huge.onnx", &conv(tensor("w", &[1 << 40, 1 << 40, 3, 3], &[])));
    refuses(&scratch, 1, "huge.onnx", &[], &["initializer \"w\"", "more elements than fit in memory"]);
    scratch.file("negative.onnx", &conv(tensor("w", &[u64::MAX, 1, 1, 1], &[1.0])));
    refuses(&scratch, 1, "negative.onnx", &[], &["initializer \"w\"", "[-1, 1, 1, 1] are negative"]);
    scratch.file("short.onnx", &conv(tensor("w", &[1, 1, 2, 2], &[1.0; 3])));
    refuses(&scratch, 1, "short.onnx", &[], &["initializer \"w\"", "needs 4 elements, the file holds 3"]);
}

#[test]
fn external_data_that_escapes_the_folder() {
    let scratch = Scratch::new();
    let secret = scratch.file("secret", &[0; 36]);
    let external = |location: &str| {
        let entry = [field(1, b"location"), field(2, location.as_bytes())].concat();
        let dims = [number(1, 1), number(1, 1), number(1, 3), number(1, 3)].concat();
        conv([dims, number(2, 1), field(8, b"w"), field(13, &entry), number(14, 1)].concat())
    };
    for location in ["../secret", secret.to_str().unwrap(), "weights/../../secret"] {
        scratch.file("model/out.onnx", &external(location));
        refuses(&scratch, 1, "model/out.onnx", &[], &["initializer \"w\"", "outside the model's folder; refused"]);
    }
    #[cfg(unix)]
    {
        std::os::unix::fs::symlink(&secret, scratch.path("model/link")).unwrap();
        scratch.file("model/out.onnx", &external("link"));
        refuses(&scratch, 1, "model/out.onnx", &[], &["leads outside the model's folder; refused"]);
    }
    // Inside the folder it is read, and what is written stands alone.
    scratch.file("model/weights", &[[0, 0, 128, 63], [0, 0, 0, 64]].concat().repeat(9)[..36]);
    scratch.file("model/in.onnx", &external("weights"));
    scratch.ok(&["prune", "model/in.onnx", "-o", "alone.onnx", "--sparsity", "0.5", "--allocation", "global"]);
    std::fs::remove_file(scratch.path("model/weights")).unwrap();
    let table = scratch.ok(&["inspect", "alone.onnx"]);
    assert!(table.contains("0.4444"), "4 of 9 weights are left: {table}");
}

#[test]
fn weights_that_are_not_numbers() {
    let scratch = Scratch::new();
    for value in [f32::NAN, f32::INFINITY] {
        scratch.file("nan.onnx", &conv(tensor("w", &[1, 1, 1, 3], &[1.0, value, 2.0])));
        refuses(&scratch, 1, "nan.onnx", &[], &["parameter \"w\"", "element 1 of 3 is"]);
    }
}

#[test]
fn a_weight_without_elements() {
    let scratch = Scratch::new();
    scratch.file("none.onnx", &conv(tensor("w", &[0, 3, 3, 3], &[])));
    refuses(&scratch, 1, "none.onnx", &[], &["layer \"conv\"", "weight \"w\"", "no elements"]);
}

#[test]
fn an_operation_that_is_not_supported_stops_the_forward_but_not_pruning() {
    let scratch = Scratch::new();
    let nodes = [node("Conv", &["x", "w"], "c"), node("DeformConv", &["c"], "y")];
    let weight = tensor("w", &[1, 3, 1, 2], &[1.0, 2.0, 3.0, 4.0, 5.0, 6.0]);
    scratch.file("odd.onnx", &model(&nodes, &[weight]));
    scratch.ok(&["prune", "odd.onnx", "-o", "fine.onnx", "--sparsity", "0.5", "--allocation", "global"]);
    scratch.file("images/a.png", &png(8, 8));
    let more = ["--repair", "bn", "--calibration", "images", "--preset", "raw", "--allocation", "global"];
    refuses(&scratch, 1, "odd.onnx", &more, &["layer \"deformconv\" (DeformConv)", "not among the supported operations"]);
}

#[test]
fn unknown_names() {
    let scratch = Scratch::new();
    for (option, value, part) in [
        ("--layer", "nowhere=0.5", "no prunable layer or weight has this name"),
        ("--layer", "fc", "NAME=SPARSITY is needed"),
        ("--ignore", "nowhere", "matches no layer with weights"),
        ("--ignore", "re:[", "regular expression"),
        ("--allocation", "fair", "there are uniform, uniform+, global, erk, lamp"),
        ("--criterion", "luck", "there are magnitude, rms, random, wanda, obs"),
        ("--repair", "glue", "there are none, bn"),
    ] {
        refuses(&scratch, 2, "digits.onnx", &[option, value], &[option.trim_start_matches("--"), part]);
    }
}

#[test]
fn sparsity_outside_its_range() {
    let scratch = Scratch::new();
    for value in ["-0.1", "1", "1.5", "NaN", "inf"] {
        refuses(&scratch, 2, "digits.onnx", &["--sparsity", value], &["--sparsity", "from 0 up to, but not including, 1"]);
    }
    scratch.fails(2, &["prune", "digits.onnx", "-o", "out.onnx", "--sparsity", "half"]);
}

#[test]
fn a_budget_that_cannot_be_met() {
    let scratch = Scratch::new();
    let more = ["--sparsity", "0.9", "--allocation", "erk", "--layer", "re:layer3=0"];
    refuses(&scratch, 2, "digits.onnx", &more, &["layer", "sparsity 0.9 needs"]);
    let more = ["--sparsity", "0.999", "--allocation", "uniform+"];
    refuses(&scratch, 2, "digits.onnx", &more, &["uniform+", "cannot be removed"]);
}

#[test]
fn a_repair_without_images() {
    let scratch = Scratch::new();
    for repair in ["bn", "auto", "none,bn"] {
        refuses(&scratch, 2, "digits.onnx", &["--repair", repair], &[&format!("--repair {repair}"), "needs --calibration"]);
    }
    refuses(&scratch, 2, "digits.onnx", &["--criterion", "obs"], &["--criterion obs", "needs --calibration"]);
}

#[test]
fn numbers_of_repair_that_make_no_sense() {
    let scratch = Scratch::new();
    for (option, value) in [("--memory", "0"), ("--memory", "NaN"), ("--steps", "0"), ("--steps", "1001")] {
        refuses(&scratch, 2, "digits.onnx", &[option, value], &[option.trim_start_matches("--")]);
    }
    for value in ["0", "some"] {
        refuses(&scratch, 2, "digits.onnx", &["--calibration-images", value], &["--calibration-images"]);
    }
    refuses(&scratch, 2, "digits.onnx", &["--checkpoint", "folder"], &["--checkpoint", "--steps"]);
    let images = "digits-images-idx3-ubyte.gz";
    refuses(&scratch, 2, "digits.onnx", &calibrated(images, &["--memory", "1e-9"]), &["memory", "one calibration image takes"]);
    let ema = ["--repair", "bn:variant=ema:batch=3", "--calibration-images", "4", "--calibration", images];
    refuses(&scratch, 2, "digits.onnx", &ema, &["a last batch of one image"]);
}

#[test]
fn calibration_images_that_are_not_numbers() {
    let scratch = Scratch::new();
    let header = format!("{:<117}\n", "{'descr': '<f4', 'fortran_order': False, 'shape': (3, 1, 8, 8), }");
    let mut pixels = vec![[0u8, 0, 128, 63]; 3 * 64];
    pixels[70] = f32::NAN.to_le_bytes();
    scratch.file("nan.npy", &[b"\x93NUMPY\x01\x00\x76\x00", header.as_bytes(), &pixels.concat()].concat());
    for repair in ["bn", "least-squares", "auto"] {
        refuses(&scratch, 1, "digits.onnx", &["--repair", repair, "--calibration", "nan.npy"], &["image 1", "NaN"]);
    }
}

#[test]
fn too_few_images_to_choose_by() {
    let scratch = Scratch::new();
    let more = ["--repair", "auto", "--calibration-images", "3", "--calibration", "digits-images-idx3-ubyte.gz"];
    refuses(&scratch, 1, "digits.onnx", &more, &["repair auto", "3 calibration images"]);
}

fn calibrated<'a>(path: &'a str, more: &[&'a str]) -> Vec<&'a str> {
    [&["--repair", "bn", "--calibration", path][..], &DIGITS_NORM, more].concat()
}

/// An 8-bit grey PNG.
fn png(width: u32, height: u32) -> Vec<u8> {
    let mut bytes = std::io::Cursor::new(Vec::new());
    image::GrayImage::from_fn(width, height, |x, y| image::Luma([(x * 31 + y * 7) as u8]))
        .write_to(&mut bytes, image::ImageFormat::Png)
        .unwrap();
    bytes.into_inner()
}

#[test]
fn empty_unreadable_and_missing_images() {
    let scratch = Scratch::new();
    std::fs::create_dir(scratch.path("void")).unwrap();
    refuses(&scratch, 1, "digits.onnx", &calibrated("void", &[]), &["void", "holds no"]);
    refuses(&scratch, 1, "digits.onnx", &calibrated("nowhere", &[]), &["nowhere", "no such file or folder"]);
    scratch.file("broken/a.png", &png(8, 8));
    scratch.file("broken/b.png", &png(8, 8)[..40]);
    refuses(&scratch, 1, "digits.onnx", &calibrated("broken", &[]), &["b.png", "cannot be read as an image"]);
    scratch.file("cut-images-idx3-ubyte", &[0, 0, 8, 3, 0, 0, 0, 9, 0, 0, 0, 8, 0, 0, 0, 8, 1, 2, 3]);
    refuses(
        &scratch,
        1,
        "digits.onnx",
        &calibrated("cut-images-idx3-ubyte", &[]),
        &["cut-images-idx3-ubyte", "the file holds 3"],
    );
    scratch.file("odd.bin", &[0; 5000]);
    refuses(&scratch, 1, "digits.onnx", &calibrated("odd.bin", &[]), &["odd.bin", "not a multiple of a CIFAR record"]);
    scratch.file("odd.npy", b"\x93NUMPY\x01\x00 nothing");
    refuses(&scratch, 1, "digits.onnx", &calibrated("odd.npy", &[]), &["odd.npy", "not a NumPy array"]);
}

#[test]
fn images_of_different_sizes() {
    let scratch = Scratch::new();
    scratch.file("mixed/a.png", &png(8, 8));
    scratch.file("mixed/b.png", &png(12, 10));
    refuses(&scratch, 1, "digits.onnx", &calibrated("mixed", &[]), &["a.png is 8x8", "b.png is 12x10", "resize or crop them"]);
    scratch.ok(&[
        &["prune", "digits.onnx", "-o", "out.onnx", "-s", "0.5"],
        &calibrated("mixed", &["--resize", "9", "--crop", "8"])[..],
    ]
    .concat());
    scratch.file("large/a.png", &png(9, 9));
    let message =
        scratch.fails(1, &[&["prune", "digits.onnx", "-o", "out2.onnx", "-s", "0.5"], &calibrated("large", &[])[..]].concat());
    assert!(message.contains("the model takes images of shape [any, 1, 8, 8]"), "{message}");
}

#[test]
fn preprocessing_that_makes_no_sense() {
    let scratch = Scratch::new();
    let images = "digits-images-idx3-ubyte.gz";
    for (option, value) in
        [("--std", "0"), ("--mean", "1,2"), ("--scale", "0"), ("--preset", "film"), ("--crop", "8y8"), ("--crop", "0x4")]
    {
        refuses(
            &scratch,
            2,
            "digits.onnx",
            &["--repair", "bn", "--calibration", images, option, value],
            &[option.trim_start_matches("--")],
        );
    }
    refuses(&scratch, 1, "digits.onnx", &calibrated(images, &["--crop", "9"]), &["8x8 pixels are smaller than the crop of 9x9"]);
}

#[test]
fn labels_of_the_wrong_number() {
    let scratch = Scratch::new();
    scratch.file("few.csv", b"3\n1\n4\n");
    scratch.file("words.csv", b"3\n1\nfour\n");
    let data = ["--data", "digits-images-idx3-ubyte.gz", "--labels"];
    refuses(&scratch, 1, "digits.onnx", &[&data[..], &["few.csv"]].concat(), &["few.csv", "3 labels for 1797 images"]);
    refuses(&scratch, 1, "digits.onnx", &[&data[..], &["words.csv"]].concat(), &["words.csv", "\"four\" is not a class number"]);
    scratch.file("high.csv", "12\n".repeat(1797).as_bytes());
    refuses(&scratch, 1, "digits.onnx", &[&data[..], &["high.csv"]].concat(), &["label 12, but the model has 10 classes"]);
}

#[test]
fn output_in_a_missing_folder() {
    let scratch = Scratch::new();
    let message = scratch.fails(2, &["prune", "digits.onnx", "-o", "no/where.onnx", "-s", "0.5"]);
    assert!(message.contains("--output no/where.onnx: the folder no does not exist"), "{message}");
    let message = scratch.fails(2, &["prune", "digits.onnx", "-o", ".", "-s", "0.5"]);
    assert!(message.contains("is a folder, a file name is needed"), "{message}");
    let message = scratch.fails(2, &["prune", "digits.onnx", "-o", "out.onnx", "-s", "0.5", "--json", "no/report.json"]);
    assert!(message.contains("--json no/report.json"), "{message}");
}

#[test]
fn a_full_disk() {
    let scratch = Scratch::new();
    let full = scratch.path("full");
    std::fs::create_dir(&full).unwrap();
    let mount = |args: &[&str]| std::process::Command::new(args[0]).args(&args[1..]).arg(&full).stderr(Stdio::null()).status();
    if !mount(&["mount", "-t", "tmpfs", "-o", "size=64k", "none"]).is_ok_and(|status| status.success()) {
        skipped("a_full_disk", "the right to mount a small tmpfs");
        return;
    }
    let output = scratch.run(&["prune", "digits.onnx", "-o", "full/out.onnx", "-s", "0.5"]);
    let left = files(&full);
    assert!(mount(&["umount"]).unwrap().success());
    let message = text(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{message}");
    assert!(message.contains("cannot write: full/out.onnx: No space left on device"), "{message}");
    assert!(left.is_empty(), "{left:?}");
}

#[cfg(unix)]
#[test]
fn interruption_leaves_what_was_there() {
    let scratch = Scratch::new();
    // Minutes of work in an array of images: header of version 1.0, then zeros.
    let header = format!("{{'descr': '|u1', 'fortran_order': False, 'shape': ({}, 1, 8, 8), }}", 400_000);
    let header = format!("{header:<117}\n");
    let array = [b"\x93NUMPY\x01\x00\x76\x00", header.as_bytes(), &vec![7; 400_000 * 64]].concat();
    scratch.file("many.npy", &array);
    scratch.file("out.onnx", b"older");
    let before = files(scratch.folder.path());
    let args = [&["prune", "digits.onnx", "-o", "out.onnx", "-s", "0.5", "--data", "many.npy"][..], &DIGITS_NORM].concat();
    let child = scratch.command(&args).stderr(Stdio::piped()).spawn().unwrap();
    std::thread::sleep(std::time::Duration::from_millis(700));
    let kill = std::process::Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
    assert!(kill.success(), "the work was over before it could be interrupted");
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("interrupted; nothing was written"), "{}", text(&output.stderr));
    assert_eq!(files(scratch.folder.path()), before);
    assert_eq!(std::fs::read(scratch.path("out.onnx")).unwrap(), b"older");
}

#[test]
fn safetensors_that_do_not_fit() {
    let scratch = Scratch::new();
    scratch.ok(&["prune", "digits.onnx", "-o", "w.safetensors", "-s", "0.5"]);
    let whole = std::fs::read(scratch.path("w.safetensors")).unwrap();
    scratch.file("cut.safetensors", &whole[..whole.len() / 2]);
    let message = scratch.fails(1, &["inspect", "digits.onnx", "--weights", "cut.safetensors"]);
    assert!(message.contains("cut.safetensors: not a safetensors file"), "{message}");
    scratch.file("other.onnx", &conv(tensor("w", &[1, 1, 1, 1], &[1.0])));
    let message = scratch.fails(1, &["inspect", "other.onnx", "--weights", "w.safetensors"]);
    assert!(message.contains("w.safetensors: the file's names are not the model's: 1 missing of 1 (\"w\")"), "{message}");
}

#[test]
fn patterns() {
    let scratch = Scratch::new();
    let prune = |more: &[&str], parts: &[&str]| {
        let message = scratch.fails(2, &[&["prune", "digits.onnx", "-o", "out.onnx"], more].concat());
        parts.iter().for_each(|part| assert!(message.contains(part), "{message:?} does not say {part:?}"));
    };
    for (pattern, part) in [("1:1", "2 to 32"), ("5:4", "up to"), ("0:4", "up to"), ("2:40", "2 to 32"), ("chanel", "channel")] {
        prune(&["--pattern", pattern], &["pattern", part]);
    }
    prune(&["--pattern", "2:4", "--sparsity", "0.5"], &["sparsity 0.5", "2:4"]);
    prune(&["--pattern", "2:4", "--allocation", "erk"], &["allocation erk", "2:4"]);
    prune(&["--pattern", "unstructured"], &["--sparsity"]);
    prune(&["--macs", "0.5"], &["macs 0.5", "channel"]);
    prune(&["--pattern", "channel", "--macs", "0"], &["macs 0"]);
    prune(&["--pattern", "channel", "--macs", "0.00001"], &["are left with one channel"]);
    prune(&["--pattern", "channel", "--sparsity", "0.5", "--criterion", "wanda"], &["criterion", "wanda"]);
    prune(&["--pattern", "channel", "--sparsity", "0.5", "--layer", "conv1=0.5"], &["layer"]);
    prune(&["--pattern", "channel", "--sparsity", "0.5", "--ignore", "re:."], &["no channel can go"]);
    prune(&["--pattern", "channel", "--sparsity", "0.5", "--criterion", "activation"], &["--calibration"]);
}

#[test]
fn a_folder_that_another_process_writes_is_refused() {
    let scratch = Scratch::new();
    let _lock = resprout::lock::FolderLock::take(&scratch.path("run")).unwrap();
    let images = ["--calibration", "digits-images-idx3-ubyte.gz"];
    let prune = ["prune", "digits.onnx", "-o", "out.onnx", "-s", "0.9", "--steps", "2", "--repair", "bn", "--checkpoint", "run"];
    let compress = ["compress", "digits.onnx", "--parameters", "0.5", "-o", "run"];
    for command in
        [&["train", "--arch", "resnet-20", "-o", "run"][..], &[&prune[..], &images].concat(), &[&compress[..], &images].concat()]
    {
        let error = scratch.fails(1, command);
        assert!(error.contains("run: ") && error.contains("is writing here"), "{error}");
        let left: Vec<_> = std::fs::read_dir(scratch.path("run")).unwrap().map(|file| file.unwrap().file_name()).collect();
        assert_eq!(left, [resprout::lock::FILE], "{}", command[0]);
    }
    assert!(!scratch.path("out.onnx").exists());
}
