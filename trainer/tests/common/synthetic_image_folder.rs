//! A small synthetic data set for `image-folder`.

use std::{fs, path::Path, sync::OnceLock};

use turbojpeg::{Image, PixelFormat, Subsamp};

use crate::test_directory::empty_directory;

/// Width and height of an image, in pixels.
const SIDE: usize = 32;

/// The directory of the data set: 4,000 training images and 1,000 test images of ten classes. Each image has a rectangle
/// whose position and colour determine the class.
pub(crate) fn synthetic_image_folder() -> &'static Path {
    static DATA: OnceLock<std::path::PathBuf> = OnceLock::new();
    DATA.get_or_init(|| {
        let directory = empty_directory("synthetic-image-folder");
        for (part, count) in [("train", 4_000), ("val", 1_000)] {
            for class in 0..10 {
                let folder = directory.join(part).join(class.to_string());
                fs::create_dir_all(&folder).unwrap();
                for number in 0..count / 10 {
                    fs::write(folder.join(format!("{number:04}.jpg")), jpeg(class, number)).unwrap();
                }
            }
        }
        directory
    })
}

fn jpeg(class: usize, number: usize) -> Vec<u8> {
    let (top, left) = (3 + class / 5 * 13 + number % 3, 2 + class % 5 * 6 + number / 3 % 3);
    let inside = |y: usize, x: usize| (top..top + 10).contains(&y) && (left..left + 4).contains(&x);
    // There are seven colours. Three pairs of classes share a colour and differ by position.
    let bright = |channel: usize| (class % 7 + 1) >> channel & 1 == 1;
    let pixel =
        |y: usize, x: usize| [0, 1, 2].map(|channel| if inside(y, x) && bright(channel) { 250 } else { 50 });
    let pixels: Vec<u8> = (0..SIDE).flat_map(|y| (0..SIDE).flat_map(move |x| pixel(y, x))).collect();
    let image =
        Image { pixels: &*pixels, width: SIDE, pitch: 3 * SIDE, height: SIDE, format: PixelFormat::RGB };
    turbojpeg::compress(image, 95, Subsamp::None).unwrap().to_vec()
}
