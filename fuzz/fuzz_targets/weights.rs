//! Checkpoints of PyTorch and safetensors files: whatever the bytes are, an error or a network.
#![no_main]

use libfuzzer_sys::fuzz_target;
use resprout::architectures::{Shape, build};
use resprout::formats::weights::{Kind, decode_into};

fuzz_target!(|bytes: &[u8]| {
    let shape = Shape { classes: None, image: None };
    let mut model = build("lenet-5", &shape, "kaiming-in", 0).expect("an architecture of the table");
    for kind in [Kind::Torch, Kind::Safetensors] {
        let _ = decode_into(&mut model, bytes, kind);
    }
});
