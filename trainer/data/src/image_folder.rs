//! Images in a folder for each class, as ImageNet is unpacked: `train/CLASS/NAME.jpg`, `val/CLASS/NAME.jpg`.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use datjob_api::training::Dataset;

use super::{
    DataError, DataSet, Images, UNLABELLED,
    encoded::{self, Encoded, Places},
};

/// What the files are laid out as.
pub(super) const LAYOUT: &str = "train/CLASS/NAME.jpg and val/CLASS/NAME.jpg (or test/CLASS/NAME.jpg)";
/// Most classes: a label has 16 bits, and the largest stands for none.
pub(super) const CLASS_LIMIT: usize = UNLABELLED as usize;

/// What is said of a file where images lie that is none by its name.
pub(super) const NO_JPEG: &str = "unexpected file among the images; names must end in .jpg or .jpeg";

const NO_CLASSES: &str = "class folders are missing; expected one folder per class, named as in train";

/// The folders of the training images and of the test images, where both are there.
pub(super) fn parts(dir: &Path) -> Option<(PathBuf, PathBuf)> {
    let folder = |name: &str| Some(dir.join(name)).filter(|path| path.is_dir());
    Some((folder("train")?, folder("val").or_else(|| folder("test"))?))
}

/// Makes the index. Classes are the names of the folders below `train`, sorted; each test image belongs to one of them.
pub(super) fn load(dir: &Path, size: u32, threads: usize) -> Result<DataSet, DataError> {
    let (train, test) = encoded::find_root(dir, parts).ok_or_else(|| DataError::Layout {
        dir: dir.to_owned(),
        problem: "the folder train or val is missing".to_owned(),
        dataset: Dataset::ImageFolder.name(),
        layout: LAYOUT,
    })?;
    let classes = names(&train, true)?;
    if !(2..=CLASS_LIMIT).contains(&classes.len()) {
        let problem = format!("expected 2 to {CLASS_LIMIT} class folders, found {}", classes.len());
        return Err(DataError::Index { path: train, problem });
    }
    let part = |folder: PathBuf, of_it: &[String]| index(folder, of_it, &classes, size, threads);
    let tested = names(&test, true)?;
    if let Some(unknown) = tested.iter().find(|name| classes.binary_search(name).is_err()) {
        let problem = format!("unknown class; {} has no folder of this name", train.display());
        return Err(DataError::Index { path: test.join(unknown), problem });
    }
    Ok(DataSet::new(part(train.clone(), &classes)?, part(test, &tested)?, classes.len() as i64))
}

/// The images of these folders, by name, each of the class with the number of its folder's name.
fn index(
    root: PathBuf,
    folders: &[String],
    classes: &[String],
    size: u32,
    threads: usize,
) -> Result<Images, DataError> {
    let (mut files, mut labels): (Vec<Box<str>>, Vec<u16>) = (Vec::new(), Vec::new());
    for folder in folders {
        let path = root.join(folder);
        let label = classes.partition_point(|class| class < folder) as u16;
        let images = names(&path, false)?;
        if images.is_empty() {
            return Err(DataError::Index {
                path,
                problem: "no images found; a class needs at least one".to_owned(),
            });
        }
        for image in images {
            if !is_jpeg_name(&image) {
                return Err(DataError::Index { path: path.join(image), problem: NO_JPEG.to_owned() });
            }
            files.push(format!("{folder}/{image}").into());
            labels.push(label);
        }
    }
    if files.is_empty() {
        return Err(DataError::Index { path: root, problem: NO_CLASSES.to_owned() });
    }
    Ok(Images::encoded(Encoded::new(Places::Files { root, files }, size), labels, threads))
}

/// Whether a file of this name is a JPEG; capitals count as small letters.
pub(super) fn is_jpeg_name(name: &str) -> bool {
    let extension = Path::new(name).extension().and_then(|extension| extension.to_str()).unwrap_or_default();
    ["jpg", "jpeg"].iter().any(|jpeg| extension.eq_ignore_ascii_case(jpeg))
}

/// The sorted names of the folders in a folder, or of its files; hidden ones are left out.
fn names(path: &Path, folders: bool) -> Result<Vec<String>, DataError> {
    let reading = |source: io::Error| DataError::Read { path: path.to_owned(), source };
    let mut names = Vec::new();
    for entry in fs::read_dir(path).map_err(reading)? {
        let entry = entry.map_err(reading)?;
        let Ok(name) = entry.file_name().into_string() else {
            return Err(DataError::Index {
                path: entry.path(),
                problem: "the name is not valid UTF-8".to_owned(),
            });
        };
        if name.starts_with('.') {
            continue;
        }
        let mut kind = entry.file_type().map_err(reading)?;
        if kind.is_symlink() {
            kind = fs::metadata(entry.path()).map_err(reading)?.file_type();
        }
        if kind.is_dir() == folders {
            names.push(name);
        } else if !folders {
            return Err(DataError::Index {
                path: entry.path(),
                problem: "unexpected folder; a class folder must contain only images".to_owned(),
            });
        }
    }
    names.sort_unstable();
    Ok(names)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{super::decode::tests::jpeg, *};

    /// A folder with files of these names; their content is a JPEG.
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

    fn sentence(files: &[&str]) -> String {
        let dir = folder(files);
        let error = load(dir.path(), 8, 1).unwrap_err().to_string();
        error.replace(dir.path().to_str().unwrap(), "DIR")
    }

    #[test]
    fn classes_are_the_sorted_folders_and_images_their_sorted_files() {
        let below = SMALL.map(|name| format!("imagenet/{name}"));
        let test = SMALL.map(|name| name.replace("val/", "test/"));
        for names in [SMALL.map(str::to_owned), below, test] {
            let dir = folder(&names.each_ref().map(String::as_str));
            fs::write(dir.path().join(".marker"), "").unwrap();
            let data = load(dir.path(), 8, 1).unwrap();
            assert_eq!((data.classes, data.train.shape(), data.train.len()), (2, [3, 8, 8], 3));
            assert_eq!([0, 1, 2].map(|image| data.train.label(image)), [0, 1, 1]);
            assert_eq!([0, 1].map(|image| data.test.label(image)), [0, 1]);
            let Ok(loaded) = data.train.read(&[2, 0], None) else { panic!("unreadable") };
            assert_eq!(loaded.labels, [1, 0]);
            assert!(loaded.pixels[..64].iter().all(|&red| red.abs_diff(50) < 3));
            assert!(loaded.pixels[192 + 128..].iter().all(|&blue| blue.abs_diff(150) < 3));
        }
    }

    #[test]
    fn each_fault_has_its_sentence() {
        assert_eq!(
            sentence(&["train/a/1.jpg"]),
            "DIR: the folder train or val is missing; image-folder needs train/CLASS/NAME.jpg and val/CLASS/NAME.jpg \
             (or test/CLASS/NAME.jpg), in this folder or its only subfolder"
        );
        assert_eq!(
            sentence(&["train/a/1.jpg", "val/a/1.jpg"]),
            "DIR/train: expected 2 to 65535 class folders, found 1"
        );
        assert_eq!(
            sentence(&["train/a/1.jpg", "train/b/1.jpg", "val/c/1.jpg"]),
            "DIR/val/c: unknown class; DIR/train has no folder of this name"
        );
        assert_eq!(
            sentence(&["train/a/1.jpg", "train/b/.hidden", "val/a/1.jpg"]),
            "DIR/train/b: no images found; a class needs at least one"
        );
        assert_eq!(
            sentence(&["train/a/1.jpg", "train/b/1.gif", "val/a/1.jpg"]),
            "DIR/train/b/1.gif: unexpected file among the images; names must end in .jpg or .jpeg"
        );
        assert_eq!(
            sentence(&["train/a/1.jpg", "train/b/deep/1.jpg", "val/a/1.jpg"]),
            "DIR/train/b/deep: unexpected folder; a class folder must contain only images"
        );
        assert_eq!(
            sentence(&["train/a/1.jpg", "train/b/1.jpg", "val/x.jpg"]),
            "DIR/val: class folders are missing; expected one folder per class, named as in train"
        );
    }

    #[test]
    fn an_image_that_is_gone_or_broken_is_named() {
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
        fn no_names_panic(
            names in prop::collection::vec("(train|val|test|x)/[a-b.é]{1,2}/[a-z.]{1,3}(jpg|JPEG|.jpg|)", 0..8)
        ) {
            let dir = tempfile::tempdir().unwrap();
            for name in &names {
                let path = dir.path().join(name);
                // Some names are those of folders that are there already, or lead out and back.
                let _ = path.parent().map(fs::create_dir_all);
                let _ = fs::write(path, "");
            }
            if let Ok(data) = load(dir.path(), 8, 1) {
                prop_assert!(data.classes >= 2 && !data.train.is_empty() && !data.test.is_empty());
            }
        }
    }
}
