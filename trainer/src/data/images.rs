use std::sync::Arc;

use tch::{Device, Kind, TchError, Tensor};

use super::{Augmentation, DataError, encoded::Encoded, reader::Reader};

/// Images with their labels: in memory as bytes, or encoded on disk and decoded when they are read. Clones share them.
#[derive(Clone, Debug)]
pub struct Images {
    /// Channels, height, width.
    shape: [i64; 3],
    labels: Arc<[u16]>,
    pub(super) store: Store,
}

/// The label of an image that has none.
pub const UNLABELLED: u16 = u16::MAX;
/// What stands for it in a batch: losses pass over it.
const IGNORED: i64 = -100;

/// Where pixels come from.
#[derive(Clone, Debug)]
pub(super) enum Store {
    /// Image by image, channel by channel, row by row.
    Memory(Arc<Vec<u8>>),
    /// Files, and how many threads decode them ahead of a training or an evaluation.
    Encoded { images: Arc<Encoded>, threads: usize },
}

/// Images that were read, with their labels, in host memory.
#[derive(Debug)]
pub struct Loaded {
    /// Channels, height, width.
    pub shape: [i64; 3],
    /// Image by image, channel by channel, row by row.
    pub pixels: Vec<u8>,
    /// A class for each image.
    pub labels: Vec<i64>,
}

impl Images {
    /// Images from bytes: `pixels` holds image by image, channel by channel, row by row; one label for each image.
    ///
    /// # Panics
    /// If the lengths do not fit together.
    pub fn new(shape: [i64; 3], pixels: Vec<u8>, labels: Vec<u16>) -> Self {
        assert_eq!(pixels.len(), labels.len() * shape.iter().product::<i64>() as usize, "pixels and labels");
        Self { shape, labels: labels.into(), store: Store::Memory(Arc::new(pixels)) }
    }

    /// Images on disk, decoded by `threads` threads where they are read ahead.
    pub(super) fn encoded(images: Encoded, labels: Vec<u16>, threads: usize) -> Self {
        let side = i64::from(images.size());
        let store = Store::Encoded { images: Arc::new(images), threads: threads.max(1) };
        Self { shape: [3, side, side], labels: labels.into(), store }
    }

    /// Puts images that lie in memory behind these, which do too, with a label for each.
    ///
    /// # Panics
    /// If one of the two does not lie in memory, or the numbers do not fit together.
    pub(super) fn append(&mut self, images: &Self, labels: &[u16]) {
        assert_eq!((self.shape, images.len()), (images.shape, labels.len()), "shapes and labels");
        let (Store::Memory(own), Store::Memory(other)) = (&mut self.store, &images.store) else {
            panic!("images on disk cannot be put together");
        };
        Arc::make_mut(own).extend_from_slice(other);
        self.labels = [&self.labels, labels].concat().into();
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

    /// The class of an image.
    ///
    /// # Panics
    /// If there is no such image.
    pub fn label(&self, index: usize) -> u16 {
        self.labels[index]
    }

    /// Bytes of an image.
    pub(super) fn image_bytes(&self) -> usize {
        self.shape.iter().product::<i64>() as usize
    }

    /// The images of these indices with their labels, varied where `augmentation` is given.
    ///
    /// # Panics
    /// If there is no such image.
    pub fn read(&self, indices: &[usize], augmentation: Option<&Augmentation>) -> Result<Loaded, DataError> {
        let bytes = self.image_bytes();
        let mut pixels = vec![0; indices.len() * bytes];
        let mut reader = Reader::new(self);
        for (&index, out) in indices.iter().zip(pixels.chunks_exact_mut(bytes)) {
            reader.read(index, augmentation, out)?;
        }
        Ok(self.loaded(indices, pixels))
    }

    /// Pixels that were read, with their labels.
    pub(super) fn loaded(&self, indices: &[usize], pixels: Vec<u8>) -> Loaded {
        let label = |&index: &usize| match self.labels[index] {
            UNLABELLED => IGNORED,
            label => i64::from(label),
        };
        let labels = indices.iter().map(label).collect();
        Loaded { shape: self.shape, pixels, labels }
    }
}

impl Loaded {
    /// Images: u8 `[N, C, H, W]`, for [`numbers`]; labels: i64 `[N]`; both in host memory.
    pub fn tensors(&self) -> Result<(Tensor, Tensor), TchError> {
        let [channels, height, width] = self.shape;
        let size = [self.labels.len() as i64, channels, height, width];
        Ok((Tensor::f_from_slice(&self.pixels)?.f_view(size)?, Tensor::f_from_slice(&self.labels)?))
    }

    /// [`tensors`](Self::tensors) with the images as [`numbers`], on `device`.
    pub fn numbers(&self, device: Device) -> Result<(Tensor, Tensor), TchError> {
        let (pixels, labels) = self.tensors()?;
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
        let images = Images::new([1, 1, 2], vec![0, 51, 102, 153, 204, 255], vec![3, 1, 999]);
        let (pixels, labels) = images.read(&[2, 0], None).unwrap().numbers(Device::Cpu).unwrap();
        assert_eq!(pixels.size(), [2, 1, 1, 2]);
        assert_eq!(
            Vec::<f32>::try_from(pixels.flatten(0, -1)).unwrap(),
            [204.0 / 255.0, 1.0, 0.0, 51.0 / 255.0]
        );
        assert_eq!(Vec::<i64>::try_from(labels).unwrap(), [999, 3]);
    }

    #[test]
    fn an_empty_batch_is_a_batch() {
        let images = Images::new([1, 1, 2], vec![0, 51], vec![3]);
        assert_eq!(images.read(&[], None).unwrap().numbers(Device::Cpu).unwrap().0.size(), [0, 1, 1, 2]);
    }
}
