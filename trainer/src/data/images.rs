use std::sync::Arc;

use sha2::{Digest, Sha256};
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
            panic!("images on disk cannot be put together");
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
        let mut reader = Reader::new(self);
        for (&index, out) in indices.iter().zip(pixels.chunks_exact_mut(bytes)) {
            reader.read(index, augmentation, out)?;
        }
        Ok(self.loaded(indices, pixels, augmentation))
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

impl Loaded {
    /// Images: u8 `[N, C, H, W]`, for [`numbers`]; labels: i64 `[N]`; both in host memory.
    pub fn tensors(&self) -> Result<(Tensor, Tensor), TchError> {
        let [channels, height, width] = self.shape;
        let size = [self.labels.len() as i64, channels, height, width];
        Ok((Tensor::f_from_slice(&self.pixels)?.f_view(size)?, Tensor::f_from_slice(&self.labels)?))
    }

    /// The labels that a loss takes: i64 `[N]`, or where images were mixed the probability of each class, f32
    /// `[N, classes]`, of which cross-entropy is that of both labels in proportion.
    pub fn targets(&self, classes: i64) -> Result<Tensor, TchError> {
        let labels = Tensor::f_from_slice(&self.labels)?;
        if self.mixed.is_empty() {
            return Ok(labels);
        }
        let (others, own): (Vec<i64>, Vec<f32>) = self.mixed.iter().copied().unzip();
        let own = Tensor::f_from_slice(&own)?.f_unsqueeze(1)?;
        let one_hot = |labels: &Tensor| labels.f_one_hot(classes)?.f_to_kind(Kind::Float);
        let (labels, others) = (one_hot(&labels)?, one_hot(&Tensor::f_from_slice(&others)?)?);
        others.f_lerp_tensor(&labels, &own)
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
    fn mixed_images_have_both_labels_in_proportion() {
        let images = Images::new([1, 8, 8], [[0; 64], [200; 64]].concat(), vec![0, 2]);
        let variation = datjob_api::training::Variation {
            crop: 0,
            flip: false,
            random_resized_crop: None,
            cutout: 0,
            cut_mix: Some(datjob_api::training::CutMix::default()),
        };
        // The only partner is the bright image.
        let augmentation = Augmentation::new(&variation, &[1], 0, 0);
        let loaded = images.read(&[0; 1], Some(&augmentation)).unwrap();
        let bright = loaded.pixels.iter().map(|&pixel| u32::from(pixel)).sum::<u32>() / 200;
        assert!(bright > 0 && bright < 64, "{bright}");
        let targets = Vec::<f32>::try_from(loaded.targets(3).unwrap().flatten(0, -1)).unwrap();
        let share = bright as f32 / 64.0;
        assert!(
            (targets[0] - (1.0 - share)).abs() < 1e-6 && (targets[2] - share).abs() < 1e-6,
            "{targets:?}"
        );
        assert!(targets[1].abs() < 1e-9);
        // λ · CE(first label) + (1 − λ) · CE(second label).
        let logits = Tensor::from_slice(&[0.3_f32, -1.2, 2.0]).view([1, 3]);
        let entropy = |labels: &Tensor| crate::losses::summed_cross_entropy(&logits, labels).unwrap();
        let of_class = |class: i64| entropy(&Tensor::from_slice(&[class])).double_value(&[]);
        let expected = f64::from(1.0 - share) * of_class(0) + f64::from(share) * of_class(2);
        let found = entropy(&loaded.targets(3).unwrap()).double_value(&[]);
        assert!((found - expected).abs() < 1e-6, "{found} {expected}");
        let plain = images.read(&[0, 1], None).unwrap().targets(3).unwrap();
        assert_eq!(Vec::<i64>::try_from(plain).unwrap(), [0, 2]);
    }

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

    #[test]
    fn an_empty_batch_is_a_batch() {
        let images = Images::new([1, 1, 2], vec![0, 51], vec![3]);
        assert_eq!(images.read(&[], None).unwrap().numbers(Device::Cpu).unwrap().0.size(), [0, 1, 1, 2]);
    }
}
