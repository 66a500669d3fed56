//! The data side of the trainer, without libtorch: data sets, downloads, batches of images, random streams, weight files.
//!
//! The order of use: download ([`download()`], [`objects`]), read ([`load`]), split off validation images ([`split`]), cut
//! into batches ([`Epoch`], [`Loader`]), augment ([`Augmentation`]). All random numbers come from [`random`], keyed by
//! purpose, so a result depends on the seed and not on the world size. Parsers of external bytes have bounds and fuzz
//! targets (`trainer/fuzz`).

use std::{ops::Range, path::Path};

use datjob_api::training::{Contents, Data};
use sha2::{Digest, Sha256};

mod archive_path;
mod augment;
mod cifar;
mod crop;
mod cutmix;
mod dataset_files;
mod decode;
mod download;
mod encoded;
mod epoch;
mod error;
pub mod files;
#[cfg(feature = "fuzzing")]
pub mod fuzzing;
pub mod http;
mod idx;
mod image_folder;
mod images;
mod loader;
mod npz;
pub mod objects;
mod observer;
mod origin;
pub mod pulse;
pub mod random;
mod reader;
mod retry;
mod skipped;
mod soundness;
mod split;
mod standard_files;
pub mod storage;
mod tally;
pub mod volume;
mod webdataset;
pub mod weights;

pub use augment::Augmentation;
pub use cutmix::CutMixSampler;
pub use download::{DownloadError, download, download_file};
pub use epoch::{Epoch, ExtraImages};
pub use error::DataError;
pub use images::{IGNORE_INDEX, ImageBatch, Images, UNLABELLED};
pub use loader::Loader;
pub use npz::NpzError;
pub use observer::DownloadObserver;
pub use retry::RetryPolicy;
pub use soundness::{Check, find_faults};
pub use split::{Split, split};
pub use tally::Tally;

use standard_files::{Format, Layout, StandardFiles};

/// A data set: images in memory, or an index of encoded images.
#[derive(Debug)]
pub struct DataSet {
    /// The training images. [`split`] selects validation images from them.
    pub train: Images,
    /// The images of the final evaluation. They never influence training or model selection.
    pub test: Images,
    /// The number of classes.
    pub classes: i64,
    /// A sentence about files that were skipped and may be data.
    pub warning: Option<String>,
    /// The number of additional images at the end of `train`.
    additional_count: usize,
}

impl DataSet {
    /// A data set without additional images.
    fn new(train: Images, test: Images, classes: i64) -> Self {
        Self { train, test, classes, warning: None, additional_count: 0 }
    }

    /// Appends additional training images of the same shape. Each label is a class or [`UNLABELLED`].
    ///
    /// # Panics
    /// If the images or the data set are encoded on disk, or if shapes or lengths do not match.
    pub fn add_images(&mut self, images: &Images, labels: &[u16]) {
        self.train.append(images, labels);
        self.additional_count += labels.len();
    }

    /// The indices of the additional images.
    pub fn additional_indices(&self) -> Range<usize> {
        self.train.len() - self.additional_count..self.train.len()
    }

    /// A hash of the data set in hexadecimal. Ranks compare it, and a run that resumes from a checkpoint does too. Call it
    /// before [`add_images`](Self::add_images).
    pub fn fingerprint(&self) -> String {
        let mut hash = Sha256::new();
        self.train.hash_into(&mut hash);
        self.test.hash_into(&mut hash);
        hex::encode(hash.finalize())
    }

    /// The shape and the numbers of images and classes.
    pub fn contents(&self) -> Contents {
        Contents {
            image_shape: self.train.shape(),
            classes: self.classes,
            training_images: self.train.len() - self.additional_count,
            test_images: self.test.len(),
        }
    }
}

/// Reads a data set's files from `dir`, or from the subfolder that the official archive creates.
///
/// MNIST and Fashion-MNIST: `train-images-idx3-ubyte` and so on, gzipped or not. CIFAR-10 and CIFAR-100: the binary
/// version (`data_batch_1.bin` …, `train.bin`). The number and shape of the images, the lengths of the files and the range
/// of the labels are checked. The images are kept in memory.
///
/// For image-folder and webdataset only an index is created. `threads` threads decode the images when they are read.
pub fn load(data: &Data, dir: &Path, threads: usize) -> Result<DataSet, DataError> {
    match standard_files::layout(data.dataset) {
        Layout::Standard(files) => load_standard(&files, dir),
        Layout::Webdataset => webdataset::load(dir, data.image_size(), threads),
        Layout::ImageFolder => image_folder::load(dir, data.image_size(), threads),
    }
}

/// Reads a NumPy archive (.npz) with images of a shape (channels, height, width) and optional labels.
pub fn read_npz(path: &Path, shape: [i64; 3]) -> Result<(Images, Option<Vec<i64>>), NpzError> {
    let npz::NpzArrays { pixels, labels } = npz::read(path, shape)?;
    let count = pixels.len() / shape.iter().product::<i64>().max(1) as usize;
    Ok((Images::new(shape, pixels, vec![UNLABELLED; count]), labels))
}

fn load_standard(files: &StandardFiles, dir: &Path) -> Result<DataSet, DataError> {
    match files.format {
        Format::Idx => idx::load(files, dir),
        Format::CifarBinary { label_bytes } => cifar::load(files, label_bytes, dir),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fingerprint_depends_on_pixels_labels_and_subsets() {
        let images =
            |pixels: [u8; 2], labels: [u16; 2]| Images::new([1, 1, 1], pixels.to_vec(), labels.to_vec());
        let fingerprint = |train, test| DataSet::new(train, test, 3).fingerprint();
        let (one, other) = (images([1, 2], [0, 1]), images([3, 4], [1, 2]));
        let fingerprints = [
            fingerprint(one.clone(), other.clone()),
            fingerprint(other.clone(), one.clone()),
            fingerprint(images([1, 9], [0, 1]), other.clone()),
            fingerprint(images([1, 2], [1, 0]), other.clone()),
            fingerprint(one.clone(), images([3, 4], [1, 1])),
        ];
        assert_eq!(fingerprints[0], fingerprint(one, other));
        assert!(
            (1..fingerprints.len()).all(|at| !fingerprints[..at].contains(&fingerprints[at])),
            "{fingerprints:?}"
        );
    }
}
