//! One image after the other, as the network takes it.

use std::sync::Arc;

use super::{
    Augmentation, DataError,
    decode::{Decoder, Rgb},
    encoded::Encoded,
    view::{Part, Scaler},
};

/// Where pixels come from.
#[derive(Clone, Debug)]
pub(super) enum Store {
    /// Image by image, channel by channel, row by row.
    Memory(Arc<Vec<u8>>),
    /// Files, and how many threads decode them ahead of a training or an evaluation.
    Encoded { images: Arc<Encoded>, threads: usize },
}

/// Reads images; what one image needs is kept for the next. One for each thread.
pub(super) struct Reader {
    /// How many images there are.
    count: usize,
    shape: [i64; 3],
    source: Source,
    scaler: Scaler,
    /// The image before it is varied.
    plain: Vec<u8>,
    /// The image that is mixed into it.
    other: Vec<u8>,
}

enum Source {
    Memory(Arc<Vec<u8>>),
    Encoded { images: Arc<Encoded>, decoder: Decoder, decoded: Rgb },
}

impl Reader {
    /// Reads the `count` images of a store, each of `shape` (channels, height, width).
    pub(super) fn new(store: Store, count: usize, shape: [i64; 3]) -> Self {
        let source = match store {
            Store::Memory(pixels) => Source::Memory(pixels),
            Store::Encoded { images, .. } => {
                Source::Encoded { images, decoder: Decoder::new(), decoded: Rgb::default() }
            }
        };
        Self { count, shape, source, scaler: Scaler::new(), plain: Vec::new(), other: Vec::new() }
    }

    /// Writes the image, varied where `augmentation` is given, into `out`: channel by channel, row by row. Indices beyond
    /// the last image go over all images again (`Images::read`).
    ///
    /// # Panics
    /// If there are no images, or `out` has another length than an image.
    pub(super) fn read(
        &mut self,
        index: usize,
        augmentation: Option<&Augmentation>,
        out: &mut [u8],
    ) -> Result<(), DataError> {
        let Some(augmentation) = augmentation else { return self.plain(index, None, out) };
        self.varied(index, augmentation, out)?;
        if let Some(mix) = augmentation.mix(index, self.shape) {
            let mut other = std::mem::take(&mut self.other);
            other.resize(out.len(), 0);
            self.varied(mix.partner, augmentation, &mut other)?;
            mix.paste(self.shape, &other, out);
            self.other = other;
        }
        Ok(())
    }

    /// The image, varied but not mixed.
    fn varied(&mut self, index: usize, augmentation: &Augmentation, out: &mut [u8]) -> Result<(), DataError> {
        let mut plain = std::mem::take(&mut self.plain);
        plain.resize(out.len(), 0);
        self.plain(index, Some(augmentation), &mut plain)?;
        augmentation.apply(index, self.shape, &plain, out);
        self.plain = plain;
        Ok(())
    }

    /// The part of the image that is seen, at the size of the network.
    fn plain(
        &mut self,
        index: usize,
        augmentation: Option<&Augmentation>,
        out: &mut [u8],
    ) -> Result<(), DataError> {
        let Self { count, shape, source, scaler, .. } = self;
        let random = |size| augmentation.and_then(|augmentation| augmentation.part(index, size));
        let index = index % *count;
        match source {
            Source::Memory(pixels) => {
                let image = &pixels[index * out.len()..(index + 1) * out.len()];
                let Some(part) = random(width_and_height(*shape)) else {
                    out.copy_from_slice(image);
                    return Ok(());
                };
                scale_channels(scaler, *shape, image, part, out)
                    .map_err(|problem| DataError::Image { image: format!("image {index}"), problem })
            }
            Source::Encoded { images, decoder, decoded } => {
                let bytes = images.bytes(index)?;
                let seen = decoder.decode(&bytes, decoded).and_then(|()| {
                    let (width, height) = (decoded.width, decoded.height);
                    let part = random((width, height)).unwrap_or_else(|| Part::centre(width, height));
                    scaler.square(decoded, part, images.size(), out)
                });
                seen.map_err(|problem| DataError::Image { image: images.name(index), problem })
            }
        }
    }
}

fn width_and_height([_, height, width]: [i64; 3]) -> (u32, u32) {
    (width as u32, height as u32)
}

fn scale_channels(
    scaler: &mut Scaler,
    shape: [i64; 3],
    image: &[u8],
    part: Part,
    out: &mut [u8],
) -> Result<(), String> {
    let size = width_and_height(shape);
    let bytes = (size.0 * size.1) as usize;
    let mut channels = image.chunks_exact(bytes).zip(out.chunks_exact_mut(bytes));
    channels.try_for_each(|(channel, out)| scaler.channel(channel, size, part, out))
}
