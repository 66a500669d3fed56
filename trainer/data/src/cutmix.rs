//! CutMix (Yun et al., arXiv 1905.04899): a part of another image in a training image, and labels in proportion.
//!
//! The other image is drawn from all that are trained on, and not from the batch, whose other images may be on other ranks;
//! it is varied as its own draws of the epoch say. Each image has a draw of its own, as the published code has for each
//! batch.

use std::{ops::Range, sync::Arc};

use statrs::distribution::{Beta, ContinuousCDF};

use crate::random::Stream;

/// How images are mixed.
#[derive(Clone, Debug, PartialEq)]
pub struct Mixing {
    /// Both parameters of the Beta distribution that an image's own share is drawn from, before what lies beyond the edge
    /// is given back.
    pub alpha: f64,
    /// The images that parts are taken from, as indices in the data set; at least one.
    pub partners: Arc<[usize]>,
}

/// What is put into one image.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Mix {
    /// The other image.
    pub(super) partner: usize,
    rows: Range<usize>,
    columns: Range<usize>,
    /// The image's own share of the area, and of the label.
    pub(super) own: f32,
}

impl Mixing {
    /// Draws what is put into an image of this shape (channels, height, width).
    pub(super) fn draw(&self, stream: &mut Stream, [_, height, width]: [i64; 3]) -> Mix {
        let partner = self.partners[stream.below(self.partners.len() as u32) as usize];
        let uniform = f64::midpoint(f64::from(stream.symmetric()), 1.0);
        // Both parameters are checked with the spec, and are the same.
        let share = Beta::new(self.alpha, self.alpha).map_or(uniform, |beta| beta.inverse_cdf(uniform));
        let side = (1.0 - share).max(0.0).sqrt();
        let mut range = |length: i64| {
            let half = (length as f64 * side) as i64 / 2;
            let centre = i64::from(stream.below(length as u32));
            (centre - half).clamp(0, length) as usize..(centre + half).clamp(0, length) as usize
        };
        let (rows, columns) = (range(height), range(width));
        let pasted = (rows.len() * columns.len()) as f64 / (height * width) as f64;
        Mix { partner, rows, columns, own: (1.0 - pasted) as f32 }
    }
}

impl Mix {
    /// Puts the part of `other` into `image`; both hold `shape` = channels, height, width.
    pub(super) fn paste(&self, [_, height, width]: [i64; 3], other: &[u8], image: &mut [u8]) {
        let channel = (height * width) as usize;
        for (image, other) in image.chunks_exact_mut(channel).zip(other.chunks_exact(channel)) {
            for row in self.rows.clone() {
                let part = row * width as usize + self.columns.start..row * width as usize + self.columns.end;
                image[part.clone()].copy_from_slice(&other[part]);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mixing(alpha: f64) -> Mixing {
        Mixing { alpha, partners: [3, 5, 8].into() }
    }

    #[test]
    fn a_part_of_the_other_image_is_as_large_as_its_share_of_the_label() {
        let (mut partners, mut shares) = (std::collections::BTreeSet::new(), Vec::new());
        for image in 0..1000 {
            let mix = mixing(1.0).draw(&mut Stream::cut_mix(0, 0, image), [2, 100, 150]);
            let mut pixels = vec![0; 30_000];
            mix.paste([2, 100, 150], &vec![1; 30_000], &mut pixels);
            assert_eq!(pixels[..15_000], pixels[15_000..], "both channels");
            let other = pixels[..15_000].iter().map(|&pixel| f32::from(pixel)).sum::<f32>() / 15_000.0;
            assert!((other - (1.0 - mix.own)).abs() < 1e-5, "{mix:?}");
            partners.insert(mix.partner);
            shares.push(f64::from(mix.own));
        }
        assert!(partners.into_iter().eq([3, 5, 8]));
        // A uniform share has the mean 1/2; what lies beyond the edge (uniform centres) is given back: by hand,
        // 1 - E[(r - r²/4)²] with r² uniform is 1 - (1/2 - 1/5 + 1/48) = 0.679.
        let mean = shares.iter().sum::<f64>() / 1000.0;
        assert!((mean - 0.68).abs() < 0.035, "{mean}");
    }

    #[test]
    fn alpha_says_how_much_shares_differ_from_a_half() {
        let spread = |alpha: f64| {
            let shares = (0..1000).map(|image| {
                f64::from(mixing(alpha).draw(&mut Stream::cut_mix(0, 0, image), [1, 64, 64]).own)
            });
            shares.map(|own| (own - 0.68).abs()).sum::<f64>() / 1000.0
        };
        assert!(spread(10.0) < spread(1.0) && spread(1.0) < spread(0.1), "{} {}", spread(10.0), spread(0.1));
    }
}
