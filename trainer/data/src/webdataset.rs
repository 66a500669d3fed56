//! Indexes a webdataset: shards `train-*.tar` and `val-*.tar` with `KEY.jpg` and `KEY.cls`, the class as a decimal number.
//!
//! Only the tar headers and the classes are read. The optional file `classes.txt` has one line per class. Without it, the
//! number of classes is one more than the largest class of a training image.

use std::{
    collections::BTreeSet,
    io::{self, Read},
    path::{Path, PathBuf},
    sync::atomic::{AtomicUsize, Ordering},
    thread,
};

use datjob_api::training::Dataset;

use super::{
    DataError, DataSet, Images,
    encoded::{self, EncodedImages, ImageLocations},
    image_folder::MAX_CLASSES,
    skipped::SkippedFiles,
    storage,
};

mod shard;
#[cfg(test)]
mod tests;

use shard::{Sample, ShardIndex};

/// The layout of the files, for messages.
pub(super) const LAYOUT: &str =
    "tar files train-*.tar and val-*.tar (or test-*.tar) with KEY.jpg and KEY.cls";
/// The optional file with one line per class.
pub(super) const CLASSES_FILE: &str = "classes.txt";
/// Maximum size of that file in bytes.
const MAX_CLASSES_FILE_BYTES: u64 = 4 << 20;

/// The subset (train, val or test) of a shard with this file name.
pub(super) fn subset_of(name: &str) -> Option<&'static str> {
    let stem = name.strip_suffix(".tar")?;
    ["train", "val", "test"].into_iter().find(|subset| {
        stem.strip_prefix(subset)
            .and_then(|rest| rest.strip_prefix('-'))
            .is_some_and(|number| !number.is_empty())
    })
}

/// Whether a file name is that of a tar file that is not hidden.
pub(super) fn looks_like_shard(name: &str) -> bool {
    name.to_ascii_lowercase().ends_with(".tar") && !name.starts_with('.')
}

/// The shards of a data set.
pub(super) struct Shards {
    /// The shards of the training images, sorted by name.
    train: Vec<PathBuf>,
    /// The shards of the test images, sorted by name.
    test: Vec<PathBuf>,
    /// The folder of the shards.
    dir: PathBuf,
}

/// Finds the shards in a folder, if it has training and test images.
pub(super) fn find_shards(dir: &Path) -> Option<Shards> {
    let name = |entry: storage::DirectoryEntry| Some(entry.path.file_name()?.to_str()?.to_owned());
    let mut names: Vec<String> = storage::list(dir).ok()?.into_iter().filter_map(name).collect();
    names.sort_unstable();
    let shards = |subset: &str| -> Option<Vec<PathBuf>> {
        let names = names.iter().filter(|name| subset_of(name) == Some(subset));
        let paths: Vec<PathBuf> = names.map(|name| dir.join(name)).collect();
        (!paths.is_empty()).then_some(paths)
    };
    let test = shards("val").or_else(|| shards("test"))?;
    Some(Shards { train: shards("train")?, test, dir: dir.to_owned() })
}

/// Creates the index.
pub(super) fn load(dir: &Path, size: u32, threads: usize) -> Result<DataSet, DataError> {
    let Shards { train, test, dir } =
        encoded::find_root(dir, find_shards).ok_or_else(|| DataError::Layout {
            dir: dir.to_owned(),
            problem: "train-*.tar or val-*.tar is missing".to_owned(),
            dataset: Dataset::Webdataset.name(),
            layout: LAYOUT,
        })?;
    let class_count = read_class_count(&dir.join(CLASSES_FILE))?;
    let mut skipped = skipped_files(&dir, &train, &test)?;
    let (train_images, train_labels) = index_shards(train, class_count, threads, &mut skipped)?;
    let classes = class_count
        .unwrap_or_else(|| train_labels.iter().max().map_or(0, |&largest| usize::from(largest) + 1));
    if classes < 2 {
        let problem = format!("expected at least 2 classes, found {classes}");
        return Err(DataError::Index { path: dir, problem });
    }
    let (test_images, test_labels) = index_shards(test, Some(classes), threads, &mut skipped)?;
    let images = |locations, labels| Images::encoded(EncodedImages::new(locations, size), labels, threads);
    let data =
        DataSet::new(images(train_images, train_labels), images(test_images, test_labels), classes as i64);
    Ok(DataSet { warning: skipped.report(Dataset::Webdataset, LAYOUT), ..data })
}

/// The files in the folder, and the shards in folders below, that are not part of the data set.
fn skipped_files(dir: &Path, train: &[PathBuf], test: &[PathBuf]) -> Result<SkippedFiles, DataError> {
    let entries = storage::list(dir).map_err(|source| DataError::Read { path: dir.to_owned(), source })?;
    let shards: BTreeSet<&PathBuf> = train.iter().chain(test).collect();
    let mut others = BTreeSet::new();
    for storage::DirectoryEntry { path, .. } in entries {
        if storage::is_directory(&path) {
            // A folder that cannot be read, such as lost+found, is ignored: no shards are expected in folders.
            let below = storage::list(&path).unwrap_or_default().into_iter().map(|entry| entry.path);
            others.extend(below.filter(|path| is_shard(path)));
        } else if !shards.contains(&path)
            && !path.ends_with(CLASSES_FILE)
            && storage::metadata(&path).is_ok_and(|metadata| metadata.is_file())
        {
            others.insert(path);
        }
    }
    let mut skipped = SkippedFiles::default();
    for path in others {
        skipped.add(is_shard(&path), &path.display().to_string());
    }
    Ok(skipped)
}

fn is_shard(path: &Path) -> bool {
    path.file_name().is_some_and(|name| looks_like_shard(&name.to_string_lossy()))
}

/// The number of classes in the classes file, if it exists.
fn read_class_count(path: &Path) -> Result<Option<usize>, DataError> {
    let reading = |source| DataError::Read { path: path.to_owned(), source };
    let file = match storage::File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(reading(error)),
    };
    let mut text = String::new();
    file.take(MAX_CLASSES_FILE_BYTES).read_to_string(&mut text).map_err(reading)?;
    let classes = text.lines().filter(|line| !line.trim().is_empty()).count();
    if !(2..=MAX_CLASSES).contains(&classes) {
        let problem = format!("expected 2 to {MAX_CLASSES} classes, one per line, found {classes}");
        return Err(DataError::Index { path: path.to_owned(), problem });
    }
    Ok(Some(classes))
}

/// Indexes the images of these shards, in the order of the shards. `threads` shards are read concurrently.
fn index_shards(
    shards: Vec<PathBuf>,
    classes: Option<usize>,
    threads: usize,
    skipped: &mut SkippedFiles,
) -> Result<(ImageLocations, Vec<u16>), DataError> {
    let next = AtomicUsize::new(0);
    let worker = || {
        let mut indexes = Vec::new();
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            let Some(shard) = shards.get(number) else { return indexes };
            indexes.push((number, shard::read_index(shard, number as u32, classes)));
        }
    };
    let mut indexes: Vec<(usize, Result<ShardIndex, DataError>)> = thread::scope(|scope| {
        let threads: Vec<_> = (0..threads.clamp(1, shards.len())).map(|_| scope.spawn(worker)).collect();
        let results = threads
            .into_iter()
            .map(|thread| thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)));
        results.flatten().collect()
    });
    indexes.sort_unstable_by_key(|(number, _)| *number);
    let (mut ranges, mut labels) = (Vec::new(), Vec::new());
    for (_, index) in indexes {
        let ShardIndex { samples, skipped: skipped_entries, .. } = index?;
        skipped.append(skipped_entries);
        for Sample { range, label } in samples {
            ranges.push(range);
            labels.push(label);
        }
    }
    Ok((ImageLocations::Shards { shards, ranges }, labels))
}
