use crate::random::Stream;

/// How the training images of an epoch are varied: padded with zeros and cropped at random, then flipped left to right
/// with probability ½. An image's draws belong to the seed, the epoch and its index in the data set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Augmentation {
    /// Pixels of padding on each side.
    pub crop: u32,
    /// Whether images are flipped.
    pub flip: bool,
    /// The seed.
    pub seed: u64,
    /// The epoch, counted from 0.
    pub epoch: u64,
}

impl Augmentation {
    /// Writes the varied image `index` into `out`; both hold `shape` = channels, height, width.
    pub(super) fn apply(&self, index: usize, shape: [i64; 3], image: &[u8], out: &mut [u8]) {
        let mut stream = Stream::augmentation(self.seed, self.epoch, index as u64);
        let mut shift = || i64::from(stream.below(2 * self.crop + 1)) - i64::from(self.crop);
        let (down, right) = (shift(), shift());
        vary(shape, image, out, (down, right), self.flip && stream.coin());
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
                Augmentation { crop: 1, flip: true, seed: 0, epoch: 0 }.apply(
                    index,
                    [1, 3, 3],
                    &image,
                    &mut out,
                );
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
            Augmentation { crop, flip, seed, epoch }.apply(index, [2, 5, 4], &image, &mut out);
            prop_assert!(out.iter().all(|&pixel| pixel == 7 || pixel == 0));
            prop_assert!(crop > 0 || out == image);
        }
    }
}
