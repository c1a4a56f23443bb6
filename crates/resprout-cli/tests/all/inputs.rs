//! What users bring: networks that take bytes or channels last, files and folders that are not all read, names that are
//! nearly right.

use crate::util::{Scratch, field, model, node, number, tensor};
use serde_json::Value;

const GOLDEN: &[u8] = include_bytes!("../../../../testdata/golden/inputs.safetensors");

/// Shape and bytes of a tensor of the golden file (testdata/gen/inputs.py).
fn golden(name: &str) -> (Vec<usize>, &'static [u8]) {
    let length = u64::from_le_bytes(GOLDEN[..8].try_into().unwrap()) as usize;
    let header: Value = serde_json::from_slice(&GOLDEN[8..8 + length]).unwrap();
    let number = |value: &Value| value.as_u64().unwrap() as usize;
    let shape = header[name]["shape"].as_array().unwrap().iter().map(number).collect();
    let at = header[name]["data_offsets"].as_array().unwrap();
    (shape, &GOLDEN[8 + length..][number(&at[0])..number(&at[1])])
}

fn floats(name: &str) -> Vec<f32> {
    golden(name).1.as_chunks::<4>().0.iter().map(|&bytes| f32::from_le_bytes(bytes)).collect()
}

/// The network of a golden case as NAME.onnx, and its images as PNG files in NAME.
fn case(scratch: &Scratch, name: &str) {
    scratch.file(&format!("{name}.onnx"), golden(&format!("{name}.model")).1);
    let (shape, _) = golden(&format!("{name}.input"));
    let (last, scale) = (matches!(shape[3], 1 | 3), if name.starts_with("floats") { 255.0 } else { 1.0 });
    let [count, h, w, c] = if last { [shape[0], shape[1], shape[2], shape[3]] } else { [shape[0], shape[2], shape[3], shape[1]] };
    let values = floats(&format!("{name}.input"));
    for i in 0..count {
        let at = |y: usize, x: usize, k: usize| match last {
            true => values[((i * h + y) * w + x) * c + k],
            false => values[((i * c + k) * h + y) * w + x],
        };
        let pixel = |x: u32, y: u32| {
            image::Rgb([0, 1, 2].map(|k: usize| (at(y as usize, x as usize, k.min(c - 1)) * scale).round() as u8))
        };
        let mut bytes = std::io::Cursor::new(Vec::new());
        image::RgbImage::from_fn(w as u32, h as u32, pixel).write_to(&mut bytes, image::ImageFormat::Png).unwrap();
        scratch.file(&format!("{name}/{i}.png"), &bytes.into_inner());
    }
}

fn json(scratch: &Scratch, args: &[&str]) -> Value {
    serde_json::from_str(&scratch.ok(&[args, &["--json", "-"]].concat())).unwrap()
}

fn warnings(report: &Value) -> String {
    report["warnings"].as_array().unwrap().iter().map(|w| w.as_str().unwrap()).collect::<Vec<_>>().join("\n")
}

#[test]
fn image_files_reach_the_network_as_onnxruntime_was_fed() {
    let scratch = Scratch::new();
    let as_is = ["--resize", "0", "--crop", "0", "--top", "5"];
    for name in
        ["bytes_first", "bytes_last", "bytes_moved", "bytes_swapped", "floats_last", "floats_last_normalised", "grey_last"]
    {
        case(&scratch, name);
        let (file, images) = (format!("{name}.onnx"), name.to_string());
        let scale: &[&str] = if name.starts_with("floats") { &["--scale", "0.003921568627"] } else { &[] };
        let found = json(&scratch, &[&["run", &file, &images][..], &as_is, scale].concat());
        let expected = floats(&format!("{name}.output"));
        for (image, expected) in found["images"].as_array().unwrap().iter().zip(expected.chunks(5)) {
            for class in image["classes"].as_array().unwrap() {
                let (index, value) = (class[0].as_u64().unwrap() as usize, class[1].as_f64().unwrap() as f32);
                assert!((value - expected[index]).abs() < 1e-5, "{name}: class {index} is {value}, {} expected", expected[index]);
            }
        }
        let (layers, said) = (name != "floats_last", warnings(&found));
        assert_eq!(said.contains("normalise") && said.contains("act on the pixels"), layers, "{name}: {said}");
        scratch.ok(&["bench", &file, "--rounds", "1", "--threads", "1"]);
    }
}

#[test]
fn raw_pixels_are_chosen_for_bytes_and_what_is_given_wins() {
    let scratch = Scratch::new();
    case(&scratch, "bytes_last");
    let prune = |more: &[&str]| {
        let base = ["prune", "bytes_last.onnx", "-s", "0.5", "-o", "out.onnx", "--repair", "bn", "--calibration", "bytes_last"];
        json(&scratch, &[&base[..], more].concat())
    };
    let report = prune(&[]);
    let preprocess = &report["calibration"]["preprocess"];
    assert_eq!((preprocess["scale"].as_f64(), preprocess["bytes"].as_bool()), (Some(1.0), Some(true)), "{preprocess}");
    assert_eq!((preprocess["layout"].as_str(), preprocess["crop"].to_string()), (Some("channels_last"), "[12,10]".into()));
    let said = warnings(&report);
    for part in ["raw pixels, because input \"x\" takes bytes (uint8)", "\"cast_0\" (Cast), \"mul_1\" (Mul), \"sub_2\" (Sub)"] {
        assert!(said.contains(part), "{said}");
    }
    assert_eq!((report["repair"]["batch_norms"].as_u64(), report["repair"]["folded"].as_u64()), (Some(1), Some(1)));

    let report = prune(&["--preset", "imagenet", "--crop", "12x10", "--resize", "0"]);
    assert!(report["calibration"]["preprocess"]["bytes"].is_null());
    assert!(warnings(&report).contains("but the given preprocessing normalises the images: they are fed so as given"));
    let noise = ["prune", "bytes_last.onnx", "-s", "0.5", "-o", "noise.onnx", "--repair", "bn", "--data-free"];
    assert_eq!(json(&scratch, &noise)["calibration"]["data_free"], true);
    scratch.ok(&["eval", "out.onnx", "--reference", "bytes_last.onnx", "--data", "bytes_last"]);
    let text = scratch.ok(&["inspect", "bytes_last.onnx"]);
    assert!(text.contains("input x [N, 12, 10, 3] uint8"), "{text}");
}

/// A model with a typed input `x` of shape [N, 3, 8, 8].
fn typed(element: u64, nodes: &[Vec<u8>], tensors: &[Vec<u8>]) -> Vec<u8> {
    let dims: Vec<u8> = [3, 8, 8].iter().flat_map(|&dim| field(1, &number(1, dim))).collect();
    let shape = field(2, &[field(1, &field(2, b"N")), dims].concat());
    let input = [field(1, b"x"), field(2, &field(1, &[number(1, element), shape].concat()))].concat();
    let all = |tag: u8, parts: &[Vec<u8>]| parts.iter().flat_map(|part| field(tag, part)).collect::<Vec<u8>>();
    let graph = [all(1, nodes), all(5, tensors), field(11, &input), field(12, &field(1, b"y"))].concat();
    [number(1, 8), field(7, &graph), field(8, &number(2, 13))].concat()
}

fn weight() -> Vec<u8> {
    tensor("w", &[2, 3, 1, 1], &[1.0, 2.0, 3.0, 4.0, 5.0, 6.0])
}

#[test]
fn other_types_are_refused_by_name_and_can_be_pruned() {
    let scratch = Scratch::new();
    image_file(&scratch, "images/a.png");
    for (element, name) in [(3, "int8"), (10, "float16"), (11, "float64")] {
        scratch.file("typed.onnx", &typed(element, &[node("Conv", &["x", "w"], "y")], &[weight()]));
        for command in
            [&["eval", "typed.onnx", "--data", "images"][..], &["run", "typed.onnx", "images"], &["bench", "typed.onnx"]]
        {
            let message = scratch.fails(1, command);
            for part in ["typed.onnx: input \"x\" takes", name, "float32 or uint8", "repair none"] {
                assert!(message.contains(part), "{message}");
            }
        }
        scratch.ok(&["prune", "typed.onnx", "-s", "0.5", "-o", "out.onnx"]);
        std::fs::remove_file(scratch.path("out.onnx")).unwrap();
    }
}

fn image_file(scratch: &Scratch, name: &str) {
    let mut bytes = std::io::Cursor::new(Vec::new());
    let picture = image::RgbImage::from_fn(8, 8, |x, y| image::Rgb([(x * 31) as u8, (y * 30) as u8, (x * y * 4) as u8]));
    picture.write_to(&mut bytes, image::ImageFormat::Png).unwrap();
    scratch.file(name, &bytes.into_inner());
}

#[test]
fn every_missing_operation_is_named_with_the_file_by_every_command() {
    let scratch = Scratch::new();
    let mut second = node("DeformConv", &["e"], "f");
    // Another name than the first one's.
    second.extend(field(3, b"another"));
    let nodes = [node("Conv", &["x", "w"], "c"), node("DeformConv", &["c"], "e"), second, node("Det", &["f"], "y")];
    scratch.file("odd.onnx", &typed(1, &nodes, &[weight()]));
    for class in ["p/a.png", "p/b.png", "q/a.png", "q/b.png"] {
        image_file(&scratch, &format!("images/{class}"));
    }
    scratch.file("recipe.yaml", b"models: [odd.onnx]\ncalibration: images\ndata: images\npreset: raw\ncalibration_images: [2]\n");
    let prune = ["prune", "odd.onnx", "-s", "0.5", "-o", "out.onnx", "--calibration", "images"];
    let train =
        ["train", "--model", "odd.onnx", "--data", "images", "-o", "run", "--preset", "raw", "--validation", "0", "--batch", "2"];
    for command in [
        &prune[..],
        &["prune", "odd.onnx", "-s", "0.5", "-o", "out.onnx", "--repair", "bn", "--calibration", "images"],
        &["eval", "odd.onnx", "--data", "images"],
        &["run", "odd.onnx", "images"],
        &["bench", "odd.onnx"],
        &["compare", "odd.onnx", "--data", "images"],
        &["sweep", "recipe.yaml", "-o", "study"],
        &train,
    ] {
        let output = scratch.run(command);
        let message = crate::util::text(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{command:?}: {message}");
        for part in ["odd.onnx", "layer \"deformconv\" (DeformConv) and 1 more", "layer \"det\" (Det)", "repair none"] {
            assert!(message.contains(part), "{command:?}: {message:?} does not say {part:?}");
        }
        assert!(!scratch.path("out.onnx").exists(), "{command:?}");
    }
    scratch.ok(&["prune", "odd.onnx", "-s", "0.5", "-o", "out.onnx"]);
}

#[test]
fn weights_that_are_no_floats_are_left_dense_by_their_type() {
    let scratch = Scratch::new();
    for (element, bytes, name) in [(10, 2, "float16"), (11, 8, "float64"), (16, 2, "bfloat16"), (3, 1, "int8")] {
        let dims = [2, 3, 1, 1].iter().flat_map(|&dim| number(1, dim)).collect::<Vec<u8>>();
        let stored = [dims, number(2, element), field(8, b"w"), field(9, &vec![0; 6 * bytes])].concat();
        scratch.file("typed.onnx", &model(&[node("Conv", &["x", "w"], "y")], std::slice::from_ref(&stored)));
        let text = scratch.ok(&["inspect", "typed.onnx"]);
        assert!(text.contains(&format!("left dense ({name}, not 32-bit floats): w")), "{text}");
        let behind = [node("DequantizeLinear", &["w", "s"], "f"), node("Conv", &["x", "f"], "y")];
        scratch.file("typed.onnx", &model(&behind, &[stored, tensor("s", &[], &[1.0])]));
        let text = scratch.ok(&["inspect", "typed.onnx"]);
        assert!(text.contains(&format!("left dense ({name}, goes through DequantizeLinear before")), "{text}");
    }
}

#[test]
fn what_is_not_read_of_a_folder_is_counted_and_named() {
    let scratch = Scratch::new();
    scratch.file("net.onnx", &typed(1, &[node("Conv", &["x", "w"], "y")], &[weight()]));
    let said = |folder: &str| warnings(&json(&scratch, &["run", "net.onnx", folder, "--preset", "raw"]));
    image_file(&scratch, "flat/a.png");
    scratch.file("flat/labels.csv", b"a.png,0\n");
    assert!(!said("flat").contains("left out"), "{}", said("flat"));
    for name in ["a.bmp", "b.gif", "c.tiff", "d.txt"] {
        scratch.file(&format!("flat/{name}"), b"x");
    }
    image_file(&scratch, "flat/more/b.png");
    let text = said("flat");
    assert!(
        text.contains(
            "flat: 4 files were left out (another suffix than .jpg, .jpeg, .png or .webp): a.bmp, b.gif, c.tiff and 1 more"
        ),
        "{text}"
    );
    assert!(text.contains("flat: 1 folders were left out (beside image files): more"), "{text}");
    image_file(&scratch, "classes/cat/a.png");
    scratch.file("classes/cat/a.heic", b"x");
    scratch.file("classes/notes.txt", b"x");
    std::fs::create_dir_all(scratch.path("classes/void")).unwrap();
    let text = said("classes");
    assert!(text.contains("classes: 2 files were left out") && text.contains("notes.txt, a.heic"), "{text}");
    assert!(text.contains("classes: 1 folders hold no images, but count as classes: void"), "{text}");
    #[cfg(unix)]
    {
        std::os::unix::fs::symlink("nowhere", scratch.path("flat/z.png")).unwrap();
        assert!(said("flat").contains("1 files were left out (they cannot be opened): z.png"), "{}", said("flat"));
    }
    let table = scratch.ok(&["eval", "net.onnx", "--data", "flat", "--preset", "raw", "--labels", "none"]);
    assert!(table.contains("note: flat: 4 files were left out"), "{table}");
}

#[test]
fn names_that_are_nearly_right() {
    let scratch = Scratch::new();
    for (option, value, meant) in [
        ("--allocation", "lmap", "lamp"),
        ("--criterion", "magnitud", "magnitude"),
        ("--repair", "least-square", "least-squares"),
        ("--repair", "autoo", "auto"),
        ("--repair", "bn:varaint=ema", "variant"),
        ("--repair", "bn:variant=cummulative", "cumulative"),
        ("--preset", "imagnet", "imagenet"),
    ] {
        let more = ["--calibration", "digits-images-idx3-ubyte.gz"];
        let message =
            scratch.fails(2, &[&["prune", "digits.onnx", "-o", "o.onnx", "-s", "0.5", option, value][..], &more].concat());
        assert!(message.contains(&format!("did you mean {meant}?")), "{message}");
    }
    let message = scratch.fails(2, &["prune", "digits.onnx", "-o", "o.onnx", "-s", "0.5", "--repair", "glue"]);
    assert!(message.contains("least-squares, distill, auto") && !message.contains("did you mean"), "{message}");
    let message = scratch.fails(2, &["prune", "digits.onnx", "-o", "o.onnx", "-s", "0.5", "--repair", "auto,bn"]);
    assert!(message.contains("repair auto,bn: auto tries several repairs and stands alone"), "{message}");
    let listed: Value = serde_json::from_str(&scratch.ok(&["list", "--json"])).unwrap();
    assert!(listed["repairs"].as_array().unwrap().iter().any(|row| row["name"] == "auto"));
    scratch.file("recipe.yaml", b"models: [digits]\nallocations: [erkk]\n");
    let output = scratch.run(&["sweep", "recipe.yaml", "-o", "study"]);
    assert!(crate::util::text(&output.stderr).contains("did you mean erk?"));
}

#[test]
fn words_of_reports() {
    let scratch = Scratch::new();
    let text = scratch.ok(&["prune", "digits.onnx", "-o", "o.onnx", "-s", "0.9", "--format", "onnx-sparse"]);
    assert!(text.contains("`resprout bench` measures the real one") && !text.contains("not part of this version"), "{text}");
    assert!(text.contains("note: --format onnx-sparse: ONNX Runtime reads the file, most other tools do not"), "{text}");
    let text = scratch.ok(&["convert", "digits.onnx", "--format", "onnx-sparse", "-o", "p.onnx"]);
    assert!(text.contains("ONNX Runtime reads the file"), "{text}");
    assert_eq!(scratch.ok(&["convert", "digits.onnx", "-o", "q.onnx"]), "");

    // Weights into which BatchNormalization may be folded, under one threshold.
    scratch.file("plain.onnx", include_bytes!("../../../../testdata/golden/plain.onnx"));
    for (allocation, said) in [("global", true), ("lamp", false)] {
        let text = scratch.ok(&["prune", "plain.onnx", "-o", "f.onnx", "-s", "0.5", "--allocation", allocation]);
        assert_eq!(text.contains("--allocation global: BatchNormalization may be folded"), said, "{text}");
    }

    // One convolution, which is the output: nothing that recalibration could act on.
    scratch.file("net.onnx", &typed(1, &[node("Conv", &["x", "w"], "y")], &[weight()]));
    image_file(&scratch, "images/a.png");
    let base = ["prune", "net.onnx", "-o", "n.onnx", "-s", "0.5", "--preset", "raw", "--calibration", "images", "--repair", "bn"];
    let text = scratch.ok(&base);
    assert!(
        text.contains("note: repair bn: there was nothing to repair in this network: it has no BatchNormalization"),
        "{text}"
    );
    let calibrated =
        ["--repair", "bn", "--calibration", "digits-images-idx3-ubyte.gz", "--scale", "1", "--mean", "4.884", "--std", "6.017"];
    let text = scratch.ok(&[&["prune", "digits.onnx", "-o", "r.onnx", "-s", "0.5"][..], &calibrated].concat());
    assert!(text.contains("recalibrated: 9 layers by their BatchNormalization, 0 by weights and bias"), "{text}");
}
