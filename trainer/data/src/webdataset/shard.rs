//! Reads the headers and classes of one webdataset shard.

use std::{
    fs::File,
    io::{self, Read, Seek, SeekFrom},
    path::Path,
};

use crate::{
    DataError,
    encoded::{IMAGE_LIMIT, ShardRange},
    image_folder::{MAX_CLASSES, is_jpeg_name},
};

/// Maximum number of bytes between two entries of a tar file that are read as headers.
const MAX_HEADER_BYTES: u64 = 4 << 20;
/// Maximum size of a .cls file in bytes.
const MAX_CLASS_BYTES: u64 = 32;

/// An image with its class.
#[derive(Clone, Copy)]
pub(super) struct Sample {
    pub(super) range: ShardRange,
    pub(super) label: u16,
}

/// The entries of one key that were read so far.
struct PartialSample {
    key: String,
    image: Option<ShardRange>,
    class: Option<u16>,
}

/// Reads the samples of one shard. The entries of a key must be adjacent.
pub(super) fn read_samples(
    path: &Path,
    shard: u32,
    classes: Option<usize>,
) -> Result<Vec<Sample>, DataError> {
    let invalid = |problem: String| DataError::Index { path: path.to_owned(), problem };
    let invalid_tar = |error: io::Error| invalid(format!("invalid tar file: {error}"));
    let file = File::open(path).map_err(|source| DataError::Read { path: path.to_owned(), source })?;
    let length = file.metadata().map_err(invalid_tar)?.len();
    let mut archive = tar::Archive::new(BoundedReader { file, bytes_since_seek: 0 });
    let mut samples = Vec::new();
    let mut current: Option<PartialSample> = None;
    for entry in archive.entries_with_seek().map_err(invalid_tar)? {
        let mut entry = entry.map_err(invalid_tar)?;
        if !entry.header().entry_type().is_file() {
            continue;
        }
        let name = entry.path().map_err(invalid_tar)?.to_str().map(str::to_owned);
        let Some(name) = name else { return Err(invalid("an entry name is not valid UTF-8".to_owned())) };
        let (offset, size) = (entry.raw_file_position(), entry.size());
        if offset.checked_add(size).is_none_or(|end| end > length) {
            return Err(invalid(format!("truncated: the file ends within {name}")));
        }
        let Some((key, extension)) = split_name(&name) else { continue };
        if current.as_ref().is_none_or(|sample| sample.key != key) {
            let previous = current.replace(PartialSample { key: key.to_owned(), image: None, class: None });
            samples.extend(previous.as_ref().map(finish_sample).transpose().map_err(invalid)?.flatten());
        }
        let Some(sample) = &mut current else { continue };
        if is_jpeg_name(&format!("x.{extension}")) {
            if size == 0 || size > IMAGE_LIMIT {
                return Err(invalid(format!(
                    "{name}: invalid size {size}: must be 1 to {IMAGE_LIMIT} bytes"
                )));
            }
            let range = ShardRange { shard, length: size as u32, offset };
            if sample.image.replace(range).is_some() {
                return Err(invalid(format!("duplicate image of key {key}")));
            }
        } else if extension == "cls" {
            let mut text = Vec::new();
            entry.by_ref().take(MAX_CLASS_BYTES + 1).read_to_end(&mut text).map_err(invalid_tar)?;
            let class =
                parse_class(&text, classes).map_err(|problem| invalid(format!("{name}: {problem}")))?;
            if sample.class.replace(class).is_some() {
                return Err(invalid(format!("duplicate class of key {key}")));
            }
        }
    }
    samples.extend(current.as_ref().map(finish_sample).transpose().map_err(invalid)?.flatten());
    if samples.is_empty() {
        return Err(invalid("no images found".to_owned()));
    }
    Ok(samples)
}

/// The key and the extension of an entry: the parts before and after the first dot of its file name.
fn split_name(name: &str) -> Option<(&str, &str)> {
    let folder = name.rfind('/').map_or(0, |slash| slash + 1);
    let dot = name[folder..].find('.').filter(|&dot| dot > 0)? + folder;
    Some((&name[..dot], &name[dot + 1..]))
}

/// The complete sample, or `None` if it has neither image nor class.
fn finish_sample(sample: &PartialSample) -> Result<Option<Sample>, String> {
    match (sample.image, sample.class) {
        (Some(range), Some(label)) => Ok(Some(Sample { range, label })),
        (None, None) => Ok(None),
        (Some(_), None) => Err(format!("missing {}.cls; entries of one key must be adjacent", sample.key)),
        (None, Some(_)) => Err(format!("missing {}.jpg; entries of one key must be adjacent", sample.key)),
    }
}

/// Parses a class, a decimal number less than `classes`.
pub(super) fn parse_class(text: &[u8], classes: Option<usize>) -> Result<u16, String> {
    let limit = classes.unwrap_or(MAX_CLASSES);
    let number = str::from_utf8(text)
        .ok()
        .map(str::trim)
        .filter(|text| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()));
    let class = number.and_then(|text| text.parse::<u16>().ok()).filter(|&class| usize::from(class) < limit);
    class.ok_or_else(|| {
        format!("invalid class {:?}: must be a number from 0 to {}", String::from_utf8_lossy(text), limit - 1)
    })
}

/// Bounds the number of bytes read between two seeks, so that a long name in a tar file cannot exhaust the memory.
struct BoundedReader {
    file: File,
    bytes_since_seek: u64,
}

impl Read for BoundedReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.bytes_since_seek > MAX_HEADER_BYTES {
            return Err(io::Error::other("header too long"));
        }
        let count = self.file.read(buffer)?;
        self.bytes_since_seek += count as u64;
        Ok(count)
    }
}

impl Seek for BoundedReader {
    fn seek(&mut self, position: SeekFrom) -> io::Result<u64> {
        self.bytes_since_seek = 0;
        self.file.seek(position)
    }
}
