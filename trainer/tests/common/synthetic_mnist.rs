//! A synthetic data set in MNIST's files and sizes.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::OnceLock,
};

use crate::test_directory::empty_directory;

/// The directory of the data set. Each image has a rectangle whose position determines the class.
pub(crate) fn synthetic_mnist() -> &'static Path {
    static DATA: OnceLock<PathBuf> = OnceLock::new();
    DATA.get_or_init(|| {
        let directory = empty_directory("synthetic-mnist");
        for (prefix, count) in [("train", 60_000_u32), ("t10k", 10_000)] {
            let header = |magic: u32, sizes: &[u32]| {
                let words = [&[magic, count], sizes].concat();
                words.iter().flat_map(|word| word.to_be_bytes()).collect::<Vec<u8>>()
            };
            let (mut images, mut labels) = (header(0x803, &[28, 28]), header(0x801, &[]));
            for index in 0..count {
                let class = index * 7 % 10;
                let (top, left) = (2 + class / 5 * 12 + index % 3, 1 + class % 5 * 5 + index / 3 % 3);
                let inside = |y: u32, x: u32| (top..top + 8).contains(&y) && (left..left + 4).contains(&x);
                images
                    .extend((0..28).flat_map(|y| (0..28).map(move |x| if inside(y, x) { 220 } else { 20 })));
                labels.push(class as u8);
            }
            fs::write(directory.join(format!("{prefix}-images-idx3-ubyte")), images).unwrap();
            fs::write(directory.join(format!("{prefix}-labels-idx1-ubyte")), labels).unwrap();
        }
        directory
    })
}
