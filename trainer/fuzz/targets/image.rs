//! JPEG and PNG images.
#![no_main]

use datjob_data::fuzzing;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    if let Ok((width, height, pixels)) = fuzzing::decode(bytes) {
        assert!(width > 0 && height > 0);
        assert_eq!(pixels.len() as u64, u64::from(width) * u64::from(height) * 3);
    }
});
