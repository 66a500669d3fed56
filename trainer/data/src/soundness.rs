//! Finds images that cannot be read, before a training spends hours on the others.

use std::{
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
};

use crate::{
    DataError, Images, Tally,
    decode::{Decoder, Rgb},
    encoded::EncodedImages,
    reader::PixelStore,
};

/// How thoroughly an image is checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Check {
    /// The image is decoded.
    Decode,
    /// Its header is read, and the marker at its end; an image that lacks one of them is decoded. This finds truncated files
    /// and files of other formats, at a hundredth of the time of decoding.
    HeaderAndEnd,
}

/// Checks the images with these indices; counts and names those that cannot be read. Images in memory were checked when they
/// were loaded.
pub fn find_faults(images: &Images, indices: &[usize], check: Check) -> Result<Tally, DataError> {
    let PixelStore::EncodedImages { images, threads } = images.store() else { return Ok(Tally::default()) };
    let next = AtomicUsize::new(0);
    // By position, so that the order of the threads does not matter.
    let faults: Mutex<Vec<(usize, String)>> = Mutex::new(Vec::new());
    let worker = || {
        let (mut decoder, mut decoded) = (Decoder::new(), Rgb::default());
        loop {
            let position = next.fetch_add(1, Ordering::Relaxed);
            let Some(&index) = indices.get(position) else { return };
            if let Err(error) = check_image(images, index, check, &mut decoder, &mut decoded) {
                faults.lock().unwrap_or_else(PoisonError::into_inner).push((position, error.to_string()));
            }
        }
    };
    thread::scope(|scope| {
        (0..*threads).try_for_each(|number| {
            let thread = thread::Builder::new().name(format!("check-{number}"));
            thread.spawn_scoped(scope, worker).map(drop).map_err(DataError::Thread)
        })
    })?;
    let mut faults = faults.into_inner().unwrap_or_else(PoisonError::into_inner);
    faults.sort_unstable();
    let mut tally = Tally::default();
    for (_, fault) in faults {
        tally.add(fault);
    }
    Ok(tally)
}

fn check_image(
    images: &EncodedImages,
    index: usize,
    check: Check,
    decoder: &mut Decoder,
    decoded: &mut Rgb,
) -> Result<(), DataError> {
    if check == Check::HeaderAndEnd {
        let (start, end) = images.ends(index)?;
        if decoder.has_header(&start) && has_end_marker(&end) {
            return Ok(());
        }
    }
    let bytes = images.bytes(index)?;
    decoder.decode(&bytes, decoded).map_err(|problem| DataError::Image { image: images.name(index), problem })
}

/// Whether the marker at the end of a JPEG or PNG image is among the last bytes. Some encoders write more after it.
fn has_end_marker(end: &[u8]) -> bool {
    let contains = |marker: &[u8]| end.windows(marker.len()).any(|window| window == marker);
    contains(&[0xff, 0xd9]) || contains(b"IEND")
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::{decode::tests::jpeg, encoded::ImageLocations};

    /// Images with these contents, and their folder.
    fn images(contents: &[Vec<u8>]) -> (tempfile::TempDir, Images) {
        let dir = tempfile::tempdir().unwrap();
        let files: Vec<Box<str>> = (0..contents.len()).map(|index| format!("{index}.jpg").into()).collect();
        for (file, contents) in files.iter().zip(contents) {
            fs::write(dir.path().join(&**file), contents).unwrap();
        }
        let locations = ImageLocations::Files { root: dir.path().to_owned(), files };
        let images = Images::encoded(EncodedImages::new(locations, 8), vec![0; contents.len()], 3);
        (dir, images)
    }

    #[test]
    fn finds_images_that_cannot_be_read() {
        let whole = jpeg(64, 48, [200, 10, 60]);
        let noise: Vec<u8> = (0..64 * 48 * 3_u32).map(|byte| (byte * 7919 % 251) as u8).collect();
        let image = turbojpeg::Image {
            pixels: &noise[..],
            width: 64,
            pitch: 192,
            height: 48,
            format: turbojpeg::PixelFormat::RGB,
        };
        let detailed = turbojpeg::compress(image, 95, turbojpeg::Subsamp::None).unwrap().to_vec();
        let cut = detailed[..detailed.len() / 2].to_vec();
        let trailing = [&whole[..], &[0; 100]].concat();
        let mut damaged = detailed.clone();
        damaged[detailed.len() / 2..][..200].fill(0xff);
        let contents = [whole, cut, trailing, b"GIF89a".to_vec(), Vec::new(), detailed, damaged];
        let (dir, images) = images(&contents);
        let all: Vec<usize> = (0..contents.len()).collect();
        let faults = |check| {
            let tally = find_faults(&images, &all, check).unwrap();
            tally.to_string().replace(dir.path().to_str().unwrap(), "DIR")
        };
        let (quick, thorough) = (faults(Check::HeaderAndEnd), faults(Check::Decode));
        for text in [&quick, &thorough] {
            assert!(text.contains("DIR/1.jpg: cannot decode the JPEG image: "), "{text}");
            assert!(text.contains("DIR/3.jpg: not a JPEG or PNG image; DIR/4.jpg: not a JPEG"), "{text}");
            assert!(!["0.jpg", "2.jpg", "5.jpg"].iter().any(|sound| text.contains(sound)), "{text}");
        }
        assert!(thorough.contains("DIR/6.jpg: ") && !quick.contains("6.jpg"), "{quick} {thorough}");
        fs::remove_file(dir.path().join("5.jpg")).unwrap();
        let missing = faults(Check::HeaderAndEnd);
        assert!(missing.contains("cannot read DIR/5.jpg: "), "{missing}");
    }

    #[test]
    fn images_in_memory_have_no_faults() {
        let images = Images::new([1, 1, 1], vec![1, 2], vec![0, 1]);
        assert!(find_faults(&images, &[0, 1], Check::Decode).unwrap().is_empty());
    }
}
