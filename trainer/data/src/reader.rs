//! Reads single images: decodes, crops, resizes and augments them.

use std::sync::Arc;

use super::{
    Augmentation, DataError,
    crop::{Crop, CropResizer},
    decode::{Decoder, Rgb, Size},
    encoded::EncodedImages,
};

/// Where the pixels of images are stored.
#[derive(Clone, Debug)]
pub(super) enum PixelStore {
    /// Image by image, channel by channel, row by row.
    Memory(Arc<Vec<u8>>),
    /// Encoded files, and the number of threads that decode them in advance.
    EncodedImages { images: Arc<EncodedImages>, threads: usize },
}

/// Reads images and reuses its buffers. Each thread has one.
pub(super) struct ImageReader {
    /// The number of images.
    count: usize,
    shape: [i64; 3],
    source: PixelSource,
    resizer: CropResizer,
    /// Buffer for the image before augmentation.
    cropped: Vec<u8>,
    /// Buffer for the image that CutMix pastes from.
    partner: Vec<u8>,
}

enum PixelSource {
    Memory(Arc<Vec<u8>>),
    EncodedImages { images: Arc<EncodedImages>, decoder: Decoder, decoded: Rgb },
}

impl ImageReader {
    /// Reads the `count` images of a store, each of `shape` (channels, height, width).
    pub(super) fn new(store: PixelStore, count: usize, shape: [i64; 3]) -> Self {
        let source = match store {
            PixelStore::Memory(pixels) => PixelSource::Memory(pixels),
            PixelStore::EncodedImages { images, .. } => {
                PixelSource::EncodedImages { images, decoder: Decoder::new(), decoded: Rgb::default() }
            }
        };
        Self { count, shape, source, resizer: CropResizer::new(), cropped: Vec::new(), partner: Vec::new() }
    }

    /// Writes the image to `out`, channel by channel, row by row, and applies `augmentation`. The index is taken modulo the
    /// number of images (`Images::read`).
    ///
    /// # Panics
    /// If there are no images, or if `out` does not have the length of an image.
    pub(super) fn read(
        &mut self,
        index: usize,
        augmentation: Option<&Augmentation>,
        out: &mut [u8],
    ) -> Result<(), DataError> {
        let Some(augmentation) = augmentation else { return self.read_cropped(index, None, out) };
        self.read_augmented(index, augmentation, out)?;
        if let Some(patch) = augmentation.draw_cutmix(index, self.shape) {
            let mut partner = std::mem::take(&mut self.partner);
            partner.resize(out.len(), 0);
            self.read_augmented(patch.partner, augmentation, &mut partner)?;
            patch.paste(self.shape, &partner, out);
            self.partner = partner;
        }
        Ok(())
    }

    /// The augmented image, without CutMix.
    fn read_augmented(
        &mut self,
        index: usize,
        augmentation: &Augmentation,
        out: &mut [u8],
    ) -> Result<(), DataError> {
        let mut cropped = std::mem::take(&mut self.cropped);
        cropped.resize(out.len(), 0);
        self.read_cropped(index, Some(augmentation), &mut cropped)?;
        augmentation.apply(index, self.shape, &cropped, out);
        self.cropped = cropped;
        Ok(())
    }

    /// The crop of the image, resized to the input size of the network.
    fn read_cropped(
        &mut self,
        index: usize,
        augmentation: Option<&Augmentation>,
        out: &mut [u8],
    ) -> Result<(), DataError> {
        let Self { count, shape, source, resizer, .. } = self;
        let random_crop = |size| augmentation.and_then(|augmentation| augmentation.draw_crop(index, size));
        let index = index % *count;
        match source {
            PixelSource::Memory(pixels) => {
                let image = &pixels[index * out.len()..(index + 1) * out.len()];
                let Some(crop) = random_crop(size_of(*shape)) else {
                    out.copy_from_slice(image);
                    return Ok(());
                };
                resize_channels(resizer, *shape, image, crop, out)
                    .map_err(|problem| DataError::Image { image: format!("image {index}"), problem })
            }
            PixelSource::EncodedImages { images, decoder, decoded } => {
                let bytes = images.bytes(index)?;
                let result = decoder.decode(&bytes, decoded).and_then(|()| {
                    let crop = random_crop(decoded.size).unwrap_or_else(|| Crop::center(decoded.size));
                    resizer.resize_to_square(decoded, crop, images.size(), out)
                });
                result.map_err(|problem| DataError::Image { image: images.name(index), problem })
            }
        }
    }
}

fn size_of([_, height, width]: [i64; 3]) -> Size {
    Size { width: width as u32, height: height as u32 }
}

fn resize_channels(
    resizer: &mut CropResizer,
    shape: [i64; 3],
    image: &[u8],
    crop: Crop,
    out: &mut [u8],
) -> Result<(), String> {
    let size = size_of(shape);
    let bytes = (size.width * size.height) as usize;
    let mut channels = image.chunks_exact(bytes).zip(out.chunks_exact_mut(bytes));
    channels.try_for_each(|(channel, out)| resizer.resize_channel(channel, size, crop, out))
}
