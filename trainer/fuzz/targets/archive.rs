//! A tar or tar.gz archive of a data set: unpacking must not write outside the folder.
#![no_main]

use datjob_api::training::Dataset;
use datjob_data::fuzzing;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let Some((choice, archive)) = bytes.split_first() else { return };
    let dataset = if choice % 2 == 0 { Dataset::FashionMnist } else { Dataset::ImageFolder };
    let outside = datjob_fuzz::temporary_folder(&[]);
    let dir = outside.path().join("data");
    std::fs::create_dir(&dir).expect("a temporary folder");
    let _ = fuzzing::unpack(dataset, archive, &dir);
    let entries = std::fs::read_dir(outside.path()).expect("the folder still exists");
    assert_eq!(entries.count(), 1, "the archive wrote files outside the folder");
});
