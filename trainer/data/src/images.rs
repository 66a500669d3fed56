//! Images with their labels, and batches of them.

use std::sync::Arc;

use sha2::{Digest, Sha256};

use super::{
    Augmentation, DataError,
    encoded::EncodedImages,
    reader::{ImageReader, PixelStore},
};

/// Images with their labels: bytes in memory, or encoded files that are decoded when they are read. Clones share the data.
#[derive(Clone, Debug)]
pub struct Images {
    /// Channels, height, width.
    shape: [i64; 3],
    labels: Arc<[u16]>,
    store: PixelStore,
}

/// The label of an unlabelled image.
pub const UNLABELLED: u16 = u16::MAX;
/// The label of an unlabelled image in a batch: losses of labels ignore it (`ignore_index` of libtorch).
pub const IGNORE_INDEX: i64 = -100;

/// A batch of images with their labels, in host memory.
#[derive(Debug)]
pub struct ImageBatch {
    /// Channels, height, width.
    pub shape: [i64; 3],
    /// Image by image, channel by channel, row by row.
    pub pixels: Vec<u8>,
    /// A class for each image, or [`IGNORE_INDEX`].
    pub labels: Vec<i64>,
    /// The index with which each image was read; that of a repetition within an epoch is at least the number of images
    /// ([`Images::read`]).
    pub indices: Vec<usize>,
    /// CutMix: for each image the class of the pasted image, and the weight of the image's own class. Empty without CutMix.
    pub mixed_labels: Vec<(i64, f32)>,
}

impl Images {
    /// Images in memory. `pixels` holds image by image, channel by channel, row by row; `labels` has one label per image.
    ///
    /// # Panics
    /// If the lengths do not match.
    pub fn new(shape: [i64; 3], pixels: Vec<u8>, labels: Vec<u16>) -> Self {
        assert_eq!(pixels.len(), labels.len() * shape.iter().product::<i64>() as usize, "pixels and labels");
        Self { shape, labels: labels.into(), store: PixelStore::Memory(Arc::new(pixels)) }
    }

    /// EncodedImages images on disk. A [`Loader`](super::Loader) decodes them on `threads` threads.
    pub(super) fn encoded(images: EncodedImages, labels: Vec<u16>, threads: usize) -> Self {
        let side = i64::from(images.size());
        let store = PixelStore::EncodedImages { images: Arc::new(images), threads: threads.max(1) };
        Self { shape: [3, side, side], labels: labels.into(), store }
    }

    /// Appends images with new labels. Both sets of images must be in memory.
    ///
    /// # Panics
    /// If the images of either set are encoded, or if shapes or lengths do not match.
    pub(super) fn append(&mut self, images: &Self, labels: &[u16]) {
        assert_eq!((self.shape, images.len()), (images.shape, labels.len()), "shapes and labels");
        let (PixelStore::Memory(pixels), PixelStore::Memory(other)) = (&mut self.store, &images.store) else {
            panic!("images on disk cannot be appended");
        };
        Arc::make_mut(pixels).extend_from_slice(other);
        self.labels = [&self.labels, labels].concat().into();
    }

    /// The number of images.
    pub fn len(&self) -> usize {
        self.labels.len()
    }

    /// Whether the images are encoded on disk.
    pub fn is_encoded(&self) -> bool {
        matches!(self.store, PixelStore::EncodedImages { .. })
    }

    /// Whether there are no images.
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
    /// If the index is out of range.
    pub fn label(&self, index: usize) -> u16 {
        self.labels[index]
    }

    /// The size of a decoded image in bytes.
    pub(super) fn image_bytes(&self) -> usize {
        self.shape.iter().product::<i64>() as usize
    }

    /// A hash of the images and their labels, in hexadecimal.
    pub fn fingerprint(&self) -> String {
        let mut hash = Sha256::new();
        self.hash_into(&mut hash);
        hex::encode(hash.finalize())
    }

    /// Hashes shape and labels, and the pixels in memory or the locations of encoded images.
    pub(super) fn hash_into(&self, hash: &mut Sha256) {
        self.shape.iter().for_each(|size| hash.update(size.to_le_bytes()));
        self.labels.iter().for_each(|label| hash.update(label.to_le_bytes()));
        match &self.store {
            // A CRC detects accidental changes, which is enough here, and is fast.
            PixelStore::Memory(pixels) => hash.update(crc32c::crc32c(pixels).to_le_bytes()),
            PixelStore::EncodedImages { images, .. } => images.hash_into(hash),
        }
    }

    /// Reads the images with these indices and applies `augmentation`.
    ///
    /// Random numbers are keyed by index. An image that occurs repeatedly in an epoch has further indices: they are taken
    /// modulo [`len`](Self::len), so index `len` is the first image again.
    ///
    /// # Panics
    /// If there are no images.
    pub fn read(
        &self,
        indices: &[usize],
        augmentation: Option<&Augmentation>,
    ) -> Result<ImageBatch, DataError> {
        let bytes = self.image_bytes();
        let mut pixels = vec![0; indices.len() * bytes];
        let mut reader = self.reader();
        for (&index, out) in indices.iter().zip(pixels.chunks_exact_mut(bytes)) {
            reader.read(index, augmentation, out)?;
        }
        Ok(self.batch(indices, pixels, augmentation))
    }

    /// A reader for one thread.
    pub(super) fn reader(&self) -> ImageReader {
        ImageReader::new(self.store.clone(), self.len(), self.shape)
    }

    /// Where the pixels are.
    pub(super) fn store(&self) -> &PixelStore {
        &self.store
    }

    /// The number of threads that decode encoded images in advance.
    pub(super) fn decoding_threads(&self) -> Option<usize> {
        match &self.store {
            PixelStore::Memory(_) => None,
            PixelStore::EncodedImages { threads, .. } => Some(*threads),
        }
    }

    /// A batch of these pixels, with the labels of the images.
    pub(super) fn batch(
        &self,
        indices: &[usize],
        pixels: Vec<u8>,
        augmentation: Option<&Augmentation>,
    ) -> ImageBatch {
        let label = |index: usize| match self.labels[index % self.len()] {
            UNLABELLED => IGNORE_INDEX,
            label => i64::from(label),
        };
        let mix = |&index: &usize| {
            let patch = augmentation?.draw_cutmix(index, self.shape)?;
            Some((label(patch.partner), patch.lambda))
        };
        let mixed_labels = indices.iter().filter_map(mix).collect();
        let labels = indices.iter().map(|&index| label(index)).collect();
        ImageBatch { shape: self.shape, pixels, labels, indices: indices.to_vec(), mixed_labels }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn repetitions_of_an_image_have_different_random_numbers() {
        let images = Images::new([1, 8, 8], (0..192).collect(), vec![4, UNLABELLED, 6]);
        let repeated = images.read(&[5, 4, 3], None).unwrap();
        let plain = images.read(&[2, 1, 0], None).unwrap();
        assert_eq!((&repeated.pixels, &repeated.labels), (&plain.pixels, &plain.labels));
        assert_eq!(repeated.labels, [6, IGNORE_INDEX, 4]);
        assert_eq!((repeated.indices, plain.indices), (vec![5, 4, 3], vec![2, 1, 0]));
        let augmentation = Augmentation {
            crop: 4,
            flip: true,
            random_resized_crop: None,
            cutout: 0,
            cut_mix: None,
            seed: 1,
            epoch: 0,
        };
        let pixels: Vec<Vec<u8>> =
            (0..8).map(|pass| images.read(&[1 + 3 * pass], Some(&augmentation)).unwrap().pixels).collect();
        let different: std::collections::BTreeSet<_> = pixels.iter().collect();
        assert!(different.len() > 4, "{} of 8 are different", different.len());
    }
}
