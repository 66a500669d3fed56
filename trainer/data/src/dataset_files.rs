//! Selects the files of a data set in an archive or a bucket, and gives their paths below the data directory.

use std::path::{Path, PathBuf};

use datjob_api::training::Dataset;

use super::{
    DataError,
    encoded::{self, IMAGE_LIMIT},
    image_folder,
    standard_files::{Layout, layout},
    webdataset,
};

/// Maximum size of a standard file in bytes. The largest one (CIFAR-100) has 154 MB.
const STANDARD_FILE_LIMIT: u64 = 256 << 20;
/// Maximum size of an archive of standard files in bytes, compressed and decompressed.
const STANDARD_LIMIT: u64 = 2 << 30;
/// The same for image folders and shards. ImageNet has 150 GB.
const LARGE_LIMIT: u64 = 2 << 40;

/// Maximum size of an archive of this data set in bytes, compressed and decompressed.
pub(super) fn archive_limit(dataset: Dataset) -> u64 {
    if dataset.is_encoded() { LARGE_LIMIT } else { STANDARD_LIMIT }
}

/// Maximum size of a file of this data set in bytes.
pub(super) fn file_limit(dataset: Dataset) -> u64 {
    match layout(dataset) {
        Layout::ImageFolder => IMAGE_LIMIT,
        Layout::Webdataset => LARGE_LIMIT,
        Layout::Standard(_) => STANDARD_FILE_LIMIT,
    }
}

/// The path of a file relative to the data directory, or `None` if the file is not part of the data set.
///
/// Other parent folders are removed, so a path cannot leave the data directory. Standard files and shards belong into the
/// directory itself, images into `train`, `val` or `test` and the folder of their class.
pub(super) fn target_path(dataset: Dataset, path: &str) -> Option<PathBuf> {
    let mut names = path.rsplit('/');
    let name = names.next().filter(|name| is_safe_name(name))?;
    match layout(dataset) {
        Layout::ImageFolder => {
            let class = names.next().filter(|class| is_safe_name(class))?;
            let subset = names.next().filter(|subset| ["train", "val", "test"].contains(subset))?;
            Some([subset, class, name].iter().collect())
        }
        Layout::Webdataset => {
            (webdataset::subset_of(name).is_some() || name == webdataset::CLASSES_FILE).then(|| name.into())
        }
        Layout::Standard(files) => files.standard_name(name).map(PathBuf::from),
    }
}

/// Whether a non-image lies among the images; skipping it would hide missing data.
pub(super) fn is_unexpected_file(dataset: Dataset, target: &Path) -> bool {
    dataset == Dataset::ImageFolder && !target.to_str().is_some_and(image_folder::is_jpeg_name)
}

/// Whether a file that is not part of the data set looks as if it should be.
pub(super) fn looks_like_data(dataset: Dataset, path: &str) -> bool {
    let name = path.rsplit('/').next().unwrap_or_default();
    is_safe_name(name)
        && match layout(dataset) {
            Layout::ImageFolder => image_folder::looks_like_image(name),
            Layout::Webdataset => webdataset::looks_like_shard(name),
            // The folder may also have the standard files of other data sets.
            Layout::Standard(_) => false,
        }
}

/// The files that the data set has, for messages.
pub(super) fn layout_description(dataset: Dataset) -> &'static str {
    match layout(dataset) {
        Layout::ImageFolder => image_folder::LAYOUT,
        Layout::Webdataset => webdataset::LAYOUT,
        Layout::Standard(_) => "its standard files",
    }
}

/// Whether a path is that of the folder of a subset (train, val, test) or, having no extension, of a class: a symbolic link
/// there would hide images.
pub(super) fn is_image_folder(dataset: Dataset, path: &str) -> bool {
    let is_subset = |name: &str| ["train", "val", "test"].contains(&name);
    let mut names = path.trim_end_matches('/').rsplit('/');
    let (name, parent) = (names.next().unwrap_or_default(), names.next().unwrap_or_default());
    dataset == Dataset::ImageFolder && (is_subset(name) || is_subset(parent) && !name.contains('.'))
}

/// Whether an image is in the folder of its subset, outside its class folders. `test` is not checked: archives often have
/// test images without classes in addition to `val`.
pub(super) fn is_outside_class_folder(dataset: Dataset, path: &str) -> bool {
    let mut names = path.rsplit('/');
    let (name, parent) = (names.next().unwrap_or_default(), names.next().unwrap_or_default());
    dataset == Dataset::ImageFolder
        && ["train", "val"].contains(&parent)
        && is_safe_name(name)
        && image_folder::looks_like_image(name)
}

/// Whether a name is not hidden and is a single path component.
fn is_safe_name(name: &str) -> bool {
    !name.is_empty() && !name.starts_with('.') && !name.contains(['\0', '\\'])
}

/// Checks that `dir` has all files of the data set. Only names are checked.
pub(super) fn check_complete(dataset: Dataset, dir: &Path) -> Result<(), DataError> {
    let missing = |expected| DataError::Layout {
        dir: dir.to_owned(),
        problem: "training or test images are missing".to_owned(),
        dataset: dataset.name(),
        layout: expected,
    };
    match layout(dataset) {
        Layout::Standard(files) => files.files().try_for_each(|file| files.find(dir, file).map(drop)),
        Layout::Webdataset => encoded::find_root(dir, webdataset::find_shards)
            .map(drop)
            .ok_or_else(|| missing(webdataset::LAYOUT)),
        Layout::ImageFolder => encoded::find_root(dir, image_folder::find_folders)
            .map(drop)
            .ok_or_else(|| missing(image_folder::LAYOUT)),
    }
}

#[cfg(test)]
mod tests {
    use std::path::Component;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn files_get_the_paths_that_they_are_read_from() {
        let target =
            |dataset, path: &str| target_path(dataset, path).map(|path| path.to_str().unwrap().to_owned());
        for (dataset, path, expected) in [
            (Dataset::Cifar100, "cifar-100-binary/train.bin", Some("train.bin")),
            (Dataset::Cifar100, "cifar-100-binary/fine_label_names.txt", None),
            (Dataset::Mnist, "t10k-images-idx3-ubyte.gz", Some("t10k-images-idx3-ubyte.gz")),
            (Dataset::ImageFolder, "a/b/train/n01/x.JPEG", Some("train/n01/x.JPEG")),
            (Dataset::ImageFolder, "val/n01/x.jpg", Some("val/n01/x.jpg")),
            (Dataset::ImageFolder, "/../val/n01/x.jpg", Some("val/n01/x.jpg")),
            (Dataset::ImageFolder, "val/../x.jpg", None),
            (Dataset::ImageFolder, "val/n01/.x.jpg", None),
            (Dataset::ImageFolder, "val/n01/x.xml", Some("val/n01/x.xml")),
            (Dataset::ImageFolder, "other/n01/x.jpg", None),
            (Dataset::ImageFolder, "n01/x.jpg", None),
            (Dataset::Webdataset, "deep/train-0001.tar", Some("train-0001.tar")),
            (Dataset::Webdataset, "classes.txt", Some("classes.txt")),
            (Dataset::Webdataset, "train.tar", None),
            (Dataset::Webdataset, "train-.tar", None),
        ] {
            assert_eq!(target(dataset, path).as_deref(), expected, "{path}");
            let unexpected =
                target_path(dataset, path).is_some_and(|target| is_unexpected_file(dataset, &target));
            assert_eq!(unexpected, path == "val/n01/x.xml", "{path}");
        }
    }

    proptest! {
        #[test]
        fn no_path_leaves_the_data_directory(path in "[a-z/.]{0,12}(train|val|..)?/[a-z.]{0,4}/[a-z.-]{0,9}(jpg|tar)?") {
            for dataset in Dataset::ALL {
                let is_inside = |path: PathBuf| path.components().all(|part| matches!(part, Component::Normal(_)));
                prop_assert!(target_path(dataset, &path).is_none_or(is_inside));
            }
        }
    }
}
