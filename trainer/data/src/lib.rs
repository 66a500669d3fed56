//! Data of the trainer, without libtorch: data sets and where they come from, batches of images, streams of random numbers,
//! files of weights.
//!
//! A data set is fetched ([`download()`], [`objects`]), read ([`load`]), cut into training and validation images ([`split`])
//! and into batches ([`Epoch`], [`Loader`]), which [`Augmentation`] varies. Whatever is random comes from [`random`], keyed
//! by what it is for, so that a result depends on the seed and not on the world. Parsers of foreign bytes have bounds, and
//! fuzz targets (`trainer/fuzz`).

use std::{ops::Range, path::Path};

use datjob_api::training::{Contents, Data, Dataset};
use sha2::{Digest, Sha256};

mod augment;
mod cifar;
mod cutmix;
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
mod names;
mod npz;
pub mod objects;
mod origin;
pub mod random;
mod reader;
mod retry;
mod split;
mod standard_files;
mod view;
mod webdataset;
pub mod weights;

pub use augment::Augmentation;
pub use cutmix::Mixing;
pub use download::{DownloadError, download, download_file};
pub use epoch::{Beside, Epoch};
pub use error::DataError;
pub use images::{Images, Loaded, UNLABELLED};
pub use loader::Loader;
pub use npz::NpzError;
pub use retry::RetryPolicy;
pub use split::{Split, split};

use standard_files::Layout;

/// A data set: its images in memory, or an index of them.
#[derive(Debug)]
pub struct DataSet {
    /// The images to train on, of which some are held back: see [`split`].
    pub train: Images,
    /// The images of the final evaluation; they choose nothing.
    pub test: Images,
    /// Number of classes.
    pub classes: i64,
    /// How many images beside those of the data set stand at the end of `train`.
    additional: usize,
}

impl DataSet {
    /// A data set of its own images alone.
    fn new(train: Images, test: Images, classes: i64) -> Self {
        Self { train, test, classes, additional: 0 }
    }

    /// Adds images of the same shape to those that are trained on, a label for each: a class, or [`UNLABELLED`]. Both lie in
    /// memory.
    pub fn add(&mut self, images: &Images, labels: &[u16]) {
        self.train.append(images, labels);
        self.additional += labels.len();
    }

    /// The indices of the images that were added.
    pub fn additional(&self) -> Range<usize> {
        self.train.len() - self.additional..self.train.len()
    }

    /// What tells this data set from another one, or from another state of the same, in hexadecimal: ranks compare it, and
    /// so does a training that goes on from a checkpoint. Before images are added.
    pub fn fingerprint(&self) -> String {
        let mut hash = Sha256::new();
        self.train.hash_into(&mut hash);
        self.test.hash_into(&mut hash);
        hex::encode(hash.finalize())
    }

    /// Numbers and shape of what it holds.
    pub fn contents(&self) -> Contents {
        Contents {
            image_shape: self.train.shape(),
            classes: self.classes,
            training_images: self.train.len() - self.additional,
            test_images: self.test.len(),
        }
    }
}

/// Reads a data set's files from `dir`, or from the folder in it that the data set's own archive unpacks to.
///
/// MNIST and Fashion-MNIST: `train-images-idx3-ubyte` and so on, gzipped or not. CIFAR-10 and CIFAR-100: the binary
/// version (`data_batch_1.bin` …, `train.bin`). Number and shape of the images, the lengths of the files and the range
/// of the labels are checked before anything is believed. These lie in memory afterwards.
///
/// Of image-folder and webdataset only an index is made; `threads` threads decode the images when they are read.
pub fn load(data: &Data, dir: &Path, threads: usize) -> Result<DataSet, DataError> {
    match standard_files::layout(data.dataset) {
        Some(layout) => load_standard(&layout, dir),
        None if data.dataset == Dataset::Webdataset => webdataset::load(dir, data.image_size(), threads),
        None => image_folder::load(dir, data.image_size(), threads),
    }
}

/// Reads an archive of NumPy (.npz) with images of a shape (channels, height, width), and their labels where it has such.
pub fn read_npz(path: &Path, shape: [i64; 3]) -> Result<(Images, Option<Vec<i64>>), NpzError> {
    let npz::Arrays { pixels, labels } = npz::read(path, shape)?;
    let count = pixels.len() / shape.iter().product::<i64>().max(1) as usize;
    Ok((Images::new(shape, pixels, vec![UNLABELLED; count]), labels))
}

fn load_standard(layout: &Layout, dir: &Path) -> Result<DataSet, DataError> {
    match layout.dataset {
        Dataset::Mnist | Dataset::FashionMnist => idx::load(layout, dir),
        _ => cifar::load(layout, dir),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fingerprint_tells_pixels_labels_and_parts_apart() {
        let images =
            |pixels: [u8; 2], labels: [u16; 2]| Images::new([1, 1, 1], pixels.to_vec(), labels.to_vec());
        let of = |train, test| DataSet::new(train, test, 3).fingerprint();
        let (one, other) = (images([1, 2], [0, 1]), images([3, 4], [1, 2]));
        let all = [
            of(one.clone(), other.clone()),
            of(other.clone(), one.clone()),
            of(images([1, 9], [0, 1]), other.clone()),
            of(images([1, 2], [1, 0]), other.clone()),
            of(one.clone(), images([3, 4], [1, 1])),
        ];
        assert_eq!(all[0], of(one, other));
        assert!((1..all.len()).all(|at| !all[..at].contains(&all[at])), "{all:?}");
    }
}
