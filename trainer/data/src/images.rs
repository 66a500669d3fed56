//! Images with their labels, and reading a batch of them.

use std::sync::Arc;

use sha2::{Digest, Sha256};

use super::{
    Augmentation, DataError,
    encoded::Encoded,
    reader::{Reader, Store},
};

/// Images with their labels: in memory as bytes, or encoded on disk and decoded when they are read. Clones share them.
#[derive(Clone, Debug)]
pub struct Images {
    /// Channels, height, width.
    shape: [i64; 3],
    labels: Arc<[u16]>,
    store: Store,
}

/// The label of an image that has none.
pub const UNLABELLED: u16 = u16::MAX;
/// What stands for it in a batch: losses pass over it.
const IGNORED: i64 = -100;

/// Images that were read, with their labels, in host memory.
#[derive(Debug)]
pub struct Loaded {
    /// Channels, height, width.
    pub shape: [i64; 3],
    /// Image by image, channel by channel, row by row.
    pub pixels: Vec<u8>,
    /// A class for each image.
    pub labels: Vec<i64>,
    /// The class of what was mixed into each image, and the image's own share; empty where nothing was.
    pub mixed: Vec<(i64, f32)>,
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
            panic!("images on disk cannot be appended");
        };
        Arc::make_mut(own).extend_from_slice(other);
        self.labels = [&self.labels, labels].concat().into();
    }

    /// How many.
    pub fn len(&self) -> usize {
        self.labels.len()
    }

    /// Whether they lie on disk, encoded.
    pub fn is_encoded(&self) -> bool {
        matches!(self.store, Store::Encoded { .. })
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

    /// Hashes shape and labels, and the pixels where they lie in memory or else where each image lies.
    pub(super) fn hash_into(&self, hash: &mut Sha256) {
        self.shape.iter().for_each(|size| hash.update(size.to_le_bytes()));
        self.labels.iter().for_each(|label| hash.update(label.to_le_bytes()));
        match &self.store {
            // Chance is looked for, not intent, and this one takes no time that is felt.
            Store::Memory(pixels) => hash.update(crc32c::crc32c(pixels).to_le_bytes()),
            Store::Encoded { images, .. } => images.hash_into(hash),
        }
    }

    /// The images of these indices with their labels, varied where `augmentation` is given.
    ///
    /// Random numbers are keyed by index. For an image that comes more than once under one key there are indices beyond the
    /// last image: they go over all images again, so that index [`len`](Self::len) is the first image.
    ///
    /// # Panics
    /// If there are no images at all.
    pub fn read(&self, indices: &[usize], augmentation: Option<&Augmentation>) -> Result<Loaded, DataError> {
        let bytes = self.image_bytes();
        let mut pixels = vec![0; indices.len() * bytes];
        let mut reader = self.reader();
        for (&index, out) in indices.iter().zip(pixels.chunks_exact_mut(bytes)) {
            reader.read(index, augmentation, out)?;
        }
        Ok(self.loaded(indices, pixels, augmentation))
    }

    /// Reads them one by one, for a thread.
    pub(super) fn reader(&self) -> Reader {
        Reader::new(self.store.clone(), self.len(), self.shape)
    }

    /// How many threads decode them ahead, where they lie on disk.
    pub(super) fn decoding_threads(&self) -> Option<usize> {
        match &self.store {
            Store::Memory(_) => None,
            Store::Encoded { threads, .. } => Some(*threads),
        }
    }

    /// Pixels that were read, with their labels.
    pub(super) fn loaded(
        &self,
        indices: &[usize],
        pixels: Vec<u8>,
        augmentation: Option<&Augmentation>,
    ) -> Loaded {
        let label = |index: usize| match self.labels[index % self.len()] {
            UNLABELLED => IGNORED,
            label => i64::from(label),
        };
        let mix = |&index: &usize| {
            let mix = augmentation?.mix(index, self.shape)?;
            Some((label(mix.partner), mix.own))
        };
        let mixed = indices.iter().filter_map(mix).collect();
        let labels = indices.iter().map(|&index| label(index)).collect();
        Loaded { shape: self.shape, pixels, labels, mixed }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_has_other_random_numbers_when_it_comes_again() {
        let images = Images::new([1, 8, 8], (0..192).collect(), vec![4, UNLABELLED, 6]);
        let again = images.read(&[5, 4, 3], None).unwrap();
        let plain = images.read(&[2, 1, 0], None).unwrap();
        assert_eq!((&again.pixels, &again.labels), (&plain.pixels, &plain.labels));
        assert_eq!(again.labels, [6, IGNORED, 4]);
        let varied = Augmentation {
            crop: 4,
            flip: true,
            random_resized_crop: None,
            cutout: 0,
            cut_mix: None,
            seed: 1,
            epoch: 0,
        };
        let pixels: Vec<Vec<u8>> =
            (0..8).map(|pass| images.read(&[1 + 3 * pass], Some(&varied)).unwrap().pixels).collect();
        let different: std::collections::BTreeSet<_> = pixels.iter().collect();
        assert!(different.len() > 4, "{} of 8 are different", different.len());
    }
}
