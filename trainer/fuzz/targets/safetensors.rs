//! Weights and checkpoints in safetensors format.
#![no_main]

use datjob_data::weights;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let Ok(file) = datjob_fuzz::with_file(bytes, weights::read) else { return };
    let _ = file.card.as_deref().map(weights::WeightsCard::from_json);
    for (_, tensor) in file.tensors {
        datjob_fuzz::assert_tensor_size(&tensor);
        assert!(tensor.bytes.len() <= bytes.len(), "{} bytes of {}", tensor.bytes.len(), bytes.len());
    }
});
