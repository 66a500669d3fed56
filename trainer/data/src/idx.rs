//! Reads IDX, the format of MNIST and Fashion-MNIST: a big-endian header (magic number, dimensions), then bytes.
//! Source: LeCun, Cortes, Burges, "The MNIST database of handwritten digits".

use std::path::{Path, PathBuf};

use datjob_api::training::{Contents, Dataset};

use super::{
    DataError, DataSet, Images,
    standard_files::{FileContents, StandardFiles, check_labels},
};

/// A type of IDX file.
#[derive(Clone, Copy)]
struct IdxType {
    /// The content, for messages.
    what: &'static str,
    /// The magic number: the type of the elements and the number of dimensions.
    magic: u32,
}

const IMAGES: IdxType = IdxType { what: "images", magic: 0x0803 };
const LABELS: IdxType = IdxType { what: "labels", magic: 0x0801 };

pub(super) fn load(standard: &StandardFiles, dir: &Path) -> Result<DataSet, DataError> {
    let Contents { image_shape, classes, training_images, test_images } = standard.contents;
    let subset = |files: &[&'static str], count: usize| {
        let [_, height, width] = image_shape;
        let dimensions = [count as u32, height as u32, width as u32];
        let (_, pixels) = read_file(standard, dir, files[0], IMAGES, &dimensions)?;
        let (path, labels) = read_file(standard, dir, files[1], LABELS, &dimensions[..1])?;
        check_labels(&path, &labels, classes)?;
        Ok(Images::new(image_shape, pixels, labels.into_iter().map(u16::from).collect()))
    };
    Ok(DataSet::new(subset(standard.train, training_images)?, subset(standard.test, test_images)?, classes))
}

/// Reads the bytes after the header, which must have these `dimensions`.
fn read_file(
    standard: &StandardFiles,
    dir: &Path,
    file: &'static str,
    idx_type: IdxType,
    dimensions: &[u32],
) -> Result<(PathBuf, Vec<u8>), DataError> {
    let path = standard.find(dir, file)?;
    let header_length = 4 + 4 * dimensions.len();
    let expected = header_length + dimensions.iter().map(|&size| size as usize).product::<usize>();
    let contents = FileContents::read(path.clone(), expected);
    // Check the header first: "wrong dimensions" is more helpful than "truncated".
    if let Some(header) = contents.bytes().get(..header_length) {
        check_header(standard.dataset, contents.path(), header, idx_type, dimensions)?;
    }
    let mut bytes = contents.expect_length(expected)?;
    bytes.drain(..header_length);
    Ok((path, bytes))
}

fn check_header(
    dataset: Dataset,
    path: &Path,
    header: &[u8],
    idx_type: IdxType,
    dimensions: &[u32],
) -> Result<(), DataError> {
    let mut words = header.as_chunks().0.iter().map(|&bytes| u32::from_be_bytes(bytes));
    let found = words.next().unwrap_or_default();
    if found != idx_type.magic {
        let (expected, what) = (idx_type.magic, idx_type.what);
        return Err(DataError::Magic { path: path.to_owned(), found, expected, what });
    }
    let found: Vec<u32> = words.collect();
    if found != dimensions {
        let (path, expected) = (path.to_owned(), dimensions.to_vec());
        return Err(DataError::Dimensions { path, dataset: dataset.name(), found, expected });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::{fs, io::Write};

    use proptest::prelude::*;

    use super::*;
    use crate::standard_files::layout;

    fn file(magic: u32, dimensions: &[u32], contents: &[u8]) -> Vec<u8> {
        let words = [&[magic], dimensions].concat();
        [words.iter().flat_map(|word| word.to_be_bytes()).collect(), contents.to_vec()].concat()
    }

    fn images(count: u32, pixel: u8) -> Vec<u8> {
        file(0x0803, &[count, 28, 28], &vec![pixel; count as usize * 784])
    }

    fn labels(labels: &[u8]) -> Vec<u8> {
        file(0x0801, &[labels.len() as u32], labels)
    }

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut out = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        out.write_all(bytes).unwrap();
        out.finish().unwrap()
    }

    /// Loads a complete data set in which `file` has these `contents`, or is missing.
    fn load_with(file: &str, contents: Option<&[u8]>) -> Result<DataSet, String> {
        let dir = tempfile::tempdir().unwrap();
        let files = [
            ("train-images-idx3-ubyte", images(3, 7)),
            ("train-labels-idx1-ubyte", labels(&[0, 9, 4])),
            ("t10k-images-idx3-ubyte", images(2, 8)),
            ("t10k-labels-idx1-ubyte", labels(&[1, 2])),
        ];
        let plain = file.trim_end_matches(".gz");
        for (name, contents) in files.iter().filter(|(name, _)| *name != plain) {
            fs::write(dir.path().join(name), contents).unwrap();
        }
        if let Some(contents) = contents {
            fs::write(dir.path().join(file), contents).unwrap();
        }
        load(&layout(Dataset::FashionMnist).with_image_counts(3, 2), dir.path())
            .map_err(|error| error.to_string().replace(dir.path().to_str().unwrap(), "DIR"))
    }

    fn message(file: &str, contents: Option<&[u8]>) -> String {
        load_with(file, contents).unwrap_err()
    }

    #[test]
    fn reads_plain_and_gzipped_files() {
        for (name, contents) in
            [("train-images-idx3-ubyte", images(3, 7)), ("train-images-idx3-ubyte.gz", gzip(&images(3, 7)))]
        {
            let DataSet { train, test, .. } = load_with(name, Some(&contents)).unwrap();
            assert_eq!((train.len(), test.len()), (3, 2));
            assert_eq!(train.shape(), [1, 28, 28]);
            assert_eq!([train.label(0), train.label(1), train.label(2)], [0, 9, 4]);
            assert!(train.read(&[2], None).unwrap().pixels.iter().all(|&pixel| pixel == 7));
            assert!(test.read(&[1], None).unwrap().pixels.iter().all(|&pixel| pixel == 8));
        }
    }

    #[test]
    fn reads_from_the_subfolder_of_the_archive() {
        let dir = tempfile::tempdir().unwrap();
        let inner = dir.path().join("mnist");
        fs::create_dir(&inner).unwrap();
        for (part, count) in [("train", 3), ("t10k", 2)] {
            fs::write(inner.join(format!("{part}-images-idx3-ubyte")), images(count, 1)).unwrap();
            fs::write(inner.join(format!("{part}-labels-idx1-ubyte")), labels(&vec![0; count as usize]))
                .unwrap();
        }
        assert_eq!(load(&layout(Dataset::Mnist).with_image_counts(3, 2), dir.path()).unwrap().train.len(), 3);
    }

    #[test]
    fn errors_name_the_file_and_the_cause() {
        assert_eq!(
            message("t10k-labels-idx1-ubyte", None),
            "DIR/t10k-labels-idx1-ubyte: file not found; fashion-mnist needs the files train-images-idx3-ubyte, \
             train-labels-idx1-ubyte, t10k-images-idx3-ubyte, t10k-labels-idx1-ubyte in DIR or DIR/fashion-mnist"
        );
        assert_eq!(
            message("train-images-idx3-ubyte", Some(&images(3, 0)[..1000])),
            "DIR/train-images-idx3-ubyte: truncated: expected 2368 bytes, found 1000"
        );
        assert_eq!(
            message("train-images-idx3-ubyte", Some(&[])),
            "DIR/train-images-idx3-ubyte: truncated: expected 2368 bytes, found 0"
        );
        assert_eq!(
            message("train-images-idx3-ubyte", Some(&[images(3, 0), vec![0; 9]].concat())),
            "DIR/train-images-idx3-ubyte: too large: expected at most 2368 bytes"
        );
        assert_eq!(
            message("train-images-idx3-ubyte", Some(&images(2, 0))),
            "DIR/train-images-idx3-ubyte: wrong dimensions: fashion-mnist has [3, 28, 28], the header has [2, 28, 28]"
        );
        assert_eq!(
            message("train-images-idx3-ubyte", Some(&labels(&[0; 2400]))),
            "DIR/train-images-idx3-ubyte: invalid IDX file of images: expected magic number 0x00000803, found \
             0x00000801"
        );
        assert_eq!(
            message("t10k-labels-idx1-ubyte", Some(&labels(&[9, 10]))),
            "DIR/t10k-labels-idx1-ubyte: invalid label 10 of image 1 (counted from 0): must be 0 to 9"
        );
    }

    #[test]
    fn reports_corrupt_gzip() {
        let name = "t10k-images-idx3-ubyte.gz";
        let whole = gzip(&images(2, 0));
        assert!(message(name, Some(&whole[..whole.len() / 2])).starts_with(
            "DIR/t10k-images-idx3-ubyte.gz: truncated: expected 1584 bytes after decompression, found "
        ));
        assert_eq!(
            message(name, Some(b"not gzip at all")),
            "cannot read DIR/t10k-images-idx3-ubyte.gz: invalid gzip header"
        );
        let mut wrong_checksum = whole;
        let checksum = wrong_checksum.len() - 8;
        wrong_checksum[checksum] ^= 1;
        assert!(
            message(name, Some(&wrong_checksum)).starts_with("cannot read DIR/t10k-images-idx3-ubyte.gz: ")
        );
    }

    #[test]
    fn rejects_a_gzip_bomb() {
        let mut bomb = images(2, 0);
        bomb.resize(100 << 20, 0);
        assert_eq!(
            message("t10k-images-idx3-ubyte.gz", Some(&gzip(&bomb))),
            "DIR/t10k-images-idx3-ubyte.gz: too large: expected at most 1584 bytes after decompression"
        );
    }

    proptest! {
        #[test]
        fn any_bytes_do_not_panic(
            contents in prop::collection::vec(any::<u8>(), 0..4000),
            cut in 0_usize..2368,
            gzipped: bool,
            valid_start: bool,
        ) {
            let contents = if valid_start { [&images(3, 1)[..cut], &contents].concat() } else { contents };
            let name = if gzipped { "train-images-idx3-ubyte.gz" } else { "train-images-idx3-ubyte" };
            let _ = load_with(name, Some(&contents));
            let _ = load_with(name, Some(&gzip(&contents)));
        }
    }
}
