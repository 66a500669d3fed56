//! The binary version of CIFAR-10 and CIFAR-100: records of labels (one, or coarse and fine) and 3072 bytes, red,
//! green, blue. Source: Krizhevsky, "The CIFAR-10 dataset".

use std::path::Path;

use datjob_api::training::Dataset;

use super::{
    Counts, DataError, DataSet, Images,
    files::{Contents, check_labels, find, layout},
};

pub(super) fn load(dataset: Dataset, dir: &Path, counts: Counts) -> Result<DataSet, DataError> {
    let layout = layout(dataset);
    let part = |files: &[&'static str], count: usize| {
        let mut pixels = Vec::with_capacity(count * bytes_of_image(dataset));
        let mut labels = Vec::with_capacity(count);
        for file in files {
            read(dataset, dir, file, count / files.len(), &mut pixels, &mut labels)?;
        }
        Ok(Images::new(dataset.image_shape(), pixels, labels))
    };
    Ok(DataSet { train: part(layout.train, counts.train)?, test: part(layout.test, counts.test)? })
}

fn bytes_of_image(dataset: Dataset) -> usize {
    dataset.image_shape().iter().product::<i64>() as usize
}

/// Appends the images of one file, which must hold `count`.
fn read(
    dataset: Dataset,
    dir: &Path,
    file: &'static str,
    count: usize,
    pixels: &mut Vec<u8>,
    labels: &mut Vec<u8>,
) -> Result<(), DataError> {
    // CIFAR-100 has the coarse label before the fine one.
    let label_bytes = if matches!(dataset, Dataset::Cifar100) { 2 } else { 1 };
    let record = label_bytes + bytes_of_image(dataset);
    let path = find(dataset, dir, file)?;
    let bytes = Contents::read(path.clone(), count * record).exactly(count * record)?;
    let first = labels.len();
    for record in bytes.chunks_exact(record) {
        labels.push(record[label_bytes - 1]);
        pixels.extend_from_slice(&record[label_bytes..]);
    }
    check_labels(&path, &labels[first..], dataset.classes())
}
