//! What `torch.save` writes: the archive, and the pickle within one.
#![no_main]

use std::path::Path;

use datjob_trainer::weights;
use libfuzzer_sys::fuzz_target;
use tch::Kind;

fn check(path: &Path) {
    for (_, tensor) in weights::read(path).into_iter().flatten() {
        // Reads every number: what lies outside of the storage would be outside of memory.
        if tensor.numel() < 1 << 20 {
            let _ = tensor.contiguous().f_to_kind(Kind::Double).and_then(|tensor| tensor.f_sum(Kind::Double));
        }
    }
}

fuzz_target!(|bytes: &[u8]| {
    if bytes.starts_with(b"PK") {
        datjob_fuzz::with_file(bytes, check);
    } else {
        let storage = [1; 48];
        let files = [("a/data.pkl", bytes), ("a/data/0", &storage[..]), ("a/data/1", &storage[..16])];
        datjob_fuzz::with_file(&datjob_fuzz::zip(&files), check);
    }
});
