//! The binary version of CIFAR-100, which has two labels per record.
#![no_main]

use datjob_api::training::Dataset;
use datjob_data::fuzzing;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let test = [0; 3074];
    let dir = datjob_fuzz::temporary_folder(&[("train.bin", bytes), ("test.bin", &test)]);
    if let Ok(data) = fuzzing::load_small(Dataset::Cifar100, dir.path()) {
        assert_eq!((data.train.len(), data.test.len()), fuzzing::IMAGE_COUNTS);
        assert!((0..data.train.len()).all(|image| i64::from(data.train.label(image)) < data.classes));
        data.train.read(&[0, 1], None).expect("images in memory can be read");
    }
});
