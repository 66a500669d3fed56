//! Which files of an archive or a bucket belong to a data set, and where they are put.

use std::path::{Path, PathBuf};

use datjob_api::training::Dataset;

use super::{
    DataError,
    encoded::{self, IMAGE_LIMIT},
    image_folder, standard_files, webdataset,
};

/// Most bytes of a standard file; the largest (CIFAR-100) has 154 MB.
const STANDARD_FILE_LIMIT: u64 = 256 << 20;
/// Most bytes of an archive of standard files, and of what it unpacks to.
const STANDARD_LIMIT: u64 = 2 << 30;
/// The same for images of the user's own; ImageNet has 150 GB.
const LARGE_LIMIT: u64 = 2 << 40;

/// Most bytes of an archive of this data set, and of what it unpacks to.
pub(super) fn archive_limit(dataset: Dataset) -> u64 {
    if dataset.is_encoded() { LARGE_LIMIT } else { STANDARD_LIMIT }
}

/// Most bytes of one of its files.
pub(super) fn file_limit(dataset: Dataset) -> u64 {
    match dataset {
        Dataset::ImageFolder => IMAGE_LIMIT,
        Dataset::Webdataset => LARGE_LIMIT,
        _ => STANDARD_FILE_LIMIT,
    }
}

/// Where the file of this path belongs below the data directory; nothing for what is no part of the data set.
///
/// Folders above are left out, so that a path leads nowhere else: standard files and shards lie in the directory itself,
/// images in the folder of their class in `train`, `val` or `test`.
pub(super) fn place(dataset: Dataset, path: &str) -> Option<PathBuf> {
    let mut names = path.rsplit('/');
    let name = names.next().filter(|name| is_plain(name))?;
    match dataset {
        Dataset::ImageFolder => {
            let class = names.next().filter(|class| is_plain(class))?;
            let part = names.next().filter(|part| ["train", "val", "test"].contains(part))?;
            Some([part, class, name].iter().collect())
        }
        Dataset::Webdataset => {
            (webdataset::part_of(name).is_some() || name == webdataset::CLASSES_FILE).then(|| name.into())
        }
        standard => standard_files::layout(standard)?.standard_name(name).map(PathBuf::from),
    }
}

/// Whether a file at a place where images lie is none by its name. Left out, it would be missed by nobody.
pub(super) fn is_misplaced(dataset: Dataset, place: &Path) -> bool {
    dataset == Dataset::ImageFolder && !place.to_str().is_some_and(image_folder::is_jpeg_name)
}

/// A name that is visible and leads nowhere.
fn is_plain(name: &str) -> bool {
    !name.is_empty() && !name.starts_with('.') && !name.contains(['\0', '\\'])
}

/// Whether all that the data set needs is in `dir`, by the names alone.
pub(super) fn complete(dataset: Dataset, dir: &Path) -> Result<(), DataError> {
    let missing = |layout| DataError::Layout {
        dir: dir.to_owned(),
        problem: "training or test images are missing".to_owned(),
        dataset: dataset.name(),
        layout,
    };
    match standard_files::layout(dataset) {
        Some(layout) => layout.files().try_for_each(|file| layout.find(dir, file).map(drop)),
        None if dataset == Dataset::Webdataset => {
            encoded::find_root(dir, webdataset::parts).map(drop).ok_or_else(|| missing(webdataset::LAYOUT))
        }
        None => encoded::find_root(dir, image_folder::parts)
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
    fn files_are_put_where_they_are_read() {
        let at = |dataset, path: &str| place(dataset, path).map(|path| path.to_str().unwrap().to_owned());
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
            assert_eq!(at(dataset, path).as_deref(), expected, "{path}");
            let misplaced = place(dataset, path).is_some_and(|place| is_misplaced(dataset, &place));
            assert_eq!(misplaced, path == "val/n01/x.xml", "{path}");
        }
    }

    proptest! {
        #[test]
        fn no_path_leads_out(path in "[a-z/.]{0,12}(train|val|..)?/[a-z.]{0,4}/[a-z.-]{0,9}(jpg|tar)?") {
            for dataset in Dataset::ALL {
                let plain = |path: PathBuf| path.components().all(|part| matches!(part, Component::Normal(_)));
                prop_assert!(place(dataset, &path).is_none_or(plain));
            }
        }
    }
}
