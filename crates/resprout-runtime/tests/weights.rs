//! Files of weights of one network as PyTorch writes them, made by testdata/gen/weights.py.

use resprout_runtime::formats::{onnx, weights};
use resprout_runtime::model::Model;
use std::path::{Path, PathBuf};

fn file(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../testdata/golden/weights").join(name)
}

fn network() -> Model {
    onnx::read(&file("network.onnx")).unwrap()
}

/// The network with the file's weights, and the notes.
fn read(name: &str) -> (Model, String) {
    let mut model = network();
    let notes = weights::read_into(&mut model, &file(name)).unwrap();
    (model, notes.join("; "))
}

fn error(name: &str) -> String {
    let (mut model, before) = (network(), network());
    let error = weights::read_into(&mut model, &file(name)).unwrap_err().to_string();
    assert!(error.contains(name) && largest_difference(&model, &before) == 0.0, "{error}");
    error
}

fn largest_difference(a: &Model, b: &Model) -> f32 {
    let tensors = a.params.iter().filter_map(|(name, param)| Some((param.f32()?, b.params.f32(name).unwrap())));
    let all = tensors.flat_map(|(a, b)| a.data.iter().zip(&b.data).map(|(a, b)| (a - b).abs()));
    all.fold(0.0, f32::max)
}

#[test]
fn every_layout_holds_the_same_numbers() {
    let (plain, notes) = read("plain.safetensors");
    assert!(largest_difference(&plain, &network()) > 0.1 && notes.is_empty(), "{notes}");
    for (name, said) in [
        ("counters.safetensors", "left out: 1 counter (num_batches_tracked)"),
        ("zip.pth", "left out: 1 counter (num_batches_tracked)"),
        ("twenty-one-characters.pth", "num_batches_tracked"),
        ("legacy.pth", "num_batches_tracked"),
        ("protocol-4.pth", "num_batches_tracked"),
        ("no-crc.pth", "num_batches_tracked"),
        ("aligned.pth", "num_batches_tracked"),
        ("deflated.pth", "num_batches_tracked"),
        ("views.pth", "second names of tensors that are there (\"tied.weight\")"),
        ("views-legacy.pth", "num_batches_tracked"),
        ("parameters.pth", "num_batches_tracked"),
        ("double.pth", "8 tensors of type float64 became 32-bit floats"),
        ("module.safetensors", "\"module.\" was taken off the names of 9 tensors"),
        ("averaged.pth", "\"n_averaged\" (1 tensor)"),
        ("checkpoint.pth", "\"optimizer\" (18 tensors), \"state_dict_ema\" (9 tensors)"),
        ("checkpoint.pth", "\"_orig_mod.\" was taken off the names of 9 tensors"),
        ("checkpoint.pth", "\"args\", \"epoch\""),
        ("lightning.ckpt", "\"model.\" was taken off the names of 9 tensors"),
    ] {
        let (model, notes) = read(name);
        assert_eq!(largest_difference(&model, &plain), 0.0, "{name}");
        assert!(notes.contains(said), "{name}: {notes}");
    }
}

#[test]
fn numbers_of_sixteen_bits_are_widened() {
    for kind in ["half", "bfloat"] {
        let (expected, _) = read(&format!("{kind}-16.expected.safetensors"));
        for extension in ["pth", "safetensors"] {
            let (model, notes) = read(&format!("{kind}-16.{extension}"));
            assert_eq!(largest_difference(&model, &expected), 0.0, "{kind} {extension}");
            assert!(notes.contains("float16 became 32-bit floats"), "{notes}");
        }
    }
}

#[test]
fn masks_and_norms_are_computed() {
    let (expected, _) = read("pruned.expected.safetensors");
    for name in ["pruned.pth", "pruned.safetensors"] {
        let (model, notes) = read(name);
        assert_eq!(largest_difference(&model, &expected), 0.0, "{name}");
        let mask = model.masks.get("conv.weight").unwrap();
        assert_eq!((mask.kept(), mask.0.len()), (36, 72), "{name}");
        assert!(notes.contains("1 parameter came with a mask"), "{notes}");
    }
    let (plain, _) = read("plain.safetensors");
    for name in ["norm.pth", "norm-old.pth"] {
        let (model, notes) = read(name);
        let difference = largest_difference(&model, &plain);
        assert!(difference < 1e-7, "{name}: {difference}");
        assert!(notes.contains("1 weight computed from length and direction"), "{notes}");
    }
}

#[test]
fn unsupported_files_are_named() {
    for (name, said) in [
        ("module.pth", "a whole network as a Python object (__main__.Network)"),
        ("module-inside.pth", "under \"model\""),
        ("script.pth", "TorchScript"),
        ("list.pth", "a list, not a dict of tensors"),
        ("missing.pth", "2 missing of 8 (\"fc.bias\", \"fc.weight\"), 0 unexpected"),
        ("names.pth", "8 missing of 8 (\"bn.bias\", \"bn.running_mean\", \"bn.running_var\", \"bn.weight\", ...), 8 unexpected"),
        ("quantized.pth", "\"fc.weight\": a tensor of a kind that cannot be read (torch._utils._rebuild_qtensor)"),
        ("spectral.pth", "remove_spectral_norm"),
        ("spectral-new.pth", "remove_parametrizations"),
        ("empty.pth", "\"fc.bias\": shape [0] in the file, [3] in the model"),
        ("network.onnx", "no file of weights"),
    ] {
        let message = error(name);
        assert!(message.contains(said), "{name}: {message}");
    }
}

/// A file that is cut short or has changed bytes is an error or a network, and never a panic.
#[test]
fn broken_files_are_errors() {
    let mut random = 1u64;
    let mut below = |n: usize| {
        random = random.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (random >> 33) as usize % n
    };
    for name in [
        "zip.pth",
        "legacy.pth",
        "deflated.pth",
        "views.pth",
        "checkpoint.pth",
        "pruned.pth",
        "module.pth",
        "half-16.safetensors",
    ] {
        let bytes = std::fs::read(file(name)).unwrap();
        let kind = weights::kind(&file(name)).unwrap().unwrap();
        let mut failed = 0;
        for turn in 0..400 {
            let mut broken = bytes.clone();
            match turn % 4 {
                0 => broken.truncate(below(bytes.len())),
                _ => (0..turn % 4).for_each(|_| broken[below(bytes.len())] ^= 1 << below(8)),
            }
            failed += usize::from(weights::decode_into(&mut network(), &broken, kind).is_err());
        }
        assert!(failed > 100, "{name}: {failed}");
    }
}
