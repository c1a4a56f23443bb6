//! Sparse safetensors: whatever the bytes are, an error or a network that can be written again.
#![no_main]

use libfuzzer_sys::fuzz_target;
use resprout::formats::{onnx, sparse};

fuzz_target!(|bytes: &[u8]| {
    if let Ok(Some(model)) = sparse::decode(bytes) {
        let again = sparse::encode(&model).expect("what was read can be written");
        let back = sparse::decode(&again).expect("what was written can be read").expect("with its network");
        assert_eq!(back.masks, model.masks);
        assert_eq!(back.params.iter().count(), model.params.iter().count());
        let _ = onnx::encode(&model);
    }
});
