//! Reads the headers and classes of one webdataset shard.

use std::{
    collections::HashMap,
    io::{self, Read, Seek, SeekFrom},
    path::Path,
};

use crate::{
    DataError,
    archive_path::{self, LinkKind},
    encoded::{IMAGE_LIMIT, ShardRange},
    image_folder::{MAX_CLASSES, is_jpeg_name, looks_like_image},
    skipped::SkippedFiles,
    storage,
};

/// Maximum number of bytes between two entries of a tar file that are read as headers.
const MAX_HEADER_BYTES: u64 = 4 << 20;
/// Maximum size of the names of all entries of a shard, in bytes.
const MAX_NAMES_BYTES: usize = 256 << 20;
/// Maximum size of a .cls file in bytes.
const MAX_CLASS_BYTES: u64 = 32;

/// An image with its class.
#[derive(Clone, Copy)]
pub(super) struct Sample {
    pub(super) range: ShardRange,
    pub(super) label: u16,
}

/// What a shard holds.
#[derive(Default)]
pub(super) struct ShardIndex {
    /// The name of the shard.
    shard: String,
    pub(super) samples: Vec<Sample>,
    /// Entries that are neither images nor classes.
    pub(super) skipped: SkippedFiles,
}

/// The entries of one key that were read so far.
struct PartialSample {
    key: String,
    image: Option<ShardRange>,
    class: Option<u16>,
    /// Other entries.
    others: Vec<String>,
}

/// Reads the index of one shard. The entries of a key must be adjacent. A link stands for the earlier entry that it points to.
pub(super) fn read_index(path: &Path, shard: u32, classes: Option<usize>) -> Result<ShardIndex, DataError> {
    let invalid = |problem: String| DataError::Index { path: path.to_owned(), problem };
    let invalid_tar = |error: io::Error| invalid(format!("invalid tar file: {error}"));
    let open =
        || storage::File::open(path).map_err(|source| DataError::Read { path: path.to_owned(), source });
    let (file, mut contents) = (open()?, open()?);
    let length = contents.length().map_err(invalid_tar)?;
    let mut archive = tar::Archive::new(BoundedReader { file, bytes_since_seek: 0 });
    // Archives may be joined (`cat a.tar b.tar`): the end of the first is not the end of the file.
    archive.set_ignore_zeros(true);
    let shard_name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let mut index = ShardIndex { shard: shard_name, ..ShardIndex::default() };
    let mut current: Option<PartialSample> = None;
    let mut files = Files::default();
    for entry in archive.entries_with_seek().map_err(invalid_tar)? {
        let entry = entry.map_err(invalid_tar)?;
        let link = LinkKind::of(entry.header().entry_type());
        let kind = entry.header().entry_type();
        if !kind.is_file() && link.is_none() {
            if !kind.is_dir() && !kind.is_pax_global_extensions() {
                index
                    .skipped
                    .add(true, &format!("{}: {}", index.shard, String::from_utf8_lossy(&entry.path_bytes())));
            }
            continue;
        }
        let name = entry.path().map_err(invalid_tar)?.to_str().map(str::to_owned);
        let Some(name) = name else { return Err(invalid("an entry name is not valid UTF-8".to_owned())) };
        let Some((key, extension)) = split_name(&name) else { continue };
        let (offset, size) = match link {
            None => (entry.raw_file_position(), entry.size()),
            Some(link) if is_jpeg_name(&format!("x.{extension}")) || extension == "cls" => {
                let written = entry.link_name_bytes().unwrap_or_default();
                files.linked(link, &name, &String::from_utf8_lossy(&written)).map_err(invalid)?
            }
            Some(_) => continue,
        };
        if offset.checked_add(size).is_none_or(|end| end > length) {
            return Err(invalid(format!("truncated: the file ends within {name}")));
        }
        files.add(&name, offset, size).map_err(invalid)?;
        if current.as_ref().is_none_or(|sample| sample.key != key) {
            let next = PartialSample { key: key.to_owned(), image: None, class: None, others: Vec::new() };
            let previous = current.replace(next);
            previous.map(|sample| index.finish_sample(sample)).transpose().map_err(invalid)?;
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
            let mut text = vec![0; size.min(MAX_CLASS_BYTES + 1) as usize];
            contents.read_exact_at(&mut text, offset).map_err(invalid_tar)?;
            let class =
                parse_class(&text, classes).map_err(|problem| invalid(format!("{name}: {problem}")))?;
            if sample.class.replace(class).is_some() {
                return Err(invalid(format!("duplicate class of key {key}")));
            }
        } else {
            sample.others.push(name);
        }
    }
    current.map(|sample| index.finish_sample(sample)).transpose().map_err(invalid)?;
    if index.samples.is_empty() {
        return Err(invalid("no images found".to_owned()));
    }
    Ok(index)
}

/// Offset and size of each file of a shard so far, for links.
#[derive(Default)]
struct Files {
    files: HashMap<String, (u64, u64)>,
    /// Bytes of all names.
    bytes: usize,
}

impl Files {
    fn add(&mut self, name: &str, offset: u64, size: u64) -> Result<(), String> {
        self.bytes += name.len();
        if self.bytes > MAX_NAMES_BYTES {
            return Err(format!("the names of the entries have more than {MAX_NAMES_BYTES} bytes"));
        }
        if let Some(path) = archive_path::normalized(name) {
            self.files.insert(path, (offset, size));
        }
        Ok(())
    }

    /// The file that a link points to.
    fn linked(&self, link: LinkKind, name: &str, written: &str) -> Result<(u64, u64), String> {
        let target = link.target(name, written).and_then(|target| self.files.get(&target).copied());
        target.ok_or_else(|| {
            format!(
                "{name} is a link to {written}, which is not an earlier entry; replace it by a file (tar --dereference \
                 --hard-dereference)"
            )
        })
    }
}

impl ShardIndex {
    /// Adds a sample that has an image and a class. One that has neither is skipped.
    fn finish_sample(&mut self, sample: PartialSample) -> Result<(), String> {
        let PartialSample { key, image, class, others } = sample;
        match (image, class) {
            (Some(range), Some(label)) => self.samples.push(Sample { range, label }),
            (Some(_), None) => {
                return Err(format!("missing {key}.cls; entries of one key must be adjacent"));
            }
            (None, Some(_)) => {
                return Err(format!("missing {key}.jpg; entries of one key must be adjacent"));
            }
            (None, None) => {}
        }
        for other in others {
            // Beside an image, another image is a mask or a thumbnail.
            self.skipped
                .add(image.is_none() && looks_like_image(&other), &format!("{}: {other}", self.shard));
        }
        Ok(())
    }
}

/// The key and the extension of an entry: the parts before and after the first dot of its file name.
fn split_name(name: &str) -> Option<(&str, &str)> {
    let folder = name.rfind('/').map_or(0, |slash| slash + 1);
    let dot = name[folder..].find('.').filter(|&dot| dot > 0)? + folder;
    Some((&name[..dot], &name[dot + 1..]))
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
    file: storage::File,
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
