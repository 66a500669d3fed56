//! Indexes images in one folder per class, as in ImageNet: `train/CLASS/NAME.jpg`, `val/CLASS/NAME.jpg`.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use datjob_api::training::Dataset;

use super::{
    DataError, DataSet, Images, Tally, UNLABELLED,
    encoded::{self, EncodedImages, ImageLocations, LOST_AND_FOUND},
    skipped::SkippedFiles,
    storage,
};

/// The layout of the files, for messages.
pub(super) const LAYOUT: &str = "train/CLASS/NAME.jpg and val/CLASS/NAME.jpg (or test/CLASS/NAME.jpg)";
/// Maximum number of classes: labels have 16 bits, and the largest value means unlabelled.
pub(super) const MAX_CLASSES: usize = UNLABELLED as usize;

/// The message about a file among the images that does not have the name of a JPEG file.
pub(super) const UNEXPECTED_FILE: &str = "unexpected file among the images; names must end in .jpg or .jpeg";

/// The message about an image outside the class folders.
pub(super) const OUTSIDE_CLASS_FOLDER: &str = "image outside a class folder; expected CLASS/NAME.jpg";

const MISSING_CLASSES: &str = "class folders are missing; expected one folder per class, named as in train";

/// The folders of the training images and of the test images, if both exist.
pub(super) fn find_folders(dir: &Path) -> Option<(PathBuf, PathBuf)> {
    let folder = |name: &str| Some(dir.join(name)).filter(|path| storage::is_directory(path));
    Some((folder("train")?, folder("val").or_else(|| folder("test"))?))
}

/// Creates the index. The classes are the sorted names of the folders in `train`; the folders in `val` must be among them.
///
/// All faults of files are in one error.
pub(super) fn load(dir: &Path, size: u32, threads: usize) -> Result<DataSet, DataError> {
    let (train, test) = encoded::find_root(dir, find_folders).ok_or_else(|| DataError::Layout {
        dir: dir.to_owned(),
        problem: "the folder train or val is missing".to_owned(),
        dataset: Dataset::ImageFolder.name(),
        layout: LAYOUT,
    })?;
    let mut indexing = Indexing::default();
    indexing.skip_others(&train, &test)?;
    let classes = indexing.classes(&train)?;
    if !(2..=MAX_CLASSES).contains(&classes.len()) {
        let problem = format!("expected 2 to {MAX_CLASSES} class folders, found {}", classes.len());
        return Err(DataError::Index { path: train, problem });
    }
    let test_classes = indexing.classes(&test)?;
    if let Some(unknown) = test_classes.iter().find(|name| classes.binary_search(name).is_err()) {
        let problem = format!("unknown class; {} has no folder of this name", train.display());
        return Err(DataError::Index { path: test.join(unknown), problem });
    }
    let (train, train_labels) = indexing.images(train, &classes, &classes)?;
    let (test, test_labels) = indexing.images(test, &test_classes, &classes)?;
    let skipped = indexing.finish()?;
    let images = |locations, labels| Images::encoded(EncodedImages::new(locations, size), labels, threads);
    let data = DataSet::new(images(train, train_labels), images(test, test_labels), classes.len() as i64);
    Ok(DataSet { warning: skipped.report(Dataset::ImageFolder, LAYOUT), ..data })
}

/// Reads folders, and collects what is wrong in them.
#[derive(Default)]
struct Indexing {
    faults: Tally,
    skipped: SkippedFiles,
}

impl Indexing {
    /// Counts what is beside the folders of the training images and of the test images.
    fn skip_others(&mut self, train: &Path, test: &Path) -> Result<(), DataError> {
        let Some(root) = train.parent() else { return Ok(()) };
        let entries =
            storage::list(root).map_err(|source| DataError::Read { path: root.to_owned(), source })?;
        let paths: BTreeSet<PathBuf> = entries.into_iter().map(|entry| entry.path).collect();
        for path in paths {
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            if path == train || path == test || name.starts_with('.') {
                continue;
            }
            let may_be_data =
                if storage::is_directory(&path) { name != LOST_AND_FOUND } else { looks_like_image(&name) };
            let remark = if name == "test" { " (the test images are those in val)" } else { "" };
            self.skipped.add(may_be_data, &format!("{}{remark}", path.display()));
        }
        Ok(())
    }

    /// The sorted names of the class folders.
    fn classes(&mut self, subset: &Path) -> Result<Vec<String>, DataError> {
        let Listing { folders, files } = self.list(subset)?;
        for file in files {
            if looks_like_image(&file) {
                self.fault(&subset.join(file), OUTSIDE_CLASS_FOLDER);
            } else {
                self.skipped.add(false, &subset.join(file).display().to_string());
            }
        }
        Ok(folders)
    }

    /// The images of these folders. The label of an image is the position of its folder in `classes`.
    fn images(
        &mut self,
        root: PathBuf,
        folders: &[String],
        classes: &[String],
    ) -> Result<(ImageLocations, Vec<u16>), DataError> {
        let (mut files, mut labels): (Vec<Box<str>>, Vec<u16>) = (Vec::new(), Vec::new());
        for folder in folders {
            let path = root.join(folder);
            let label = classes.partition_point(|class| class < folder) as u16;
            let faults = self.faults.count();
            let Listing { folders, files: images } = self.list(&path)?;
            for folder in &folders {
                self.fault(&path.join(folder), "unexpected folder; a class folder must contain only images");
            }
            if images.is_empty() && folders.is_empty() && faults == self.faults.count() {
                self.fault(&path, "no images found; a class needs at least one");
            }
            for image in images {
                if is_jpeg_name(&image) {
                    files.push(format!("{folder}/{image}").into());
                    labels.push(label);
                } else {
                    self.fault(&path.join(image), UNEXPECTED_FILE);
                }
            }
        }
        if files.is_empty() && self.faults.is_empty() {
            self.fault(&root, MISSING_CLASSES);
        }
        Ok((ImageLocations::Files { root, files }, labels))
    }

    /// The sorted names in a folder, without hidden ones. Links stand for what they point to.
    fn list(&mut self, path: &Path) -> Result<Listing, DataError> {
        let entries =
            storage::list(path).map_err(|source| DataError::Read { path: path.to_owned(), source })?;
        let mut listing = Listing::default();
        for storage::DirectoryEntry { path, mut file_type } in entries {
            let Some(name) = path.file_name().and_then(|name| name.to_str()).map(str::to_owned) else {
                self.fault(&path, "the name is not valid UTF-8");
                continue;
            };
            if name.starts_with('.') {
                self.skipped.add(false, &path.display().to_string());
                continue;
            }
            if file_type.is_symlink() {
                match storage::metadata(&path) {
                    Ok(metadata) => file_type = metadata.file_type(),
                    Err(error) => {
                        let target = fs::read_link(&path).unwrap_or_default();
                        let problem =
                            format!("symbolic link to {}: {error}; mount its target too", target.display());
                        self.fault(&path, &problem);
                        continue;
                    }
                }
            }
            if file_type.is_dir() { listing.folders.push(name) } else { listing.files.push(name) }
        }
        listing.folders.sort_unstable();
        listing.files.sort_unstable();
        Ok(listing)
    }

    fn fault(&mut self, path: &Path, problem: &str) {
        self.faults.add(format!("{}: {problem}", path.display()));
    }

    /// The skipped files, if nothing is wrong.
    fn finish(self) -> Result<SkippedFiles, DataError> {
        if self.faults.is_empty() { Ok(self.skipped) } else { Err(DataError::Faults(self.faults)) }
    }
}

/// The sorted names in a folder.
#[derive(Default)]
struct Listing {
    folders: Vec<String>,
    files: Vec<String>,
}

/// Whether a file name has the extension of an image, of any format.
pub(super) fn looks_like_image(name: &str) -> bool {
    let extension = Path::new(name).extension().and_then(|extension| extension.to_str()).unwrap_or_default();
    ["jpg", "jpeg", "png", "webp", "gif", "bmp", "tif", "tiff"]
        .iter()
        .any(|image| extension.eq_ignore_ascii_case(image))
}

/// Whether a file name has the extension of a JPEG file; case is ignored.
pub(super) fn is_jpeg_name(name: &str) -> bool {
    let extension = Path::new(name).extension().and_then(|extension| extension.to_str()).unwrap_or_default();
    ["jpg", "jpeg"].iter().any(|jpeg| extension.eq_ignore_ascii_case(jpeg))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{super::decode::tests::jpeg, *};

    /// A temporary folder with JPEG files of these names.
    fn folder(files: &[&str]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        for name in files {
            let path = dir.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, jpeg(20, 10, [50, 100, 150])).unwrap();
        }
        dir
    }

    const SMALL: [&str; 5] =
        ["train/n02/b.JPEG", "train/n02/a.jpg", "train/n01/c.jpeg", "val/n02/e.jpg", "val/n01/d.JPG"];

    fn message(files: &[&str]) -> String {
        let dir = folder(files);
        let error = load(dir.path(), 8, 1).unwrap_err().to_string();
        error.replace(dir.path().to_str().unwrap(), "DIR")
    }

    #[test]
    fn classes_and_images_are_sorted_by_name() {
        let below = SMALL.map(|name| format!("imagenet/{name}"));
        let test = SMALL.map(|name| name.replace("val/", "test/"));
        for names in [SMALL.map(str::to_owned), below, test] {
            let dir = folder(&names.each_ref().map(String::as_str));
            fs::write(dir.path().join(".marker"), "").unwrap();
            let data = load(dir.path(), 8, 1).unwrap();
            assert_eq!((data.classes, data.train.shape(), data.train.len()), (2, [3, 8, 8], 3));
            assert_eq!([0, 1, 2].map(|image| data.train.label(image)), [0, 1, 1]);
            assert_eq!([0, 1].map(|image| data.test.label(image)), [0, 1]);
            let Ok(batch) = data.train.read(&[2, 0], None) else { panic!("unreadable") };
            assert_eq!(batch.labels, [1, 0]);
            assert!(batch.pixels[..64].iter().all(|&red| red.abs_diff(50) < 3));
            assert!(batch.pixels[192 + 128..].iter().all(|&blue| blue.abs_diff(150) < 3));
        }
    }

    #[test]
    fn errors_name_the_path_and_the_cause() {
        assert_eq!(
            message(&["train/a/1.jpg"]),
            "DIR: the folder train or val is missing; image-folder needs train/CLASS/NAME.jpg and val/CLASS/NAME.jpg \
             (or test/CLASS/NAME.jpg), in this folder or its only subfolder"
        );
        assert_eq!(
            message(&["train/a/1.jpg", "val/a/1.jpg"]),
            "DIR/train: expected 2 to 65535 class folders, found 1"
        );
        assert_eq!(
            message(&["train/a/1.jpg", "train/b/1.jpg", "val/c/1.jpg"]),
            "DIR/val/c: unknown class; DIR/train has no folder of this name"
        );
        assert_eq!(
            message(&["train/a/1.jpg", "train/b/.hidden", "val/a/1.jpg"]),
            "DIR/train/b: no images found; a class needs at least one"
        );
        assert_eq!(
            message(&["train/a/1.jpg", "train/b/1.gif", "val/a/1.jpg"]),
            "DIR/train/b/1.gif: unexpected file among the images; names must end in .jpg or .jpeg"
        );
        assert_eq!(
            message(&["train/a/1.jpg", "train/b/deep/1.jpg", "val/a/1.jpg"]),
            "DIR/train/b/deep: unexpected folder; a class folder must contain only images"
        );
        assert_eq!(
            message(&["train/a/1.jpg", "train/b/1.jpg", "val/x.jpg"]),
            "DIR/val/x.jpg: image outside a class folder; expected CLASS/NAME.jpg"
        );
        assert_eq!(
            message(&["train/a/1.jpg", "train/b/1.jpg", "val/.hidden"]),
            "DIR/val: class folders are missing; expected one folder per class, named as in train"
        );
    }

    #[test]
    fn all_faults_are_in_one_message() {
        let dir = folder(&[
            "train/a/1.jpg",
            "train/a/2.gif",
            "train/b/1.jpg",
            "train/b/x/1.jpg",
            "val/a/1.jpg",
            "val/2.png",
        ]);
        std::os::unix::fs::symlink("/nowhere/annex.jpg", dir.path().join("train/b/3.jpg")).unwrap();
        let error =
            load(dir.path(), 8, 1).unwrap_err().to_string().replace(dir.path().to_str().unwrap(), "DIR");
        assert_eq!(
            error,
            "4 faults in the data set: DIR/val/2.png: image outside a class folder; expected CLASS/NAME.jpg; \
             DIR/train/a/2.gif: unexpected file among the images; names must end in .jpg or .jpeg; DIR/train/b/3.jpg: \
             symbolic link to /nowhere/annex.jpg: No such file or directory (os error 2); mount its target too; \
             DIR/train/b/x: unexpected folder; a class folder must contain only images"
        );
    }

    #[test]
    fn warns_of_test_images_that_are_not_used() {
        let dir = folder(&[&SMALL[..], &["test/n01/x.jpg", "README.md", "train/list.txt"]].concat());
        let warning = load(dir.path(), 8, 1).unwrap().warning.unwrap();
        assert!(
            warning.contains("skipped 1 file or folder that may be data")
                && warning.contains("/test (the test images are"),
            "{warning}"
        );
    }

    #[test]
    fn warns_of_folders_and_images_beside_train_and_val() {
        let others = ["train_part2/n01/x.jpg", "y.png", "lost+found/z.jpg", ".cache/z.jpg", "README.md"];
        let dir = folder(&[&SMALL[..], &others].concat());
        let warning = load(dir.path(), 8, 1).unwrap().warning.unwrap();
        let warning = warning.replace(dir.path().to_str().unwrap(), "DIR");
        assert!(warning.contains("skipped 2 files or folders that may be data"), "{warning}");
        assert!(warning.contains("DIR/train_part2; DIR/y.png"), "{warning}");
    }

    #[test]
    fn reports_missing_and_broken_images() {
        let dir = folder(&SMALL);
        let data = load(dir.path(), 8, 1).unwrap();
        fs::write(dir.path().join("train/n02/a.jpg"), "text").unwrap();
        fs::remove_file(dir.path().join("train/n02/b.JPEG")).unwrap();
        let error = |image| data.train.read(&[image], None).unwrap_err().to_string();
        assert!(error(1).ends_with("train/n02/a.jpg: not a JPEG or PNG image"), "{}", error(1));
        let missing = error(2);
        assert!(missing.starts_with("cannot read ") && missing.contains("train/n02/b.JPEG: "), "{missing}");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn any_names_do_not_panic(
            names in prop::collection::vec("(train|val|test|x)/[a-b.é]{1,2}/[a-z.]{1,3}(jpg|JPEG|.jpg|)", 0..8)
        ) {
            let dir = tempfile::tempdir().unwrap();
            for name in &names {
                let path = dir.path().join(name);
                // Some names are those of existing folders, or contain "..".
                let _ = path.parent().map(fs::create_dir_all);
                let _ = fs::write(path, "");
            }
            if let Ok(data) = load(dir.path(), 8, 1) {
                prop_assert!(data.classes >= 2 && !data.train.is_empty() && !data.test.is_empty());
            }
        }
    }
}
