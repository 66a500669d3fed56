//! Weights and checkpoints in safetensors format.
#![no_main]

use datjob_data::weights;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    for (_, tensor) in datjob_fuzz::with_file(bytes, weights::read).into_iter().flatten() {
        datjob_fuzz::assert_tensor_size(&tensor);
        assert!(tensor.bytes.len() <= bytes.len(), "{} bytes of {}", tensor.bytes.len(), bytes.len());
    }
});
