//! Where the encoded images of a data set lie: an index in memory, the images on disk.

use std::{
    fs::{self, File},
    io::{self, Read},
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
};

use sha2::{Digest, Sha256};

use super::DataError;

/// Most bytes of an encoded image; the largest of ImageNet has 15 MB.
pub(super) const IMAGE_LIMIT: u64 = 64 << 20;

/// Images on disk, all brought to squares of one size.
#[derive(Debug)]
pub(super) struct Encoded {
    places: Places,
    size: u32,
}

/// Where each image is.
#[derive(Debug)]
pub(super) enum Places {
    /// A file each.
    Files {
        /// The folder that all lie below.
        root: PathBuf,
        /// Path of each below it.
        files: Vec<Box<str>>,
    },
    /// Parts of larger files.
    Parts {
        /// The larger files.
        shards: Vec<PathBuf>,
        /// The part of each image.
        parts: Vec<Part>,
    },
}

/// A part of a shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Part {
    /// Its number.
    pub(super) shard: u32,
    /// Bytes; at most [`IMAGE_LIMIT`].
    pub(super) length: u32,
    /// Where it begins.
    pub(super) offset: u64,
}

impl Encoded {
    /// Images at these places, brought to squares of `size` pixels a side.
    pub(super) fn new(places: Places, size: u32) -> Self {
        Self { places, size }
    }

    /// Side of the square that images are brought to, in pixels.
    pub(super) fn size(&self) -> u32 {
        self.size
    }

    /// Hashes what the index knows of the images: where each lies, from the folder that all lie in.
    pub(super) fn hash_into(&self, hash: &mut Sha256) {
        match &self.places {
            Places::Files { files, .. } => {
                for file in files {
                    hash.update(file.as_bytes());
                    hash.update([0]);
                }
            }
            Places::Parts { shards, parts } => {
                for shard in shards {
                    hash.update(shard.file_name().unwrap_or_default().as_encoded_bytes());
                    hash.update([0]);
                }
                for part in parts {
                    hash.update(part.offset.to_le_bytes());
                    hash.update([part.shard, part.length].map(u32::to_le_bytes).as_flattened());
                }
            }
        }
    }

    /// The encoded bytes of an image.
    pub(super) fn bytes(&self, index: usize) -> Result<Vec<u8>, DataError> {
        match &self.places {
            Places::Files { root, files } => read_file(&root.join(&*files[index])),
            Places::Parts { shards, parts } => read_part(&shards[parts[index].shard as usize], parts[index]),
        }
    }

    /// What an image is called in messages.
    pub(super) fn name(&self, index: usize) -> String {
        match &self.places {
            Places::Files { root, files } => root.join(&*files[index]).display().to_string(),
            Places::Parts { shards, parts } => {
                let path = &shards[parts[index].shard as usize];
                let entry = entry_name(path, parts[index]).unwrap_or_default();
                format!("{}: {entry} at byte {}", path.display(), parts[index].offset)
            }
        }
    }
}

fn read_file(path: &Path) -> Result<Vec<u8>, DataError> {
    let reading = |source| DataError::Read { path: path.to_owned(), source };
    let mut bytes = Vec::new();
    File::open(path).and_then(|file| file.take(IMAGE_LIMIT + 1).read_to_end(&mut bytes)).map_err(reading)?;
    if bytes.len() as u64 > IMAGE_LIMIT {
        return Err(DataError::TooLong { path: path.to_owned(), expected: IMAGE_LIMIT as usize });
    }
    Ok(bytes)
}

fn read_part(path: &Path, part: Part) -> Result<Vec<u8>, DataError> {
    let mut bytes = vec![0; part.length as usize];
    File::open(path)
        .and_then(|file| file.read_exact_at(&mut bytes, part.offset))
        .map_err(|source| DataError::Read { path: path.to_owned(), source })?;
    Ok(bytes)
}

/// The name in the tar header before a part, as far as a plain header holds it.
fn entry_name(path: &Path, part: Part) -> io::Result<String> {
    let mut header = tar::Header::new_old();
    let before = part.offset.saturating_sub(header.as_bytes().len() as u64);
    File::open(path)?.read_exact_at(header.as_mut_bytes(), before)?;
    Ok(header.path()?.display().to_string())
}

/// What `parts` finds in `dir`, or else in the only folder below it: archives often hold all in one folder.
pub(super) fn find_root<T>(dir: &Path, parts: impl Fn(&Path) -> Option<T>) -> Option<T> {
    parts(dir).or_else(|| parts(&only_folder(dir)?))
}

fn only_folder(dir: &Path) -> Option<PathBuf> {
    let visible = |path: &PathBuf| {
        path.is_dir() && path.file_name().is_some_and(|name| !name.to_string_lossy().starts_with('.'))
    };
    let mut folders = fs::read_dir(dir).ok()?.filter_map(|entry| Some(entry.ok()?.path())).filter(visible);
    // lost+found is the file system's own, at the root of a volume.
    let mut folders = folders.by_ref().filter(|path| !path.ends_with("lost+found"));
    folders.next().filter(|_| folders.next().is_none())
}
