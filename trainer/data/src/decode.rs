//! Decodes images: JPEG with libjpeg-turbo, and PNG, since ImageNet has one PNG among its JPEG files. Pure.

use std::io::Cursor;

use turbojpeg::{Colorspace, Decompressor, Image, PixelFormat};

/// Maximum number of pixels of an image: 300 MB decoded. The largest image of ImageNet has 61 million pixels.
/// The limit for fuzzing is small, since a header of a few bytes could otherwise cost most of the time.
const PIXEL_LIMIT: usize = if cfg!(feature = "fuzzing") { 1_000_000 } else { 100_000_000 };
/// Maximum number of scans of a progressive JPEG; encoders write about ten. A scan of a few bytes still processes all pixels.
const SCAN_LIMIT: u32 = 100;

/// The first bytes of a PNG file.
const PNG_SIGNATURE: &[u8] = b"\x89PNG\r\n\x1a\n";

/// Decodes images and reuses its buffers.
pub(super) struct Decoder {
    jpeg: Option<Decompressor>,
    cmyk: Vec<u8>,
}

/// The size of an image in pixels.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Size {
    pub(super) width: u32,
    pub(super) height: u32,
}

/// A decoded image with 8 bits per channel, pixel by pixel, row by row.
#[derive(Debug, Default)]
pub(super) struct Rgb {
    pub(super) size: Size,
    pub(super) pixels: Vec<u8>,
}

impl Decoder {
    pub(super) fn new() -> Self {
        Self { jpeg: None, cmyk: Vec::new() }
    }

    /// Decodes into `out` and reuses its memory. The caller puts the name of the file before the error.
    pub(super) fn decode(&mut self, bytes: &[u8], out: &mut Rgb) -> Result<(), String> {
        if bytes.starts_with(PNG_SIGNATURE) {
            return decode_png(bytes, out).map_err(|error| format!("cannot decode the PNG image: {error}"));
        }
        if !bytes.starts_with(&[0xff, 0xd8]) {
            return Err("not a JPEG or PNG image".to_owned());
        }
        self.decode_jpeg(bytes, out).map_err(|error| format!("cannot decode the JPEG image: {error}"))
    }

    /// Whether the first bytes of a file contain the whole header of a JPEG or PNG image, with a valid size.
    pub(super) fn has_header(&mut self, start: &[u8]) -> bool {
        if start.starts_with(PNG_SIGNATURE) {
            // The chunk IHDR comes first.
            let size = start.get(16..24).and_then(|size| size.as_chunks::<4>().0.try_into().ok());
            return size.is_some_and(|[width, height]: [[u8; 4]; 2]| {
                check_size(u32::from_be_bytes(width) as usize, u32::from_be_bytes(height) as usize).is_ok()
            });
        }
        let jpeg = decompressor(&mut self.jpeg);
        let header = jpeg.and_then(|jpeg| jpeg.read_header(start).map_err(|error| error.to_string()));
        header.is_ok_and(|header| check_size(header.width, header.height).is_ok())
    }

    fn decode_jpeg(&mut self, bytes: &[u8], out: &mut Rgb) -> Result<(), String> {
        let message = |error: turbojpeg::Error| error.to_string();
        let jpeg = decompressor(&mut self.jpeg)?;
        let header = jpeg.read_header(bytes).map_err(message)?;
        let (width, height) = (header.width, header.height);
        out.resize(width, height)?;
        let mut decode = |pixels: &mut [u8], format: PixelFormat| {
            let pitch = width * format.size();
            match jpeg.decompress(bytes, Image { pixels, width, pitch, height, format }) {
                Err(error) if !is_harmless(&error.to_string()) => Err(message(error)),
                _ => Ok(()),
            }
        };
        if matches!(header.colorspace, Colorspace::CMYK | Colorspace::YCCK) {
            self.cmyk.resize(width * height * 4, 0);
            decode(&mut self.cmyk, PixelFormat::CMYK)?;
            // Adobe's convention, which other programs follow: 255 means no ink.
            for (rgb, &[c, m, y, k]) in
                out.pixels.as_chunks_mut::<3>().0.iter_mut().zip(self.cmyk.as_chunks().0)
            {
                *rgb = [c, m, y].map(|ink| (u16::from(ink) * u16::from(k) / 255) as u8);
            }
            return Ok(());
        }
        decode(&mut out.pixels, PixelFormat::RGB)
    }
}

/// The decompressor, which is created when it is needed first.
fn decompressor(jpeg: &mut Option<Decompressor>) -> Result<&mut Decompressor, String> {
    let message = |error: turbojpeg::Error| error.to_string();
    match jpeg {
        Some(jpeg) => Ok(jpeg),
        empty => {
            let mut jpeg = Decompressor::new().map_err(message)?;
            jpeg.set_scan_limit(SCAN_LIMIT).map_err(message)?;
            Ok(empty.insert(jpeg))
        }
    }
}

/// Whether a warning of libjpeg does not affect pixels. Files of ImageNet cause these warnings.
fn is_harmless(message: &str) -> bool {
    [
        "extraneous bytes before marker",
        "Invalid SOS parameters",
        "unknown JFIF revision",
        "Unknown Adobe color",
    ]
    .iter()
    .any(|warning| message.contains(warning))
}

fn decode_png(bytes: &[u8], out: &mut Rgb) -> Result<(), String> {
    let mut decoder = png::Decoder::new_with_limits(Cursor::new(bytes), png::Limits { bytes: 64 << 20 });
    decoder.set_transformations(png::Transformations::normalize_to_color8());
    let message = |error: png::DecodingError| error.to_string();
    let mut reader = decoder.read_info().map_err(message)?;
    let (width, height) = (reader.info().width as usize, reader.info().height as usize);
    out.resize(width, height)?;
    let size = reader.output_buffer_size().ok_or("too large")?;
    // At most four bytes per pixel after normalization to 8 bits.
    let mut pixels = vec![0; size.min(PIXEL_LIMIT * 4)];
    let frame = reader.next_frame(&mut pixels).map_err(message)?;
    let channels = frame.color_type.samples();
    for (rgb, pixel) in out.pixels.as_chunks_mut::<3>().0.iter_mut().zip(pixels.chunks_exact(channels)) {
        *rgb = if channels < 3 { [pixel[0]; 3] } else { [pixel[0], pixel[1], pixel[2]] };
    }
    Ok(())
}

fn check_size(width: usize, height: usize) -> Result<(), String> {
    if width == 0 || height == 0 || width.saturating_mul(height) > PIXEL_LIMIT {
        return Err(format!("invalid size {width}×{height}: must be 1 to {PIXEL_LIMIT} pixels"));
    }
    Ok(())
}

impl Rgb {
    fn resize(&mut self, width: usize, height: usize) -> Result<(), String> {
        check_size(width, height)?;
        self.size = Size { width: width as u32, height: height as u32 };
        self.pixels.clear();
        self.pixels.resize(width * height * 3, 0);
        Ok(())
    }
}

#[cfg(test)]
pub(super) mod tests {
    use proptest::prelude::*;
    use turbojpeg::Subsamp;

    use super::*;

    /// A JPEG of one colour.
    pub(crate) fn jpeg(width: usize, height: usize, colour: [u8; 3]) -> Vec<u8> {
        let pixels = colour.repeat(width * height);
        let image = Image { pixels: &*pixels, width, pitch: width * 3, height, format: PixelFormat::RGB };
        turbojpeg::compress(image, 95, Subsamp::None).unwrap().to_vec()
    }

    fn png(color: png::ColorType, pixels: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::new();
        let mut encoder = png::Encoder::new(&mut bytes, 2, 1);
        encoder.set_color(color);
        encoder.set_depth(png::BitDepth::Eight);
        encoder.write_header().unwrap().write_image_data(pixels).unwrap();
        bytes
    }

    fn decode(bytes: &[u8]) -> Result<Rgb, String> {
        let mut out = Rgb::default();
        Decoder::new().decode(bytes, &mut out).map(|()| out)
    }

    fn is_close(found: &[u8], expected: [u8; 3]) -> bool {
        found.iter().zip(expected).all(|(a, b)| a.abs_diff(b) <= 3)
    }

    #[test]
    fn decodes_the_colours_of_a_jpeg() {
        let image = decode(&jpeg(5, 3, [200, 30, 90])).unwrap();
        assert_eq!((image.size.width, image.size.height, image.pixels.len()), (5, 3, 45));
        assert!(image.pixels.chunks(3).all(|pixel| is_close(pixel, [200, 30, 90])), "{image:?}");
    }

    #[test]
    fn converts_grey_and_cmyk_to_rgb() {
        let of = |format: PixelFormat, pixel: &[u8], subsamp| {
            let pixels = pixel.repeat(64);
            let image = Image { pixels: &*pixels, width: 8, pitch: 8 * pixel.len(), height: 8, format };
            decode(&turbojpeg::compress(image, 95, subsamp).unwrap()).unwrap()
        };
        let grey = of(PixelFormat::GRAY, &[77], Subsamp::Gray);
        assert!(grey.pixels.chunks(3).all(|pixel| is_close(pixel, [77; 3])));
        // Half black, and 55 of 255 parts of cyan.
        let cmyk = of(PixelFormat::CMYK, &[200, 255, 255, 128], Subsamp::None);
        assert!(cmyk.pixels.chunks(3).all(|pixel| is_close(pixel, [100, 128, 128])), "{cmyk:?}");
    }

    #[test]
    fn detects_png_by_its_content() {
        let rgb = decode(&png(png::ColorType::Rgba, &[1, 2, 3, 255, 4, 5, 6, 0])).unwrap();
        assert_eq!(rgb.pixels, [1, 2, 3, 4, 5, 6]);
        let grey = decode(&png(png::ColorType::Grayscale, &[9, 250])).unwrap();
        assert_eq!(grey.pixels, [9, 9, 9, 250, 250, 250]);
    }

    #[test]
    fn rejects_broken_and_unknown_formats() {
        assert_eq!(decode(b"GIF89a").unwrap_err(), "not a JPEG or PNG image");
        let whole = jpeg(200, 200, [9, 99, 200]);
        let cut = decode(&whole[..whole.len() - 50]).unwrap_err();
        assert!(cut.starts_with("cannot decode the JPEG image: ") && cut.contains("remature"), "{cut}");
        let header = decode(&whole[..30]).unwrap_err();
        assert!(header.starts_with("cannot decode the JPEG image: "), "{header}");
        let png = png(png::ColorType::Rgb, &[0; 6]);
        assert!(decode(&png[..40]).unwrap_err().starts_with("cannot decode the PNG image: "));
    }

    #[test]
    fn accepts_extraneous_bytes() {
        let mut bytes = jpeg(16, 16, [50, 60, 70]);
        let end = bytes.len() - 2;
        bytes.splice(end..end, [1, 2, 3]);
        assert!(decode(&bytes).unwrap().pixels.chunks(3).all(|pixel| is_close(pixel, [50, 60, 70])));
    }

    #[test]
    fn rejects_a_decompression_bomb() {
        let mut bytes = jpeg(16, 16, [0; 3]);
        let frame = bytes.windows(2).position(|two| two == [0xff, 0xc0]).unwrap();
        bytes[frame + 5..frame + 9].copy_from_slice(&[0xff, 0xdc, 0xff, 0xdc]);
        let message = decode(&bytes).unwrap_err();
        assert!(message.contains("invalid size 65500×65500: must be 1 to 100000000 pixels"), "{message}");
    }

    #[test]
    fn rejects_excessive_progressive_scans() {
        let pixels = vec![9; 16 * 16 * 3];
        let format = PixelFormat::RGB;
        let image = Image { pixels: &*pixels, width: 16, pitch: 16 * 3, height: 16, format };
        let mut compressor = turbojpeg::Compressor::new().unwrap();
        compressor.set_progressive(true).unwrap();
        let mut bytes = compressor.compress_to_vec(image).unwrap();
        assert!(decode(&bytes).is_ok());
        // Repeat the first scan.
        let scans: Vec<usize> =
            (0..bytes.len()).filter(|&at| bytes[at..].starts_with(&[0xff, 0xda])).collect();
        let next = bytes[scans[0] + 2..].windows(2).position(|two| two[0] == 0xff && two[1] != 0).unwrap();
        let scan = bytes[scans[0]..scans[0] + 2 + next].repeat(SCAN_LIMIT as usize);
        bytes.splice(scans[0]..scans[0], scan);
        let message = decode(&bytes).unwrap_err();
        assert!(message.contains("more than 100 scans"), "{message}");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(512))]
        #[test]
        fn mutated_bytes_are_rejected_or_decoded(
            changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
            cut in any::<prop::sample::Index>(),
            shorter: bool,
            png_instead: bool,
        ) {
            let mut bytes =
                if png_instead { png(png::ColorType::Rgb, &[7; 6]) } else { jpeg(24, 17, [10, 200, 60]) };
            for (at, byte) in changes {
                let at = at.index(bytes.len());
                bytes[at] = byte;
            }
            if shorter {
                bytes.truncate(cut.index(bytes.len()));
            }
            if let Ok(image) = decode(&bytes) {
                prop_assert_eq!(image.pixels.len(), image.size.width as usize * image.size.height as usize * 3);
            }
        }
    }
}
