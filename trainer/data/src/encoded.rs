//! EncodedImages images on disk: an index of their locations, and reading their bytes.

use std::{
    io::{self, Read},
    path::{Path, PathBuf},
};

use sha2::{Digest, Sha256};

use super::{DataError, storage};

/// Maximum size of an encoded image in bytes. The largest image of ImageNet has 15 MB.
pub(super) const IMAGE_LIMIT: u64 = 64 << 20;

/// Number of bytes at the start and at the end of an image that a check reads.
const START_BYTES: u64 = 64 << 10;
const END_BYTES: u64 = 1 << 10;

/// Images on disk that are resized to squares.
#[derive(Debug)]
pub(super) struct EncodedImages {
    locations: ImageLocations,
    size: u32,
}

/// The location of each image.
#[derive(Debug)]
pub(super) enum ImageLocations {
    /// One file per image.
    Files {
        /// The folder that contains all files.
        root: PathBuf,
        /// The path of each file, relative to the folder.
        files: Vec<Box<str>>,
    },
    /// Byte ranges of tar files.
    Shards {
        /// The tar files.
        shards: Vec<PathBuf>,
        /// The byte range of each image.
        ranges: Vec<ShardRange>,
    },
}

/// The byte range of an image in a shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ShardRange {
    /// The number of the shard.
    pub(super) shard: u32,
    /// Length in bytes; at most [`IMAGE_LIMIT`].
    pub(super) length: u32,
    /// Offset in bytes.
    pub(super) offset: u64,
}

impl EncodedImages {
    /// Images at these locations, resized to squares of `size` × `size` pixels.
    pub(super) fn new(locations: ImageLocations, size: u32) -> Self {
        Self { locations, size }
    }

    /// Side of the square that images are resized to, in pixels.
    pub(super) fn size(&self) -> u32 {
        self.size
    }

    /// Hashes the locations of the images, relative to the folder that contains them.
    pub(super) fn hash_into(&self, hash: &mut Sha256) {
        match &self.locations {
            ImageLocations::Files { files, .. } => {
                for file in files {
                    hash.update(file.as_bytes());
                    hash.update([0]);
                }
            }
            ImageLocations::Shards { shards, ranges } => {
                for shard in shards {
                    hash.update(shard.file_name().unwrap_or_default().as_encoded_bytes());
                    hash.update([0]);
                }
                for range in ranges {
                    hash.update(range.offset.to_le_bytes());
                    hash.update([range.shard, range.length].map(u32::to_le_bytes).as_flattened());
                }
            }
        }
    }

    /// The encoded bytes of an image.
    pub(super) fn bytes(&self, index: usize) -> Result<Vec<u8>, DataError> {
        match &self.locations {
            ImageLocations::Files { root, files } => read_file(&root.join(&*files[index])),
            ImageLocations::Shards { shards, ranges } => {
                read_range(&shards[ranges[index].shard as usize], ranges[index])
            }
        }
    }

    /// The first and the last bytes of an image: enough for the header of most, and for the marker at the end.
    pub(super) fn ends(&self, index: usize) -> Result<(Vec<u8>, Vec<u8>), DataError> {
        let (path, range) = match &self.locations {
            ImageLocations::Files { root, files } => (root.join(&*files[index]), None),
            ImageLocations::Shards { shards, ranges } => {
                (shards[ranges[index].shard as usize].clone(), Some(ranges[index]))
            }
        };
        let read = || {
            let mut file = storage::File::open(&path)?;
            let (offset, length) = match range {
                Some(range) => (range.offset, u64::from(range.length)),
                None => (0, file.length()?),
            };
            let mut start = vec![0; length.min(START_BYTES) as usize];
            let mut end = vec![0; length.min(END_BYTES) as usize];
            file.read_exact_at(&mut start, offset)?;
            let end_offset = offset + length - end.len() as u64;
            file.read_exact_at(&mut end, end_offset)?;
            Ok((start, end))
        };
        read().map_err(|source| DataError::Read { path: path.clone(), source })
    }

    /// The name of an image in messages.
    pub(super) fn name(&self, index: usize) -> String {
        match &self.locations {
            ImageLocations::Files { root, files } => root.join(&*files[index]).display().to_string(),
            ImageLocations::Shards { shards, ranges } => {
                let path = &shards[ranges[index].shard as usize];
                let entry = entry_name(path, ranges[index]).unwrap_or_default();
                format!("{}: {entry} at byte {}", path.display(), ranges[index].offset)
            }
        }
    }
}

fn read_file(path: &Path) -> Result<Vec<u8>, DataError> {
    let reading = |source| DataError::Read { path: path.to_owned(), source };
    let mut bytes = Vec::new();
    let file = storage::File::open(path);
    file.and_then(|file| file.take(IMAGE_LIMIT + 1).read_to_end(&mut bytes)).map_err(reading)?;
    if bytes.len() as u64 > IMAGE_LIMIT {
        return Err(DataError::TooLong { path: path.to_owned(), expected: IMAGE_LIMIT as usize });
    }
    Ok(bytes)
}

fn read_range(path: &Path, range: ShardRange) -> Result<Vec<u8>, DataError> {
    let mut bytes = vec![0; range.length as usize];
    storage::File::open(path)
        .and_then(|mut file| file.read_exact_at(&mut bytes, range.offset))
        .map_err(|source| DataError::Read { path: path.to_owned(), source })?;
    Ok(bytes)
}

/// The name in the tar header before a range. Long names are truncated, since extended headers are not read.
fn entry_name(path: &Path, range: ShardRange) -> io::Result<String> {
    let mut header = tar::Header::new_old();
    let header_offset = range.offset.saturating_sub(header.as_bytes().len() as u64);
    storage::File::open(path)?.read_exact_at(header.as_mut_bytes(), header_offset)?;
    Ok(header.path()?.display().to_string())
}

/// Folder that file systems create at the root of a volume. Often only root can read it.
pub(super) const LOST_AND_FOUND: &str = "lost+found";

/// The result of `find` in `dir` or in its only subfolder. Archives often contain a single top-level folder.
pub(super) fn find_root<T>(dir: &Path, find: impl Fn(&Path) -> Option<T>) -> Option<T> {
    find(dir).or_else(|| find(&only_subfolder(dir)?))
}

fn only_subfolder(dir: &Path) -> Option<PathBuf> {
    let visible = |path: &PathBuf| {
        storage::is_directory(path)
            && path.file_name().is_some_and(|name| !name.to_string_lossy().starts_with('.'))
    };
    let mut folders = storage::list(dir).ok()?.into_iter().map(|entry| entry.path).filter(visible);
    let mut folders = folders.by_ref().filter(|path| !path.ends_with(LOST_AND_FOUND));
    folders.next().filter(|_| folders.next().is_none())
}
