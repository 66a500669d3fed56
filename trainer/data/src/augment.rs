use datjob_api::training::{CutMix, Variation};

use super::{
    cutmix::{Mix, Mixing},
    view::Part,
};
use crate::random::Stream;

/// How the training images of an epoch are varied: a random part of them, padded with zeros and cropped at random, then
/// flipped left to right with probability ½, then a square of zeros. An image's draws belong to the seed, the epoch and
/// its index in the data set.
#[derive(Clone, Debug, PartialEq)]
pub struct Augmentation {
    /// Pixels of padding on each side.
    pub crop: u32,
    /// Whether images are flipped.
    pub flip: bool,
    /// Least area of the random part, as a share of the image's; the usual view of the image where absent.
    pub random_resized_crop: Option<f64>,
    /// Side of the square of zeros; 0 for none.
    pub cutout: u32,
    /// How images are mixed, last of all; not where absent.
    pub cut_mix: Option<Mixing>,
    /// The seed.
    pub seed: u64,
    /// The epoch, counted from 0.
    pub epoch: u64,
}

impl Augmentation {
    /// As a spec asks, in an epoch counted from 0, for a training on these images.
    pub fn new(variation: &Variation, training: &[usize], seed: u64, epoch: u64) -> Self {
        let Variation { crop, flip, random_resized_crop, cutout, cut_mix } = *variation;
        let random_resized_crop = random_resized_crop.map(|part| part.min_area);
        let cut_mix = cut_mix.map(|CutMix { alpha }| Mixing { alpha, partners: training.into() });
        Self { crop, flip, random_resized_crop, cutout, cut_mix, seed, epoch }
    }

    /// What is put into image `index`, where images are mixed.
    pub(super) fn mix(&self, index: usize, shape: [i64; 3]) -> Option<Mix> {
        let mixing = self.cut_mix.as_ref()?;
        Some(mixing.draw(&mut Stream::cut_mix(self.seed, self.epoch, index as u64), shape))
    }

    /// The random part of image `index`, of that width and height, where one is taken.
    pub(super) fn part(&self, index: usize, size: (u32, u32)) -> Option<Part> {
        let draw = |min_area| {
            Part::random(&mut Stream::resized_crop(self.seed, self.epoch, index as u64), size, min_area)
        };
        self.random_resized_crop.map(draw)
    }

    /// Writes the varied image `index`, of which the part was taken already, into `out`; both hold `shape` = channels,
    /// height, width.
    pub(super) fn apply(&self, index: usize, shape: [i64; 3], image: &[u8], out: &mut [u8]) {
        let mut stream = Stream::augmentation(self.seed, self.epoch, index as u64);
        let mut shift = || i64::from(stream.below(2 * self.crop + 1)) - i64::from(self.crop);
        let (down, right) = (shift(), shift());
        vary(shape, image, out, (down, right), self.flip && stream.coin());
        if self.cutout > 0 {
            let mut stream = Stream::cutout(self.seed, self.epoch, index as u64);
            let [_, height, width] = shape;
            let centre = (i64::from(stream.below(height as u32)), i64::from(stream.below(width as u32)));
            cut_out(shape, out, centre, i64::from(self.cutout));
        }
    }
}

/// Zeros in the square of `side` pixels around a pixel, as far as it lies in the image.
fn cut_out([_, height, width]: [i64; 3], image: &mut [u8], (y, x): (i64, i64), side: i64) {
    let range = |centre: i64, end: i64| {
        let first = centre - side / 2;
        first.clamp(0, end) as usize..(first + side).clamp(0, end) as usize
    };
    let (rows, columns) = (range(y, height), range(x, width));
    for channel in image.chunks_exact_mut((height * width) as usize) {
        for row in channel.chunks_exact_mut(width as usize).skip(rows.start).take(rows.len()) {
            row[columns.clone()].fill(0);
        }
    }
}

/// The pixel (y, x) of the result is (y + down, x + right) of the image, zero outside of it; then the rows are
/// reversed if it is flipped.
fn vary([_, height, width]: [i64; 3], image: &[u8], out: &mut [u8], (down, right): (i64, i64), flip: bool) {
    let row_bytes = width as usize;
    // Columns of the result that show columns of the image.
    let first = (-right).clamp(0, width);
    let last = (width - right).clamp(first, width);
    let shown = first as usize..last as usize;
    let source = (first + right).clamp(0, width) as usize;
    for (row, out) in out.chunks_exact_mut(row_bytes).enumerate() {
        let (channel, y) = (row as i64 / height, row as i64 % height + down);
        out.fill(0);
        if (0..height).contains(&y) {
            let start = (channel * height + y) as usize * row_bytes + source;
            out[shown.clone()].copy_from_slice(&image[start..start + shown.len()]);
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

    const PLAIN: Augmentation = Augmentation {
        crop: 0,
        flip: false,
        random_resized_crop: None,
        cutout: 0,
        cut_mix: None,
        seed: 0,
        epoch: 0,
    };

    #[test]
    fn a_square_of_zeros_is_cut_at_the_edges() {
        let cut = |centre, side| {
            let mut image = [1; 2 * 4 * 4];
            cut_out([2, 4, 4], &mut image, centre, side);
            assert_eq!(image[..16], image[16..], "both channels");
            image[..16].iter().map(ToString::to_string).collect::<String>()
        };
        assert_eq!(cut((1, 2), 2), "1001100111111111");
        assert_eq!(cut((0, 0), 3), "0011001111111111");
        assert_eq!(cut((3, 3), 9), "0000000000000000");
    }

    #[test]
    fn squares_of_zeros_fall_everywhere_and_no_two_images_share_theirs() {
        let zeros: std::collections::BTreeSet<Vec<u8>> = (0..300)
            .map(|index| {
                let mut out = [0; 25];
                Augmentation { cutout: 1, ..PLAIN }.apply(index, [1, 5, 5], &[1; 25], &mut out);
                assert_eq!(out.iter().map(|&pixel| u32::from(pixel)).sum::<u32>(), 24);
                out.to_vec()
            })
            .collect();
        assert_eq!(zeros.len(), 25);
    }

    #[test]
    fn cropping_moves_and_fills_with_zeros() {
        let image = [1, 2, 3, 4, 5, 6, 7, 8, 9];
        let mut out = [99; 9];
        vary([1, 3, 3], &image, &mut out, (1, -1), false);
        assert_eq!(out, [0, 4, 5, 0, 7, 8, 0, 0, 0]);
        vary([1, 3, 3], &image, &mut out, (-2, 2), false);
        assert_eq!(out, [0, 0, 0, 0, 0, 0, 3, 0, 0]);
    }

    #[test]
    fn flipping_mirrors_every_channel() {
        let mut out = [0; 8];
        vary([2, 2, 2], &[1, 2, 3, 4, 5, 6, 7, 8], &mut out, (0, 0), true);
        assert_eq!(out, [2, 1, 4, 3, 6, 5, 8, 7]);
    }

    #[test]
    fn all_shifts_and_both_sides_occur() {
        let image: Vec<u8> = (1..=9).collect();
        let varied: std::collections::BTreeSet<[u8; 9]> = (0..500)
            .map(|index| {
                let mut out = [0; 9];
                Augmentation { crop: 1, flip: true, ..PLAIN }.apply(index, [1, 3, 3], &image, &mut out);
                out
            })
            .collect();
        assert_eq!(varied.len(), 18);
    }

    proptest! {
        #[test]
        fn any_padding_fits(crop in 0_u32..=16, flip: bool, seed: u64, epoch: u64, index in 0_usize..60_000) {
            let image = [7; 2 * 5 * 4];
            let mut out = [99; 2 * 5 * 4];
            Augmentation { crop, flip, seed, epoch, ..PLAIN }.apply(index, [2, 5, 4], &image, &mut out);
            prop_assert!(out.iter().all(|&pixel| pixel == 7 || pixel == 0));
            prop_assert!(crop > 0 || out == image);
        }
    }
}
