//! The part of an image that is seen, and bringing it to the size that the network takes.

use fast_image_resize::{
    FilterType, PixelTrait, ResizeAlg, ResizeOptions, Resizer,
    images::{TypedCroppedImage, TypedImage, TypedImageRef},
    pixels::{U8, U8x3},
};

use super::decode::Rgb;
use crate::random::Stream;

/// Ratio of width to height of a random part.
const RATIO: (f64, f64) = (3.0 / 4.0, 4.0 / 3.0);
/// Tries to find a random part that fits into the image.
const TRIES: usize = 10;
/// What evaluation sees of the shorter side.
const CENTRE: f64 = 224.0 / 256.0;

/// A part of an image, in its pixels.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Part {
    /// Cut out, then brought to size.
    Cut {
        /// Columns left of it.
        left: u32,
        /// Rows above it.
        top: u32,
        /// Its columns.
        width: u32,
        /// Its rows.
        height: u32,
    },
    /// A square in the middle of the image, which is brought to size as a whole: pixels beyond the edge have their share in
    /// those at the edge.
    Middle {
        /// The side of the square.
        side: f64,
    },
}

impl Part {
    /// What evaluation sees: the shorter side is brought to 256/224 of the network's size, and the middle is cut out. So it
    /// is the square in the middle whose side is 224/256 of the shorter side.
    pub(super) fn centre(width: u32, height: u32) -> Self {
        Self::Middle { side: f64::from(width.min(height)) * CENTRE }
    }

    /// A random part: its area uniform between `min_area` and 1 of the image's, its ratio log-uniform between 3/4 and
    /// 4/3, its place uniform; in whole pixels. Where none fits in ten tries, the largest in the middle of a ratio in
    /// bounds. (Szegedy et al., "Going deeper with convolutions", section 6, as torchvision has it.)
    pub(super) fn random(stream: &mut Stream, (width, height): (u32, u32), min_area: f64) -> Self {
        let area = f64::from(width) * f64::from(height);
        for _ in 0..TRIES {
            let target = area * between(stream, min_area, 1.0);
            let ratio = between(stream, RATIO.0.ln(), RATIO.1.ln()).exp();
            let [w, h] = [(target * ratio).sqrt(), (target / ratio).sqrt()].map(|side| side.round() as u32);
            if (1..=width).contains(&w) && (1..=height).contains(&h) {
                let (left, top) = (stream.below(width - w + 1), stream.below(height - h + 1));
                return Self::Cut { left, top, width: w, height: h };
            }
        }
        let ratio = f64::from(width) / f64::from(height);
        let (w, h) = if ratio < RATIO.0 {
            (width, ((f64::from(width) / RATIO.0).round() as u32).clamp(1, height))
        } else if ratio > RATIO.1 {
            (((f64::from(height) * RATIO.1).round() as u32).clamp(1, width), height)
        } else {
            (width, height)
        };
        Self::Cut { left: (width - w) / 2, top: (height - h) / 2, width: w, height: h }
    }
}

/// Uniform in [least, most).
fn between(stream: &mut Stream, least: f64, most: f64) -> f64 {
    least + (most - least) * f64::midpoint(f64::from(stream.symmetric()), 1.0)
}

/// Brings parts of images to one size, with bilinear interpolation that takes in all pixels where it makes smaller.
pub(super) struct Scaler {
    resizer: Resizer,
    square: Vec<u8>,
}

impl Scaler {
    pub(super) fn new() -> Self {
        Self { resizer: Resizer::new(), square: Vec::new() }
    }

    /// The part of `image` as a square of `side` pixels, channel by channel, into `out`.
    pub(super) fn square(
        &mut self,
        image: &Rgb,
        part: Part,
        side: u32,
        out: &mut [u8],
    ) -> Result<(), String> {
        let mut square = std::mem::take(&mut self.square);
        square.resize((side * side * 3) as usize, 0);
        let size = (image.width, image.height);
        self.resize::<U8x3>((&image.pixels, size), part, (&mut square, (side, side)))?;
        let channel = (side * side) as usize;
        for (place, pixel) in square.as_chunks::<3>().0.iter().enumerate() {
            for (plane, &value) in pixel.iter().enumerate() {
                out[plane * channel + place] = value;
            }
        }
        self.square = square;
        Ok(())
    }

    /// The part of one channel, brought to the size of the whole.
    pub(super) fn channel(
        &mut self,
        channel: &[u8],
        size: (u32, u32),
        part: Part,
        out: &mut [u8],
    ) -> Result<(), String> {
        self.resize::<U8>((channel, size), part, (out, size))
    }

    /// Of one type of pixel: the untyped functions of the crate bring the code of all of them, most of which is never used.
    fn resize<P: PixelTrait>(
        &mut self,
        (source, (width, height)): (&[u8], (u32, u32)),
        part: Part,
        (target, (target_width, target_height)): (&mut [u8], (u32, u32)),
    ) -> Result<(), String> {
        let source =
            TypedImageRef::<P>::from_buffer(width, height, source).map_err(|error| error.to_string())?;
        let mut target = TypedImage::<P>::from_buffer(target_width, target_height, target)
            .map_err(|error| error.to_string())?;
        let options = ResizeOptions::new().resize_alg(ResizeAlg::Convolution(FilterType::Bilinear));
        match part {
            Part::Cut { left, top, width, height } => {
                let cut = TypedCroppedImage::from_ref(&source, left, top, width, height)
                    .map_err(|error| error.to_string())?;
                self.resizer.resize_typed(&cut, &mut target, &options)
            }
            Part::Middle { side } => {
                let before = |length: u32| (f64::from(length) - side) / 2.0;
                let options = options.crop(before(width), before(height), side, side);
                self.resizer.resize_typed(&source, &mut target, &options)
            }
        }
        .map_err(|error| error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn cut(part: Part) -> [u32; 4] {
        match part {
            Part::Cut { left, top, width, height } => [left, top, width, height],
            Part::Middle { .. } => panic!("{part:?}"),
        }
    }

    #[test]
    fn evaluation_sees_the_middle() {
        assert_eq!(Part::centre(357, 256), Part::Middle { side: 224.0 });
        // A white square of 14 × 14 in the middle of 16 × 20 is all that is seen, but for the edge.
        let row = |y: u32| {
            (0..20).flat_map(move |x| [if (1..15).contains(&y) && (3..17).contains(&x) { 255 } else { 0 }; 3])
        };
        let image = Rgb { width: 20, height: 16, pixels: (0..16).flat_map(row).collect() };
        let mut out = [0; 192];
        Scaler::new().square(&image, Part::centre(20, 16), 8, &mut out).unwrap();
        for (place, &value) in out.iter().enumerate() {
            let (x, y) = (place % 8, place / 8 % 8);
            let edge = [0, 7].contains(&x) || [0, 7].contains(&y);
            assert!(if edge { value > 150 } else { value > 250 }, "{x} {y} {value}");
        }
    }

    /// The mean is that of torchvision's algorithm, drawn 200,000 times by another implementation.
    #[test]
    fn random_parts_have_the_areas_and_ratios_that_they_should() {
        let mut stream = Stream::resized_crop(0, 0, 0);
        let parts: Vec<_> = (0..4000).map(|_| cut(Part::random(&mut stream, (500, 375), 0.08))).collect();
        let areas: Vec<f64> = parts.iter().map(|part| f64::from(part[2] * part[3]) / 187_500.0).collect();
        let ratios: Vec<f64> = parts.iter().map(|part| f64::from(part[2]) / f64::from(part[3])).collect();
        assert!(areas.iter().all(|area| (0.075..=1.0).contains(area)));
        assert!(ratios.iter().all(|ratio| (0.73..=1.36).contains(ratio)));
        let mean = areas.iter().sum::<f64>() / 4000.0;
        assert!((mean - 0.4328).abs() < 0.02, "{mean}");
        assert!(areas.iter().any(|&area| area < 0.1) && areas.iter().any(|&area| area > 0.9));
        assert!(parts.iter().any(|part| part[0] > 300) && parts.iter().any(|part| part[1] > 180));
    }

    #[test]
    fn a_narrow_image_is_seen_in_the_middle() {
        let mut stream = Stream::resized_crop(0, 0, 0);
        assert_eq!(cut(Part::random(&mut stream, (10, 1000), 1.0)), [0, 493, 10, 13]);
        assert_eq!(cut(Part::random(&mut stream, (1000, 9), 1.0)), [494, 0, 12, 9]);
    }

    #[test]
    fn a_part_is_brought_to_the_size_channel_by_channel() {
        // Left half (10, 20, 30), right half (200, 100, 50).
        let row: Vec<u8> = [[10, 20, 30].repeat(4), [200, 100, 50].repeat(4)].concat();
        let image = Rgb { width: 8, height: 4, pixels: row.repeat(4) };
        let right = Part::Cut { left: 4, top: 0, width: 4, height: 4 };
        let mut out = [0; 12];
        Scaler::new().square(&image, right, 2, &mut out).unwrap();
        assert_eq!(out, [200, 200, 200, 200, 100, 100, 100, 100, 50, 50, 50, 50]);
    }

    proptest! {
        #[test]
        fn every_part_lies_in_the_image(
            width in 1_u32..3000,
            height in 1_u32..3000,
            min_area in 0.01..=1.0_f64,
            seed: u64,
        ) {
            let mut stream = Stream::resized_crop(seed, 0, 0);
            let [left, top, w, h] = cut(Part::random(&mut stream, (width, height), min_area));
            prop_assert!(w > 0 && h > 0 && left + w <= width && top + h <= height);
        }

        #[test]
        fn every_size_can_be_scaled(width in 1_u32..40, height in 1_u32..40, side in 8_u32..40, seed: u64) {
            let image = Rgb { width, height, pixels: vec![90; (width * height * 3) as usize] };
            let mut out = vec![0; (side * side * 3) as usize];
            let mut scaler = Scaler::new();
            for part in [
                Part::centre(width, height),
                Part::random(&mut Stream::resized_crop(seed, 0, 0), (width, height), 0.08),
            ] {
                scaler.square(&image, part, side, &mut out).unwrap();
                prop_assert!(out.iter().all(|&value| value == 90));
            }
        }
    }
}
