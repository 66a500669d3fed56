//! The archive of `torch.save`, and the pickle within one.
#![no_main]

use std::path::Path;

use datjob_data::weights;
use libfuzzer_sys::fuzz_target;

fn check(path: &Path) {
    for (_, tensor) in weights::read(path).into_iter().flat_map(|file| file.tensors) {
        datjob_fuzz::assert_tensor_size(&tensor);
    }
}

fuzz_target!(|bytes: &[u8]| {
    if bytes.starts_with(b"PK") {
        datjob_fuzz::with_file(bytes, check);
    } else {
        let storage = [1; 48];
        let files = [("a/data.pkl", bytes), ("a/data/0", &storage[..]), ("a/data/1", &storage[..16])];
        datjob_fuzz::with_file(&datjob_fuzz::zip_archive(&files), check);
    }
});
