//! A NumPy archive, and an array within one.
#![no_main]

use std::path::Path;

use datjob_data::read_npz;
use libfuzzer_sys::fuzz_target;

const SHAPE: [i64; 3] = [3, 2, 2];

fn check(path: &Path) {
    if let Ok((images, labels)) = read_npz(path, SHAPE) {
        assert!(labels.is_none_or(|labels| labels.len() == images.len()));
        let all: Vec<usize> = (0..images.len()).collect();
        images.read(&all, None).expect("images in memory can be read");
    }
}

fuzz_target!(|bytes: &[u8]| {
    datjob_fuzz::with_file(bytes, check);
    if let Some((choice, array)) = bytes.split_first() {
        let other = &b"\x93NUMPY\x01\0v\0{'descr': '|u1', 'fortran_order': False, 'shape': (2, 2, 2, 3), }                                                       \n000000000000000000000000"[..];
        let (images, labels) = if choice % 2 == 0 { (array, other) } else { (other, array) };
        datjob_fuzz::with_file(
            &datjob_fuzz::zip_archive(&[("image.npy", images), ("label.npy", labels)]),
            check,
        );
    }
});
