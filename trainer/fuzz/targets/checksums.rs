//! The file SHA256SUMS of a bucket.
#![no_main]

use datjob_data::fuzzing;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    for (name, sum) in fuzzing::parse_checksums(bytes).into_iter().flatten() {
        assert!(!name.is_empty());
        assert!(sum.len() == 64 && sum.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f')));
    }
});
