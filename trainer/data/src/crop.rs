//! Center crops and random resized crops, and resizing them to the input size of the network. Pure.

use fast_image_resize::{
    FilterType, PixelTrait, ResizeAlg, ResizeOptions, Resizer,
    images::{TypedCroppedImage, TypedImage, TypedImageRef},
    pixels::{U8, U8x3},
};

use super::decode::{Rgb, Size};
use crate::random::Stream;

/// Minimum and maximum aspect ratio (width to height) of a random crop.
const ASPECT_RATIO: (f64, f64) = (3.0 / 4.0, 4.0 / 3.0);
/// Maximum number of attempts to draw a random crop that fits into the image.
const MAX_ATTEMPTS: usize = 10;
/// The side of the center crop, as a fraction of the shorter side of the image.
const CENTER_FRACTION: f64 = 224.0 / 256.0;

/// A crop of an image, in pixels.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Crop {
    /// A rectangle of whole pixels.
    Rectangle {
        /// The first column.
        left: u32,
        /// The first row.
        top: u32,
        /// The number of columns.
        width: u32,
        /// The number of rows.
        height: u32,
    },
    /// A centered square. Pixels outside it still contribute to the interpolation at its edge.
    CenterSquare {
        /// The side of the square.
        side: f64,
    },
}

impl Crop {
    /// The center crop of evaluation. torchvision resizes the shorter side to 256/224 of the network's size, and then crops
    /// the center. This is the same as a centered square with 224/256 of the shorter side.
    pub(super) fn center(size: Size) -> Self {
        Self::CenterSquare { side: f64::from(size.width.min(size.height)) * CENTER_FRACTION }
    }

    /// A random resized crop (Szegedy et al., "Going deeper with convolutions", section 6), as in torchvision.
    ///
    /// The area is uniform between `min_area` and 1 of the image's area. The aspect ratio is log-uniform between 3/4 and
    /// 4/3, the position is uniform, all in whole pixels. If no crop fits in ten attempts, the result is the largest
    /// centered crop with an aspect ratio within these bounds.
    pub(super) fn random(stream: &mut Stream, size: Size, min_area: f64) -> Self {
        let Size { width, height } = size;
        let area = f64::from(width) * f64::from(height);
        for _ in 0..MAX_ATTEMPTS {
            let target = area * uniform(stream, min_area, 1.0);
            let ratio = uniform(stream, ASPECT_RATIO.0.ln(), ASPECT_RATIO.1.ln()).exp();
            let [w, h] = [(target * ratio).sqrt(), (target / ratio).sqrt()].map(|side| side.round() as u32);
            if (1..=width).contains(&w) && (1..=height).contains(&h) {
                let (left, top) = (stream.below(width - w + 1), stream.below(height - h + 1));
                return Self::Rectangle { left, top, width: w, height: h };
            }
        }
        let ratio = f64::from(width) / f64::from(height);
        let (w, h) = if ratio < ASPECT_RATIO.0 {
            (width, ((f64::from(width) / ASPECT_RATIO.0).round() as u32).clamp(1, height))
        } else if ratio > ASPECT_RATIO.1 {
            (((f64::from(height) * ASPECT_RATIO.1).round() as u32).clamp(1, width), height)
        } else {
            (width, height)
        };
        Self::Rectangle { left: (width - w) / 2, top: (height - h) / 2, width: w, height: h }
    }
}

/// Uniform in [min, max).
fn uniform(stream: &mut Stream, min: f64, max: f64) -> f64 {
    min + (max - min) * f64::midpoint(f64::from(stream.symmetric()), 1.0)
}

/// Crops and resizes images with antialiased bilinear interpolation.
pub(super) struct CropResizer {
    resizer: Resizer,
    interleaved: Vec<u8>,
}

impl CropResizer {
    pub(super) fn new() -> Self {
        Self { resizer: Resizer::new(), interleaved: Vec::new() }
    }

    /// Resizes the crop of `image` to a square of `side` pixels and writes it to `out`, channel by channel.
    pub(super) fn resize_to_square(
        &mut self,
        image: &Rgb,
        crop: Crop,
        side: u32,
        out: &mut [u8],
    ) -> Result<(), String> {
        let mut interleaved = std::mem::take(&mut self.interleaved);
        interleaved.resize((side * side * 3) as usize, 0);
        let square = Size { width: side, height: side };
        self.resize::<U8x3>(&image.pixels, image.size, crop, &mut interleaved, square)?;
        let channel_size = (side * side) as usize;
        for (position, pixel) in interleaved.as_chunks::<3>().0.iter().enumerate() {
            for (channel, &value) in pixel.iter().enumerate() {
                out[channel * channel_size + position] = value;
            }
        }
        self.interleaved = interleaved;
        Ok(())
    }

    /// Resizes the crop of one channel to the size of the whole channel.
    pub(super) fn resize_channel(
        &mut self,
        channel: &[u8],
        size: Size,
        crop: Crop,
        out: &mut [u8],
    ) -> Result<(), String> {
        self.resize::<U8>(channel, size, crop, out, size)
    }

    /// Resizes one pixel type. The untyped functions of the crate would link the code of every pixel type.
    fn resize<P: PixelTrait>(
        &mut self,
        source: &[u8],
        source_size: Size,
        crop: Crop,
        target: &mut [u8],
        target_size: Size,
    ) -> Result<(), String> {
        let Size { width, height } = source_size;
        let source =
            TypedImageRef::<P>::from_buffer(width, height, source).map_err(|error| error.to_string())?;
        let mut target = TypedImage::<P>::from_buffer(target_size.width, target_size.height, target)
            .map_err(|error| error.to_string())?;
        let options = ResizeOptions::new().resize_alg(ResizeAlg::Convolution(FilterType::Bilinear));
        match crop {
            Crop::Rectangle { left, top, width, height } => {
                let cropped = TypedCroppedImage::from_ref(&source, left, top, width, height)
                    .map_err(|error| error.to_string())?;
                self.resizer.resize_typed(&cropped, &mut target, &options)
            }
            Crop::CenterSquare { side } => {
                let margin = |length: u32| (f64::from(length) - side) / 2.0;
                let options = options.crop(margin(width), margin(height), side, side);
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

    fn size(width: u32, height: u32) -> Size {
        Size { width, height }
    }

    fn rectangle(crop: Crop) -> [u32; 4] {
        match crop {
            Crop::Rectangle { left, top, width, height } => [left, top, width, height],
            Crop::CenterSquare { .. } => panic!("{crop:?}"),
        }
    }

    #[test]
    fn evaluation_crops_the_center() {
        assert_eq!(Crop::center(size(357, 256)), Crop::CenterSquare { side: 224.0 });
        // The crop shows only the centered white square of 14 × 14 in an image of 16 × 20, except at the edge.
        let row = |y: u32| {
            (0..20).flat_map(move |x| [if (1..15).contains(&y) && (3..17).contains(&x) { 255 } else { 0 }; 3])
        };
        let image = Rgb { size: size(20, 16), pixels: (0..16).flat_map(row).collect() };
        let mut out = [0; 192];
        CropResizer::new().resize_to_square(&image, Crop::center(image.size), 8, &mut out).unwrap();
        for (position, &value) in out.iter().enumerate() {
            let (x, y) = (position % 8, position / 8 % 8);
            let edge = [0, 7].contains(&x) || [0, 7].contains(&y);
            assert!(if edge { value > 150 } else { value > 250 }, "{x} {y} {value}");
        }
    }

    /// The expected mean comes from 200,000 draws of torchvision's algorithm in another implementation.
    #[test]
    fn random_crops_match_the_distribution_of_torchvision() {
        let mut stream = Stream::resized_crop(0, 0, 0);
        let crops: Vec<_> =
            (0..4000).map(|_| rectangle(Crop::random(&mut stream, size(500, 375), 0.08))).collect();
        let areas: Vec<f64> = crops.iter().map(|crop| f64::from(crop[2] * crop[3]) / 187_500.0).collect();
        let ratios: Vec<f64> = crops.iter().map(|crop| f64::from(crop[2]) / f64::from(crop[3])).collect();
        assert!(areas.iter().all(|area| (0.075..=1.0).contains(area)));
        assert!(ratios.iter().all(|ratio| (0.73..=1.36).contains(ratio)));
        let mean = areas.iter().sum::<f64>() / 4000.0;
        assert!((mean - 0.4328).abs() < 0.02, "{mean}");
        assert!(areas.iter().any(|&area| area < 0.1) && areas.iter().any(|&area| area > 0.9));
        assert!(crops.iter().any(|crop| crop[0] > 300) && crops.iter().any(|crop| crop[1] > 180));
    }

    #[test]
    fn a_narrow_image_gets_a_centered_crop() {
        let mut stream = Stream::resized_crop(0, 0, 0);
        assert_eq!(rectangle(Crop::random(&mut stream, size(10, 1000), 1.0)), [0, 493, 10, 13]);
        assert_eq!(rectangle(Crop::random(&mut stream, size(1000, 9), 1.0)), [494, 0, 12, 9]);
    }

    #[test]
    fn a_crop_is_resized_channel_by_channel() {
        // Left half (10, 20, 30), right half (200, 100, 50).
        let row: Vec<u8> = [[10, 20, 30].repeat(4), [200, 100, 50].repeat(4)].concat();
        let image = Rgb { size: size(8, 4), pixels: row.repeat(4) };
        let right = Crop::Rectangle { left: 4, top: 0, width: 4, height: 4 };
        let mut out = [0; 12];
        CropResizer::new().resize_to_square(&image, right, 2, &mut out).unwrap();
        assert_eq!(out, [200, 200, 200, 200, 100, 100, 100, 100, 50, 50, 50, 50]);
    }

    proptest! {
        #[test]
        fn every_crop_is_within_the_image(
            width in 1_u32..3000,
            height in 1_u32..3000,
            min_area in 0.01..=1.0_f64,
            seed: u64,
        ) {
            let mut stream = Stream::resized_crop(seed, 0, 0);
            let [left, top, w, h] = rectangle(Crop::random(&mut stream, size(width, height), min_area));
            prop_assert!(w > 0 && h > 0 && left + w <= width && top + h <= height);
        }

        #[test]
        fn every_size_can_be_resized(width in 1_u32..40, height in 1_u32..40, side in 8_u32..40, seed: u64) {
            let image = Rgb { size: size(width, height), pixels: vec![90; (width * height * 3) as usize] };
            let mut out = vec![0; (side * side * 3) as usize];
            let mut resizer = CropResizer::new();
            for crop in [
                Crop::center(image.size),
                Crop::random(&mut Stream::resized_crop(seed, 0, 0), image.size, 0.08),
            ] {
                resizer.resize_to_square(&image, crop, side, &mut out).unwrap();
                prop_assert!(out.iter().all(|&value| value == 90));
            }
        }
    }
}
