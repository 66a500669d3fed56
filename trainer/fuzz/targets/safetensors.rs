//! Weights and checkpoints as safetensors.
#![no_main]

use datjob_trainer::weights;
use libfuzzer_sys::fuzz_target;
use tch::Kind;

fuzz_target!(|bytes: &[u8]| {
    for (_, tensor) in datjob_fuzz::with_file(bytes, weights::read).into_iter().flatten() {
        let numbers = tensor.numel();
        assert!(numbers <= bytes.len(), "{numbers} numbers of {} bytes", bytes.len());
        let _ = tensor.f_to_kind(Kind::Double).and_then(|tensor| tensor.f_sum(Kind::Double)).expect("a sum");
    }
});
