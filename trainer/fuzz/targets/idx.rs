//! IDX files, gzipped or not: the first byte selects the file of a complete data set that the other bytes replace.
#![no_main]

use datjob_api::training::Dataset;
use datjob_data::fuzzing;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let Some((choice, contents)) = bytes.split_first() else { return };
    let (train, test) = fuzzing::IMAGE_COUNTS;
    let image_file = |count: usize| {
        [&[0, 0, 8, 3, 0, 0, 0, count as u8, 0, 0, 0, 28, 0, 0, 0, 28][..], &vec![7; count * 784]].concat()
    };
    let label_file = |count: usize| [&[0, 0, 8, 1, 0, 0, 0, count as u8][..], &vec![3; count]].concat();
    let complete = [
        ("train-images-idx3-ubyte", image_file(train)),
        ("train-labels-idx1-ubyte", label_file(train)),
        ("t10k-images-idx3-ubyte", image_file(test)),
        ("t10k-labels-idx1-ubyte", label_file(test)),
    ];
    let chosen = usize::from(choice % 4);
    let name =
        if choice & 4 == 0 { complete[chosen].0.to_owned() } else { format!("{}.gz", complete[chosen].0) };
    let others = complete.iter().enumerate().filter(|(index, _)| *index != chosen);
    let mut files: Vec<(&str, &[u8])> = others.map(|(_, (name, contents))| (*name, &contents[..])).collect();
    files.push((&name, contents));
    let dir = datjob_fuzz::temporary_folder(&files);
    if let Ok(data) = fuzzing::load_small(Dataset::FashionMnist, dir.path()) {
        assert_eq!((data.train.len(), data.test.len()), fuzzing::IMAGE_COUNTS);
        assert!((0..data.train.len()).all(|image| data.train.label(image) < 10));
        data.train.read(&[0, 1], None).expect("images in memory can be read");
    }
});
