//! Reads the binary version of CIFAR-10 and CIFAR-100. A record has one label, or a coarse and a fine label, and 3072 bytes:
//! red, green, blue. Source: Krizhevsky, "The CIFAR-10 dataset".

use std::path::Path;

use datjob_api::training::Contents;

use super::{
    DataError, DataSet, Images,
    standard_files::{FileContents, StandardFiles, check_labels},
};

pub(super) fn load(standard: &StandardFiles, label_bytes: usize, dir: &Path) -> Result<DataSet, DataError> {
    let subset = |files: &[&'static str], count: usize| {
        let mut pixels = Vec::with_capacity(count * image_bytes(standard));
        let mut labels = Vec::with_capacity(count);
        for file in files {
            read_file(standard, label_bytes, dir, file, count / files.len(), &mut pixels, &mut labels)?;
        }
        let labels = labels.into_iter().map(u16::from).collect();
        Ok(Images::new(standard.contents.image_shape, pixels, labels))
    };
    let Contents { classes, training_images, test_images, .. } = standard.contents;
    Ok(DataSet::new(subset(standard.train, training_images)?, subset(standard.test, test_images)?, classes))
}

fn image_bytes(standard: &StandardFiles) -> usize {
    standard.contents.image_shape.iter().product::<i64>() as usize
}

/// Appends the images of one file, which must have `count` images.
fn read_file(
    standard: &StandardFiles,
    label_bytes: usize,
    dir: &Path,
    file: &'static str,
    count: usize,
    pixels: &mut Vec<u8>,
    labels: &mut Vec<u8>,
) -> Result<(), DataError> {
    let record = label_bytes + image_bytes(standard);
    let path = standard.find(dir, file)?;
    let bytes = FileContents::read(path.clone(), count * record).expect_length(count * record)?;
    let first = labels.len();
    for record in bytes.chunks_exact(record) {
        labels.push(record[label_bytes - 1]);
        pixels.extend_from_slice(&record[label_bytes..]);
    }
    check_labels(&path, &labels[first..], standard.contents.classes)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use datjob_api::training::Dataset;
    use proptest::prelude::*;

    use super::*;
    use crate::{load_standard, standard_files::layout};

    /// Records of one label, or of a coarse and a fine one; the pixels are the fine label.
    fn records(labels: &[&[u8]]) -> Vec<u8> {
        labels.iter().flat_map(|label| [*label, &vec![label[label.len() - 1]; 3072]].concat()).collect()
    }

    fn load_in(dataset: Dataset, files: &[(&str, &[u8])]) -> Result<DataSet, String> {
        let dir = tempfile::tempdir().unwrap();
        for (name, contents) in files {
            let path = dir.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, contents).unwrap();
        }
        load_standard(&layout(dataset).with_image_counts(10, 3), dir.path())
            .map_err(|error| error.to_string().replace(dir.path().to_str().unwrap(), "DIR"))
    }

    fn cifar10(folder: &str, third_batch: &[u8]) -> Result<DataSet, String> {
        let other = records(&[&[1], &[2]]);
        let test = records(&[&[7], &[8], &[9]]);
        let name = |file: &str| format!("{folder}{file}");
        load_in(
            Dataset::Cifar10,
            &[
                (&name("data_batch_1.bin"), &other),
                (&name("data_batch_2.bin"), &other),
                (&name("data_batch_3.bin"), third_batch),
                (&name("data_batch_4.bin"), &other),
                (&name("data_batch_5.bin"), &other),
                (&name("test_batch.bin"), &test),
            ],
        )
    }

    #[test]
    fn reads_cifar10_in_the_order_of_its_files() {
        for folder in ["", "cifar-10-batches-bin/"] {
            let DataSet { train, test, .. } = cifar10(folder, &records(&[&[3], &[4]])).unwrap();
            let labels: Vec<u16> = (0..10).map(|image| train.label(image)).collect();
            assert_eq!(labels, [1, 2, 1, 2, 3, 4, 1, 2, 1, 2]);
            assert_eq!(train.shape(), [3, 32, 32]);
            assert!(train.read(&[5], None).unwrap().pixels.iter().all(|&pixel| pixel == 4));
            assert_eq!(test.label(2), 9);
        }
    }

    #[test]
    fn reads_the_fine_labels_of_cifar100() {
        let train = records(&[&[1, 99][..]; 10]);
        let test = records(&[&[19, 0][..]; 3]);
        let DataSet { train, test, .. } = load_in(
            Dataset::Cifar100,
            &[("cifar-100-binary/train.bin", &train), ("cifar-100-binary/test.bin", &test)],
        )
        .unwrap();
        assert_eq!((train.label(9), train.read(&[9], None).unwrap().pixels[0]), (99, 99));
        assert_eq!((test.label(2), test.len()), (0, 3));
    }

    #[test]
    fn errors_name_the_file_and_the_cause() {
        let good = records(&[&[3], &[4]]);
        assert_eq!(
            cifar10("", &good[..good.len() - 1]).unwrap_err(),
            "DIR/data_batch_3.bin: truncated: expected 6146 bytes, found 6145"
        );
        assert_eq!(
            cifar10("", &[&good[..], &[0]].concat()).unwrap_err(),
            "DIR/data_batch_3.bin: too large: expected at most 6146 bytes"
        );
        assert_eq!(
            cifar10("", &records(&[&[3], &[10]])).unwrap_err(),
            "DIR/data_batch_3.bin: invalid label 10 of image 1 (counted from 0): must be 0 to 9"
        );
        assert_eq!(
            load_in(Dataset::Cifar100, &[]).unwrap_err(),
            "DIR/train.bin: file not found; cifar100 needs the files train.bin, test.bin in DIR or DIR/cifar-100-binary"
        );
    }

    proptest! {
        #[test]
        fn any_bytes_do_not_panic(contents in prop::collection::vec(any::<u8>(), 0..7000)) {
            let _ = cifar10("", &contents);
        }
    }
}
