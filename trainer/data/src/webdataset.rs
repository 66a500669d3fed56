//! Images in tar files: `KEY.jpg` with `KEY.cls`, the class as a number in text, in `train-*.tar` and `val-*.tar`.
//!
//! The index is made from the headers alone; what lies between them is skipped. A file `classes.txt`, with a line for
//! each class, says how many there are; else it is one more than the largest number of a training image.

use std::{
    fs::{self, File},
    io::{self, Read, Seek, SeekFrom},
    path::{Path, PathBuf},
    sync::atomic::{AtomicUsize, Ordering},
    thread,
};

use datjob_api::training::Dataset;

use super::{
    DataError, DataSet, Images,
    encoded::{self, Encoded, IMAGE_LIMIT, Part, Places},
    image_folder::{CLASS_LIMIT, is_jpeg_name},
};

/// What the files are laid out as.
pub(super) const LAYOUT: &str =
    "tar files train-*.tar and val-*.tar (or test-*.tar) with KEY.jpg and KEY.cls";
/// The file with a line for each class.
pub(super) const CLASSES_FILE: &str = "classes.txt";
/// Most bytes of that file, and of what is read between two entries of a tar file.
const TEXT_LIMIT: u64 = 4 << 20;
/// Most bytes of a .cls.
const CLASS_BYTES: u64 = 32;

/// Which part of a data set a file of this name belongs to.
pub(super) fn part_of(name: &str) -> Option<&'static str> {
    let stem = name.strip_suffix(".tar")?;
    ["train", "val", "test"].into_iter().find(|part| {
        stem.strip_prefix(part)
            .and_then(|rest| rest.strip_prefix('-'))
            .is_some_and(|number| !number.is_empty())
    })
}

/// The files of the training images and of the test images, sorted by name, and the folder that they lie in.
pub(super) fn parts(dir: &Path) -> Option<(Vec<PathBuf>, Vec<PathBuf>, PathBuf)> {
    let mut names: Vec<String> =
        fs::read_dir(dir).ok()?.filter_map(|entry| entry.ok()?.file_name().into_string().ok()).collect();
    names.sort_unstable();
    let of = |part: &str| -> Option<Vec<PathBuf>> {
        let of_it = names.iter().filter(|name| part_of(name) == Some(part));
        let paths: Vec<PathBuf> = of_it.map(|name| dir.join(name)).collect();
        (!paths.is_empty()).then_some(paths)
    };
    Some((of("train")?, of("val").or_else(|| of("test"))?, dir.to_owned()))
}

/// Makes the index.
pub(super) fn load(dir: &Path, size: u32, threads: usize) -> Result<DataSet, DataError> {
    let (train, test, dir) = encoded::find_root(dir, parts).ok_or_else(|| DataError::Layout {
        dir: dir.to_owned(),
        problem: "train-*.tar or val-*.tar is missing".to_owned(),
        dataset: Dataset::Webdataset.name(),
        layout: LAYOUT,
    })?;
    let listed = listed_classes(&dir.join(CLASSES_FILE))?;
    let (train_images, train_labels) = index(train, listed, threads)?;
    let classes =
        listed.unwrap_or_else(|| train_labels.iter().max().map_or(0, |&largest| usize::from(largest) + 1));
    if classes < 2 {
        let problem = format!("expected at least 2 classes, found {classes}");
        return Err(DataError::Index { path: dir, problem });
    }
    let (test_images, test_labels) = index(test, Some(classes), threads)?;
    let images = |places, labels| Images::encoded(Encoded::new(places, size), labels, threads);
    Ok(DataSet::new(images(train_images, train_labels), images(test_images, test_labels), classes as i64))
}

/// How many classes the file lists, where it is there.
fn listed_classes(path: &Path) -> Result<Option<usize>, DataError> {
    let reading = |source| DataError::Read { path: path.to_owned(), source };
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(reading(error)),
    };
    let mut text = String::new();
    file.take(TEXT_LIMIT).read_to_string(&mut text).map_err(reading)?;
    let classes = text.lines().filter(|line| !line.trim().is_empty()).count();
    if !(2..=CLASS_LIMIT).contains(&classes) {
        let problem = format!("expected 2 to {CLASS_LIMIT} classes, one per line, found {classes}");
        return Err(DataError::Index { path: path.to_owned(), problem });
    }
    Ok(Some(classes))
}

/// The images of these shards, in the order of their names; `threads` shards are read at a time.
fn index(
    shards: Vec<PathBuf>,
    classes: Option<usize>,
    threads: usize,
) -> Result<(Places, Vec<u16>), DataError> {
    let next = AtomicUsize::new(0);
    let work = || {
        let mut found = Vec::new();
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            let Some(shard) = shards.get(number) else { return found };
            found.push((number, samples(shard, number as u32, classes)));
        }
    };
    let mut found: Vec<(usize, Result<Vec<Sample>, DataError>)> = thread::scope(|scope| {
        let threads: Vec<_> = (0..threads.clamp(1, shards.len())).map(|_| scope.spawn(work)).collect();
        let ended = threads
            .into_iter()
            .map(|thread| thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)));
        ended.flatten().collect()
    });
    found.sort_unstable_by_key(|(number, _)| *number);
    let (mut parts, mut labels) = (Vec::new(), Vec::new());
    for (_, samples) in found {
        for (part, label) in samples? {
            parts.push(part);
            labels.push(label);
        }
    }
    Ok((Places::Parts { shards, parts }, labels))
}

/// An image and its class.
type Sample = (Part, u16);

/// What is known of the entries of one key.
struct Group {
    key: String,
    image: Option<Part>,
    class: Option<u16>,
}

/// The samples of one shard: entries with one key follow one another.
fn samples(path: &Path, shard: u32, classes: Option<usize>) -> Result<Vec<Sample>, DataError> {
    let wrong = |problem: String| DataError::Index { path: path.to_owned(), problem };
    let no_tar = |error: io::Error| wrong(format!("invalid tar file: {error}"));
    let file = File::open(path).map_err(|source| DataError::Read { path: path.to_owned(), source })?;
    let length = file.metadata().map_err(no_tar)?.len();
    let mut archive = tar::Archive::new(Headers { file, read: 0 });
    let mut samples = Vec::new();
    let mut group: Option<Group> = None;
    for entry in archive.entries_with_seek().map_err(no_tar)? {
        let mut entry = entry.map_err(no_tar)?;
        if !entry.header().entry_type().is_file() {
            continue;
        }
        let name = entry.path().map_err(no_tar)?.to_str().map(str::to_owned);
        let Some(name) = name else { return Err(wrong("an entry name is not valid UTF-8".to_owned())) };
        let (offset, size) = (entry.raw_file_position(), entry.size());
        if offset.checked_add(size).is_none_or(|end| end > length) {
            return Err(wrong(format!("truncated: the file ends within {name}")));
        }
        let Some((key, extension)) = split(&name) else { continue };
        if group.as_ref().is_none_or(|group| group.key != key) {
            let before = group.replace(Group { key: key.to_owned(), image: None, class: None });
            samples.extend(before.as_ref().map(complete).transpose().map_err(wrong)?.flatten());
        }
        let Some(group) = &mut group else { continue };
        if is_jpeg_name(&format!("x.{extension}")) {
            if size == 0 || size > IMAGE_LIMIT {
                return Err(wrong(format!("{name}: invalid size {size}: must be 1 to {IMAGE_LIMIT} bytes")));
            }
            let part = Part { shard, length: size as u32, offset };
            if group.image.replace(part).is_some() {
                return Err(wrong(format!("duplicate image of key {key}")));
            }
        } else if extension == "cls" {
            let mut text = Vec::new();
            entry.by_ref().take(CLASS_BYTES + 1).read_to_end(&mut text).map_err(no_tar)?;
            let class = class(&text, classes).map_err(|problem| wrong(format!("{name}: {problem}")))?;
            if group.class.replace(class).is_some() {
                return Err(wrong(format!("duplicate class of key {key}")));
            }
        }
    }
    samples.extend(group.as_ref().map(complete).transpose().map_err(wrong)?.flatten());
    if samples.is_empty() {
        return Err(wrong("no images found".to_owned()));
    }
    Ok(samples)
}

/// Key and extension of an entry: what comes before the first dot of its file name, and what after.
fn split(name: &str) -> Option<(&str, &str)> {
    let folder = name.rfind('/').map_or(0, |slash| slash + 1);
    let dot = name[folder..].find('.').filter(|&dot| dot > 0)? + folder;
    Some((&name[..dot], &name[dot + 1..]))
}

/// The sample of a group; nothing where it has neither image nor class.
fn complete(group: &Group) -> Result<Option<Sample>, String> {
    match (group.image, group.class) {
        (Some(image), Some(class)) => Ok(Some((image, class))),
        (None, None) => Ok(None),
        (Some(_), None) => Err(format!("missing {}.cls; entries of one key must be adjacent", group.key)),
        (None, Some(_)) => Err(format!("missing {}.jpg; entries of one key must be adjacent", group.key)),
    }
}

/// A class, a number in text that is less than `classes`.
fn class(text: &[u8], classes: Option<usize>) -> Result<u16, String> {
    let most = classes.unwrap_or(CLASS_LIMIT);
    let number = str::from_utf8(text)
        .ok()
        .map(str::trim)
        .filter(|text| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()));
    let class = number.and_then(|text| text.parse::<u16>().ok()).filter(|&class| usize::from(class) < most);
    class.ok_or_else(|| {
        format!("invalid class {:?}: must be a number from 0 to {}", String::from_utf8_lossy(text), most - 1)
    })
}

/// A tar file of which a bounded number of bytes is read at a time, between seeks: a name in it cannot fill the memory.
struct Headers {
    file: File,
    read: u64,
}

impl Read for Headers {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.read > TEXT_LIMIT {
            return Err(io::Error::other("header too long"));
        }
        let count = self.file.read(buffer)?;
        self.read += count as u64;
        Ok(count)
    }
}

impl Seek for Headers {
    fn seek(&mut self, position: SeekFrom) -> io::Result<u64> {
        self.read = 0;
        self.file.seek(position)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{super::decode::tests::jpeg, *};

    /// A tar file of entries.
    fn tar_of(entries: &[(&str, &[u8])]) -> Vec<u8> {
        let mut tar = tar::Builder::new(Vec::new());
        for (name, contents) in entries {
            let mut header = tar::Header::new_gnu();
            header.set_size(contents.len() as u64);
            header.set_mode(0o644);
            tar.append_data(&mut header, name, *contents).unwrap();
        }
        tar.into_inner().unwrap()
    }

    fn load_of(files: &[(&str, &[u8])]) -> (tempfile::TempDir, Result<DataSet, String>) {
        let dir = tempfile::tempdir().unwrap();
        for (name, bytes) in files {
            let path = dir.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, bytes).unwrap();
        }
        let loaded = load(dir.path(), 8, 2)
            .map_err(|error| error.to_string().replace(dir.path().to_str().unwrap(), "DIR"));
        (dir, loaded)
    }

    /// A data set whose first shard is this.
    fn sentence(entries: &[(&str, &[u8])]) -> String {
        let good = tar_of(&[("b.jpg", b"x"), ("b.cls", b"1")]);
        load_of(&[("train-0.tar", &tar_of(entries)), ("val-0.tar", &good)]).1.unwrap_err()
    }

    #[test]
    fn samples_are_those_of_the_shards_in_their_order() {
        let red = jpeg(30, 20, [250, 0, 0]);
        let blue = jpeg(20, 30, [0, 0, 250]);
        let long = "a".repeat(150);
        let names = [format!("{long}/7.x.json"), format!("{long}/7.JPG"), format!("{long}/7.cls")];
        let first = tar_of(&[
            ("s/1.cls", b"2\n"),
            ("s/1.jpeg", &red),
            ("s/1.json", b"{}"),
            ("s/2.jpg", &blue),
            ("s/2.cls", b"0"),
        ]);
        // The file name is cut at its first dot: 7.x.json belongs to the key 7.
        let second = tar_of(&[(&names[0], b"{}"), (&names[1], &blue), (&names[2], b"1")]);
        for folder in ["", "shards/"] {
            let files =
                ["train-00001.tar", "train-00000.tar", "val-0.tar"].map(|name| format!("{folder}{name}"));
            let (_dir, data) = load_of(&[(&files[0], &second), (&files[1], &first), (&files[2], &second)]);
            let data = data.unwrap();
            assert_eq!((data.classes, data.train.len(), data.test.len()), (3, 3, 1));
            assert_eq!([0, 1, 2].map(|image| data.train.label(image)), [2, 0, 1]);
            let pixels = data.train.read(&[0, 2], None).unwrap().pixels;
            assert!(
                pixels[..64].iter().all(|&red| red > 240) && pixels[64..192].iter().all(|&other| other < 10)
            );
            assert!(
                pixels[192..320].iter().all(|&other| other < 10)
                    && pixels[320..].iter().all(|&blue| blue > 240)
            );
        }
    }

    #[test]
    fn listed_classes_bound_the_labels() {
        let shard = tar_of(&[("1.jpg", b"x"), ("1.cls", b"2"), ("2.jpg", b"x"), ("2.cls", b"0")]);
        let files: [(&str, &[u8]); 2] = [("train-0.tar", &shard), ("test-0.tar", &shard)];
        let with = |list: &[u8]| load_of(&[files[0], files[1], ("classes.txt", list)]).1;
        assert_eq!(with(b"cat\ndog\nfish\nbird\n").unwrap().classes, 4);
        assert_eq!(
            with(b"cat\ndog\n").unwrap_err(),
            "DIR/train-0.tar: 1.cls: invalid class \"2\": must be a number from 0 to 1"
        );
        assert_eq!(
            with(b"cat").unwrap_err(),
            "DIR/classes.txt: expected 2 to 65535 classes, one per line, found 1"
        );
    }

    #[test]
    fn each_fault_has_its_sentence() {
        let x: &[u8] = b"x";
        assert!(
            load_of(&[("train-0.tar", x)])
                .1
                .unwrap_err()
                .starts_with("DIR: train-*.tar or val-*.tar is missing; webdataset needs tar files")
        );
        assert_eq!(
            sentence(&[("1.jpg", x)]),
            "DIR/train-0.tar: missing 1.cls; entries of one key must be adjacent"
        );
        assert_eq!(
            sentence(&[("1.cls", b"0"), ("2.jpg", x), ("1.jpg", x)]),
            "DIR/train-0.tar: missing 1.jpg; entries of one key must be adjacent"
        );
        assert_eq!(sentence(&[("1.jpg", x), ("1.jpeg", x)]), "DIR/train-0.tar: duplicate image of key 1");
        assert_eq!(
            sentence(&[("1.cls", b"0"), ("1.cls", b"0")]),
            "DIR/train-0.tar: duplicate class of key 1"
        );
        for text in ["", "-1", "cat", "65535", "9999999999999999999999999999999999"] {
            let found = sentence(&[("1.jpg", x), ("1.cls", text.as_bytes())]);
            assert!(
                found.starts_with("DIR/train-0.tar: 1.cls: invalid class ")
                    && found.ends_with("from 0 to 65534"),
                "{found}"
            );
        }
        assert_eq!(sentence(&[("1.txt", x)]), "DIR/train-0.tar: no images found");
        assert_eq!(sentence(&[("1.jpg", x), ("1.cls", b"0")]), "DIR: expected at least 2 classes, found 1");
        assert_eq!(
            sentence(&[("1.jpg", b"")]),
            "DIR/train-0.tar: 1.jpg: invalid size 0: must be 1 to 67108864 bytes"
        );
        let whole = tar_of(&[("1.cls", b"1"), ("1.jpg", &[7; 3000])]);
        let cut = load_of(&[("train-0.tar", &whole[..3000]), ("val-0.tar", &whole)]).1.unwrap_err();
        assert_eq!(cut, "DIR/train-0.tar: truncated: the file ends within 1.jpg");
        let none = load_of(&[("train-0.tar", &[b'x'; 1024]), ("val-0.tar", &whole)]).1.unwrap_err();
        assert!(none.starts_with("DIR/train-0.tar: invalid tar file: "), "{none}");
    }

    #[test]
    fn a_broken_image_is_named_with_its_entry() {
        let shard = tar_of(&[("1.jpg", b"x"), ("1.cls", b"2"), ("2.jpg", b"x"), ("2.cls", b"0")]);
        let (_dir, data) = load_of(&[("train-0.tar", &shard), ("val-0.tar", &shard)]);
        let sentence = data.unwrap().train.read(&[1], None).unwrap_err().to_string();
        assert!(sentence.ends_with("train-0.tar: 2.jpg at byte 2560: not a JPEG or PNG image"), "{sentence}");
    }

    #[test]
    fn a_name_without_end_is_not_read_into_memory() {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(tar::EntryType::GNULongName);
        header.set_size(1 << 30);
        header.set_cksum();
        let bytes = [header.as_bytes().as_slice(), &vec![b'a'; 6 << 20]].concat();
        let sentence = load_of(&[("train-0.tar", &bytes), ("val-0.tar", &bytes)]).1.unwrap_err();
        assert!(sentence.contains("header too long"), "{sentence}");
    }

    proptest! {
        #[test]
        fn mutated_shards_are_refused_or_indexed(
            changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6),
            cut in any::<prop::sample::Index>(),
            shorter: bool,
            checksums: bool,
        ) {
            let whole = tar_of(&[("1.cls", b"0"), ("1.jpg", &[7; 600]), ("2.jpg", b"y"), ("2.cls", b"1")]);
            let mut bytes = whole.clone();
            for (at, byte) in changes {
                let at = at.index(bytes.len());
                bytes[at] = byte;
            }
            if checksums {
                // So that the headers are believed.
                for header in bytes.chunks_exact_mut(512) {
                    let mut sum = 8 * u32::from(b' ');
                    sum += header.iter().enumerate().filter(|(at, _)| !(148..156).contains(at)).map(|(_, &b)| u32::from(b)).sum::<u32>();
                    header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
                }
            }
            if shorter {
                bytes.truncate(cut.index(bytes.len()));
            }
            if let Ok(data) = load_of(&[("train-0.tar", &bytes), ("val-0.tar", &whole)]).1 {
                // Every part lies in the file.
                for image in 0..data.train.len() {
                    let error = data.train.read(&[image], None).unwrap_err().to_string();
                    prop_assert!(error.contains("not a JPEG") || error.contains("cannot decode"), "{}", error);
                }
            }
        }

        #[test]
        fn no_class_panics(text in prop::collection::vec(any::<u8>(), 0..40)) {
            if let Ok(number) = class(&text, Some(10)) {
                prop_assert!(number < 10);
            }
        }
    }
}
