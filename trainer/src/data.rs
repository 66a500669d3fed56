//! The images: reading a data set's standard files, holding back validation images, the order of an epoch, batches.

use std::path::Path;

use datjob_api::training::Dataset;
use tch::{Device, Kind, TchError, Tensor};

mod augment;
mod cifar;
mod download;
mod epoch;
mod error;
mod files;
mod idx;
mod split;

pub use augment::Augmentation;
pub use download::{DownloadError, Retries, download};
pub use epoch::Epoch;
pub use error::DataError;
pub use split::{Split, split};

/// A data set in memory.
#[derive(Debug)]
pub struct DataSet {
    /// The images to train on, of which some are held back: see [`split`].
    pub train: Images,
    /// The images of the final evaluation; they choose nothing.
    pub test: Images,
}

/// Images with their labels, in memory as bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Images {
    /// Channels, height, width.
    shape: [i64; 3],
    /// Image by image, channel by channel, row by row.
    pixels: Vec<u8>,
    labels: Vec<u8>,
}

/// How many images the two parts of a data set hold.
#[derive(Clone, Copy, Debug)]
struct Counts {
    train: usize,
    test: usize,
}

/// Reads a data set's standard files from `dir`, or from the folder in it that the data set's own archive unpacks to.
///
/// MNIST and Fashion-MNIST: `train-images-idx3-ubyte` and so on, gzipped or not. CIFAR-10 and CIFAR-100: the binary
/// version (`data_batch_1.bin` …, `train.bin`). Number and shape of the images, the lengths of the files and the range
/// of the labels are checked before anything is believed.
pub fn load(dataset: Dataset, dir: &Path) -> Result<DataSet, DataError> {
    load_counted(dataset, dir, Counts { train: dataset.training_images(), test: 10_000 })
}

fn load_counted(dataset: Dataset, dir: &Path, counts: Counts) -> Result<DataSet, DataError> {
    match dataset {
        Dataset::Mnist | Dataset::FashionMnist => idx::load(dataset, dir, counts),
        Dataset::Cifar10 | Dataset::Cifar100 => cifar::load(dataset, dir, counts),
    }
}

impl Images {
    /// Images from bytes: `pixels` holds image by image, channel by channel, row by row; one label for each image.
    ///
    /// # Panics
    /// If the lengths do not fit together.
    pub fn new(shape: [i64; 3], pixels: Vec<u8>, labels: Vec<u8>) -> Self {
        assert_eq!(pixels.len(), labels.len() * shape.iter().product::<i64>() as usize, "pixels and labels");
        Self { shape, pixels, labels }
    }

    /// How many.
    pub fn len(&self) -> usize {
        self.labels.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.labels.is_empty()
    }

    /// Channels, height, width.
    pub fn shape(&self) -> [i64; 3] {
        self.shape
    }

    /// The pixels of an image, channel by channel, row by row.
    ///
    /// # Panics
    /// If there is no such image.
    pub fn pixels(&self, index: usize) -> &[u8] {
        let bytes = self.image_bytes();
        &self.pixels[index * bytes..(index + 1) * bytes]
    }

    /// The class of an image.
    ///
    /// # Panics
    /// If there is no such image.
    pub fn label(&self, index: usize) -> u8 {
        self.labels[index]
    }

    /// Bytes of an image.
    fn image_bytes(&self) -> usize {
        self.shape.iter().product::<i64>() as usize
    }

    /// The images of these indices, varied where `augmentation` is given, with their labels.
    ///
    /// Images: u8 `[N, C, H, W]`, for [`numbers`]; labels: i64 `[N]`; both in host memory.
    ///
    /// # Panics
    /// If there is no such image.
    pub fn bytes(
        &self,
        indices: &[usize],
        augmentation: Option<&Augmentation>,
    ) -> Result<(Tensor, Tensor), TchError> {
        let bytes = self.image_bytes();
        let mut pixels = vec![0; indices.len() * bytes];
        for (&index, out) in indices.iter().zip(pixels.chunks_exact_mut(bytes)) {
            match augmentation {
                Some(augmentation) => augmentation.apply(index, self.shape, self.pixels(index), out),
                None => out.copy_from_slice(self.pixels(index)),
            }
        }
        let labels: Vec<i64> = indices.iter().map(|&index| i64::from(self.labels[index])).collect();
        let [channels, height, width] = self.shape;
        let pixels =
            Tensor::f_from_slice(&pixels)?.f_view([indices.len() as i64, channels, height, width])?;
        Ok((pixels, Tensor::f_from_slice(&labels)?))
    }

    /// [`bytes`](Self::bytes) as [`numbers`], on `device`.
    ///
    /// # Panics
    /// If there is no such image.
    pub fn batch(&self, indices: &[usize], device: Device) -> Result<(Tensor, Tensor), TchError> {
        let (pixels, labels) = self.bytes(indices, None)?;
        Ok((numbers(&pixels.f_to_device(device)?)?, labels.f_to_device(device)?))
    }
}

/// Bytes as f32 in [0, 1] (byte / 255), where they are: they cross to a device as a quarter of what floats would be.
pub fn numbers(pixels: &Tensor) -> Result<Tensor, TchError> {
    pixels.f_to_kind(Kind::Float)?.f_div_scalar(255.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_holds_the_asked_images_as_numbers_from_0_to_1() {
        let images = Images::new([1, 1, 2], vec![0, 51, 102, 153, 204, 255], vec![3, 1, 2]);
        let (pixels, labels) = images.batch(&[2, 0], Device::Cpu).unwrap();
        assert_eq!(pixels.size(), [2, 1, 1, 2]);
        assert_eq!(
            Vec::<f32>::try_from(pixels.flatten(0, -1)).unwrap(),
            [204.0 / 255.0, 1.0, 0.0, 51.0 / 255.0]
        );
        assert_eq!(Vec::<i64>::try_from(labels).unwrap(), [2, 3]);
    }

    #[test]
    fn an_empty_batch_is_a_batch() {
        let images = Images::new([1, 1, 2], vec![0, 51], vec![3]);
        assert_eq!(images.batch(&[], Device::Cpu).unwrap().0.size(), [0, 1, 1, 2]);
    }
}
