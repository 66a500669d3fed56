//! Images in NumPy's archive of arrays (`numpy.savez`), as generated images are published: `image`, u8
//! `[N, H, W, C]` or `[N, C, H, W]`, and `label`, `[N]`; [`crate::DataSet::add`] adds them to a data set.

use std::{
    fs::File,
    io::{BufReader, Read},
    path::{Path, PathBuf},
};

use npyz::{NpyFile, NpyHeader, Order};
use zip::ZipArchive;

/// Names under which images are looked for, in that order.
const IMAGES: [&str; 4] = ["image", "images", "x", "data"];
/// Names under which labels are looked for, in that order.
const LABELS: [&str; 5] = ["label", "labels", "y", "targets", "extrapolated_targets"];
/// Most bytes of images: they lie in memory.
const MOST_BYTES: u64 = 64 << 30;
/// Most bytes of an array's header: what NumPy itself reads (`max_header_size`).
const HEADER_LIMIT: usize = 10_000;

/// An archive that cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("{}: {problem}", path.display())]
pub struct NpzError {
    path: PathBuf,
    problem: String,
}

/// What an archive holds.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Arrays {
    /// Image by image, channel by channel, row by row.
    pub(super) pixels: Vec<u8>,
    /// A label for each image, where the archive has such.
    pub(super) labels: Option<Vec<i64>>,
}

/// Reads an archive of images of the shape `[channels, height, width]`.
pub(super) fn read(path: &Path, shape: [i64; 3]) -> Result<Arrays, NpzError> {
    let failed = |problem: String| NpzError { path: path.to_owned(), problem };
    let file = File::open(path).map_err(|error| failed(format!("cannot open the file: {error}")))?;
    let archive = ZipArchive::new(BufReader::new(file));
    let mut archive = archive.map_err(|error| failed(format!("invalid NumPy archive (.npz): {error}")))?;
    arrays(&mut archive, shape).map_err(failed)
}

type Archive = ZipArchive<BufReader<File>>;

fn arrays(archive: &mut Archive, shape: [i64; 3]) -> Result<Arrays, String> {
    let images = find(archive, &IMAGES)
        .ok_or_else(|| format!("missing image array; expected one of {}", IMAGES.join(", ")))?;
    let (count, pixels) = pixels(archive, &images, shape)?;
    let labels = find(archive, &LABELS).map(|name| labels(archive, &name)).transpose()?;
    if let Some(labels) = labels.as_ref().filter(|labels| labels.len() as u64 != count) {
        return Err(format!("found {count} images and {} labels; the numbers must be equal", labels.len()));
    }
    Ok(Arrays { pixels, labels })
}

fn find(archive: &Archive, names: &[&str]) -> Option<String> {
    let file = |name: &&str| format!("{name}.npy");
    names.iter().map(file).find(|name| archive.index_for_name(name).is_some())
}

/// The images' number and bytes.
fn pixels(archive: &mut Archive, name: &str, shape: [i64; 3]) -> Result<(u64, Vec<u8>), String> {
    let (header, mut reader) = open(archive, name)?;
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
    let bytes = count.checked_mul(size).filter(|bytes| *bytes <= MOST_BYTES);
    let bytes = bytes
        .ok_or_else(|| format!("{name}: too large: {count} images have more than {MOST_BYTES} bytes"))?;
    let mut pixels = Vec::new();
    // As long as there is something: the header alone must not make room for more than the file has.
    let read = (&mut reader).take(bytes).read_to_end(&mut pixels);
    read.map_err(|error| format!("cannot read {name}: {error}"))?;
    if pixels.len() as u64 != bytes {
        return Err(format!("{name}: truncated: expected {bytes} bytes, found {}", pixels.len()));
    }
    if channels_last && channels > 1 {
        let mut image = vec![0; size as usize];
        for pixels in pixels.chunks_exact_mut(size as usize) {
            image.copy_from_slice(pixels);
            for (place, pixel) in image.chunks_exact(channels as usize).enumerate() {
                for (channel, value) in pixel.iter().enumerate() {
                    pixels[channel * (height * width) as usize + place] = *value;
                }
            }
        }
    }
    Ok((count, pixels))
}

fn labels(archive: &mut Archive, name: &str) -> Result<Vec<i64>, String> {
    let (header, reader) = open(archive, name)?;
    if header.shape().len() != 1 {
        return Err(format!("{name}: invalid shape {:?}; expected [N]", header.shape()));
    }
    let kind = header.dtype().descr();
    let array = NpyFile::with_header(header, reader);
    let unreadable = |error: std::io::Error| format!("cannot read {name}: {error}");
    macro_rules! read {
        ($kind:ty) => {
            array
                .data::<$kind>()
                .map_err(|error| format!("cannot read {name}: {error}"))?
                .map(|label| label.map(i64::from))
                .collect::<Result<Vec<i64>, _>>()
                .map_err(unreadable)
        };
    }
    match kind.trim_matches('\'') {
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

/// The header of an array and what comes after it.
fn open<'a>(archive: &'a mut Archive, name: &str) -> Result<(NpyHeader, impl Read + 'a), String> {
    let unreadable = |problem: String| format!("{name}: invalid array: {problem}");
    let mut entry = archive.by_name(name).map_err(|error| unreadable(error.to_string()))?;
    let header = header(&mut entry).map_err(unreadable)?;
    if header.order() != Order::C {
        return Err(unreadable("unsupported Fortran order; save the array in C order".to_owned()));
    }
    Ok((header, entry))
}

/// The header of an array (NumPy's format, versions 1 to 3): eight bytes of magic and version, the length of its text,
/// and the text, a Python literal.
///
/// The parser of the literal takes twice as long for each bracket within another, so that a header of 60 brackets would
/// never end. An array of plain numbers has two, the dictionary's and the shape's: only such headers reach the parser.
fn header(reader: &mut impl Read) -> Result<NpyHeader, String> {
    let broken = |error: std::io::Error| format!("cannot read the header: {error}");
    let mut bytes = vec![0; 8];
    reader.read_exact(&mut bytes).map_err(broken)?;
    if !bytes.starts_with(b"\x93NUMPY") {
        return Err("missing NumPy magic string".to_owned());
    }
    let length = if bytes[6] == 1 { 2 } else { 4 };
    let mut size = [0; 4];
    reader.read_exact(&mut size[..length]).map_err(broken)?;
    bytes.extend_from_slice(&size[..length]);
    let size = u32::from_le_bytes(size) as usize;
    if size > HEADER_LIMIT {
        return Err(format!("the header has {size} bytes; must be at most {HEADER_LIMIT}"));
    }
    let text = bytes.len();
    bytes.resize(text + size, 0);
    reader.read_exact(&mut bytes[text..]).map_err(broken)?;
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
    fn npy(kind: &str, shape: &str, bytes: &[u8]) -> Vec<u8> {
        let mut header = format!("{{'descr': '{kind}', 'fortran_order': False, 'shape': {shape}, }}");
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
    fn channels_come_first_in_memory() {
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
    fn what_is_not_read_is_said() {
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

    /// Found by the fuzz target: the parser of Python literals doubles its time with every bracket.
    #[test]
    fn brackets_within_brackets_end_at_once() {
        for bracket in ["[", "(", "{"] {
            let array = npy("|u1", &format!("{}, 's'", bracket.repeat(60)), &[0; 4]);
            assert!(problem(&[("image", array)]).contains("unexpected brackets"));
        }
    }

    proptest! {
        #[test]
        fn no_bytes_panic(place in 0_usize..400, value: u8, length in 0_usize..700) {
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
