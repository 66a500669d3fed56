//! Reads images from a NumPy archive (`numpy.savez`), the usual format of published generated images: `image`, u8
//! `[N, H, W, C]` or `[N, C, H, W]`, and `label`, `[N]`. [`crate::DataSet::add_images`] adds them to a data set.

use std::{
    io::{BufReader, Read},
    path::{Path, PathBuf},
};

use npyz::{NpyFile, NpyHeader, Order};
use zip::ZipArchive;

use crate::storage;

/// Accepted names of the image array, in order of preference.
const IMAGE_NAMES: [&str; 4] = ["image", "images", "x", "data"];
/// Accepted names of the label array, in order of preference.
const LABEL_NAMES: [&str; 5] = ["label", "labels", "y", "targets", "extrapolated_targets"];
/// Maximum size of the images in bytes; they are kept in memory.
const MAX_IMAGE_BYTES: u64 = 64 << 30;
/// Maximum size of an array's header in bytes, as in NumPy (`max_header_size`).
const MAX_HEADER_BYTES: usize = 10_000;

/// An archive cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("{}: {problem}", path.display())]
pub struct NpzError {
    path: PathBuf,
    problem: String,
}

/// The arrays of an archive.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct NpzArrays {
    /// Image by image, channel by channel, row by row.
    pub(super) pixels: Vec<u8>,
    /// A label for each image, if the archive has labels.
    pub(super) labels: Option<Vec<i64>>,
}

/// Reads an archive of images of the shape `[channels, height, width]`.
pub(super) fn read(path: &Path, shape: [i64; 3]) -> Result<NpzArrays, NpzError> {
    let failed = |problem: String| NpzError { path: path.to_owned(), problem };
    let file = storage::File::open(path).map_err(|error| failed(format!("cannot open the file: {error}")))?;
    let archive = ZipArchive::new(BufReader::new(file));
    let mut archive = archive.map_err(|error| failed(format!("invalid NumPy archive (.npz): {error}")))?;
    read_arrays(&mut archive, shape).map_err(failed)
}

type Archive = ZipArchive<BufReader<storage::File>>;

fn read_arrays(archive: &mut Archive, shape: [i64; 3]) -> Result<NpzArrays, String> {
    let images = find_array(archive, &IMAGE_NAMES)
        .ok_or_else(|| format!("missing image array; expected one of {}", IMAGE_NAMES.join(", ")))?;
    let (count, pixels) = read_pixels(archive, &images, shape)?;
    let labels = find_array(archive, &LABEL_NAMES).map(|name| read_labels(archive, &name)).transpose()?;
    if let Some(labels) = labels.as_ref().filter(|labels| labels.len() as u64 != count) {
        return Err(format!("found {count} images and {} labels; the numbers must be equal", labels.len()));
    }
    Ok(NpzArrays { pixels, labels })
}

fn find_array(archive: &Archive, names: &[&str]) -> Option<String> {
    let file = |name: &&str| format!("{name}.npy");
    names.iter().map(file).find(|name| archive.index_for_name(name).is_some())
}

/// The number of images and their pixels.
fn read_pixels(archive: &mut Archive, name: &str, shape: [i64; 3]) -> Result<(u64, Vec<u8>), String> {
    let (header, mut reader) = open_array(archive, name)?;
    if header.dtype().descr() != "'|u1'" {
        return Err(format!("{name}: unsupported type {}; expected uint8", header.dtype().descr()));
    }
    let [channels, height, width] = shape.map(|size| size as u64);
    let channels_last = match *header.shape() {
        [_, h, w, c] if [c, h, w] == [channels, height, width] => true,
        [_, c, h, w] if [c, h, w] == [channels, height, width] => false,
        [_, h, w] if [1, h, w] == [channels, height, width] => false,
        ref other => {
            return Err(format!(
                "{name}: invalid shape {other:?}; expected [N, {height}, {width}, {channels}] or \
                 [N, {channels}, {height}, {width}]"
            ));
        }
    };
    let count = header.shape()[0];
    let size = channels * height * width;
    let bytes = count.checked_mul(size).filter(|bytes| *bytes <= MAX_IMAGE_BYTES);
    let bytes = bytes
        .ok_or_else(|| format!("{name}: too large: {count} images have more than {MAX_IMAGE_BYTES} bytes"))?;
    let mut pixels = Vec::new();
    // Grows with the content: a header must not cause an allocation that is larger than the file.
    let read = (&mut reader).take(bytes).read_to_end(&mut pixels);
    read.map_err(|error| format!("cannot read {name}: {error}"))?;
    if pixels.len() as u64 != bytes {
        return Err(format!("{name}: truncated: expected {bytes} bytes, found {}", pixels.len()));
    }
    if channels_last && channels > 1 {
        let mut image = vec![0; size as usize];
        for pixels in pixels.chunks_exact_mut(size as usize) {
            image.copy_from_slice(pixels);
            for (position, pixel) in image.chunks_exact(channels as usize).enumerate() {
                for (channel, value) in pixel.iter().enumerate() {
                    pixels[channel * (height * width) as usize + position] = *value;
                }
            }
        }
    }
    Ok((count, pixels))
}

fn read_labels(archive: &mut Archive, name: &str) -> Result<Vec<i64>, String> {
    let (header, reader) = open_array(archive, name)?;
    if header.shape().len() != 1 {
        return Err(format!("{name}: invalid shape {:?}; expected [N]", header.shape()));
    }
    let dtype = header.dtype().descr();
    let array = NpyFile::with_header(header, reader);
    let unreadable = |error: std::io::Error| format!("cannot read {name}: {error}");
    macro_rules! read {
        ($integer:ty) => {
            array
                .data::<$integer>()
                .map_err(|error| format!("cannot read {name}: {error}"))?
                .map(|label| label.map(i64::from))
                .collect::<Result<Vec<i64>, _>>()
                .map_err(unreadable)
        };
    }
    match dtype.trim_matches('\'') {
        "<i8" => read!(i64),
        "<i4" => read!(i32),
        "<i2" => read!(i16),
        "|u1" => read!(u8),
        "|i1" => read!(i8),
        other => {
            Err(format!("{name}: unsupported type {other}; expected int8, uint8, int16, int32 or int64"))
        }
    }
}

/// The header of an array, and a reader of its content.
fn open_array<'a>(archive: &'a mut Archive, name: &str) -> Result<(NpyHeader, impl Read + 'a), String> {
    let unreadable = |problem: String| format!("{name}: invalid array: {problem}");
    let mut entry = archive.by_name(name).map_err(|error| unreadable(error.to_string()))?;
    let header = read_header(&mut entry).map_err(unreadable)?;
    if header.order() != Order::C {
        return Err(unreadable("unsupported Fortran order; save the array in C order".to_owned()));
    }
    Ok((header, entry))
}

/// Reads the header of an array (NumPy's format, versions 1 to 3): eight bytes of magic string and version, the length of
/// the text, and the text, a Python literal.
///
/// The time of the literal's parser doubles with each nested bracket, so a header with 60 brackets would never finish. An
/// array of plain numbers has two brackets, one of the dictionary and one of the shape. Other headers are rejected before
/// parsing.
fn read_header(reader: &mut impl Read) -> Result<NpyHeader, String> {
    let read_error = |error: std::io::Error| format!("cannot read the header: {error}");
    let mut bytes = vec![0; 8];
    reader.read_exact(&mut bytes).map_err(read_error)?;
    if !bytes.starts_with(b"\x93NUMPY") {
        return Err("missing NumPy magic string".to_owned());
    }
    let length = if bytes[6] == 1 { 2 } else { 4 };
    let mut size = [0; 4];
    reader.read_exact(&mut size[..length]).map_err(read_error)?;
    bytes.extend_from_slice(&size[..length]);
    let size = u32::from_le_bytes(size) as usize;
    if size > MAX_HEADER_BYTES {
        return Err(format!("the header has {size} bytes; must be at most {MAX_HEADER_BYTES}"));
    }
    let text = bytes.len();
    bytes.resize(text + size, 0);
    reader.read_exact(&mut bytes[text..]).map_err(read_error)?;
    let brackets: Vec<u8> = bytes[text..].iter().copied().filter(|byte| b"{([".contains(byte)).collect();
    if brackets != *b"{(" {
        return Err("unsupported type: expected plain numbers (unexpected brackets in the header)".to_owned());
    }
    NpyHeader::from_reader(&mut bytes.as_slice()).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use proptest::prelude::*;
    use zip::{ZipWriter, write::SimpleFileOptions};

    use super::*;

    /// An array as NumPy writes it.
    fn npy(dtype: &str, shape: &str, bytes: &[u8]) -> Vec<u8> {
        let mut header = format!("{{'descr': '{dtype}', 'fortran_order': False, 'shape': {shape}, }}");
        while (header.len() + 11) % 64 != 0 {
            header.push(' ');
        }
        header.push('\n');
        let length = (header.len() as u16).to_le_bytes();
        [b"\x93NUMPY\x01\x00", &length[..], header.as_bytes(), bytes].concat()
    }

    fn npz(arrays: &[(&str, Vec<u8>)], compressed: bool) -> tempfile::NamedTempFile {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        let method =
            if compressed { zip::CompressionMethod::Deflated } else { zip::CompressionMethod::Stored };
        let options = SimpleFileOptions::default().compression_method(method);
        let mut writer = ZipWriter::new(&mut file);
        for (name, bytes) in arrays {
            writer.start_file(format!("{name}.npy"), options).unwrap();
            writer.write_all(bytes).unwrap();
        }
        writer.finish().unwrap();
        file
    }

    fn problem(arrays: &[(&str, Vec<u8>)]) -> String {
        read(npz(arrays, false).path(), [1, 1, 2]).unwrap_err().to_string()
    }

    #[test]
    fn channels_are_moved_first() {
        // Two images of 1 × 2 pixels, red, green, blue for each.
        let image = npy("|u1", "(2, 1, 2, 3)", &[1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12]);
        let label = npy("<i8", "(2,)", &[3_i64.to_le_bytes(), 9_i64.to_le_bytes()].concat());
        for compressed in [false, true] {
            let file = npz(&[("label", label.clone()), ("image", image.clone())], compressed);
            let arrays = read(file.path(), [3, 1, 2]).unwrap();
            assert_eq!(arrays.pixels, [1, 4, 2, 5, 3, 6, 7, 10, 8, 11, 9, 12]);
            assert_eq!(arrays.labels, Some(vec![3, 9]));
        }
        let first = npz(&[("images", npy("|u1", "(1, 3, 1, 2)", &[1, 4, 2, 5, 3, 6]))], false);
        let arrays = read(first.path(), [3, 1, 2]).unwrap();
        assert_eq!((arrays.pixels, arrays.labels), (vec![1, 4, 2, 5, 3, 6], None));
    }

    #[test]
    fn rejects_invalid_archives() {
        let good = || npy("|u1", "(2, 1, 2)", &[1, 2, 3, 4]);
        assert!(problem(&[]).contains("missing image array; expected one of image, images"));
        assert!(problem(&[("image", npy("<f4", "(1, 1, 2)", &[0; 8]))]).contains("uint8"));
        assert!(problem(&[("image", npy("|u1", "(1, 2, 2)", &[0; 4]))]).contains("[N, 1, 2, 1]"));
        let short = npy("|u1", "(3, 1, 2)", &[0; 4]);
        assert!(problem(&[("image", short)]).contains("truncated: expected 6 bytes, found 4"));
        let huge = npy("|u1", "(9223372036854775807, 1, 2)", &[0; 4]);
        assert!(problem(&[("image", huge)]).contains("more than"));
        let label = npy("|u1", "(3,)", &[0; 3]);
        assert!(problem(&[("image", good()), ("label", label)]).contains("2 images and 3 labels"));
        let label = npy("<f8", "(2,)", &[0; 16]);
        assert!(problem(&[("image", good()), ("y", label)]).contains("expected int8"));
        let fields = npy("|u1', 'x': [('a', '|u1')], 'y': '", "(2, 1, 2)", &[1, 2, 3, 4]);
        assert!(problem(&[("image", fields)]).contains("plain numbers"));
        let long = npy(&" ".repeat(10_000), "(2, 1, 2)", &[]);
        assert!(problem(&[("image", long)]).contains("must be at most 10000"));
        assert!(problem(&[("image", vec![b'x'; 99])]).contains("missing NumPy magic string"));
        assert!(problem(&[("image", b"\x93NUMPY\x01".to_vec())]).contains("cannot read the header"));
        let none = tempfile::NamedTempFile::new().unwrap();
        assert!(read(none.path(), [1, 1, 2]).unwrap_err().to_string().contains("invalid NumPy archive"));
    }

    /// Found by the fuzz target: the time of the literal's parser doubles with every bracket.
    #[test]
    fn rejects_nested_brackets_without_parsing() {
        for bracket in ["[", "(", "{"] {
            let array = npy("|u1", &format!("{}, 's'", bracket.repeat(60)), &[0; 4]);
            assert!(problem(&[("image", array)]).contains("unexpected brackets"));
        }
    }

    proptest! {
        #[test]
        fn mutated_archives_do_not_panic(place in 0_usize..400, value: u8, length in 0_usize..700) {
            let file = npz(&[("image", npy("|u1", "(2, 1, 2)", &[1, 2, 3, 4])), ("label", npy("|u1", "(2,)", &[0, 1]))], false);
            let mut bytes = std::fs::read(file.path()).unwrap();
            if let Some(byte) = bytes.get_mut(place) {
                *byte = value;
            }
            bytes.truncate(length);
            std::fs::write(file.path(), bytes).unwrap();
            let _ = read(file.path(), [1, 1, 2]);
        }
    }
}
