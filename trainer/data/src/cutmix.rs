//! CutMix (Yun et al., arXiv 1905.04899): pastes a patch of another image into a training image and mixes the labels. Pure.
//!
//! The other image is drawn from all training images. The published code draws it from the batch, but other images of the
//! batch may be on other ranks. It is augmented with its own random numbers of the epoch. Each image has a separate draw;
//! the published code has one per batch.

use std::{ops::Range, sync::Arc};

use statrs::distribution::{Beta, ContinuousCDF};

use crate::random::Stream;

/// Draws the patch for each image.
#[derive(Clone, Debug, PartialEq)]
pub struct CutMixSampler {
    /// Both parameters of the Beta distribution of λ, before the patch is clipped at the edges of the image.
    pub alpha: f64,
    /// The images that patches are taken from, as indices in the data set; at least one.
    pub partners: Arc<[usize]>,
}

/// A patch for one image.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct CutMixPatch {
    /// The image that the patch is taken from.
    pub(super) partner: usize,
    rows: Range<usize>,
    columns: Range<usize>,
    /// λ: the fraction of the area that remains, and the weight of the image's own label.
    pub(super) lambda: f32,
}

impl CutMixSampler {
    /// Draws the patch for an image of this shape (channels, height, width).
    pub(super) fn draw(&self, stream: &mut Stream, [_, height, width]: [i64; 3]) -> CutMixPatch {
        let partner = self.partners[stream.below(self.partners.len() as u32) as usize];
        let uniform = f64::midpoint(f64::from(stream.symmetric()), 1.0);
        // Validation of the spec has checked alpha.
        let lambda = Beta::new(self.alpha, self.alpha).map_or(uniform, |beta| beta.inverse_cdf(uniform));
        let side = (1.0 - lambda).max(0.0).sqrt();
        let mut range = |length: i64| {
            let half = (length as f64 * side) as i64 / 2;
            let centre = i64::from(stream.below(length as u32));
            (centre - half).clamp(0, length) as usize..(centre + half).clamp(0, length) as usize
        };
        let (rows, columns) = (range(height), range(width));
        let pasted = (rows.len() * columns.len()) as f64 / (height * width) as f64;
        CutMixPatch { partner, rows, columns, lambda: (1.0 - pasted) as f32 }
    }
}

impl CutMixPatch {
    /// Copies the patch from `partner` to `image`; both have the shape (channels, height, width).
    pub(super) fn paste(&self, [_, height, width]: [i64; 3], partner: &[u8], image: &mut [u8]) {
        let channel = (height * width) as usize;
        for (image, partner) in image.chunks_exact_mut(channel).zip(partner.chunks_exact(channel)) {
            for row in self.rows.clone() {
                let columns =
                    row * width as usize + self.columns.start..row * width as usize + self.columns.end;
                image[columns.clone()].copy_from_slice(&partner[columns]);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sampler(alpha: f64) -> CutMixSampler {
        CutMixSampler { alpha, partners: [3, 5, 8].into() }
    }

    #[test]
    fn the_area_of_the_patch_is_its_weight_in_the_label() {
        let (mut partners, mut lambdas) = (std::collections::BTreeSet::new(), Vec::new());
        for image in 0..1000 {
            let patch = sampler(1.0).draw(&mut Stream::cut_mix(0, 0, image), [2, 100, 150]);
            let mut pixels = vec![0; 30_000];
            patch.paste([2, 100, 150], &vec![1; 30_000], &mut pixels);
            assert_eq!(pixels[..15_000], pixels[15_000..], "both channels");
            let other = pixels[..15_000].iter().map(|&pixel| f32::from(pixel)).sum::<f32>() / 15_000.0;
            assert!((other - (1.0 - patch.lambda)).abs() < 1e-5, "{patch:?}");
            partners.insert(patch.partner);
            lambdas.push(f64::from(patch.lambda));
        }
        assert!(partners.into_iter().eq([3, 5, 8]));
        // A uniform λ has the mean 1/2 before clipping. The patch has a uniform center and is clipped; by hand,
        // 1 - E[(r - r²/4)²] with r² uniform is 1 - (1/2 - 1/5 + 1/48) = 0.679.
        let mean = lambdas.iter().sum::<f64>() / 1000.0;
        assert!((mean - 0.68).abs() < 0.035, "{mean}");
    }

    #[test]
    fn a_larger_alpha_gives_a_smaller_spread_of_lambda() {
        let spread = |alpha: f64| {
            let lambdas = (0..1000).map(|image| {
                f64::from(sampler(alpha).draw(&mut Stream::cut_mix(0, 0, image), [1, 64, 64]).lambda)
            });
            lambdas.map(|lambda| (lambda - 0.68).abs()).sum::<f64>() / 1000.0
        };
        assert!(spread(10.0) < spread(1.0) && spread(1.0) < spread(0.1), "{} {}", spread(10.0), spread(0.1));
    }
}
