//! Data augmentation of training images: random crops, flips, cutout and CutMix. Pure.

use datjob_api::training::{CutMix, Variation};

use super::{
    crop::Crop,
    cutmix::{CutMixPatch, CutMixSampler},
    decode::Size,
};
use crate::random::Stream;

/// The augmentation of the training images of an epoch.
///
/// In this order: random resized crop, zero padding and random crop, horizontal flip with probability ½, cutout, CutMix. The
/// random numbers are keyed by seed, epoch and index of the image in the data set.
#[derive(Clone, Debug, PartialEq)]
pub struct Augmentation {
    /// Zero padding on each side before the random crop, in pixels.
    pub crop: u32,
    /// Whether images are flipped horizontally.
    pub flip: bool,
    /// Minimum area of the random resized crop, as a fraction of the image; `None` disables it.
    pub random_resized_crop: Option<f64>,
    /// Side of the cutout square in pixels; 0 disables it.
    pub cutout: u32,
    /// CutMix; `None` disables it.
    pub cut_mix: Option<CutMixSampler>,
    /// The seed.
    pub seed: u64,
    /// The epoch, counted from 0.
    pub epoch: u64,
}

impl Augmentation {
    /// The augmentation of a spec in an epoch (counted from 0); `training` has the indices of the training images.
    pub fn new(variation: &Variation, training: &[usize], seed: u64, epoch: u64) -> Self {
        let Variation { crop, flip, random_resized_crop, cutout, cut_mix } = *variation;
        let random_resized_crop = random_resized_crop.map(|crop| crop.min_area);
        let cut_mix = cut_mix.map(|CutMix { alpha }| CutMixSampler { alpha, partners: training.into() });
        Self { crop, flip, random_resized_crop, cutout, cut_mix, seed, epoch }
    }

    /// Draws the CutMix patch for image `index`.
    pub(super) fn draw_cutmix(&self, index: usize, shape: [i64; 3]) -> Option<CutMixPatch> {
        let sampler = self.cut_mix.as_ref()?;
        Some(sampler.draw(&mut Stream::cut_mix(self.seed, self.epoch, index as u64), shape))
    }

    /// Draws the random resized crop of image `index`.
    pub(super) fn draw_crop(&self, index: usize, size: Size) -> Option<Crop> {
        let draw = |min_area| {
            Crop::random(&mut Stream::resized_crop(self.seed, self.epoch, index as u64), size, min_area)
        };
        self.random_resized_crop.map(draw)
    }

    /// Crops, flips and cuts out image `index` and writes it to `out`. Both have the shape (channels, height, width). The
    /// random resized crop and CutMix are separate.
    pub(super) fn apply(&self, index: usize, shape: [i64; 3], image: &[u8], out: &mut [u8]) {
        let mut stream = Stream::augmentation(self.seed, self.epoch, index as u64);
        let mut shift = || i64::from(stream.below(2 * self.crop + 1)) - i64::from(self.crop);
        let (down, right) = (shift(), shift());
        shift_and_flip(shape, image, out, down, right, self.flip && stream.coin());
        if self.cutout > 0 {
            let mut stream = Stream::cutout(self.seed, self.epoch, index as u64);
            let [_, height, width] = shape;
            let y = i64::from(stream.below(height as u32));
            let x = i64::from(stream.below(width as u32));
            cut_out(shape, out, y, x, i64::from(self.cutout));
        }
    }
}

/// Sets the square of `side` pixels around (y, x) to zero, clipped at the edges of the image.
fn cut_out([_, height, width]: [i64; 3], image: &mut [u8], y: i64, x: i64, side: i64) {
    let range = |center: i64, end: i64| {
        let first = center - side / 2;
        first.clamp(0, end) as usize..(first + side).clamp(0, end) as usize
    };
    let (rows, columns) = (range(y, height), range(x, width));
    for channel in image.chunks_exact_mut((height * width) as usize) {
        for row in channel.chunks_exact_mut(width as usize).skip(rows.start).take(rows.len()) {
            row[columns.clone()].fill(0);
        }
    }
}

/// Pixel (y, x) of the result is pixel (y + down, x + right) of the image, or zero outside the image. With `flip`, the
/// columns are then reversed.
fn shift_and_flip(
    [_, height, width]: [i64; 3],
    image: &[u8],
    out: &mut [u8],
    down: i64,
    right: i64,
    flip: bool,
) {
    let row_bytes = width as usize;
    // The columns of the result that are inside the image.
    let first = (-right).clamp(0, width);
    let last = (width - right).clamp(first, width);
    let visible = first as usize..last as usize;
    let source = (first + right).clamp(0, width) as usize;
    for (row, out) in out.chunks_exact_mut(row_bytes).enumerate() {
        let (channel, y) = (row as i64 / height, row as i64 % height + down);
        out.fill(0);
        if (0..height).contains(&y) {
            let start = (channel * height + y) as usize * row_bytes + source;
            out[visible.clone()].copy_from_slice(&image[start..start + visible.len()]);
        }
        if flip {
            out.reverse();
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const IDENTITY: Augmentation = Augmentation {
        crop: 0,
        flip: false,
        random_resized_crop: None,
        cutout: 0,
        cut_mix: None,
        seed: 0,
        epoch: 0,
    };

    #[test]
    fn cutout_is_clipped_at_the_edges() {
        let cut = |y, x, side| {
            let mut image = [1; 2 * 4 * 4];
            cut_out([2, 4, 4], &mut image, y, x, side);
            assert_eq!(image[..16], image[16..], "both channels");
            image[..16].iter().map(ToString::to_string).collect::<String>()
        };
        assert_eq!(cut(1, 2, 2), "1001100111111111");
        assert_eq!(cut(0, 0, 3), "0011001111111111");
        assert_eq!(cut(3, 3, 9), "0000000000000000");
    }

    #[test]
    fn cutout_reaches_every_pixel() {
        let zeros: std::collections::BTreeSet<Vec<u8>> = (0..300)
            .map(|index| {
                let mut out = [0; 25];
                Augmentation { cutout: 1, ..IDENTITY }.apply(index, [1, 5, 5], &[1; 25], &mut out);
                assert_eq!(out.iter().map(|&pixel| u32::from(pixel)).sum::<u32>(), 24);
                out.to_vec()
            })
            .collect();
        assert_eq!(zeros.len(), 25);
    }

    #[test]
    fn cropping_shifts_and_pads_with_zeros() {
        let image = [1, 2, 3, 4, 5, 6, 7, 8, 9];
        let mut out = [99; 9];
        shift_and_flip([1, 3, 3], &image, &mut out, 1, -1, false);
        assert_eq!(out, [0, 4, 5, 0, 7, 8, 0, 0, 0]);
        shift_and_flip([1, 3, 3], &image, &mut out, -2, 2, false);
        assert_eq!(out, [0, 0, 0, 0, 0, 0, 3, 0, 0]);
    }

    #[test]
    fn flipping_mirrors_every_channel() {
        let mut out = [0; 8];
        shift_and_flip([2, 2, 2], &[1, 2, 3, 4, 5, 6, 7, 8], &mut out, 0, 0, true);
        assert_eq!(out, [2, 1, 4, 3, 6, 5, 8, 7]);
    }

    #[test]
    fn all_shifts_and_flips_occur() {
        let image: Vec<u8> = (1..=9).collect();
        let results: std::collections::BTreeSet<[u8; 9]> = (0..500)
            .map(|index| {
                let mut out = [0; 9];
                Augmentation { crop: 1, flip: true, ..IDENTITY }.apply(index, [1, 3, 3], &image, &mut out);
                out
            })
            .collect();
        assert_eq!(results.len(), 18);
    }

    proptest! {
        #[test]
        fn any_padding_fits(crop in 0_u32..=16, flip: bool, seed: u64, epoch: u64, index in 0_usize..60_000) {
            let image = [7; 2 * 5 * 4];
            let mut out = [99; 2 * 5 * 4];
            Augmentation { crop, flip, seed, epoch, ..IDENTITY }.apply(index, [2, 5, 4], &image, &mut out);
            prop_assert!(out.iter().all(|&pixel| pixel == 7 || pixel == 0));
            prop_assert!(crop > 0 || out == image);
        }
    }
}
