//! ONNX, sparse initializers among the rest: an error, or a model that can be written in every way and read again.
#![no_main]

use libfuzzer_sys::fuzz_target;
use resprout::formats::onnx::{self, Storage};

fuzz_target!(|bytes: &[u8]| {
    if let Ok(model) = onnx::parse(bytes.to_vec(), None) {
        for storage in [Storage::Dense, Storage::Sparse] {
            // A graph may ask for what cannot be written, an initializer twice say; it must not panic.
            if let Ok(written) = onnx::encode_as(&model, storage) {
                let _ = onnx::parse(written, None);
            }
        }
    }
});
