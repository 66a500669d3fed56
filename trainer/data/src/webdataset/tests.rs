//! Tests with generated shards.

use std::fs;

use proptest::prelude::*;

use super::{shard::parse_class, *};
use crate::decode::tests::jpeg;

/// A tar file with these entries.
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

fn load_files(files: &[(&str, &[u8])]) -> (tempfile::TempDir, Result<DataSet, String>) {
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

/// The error of a data set with this training shard.
fn load_error(entries: &[(&str, &[u8])]) -> String {
    let good = tar_of(&[("b.jpg", b"x"), ("b.cls", b"1")]);
    load_files(&[("train-0.tar", &tar_of(entries)), ("val-0.tar", &good)]).1.unwrap_err()
}

#[test]
fn samples_follow_the_order_of_the_shards() {
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
        let files = ["train-00001.tar", "train-00000.tar", "val-0.tar"].map(|name| format!("{folder}{name}"));
        let (_dir, data) = load_files(&[(&files[0], &second), (&files[1], &first), (&files[2], &second)]);
        let data = data.unwrap();
        assert_eq!((data.classes, data.train.len(), data.test.len()), (3, 3, 1));
        assert_eq!([0, 1, 2].map(|image| data.train.label(image)), [2, 0, 1]);
        let pixels = data.train.read(&[0, 2], None).unwrap().pixels;
        assert!(pixels[..64].iter().all(|&red| red > 240) && pixels[64..192].iter().all(|&other| other < 10));
        assert!(
            pixels[192..320].iter().all(|&other| other < 10) && pixels[320..].iter().all(|&blue| blue > 240)
        );
    }
}

#[test]
fn the_classes_file_bounds_the_labels() {
    let shard = tar_of(&[("1.jpg", b"x"), ("1.cls", b"2"), ("2.jpg", b"x"), ("2.cls", b"0")]);
    let files: [(&str, &[u8]); 2] = [("train-0.tar", &shard), ("test-0.tar", &shard)];
    let with = |list: &[u8]| load_files(&[files[0], files[1], ("classes.txt", list)]).1;
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
fn errors_name_the_shard_and_the_cause() {
    let x: &[u8] = b"x";
    assert!(
        load_files(&[("train-0.tar", x)])
            .1
            .unwrap_err()
            .starts_with("DIR: train-*.tar or val-*.tar is missing; webdataset needs tar files")
    );
    assert_eq!(
        load_error(&[("1.jpg", x)]),
        "DIR/train-0.tar: missing 1.cls; entries of one key must be adjacent"
    );
    assert_eq!(
        load_error(&[("1.cls", b"0"), ("2.jpg", x), ("1.jpg", x)]),
        "DIR/train-0.tar: missing 1.jpg; entries of one key must be adjacent"
    );
    assert_eq!(load_error(&[("1.jpg", x), ("1.jpeg", x)]), "DIR/train-0.tar: duplicate image of key 1");
    assert_eq!(load_error(&[("1.cls", b"0"), ("1.cls", b"0")]), "DIR/train-0.tar: duplicate class of key 1");
    for text in ["", "-1", "cat", "65535", "9999999999999999999999999999999999"] {
        let found = load_error(&[("1.jpg", x), ("1.cls", text.as_bytes())]);
        assert!(
            found.starts_with("DIR/train-0.tar: 1.cls: invalid class ") && found.ends_with("from 0 to 65534"),
            "{found}"
        );
    }
    assert_eq!(load_error(&[("1.txt", x)]), "DIR/train-0.tar: no images found");
    assert_eq!(load_error(&[("1.jpg", x), ("1.cls", b"0")]), "DIR: expected at least 2 classes, found 1");
    assert_eq!(
        load_error(&[("1.jpg", b"")]),
        "DIR/train-0.tar: 1.jpg: invalid size 0: must be 1 to 67108864 bytes"
    );
    let whole = tar_of(&[("1.cls", b"1"), ("1.jpg", &[7; 3000])]);
    let cut = load_files(&[("train-0.tar", &whole[..3000]), ("val-0.tar", &whole)]).1.unwrap_err();
    assert_eq!(cut, "DIR/train-0.tar: truncated: the file ends within 1.jpg");
    let none = load_files(&[("train-0.tar", &[b'x'; 1024]), ("val-0.tar", &whole)]).1.unwrap_err();
    assert!(none.starts_with("DIR/train-0.tar: invalid tar file: "), "{none}");
}

/// GNU tar writes a second name of a file as a hard link.
#[test]
fn links_stand_for_earlier_entries() {
    let mut tar = tar::Builder::new(tar_of(&[
        ("s/1.jpg", b"x"),
        ("s/1.cls", b"1"),
        ("s/0.cls", b"0"),
        ("s/0.jpg", b"y"),
    ]));
    tar.get_mut().truncate(4 * 1024);
    let mut link = |name: &str, kind, target: &str| {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(kind);
        header.set_size(0);
        tar.append_link(&mut header, name, target).unwrap();
    };
    link("s/2.jpg", tar::EntryType::Link, "s/1.jpg");
    link("s/2.cls", tar::EntryType::Link, "s/1.cls");
    link("s/3.jpg", tar::EntryType::Symlink, "0.jpg");
    link("s/3.cls", tar::EntryType::Symlink, "../s/0.cls");
    let whole = tar.into_inner().unwrap();
    let (_dir, data) = load_files(&[("train-0.tar", &whole), ("val-0.tar", &whole)]);
    let data = data.unwrap();
    // The images are no JPEG files; the message has their position.
    let error = |image| data.train.read(&[image], None).unwrap_err().to_string();
    assert_eq!((error(2), error(3)), (error(0), error(1)), "a link has the bytes of its target");
    assert_ne!(error(0), error(1));
    assert_eq!((0..data.train.len()).map(|image| data.train.label(image)).collect::<Vec<_>>(), [1, 0, 1, 0]);

    let mut tar = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(tar::EntryType::Link);
    header.set_size(0);
    tar.append_link(&mut header, "1.jpg", "elsewhere/1.jpg").unwrap();
    let error =
        load_files(&[("train-0.tar", &tar.into_inner().unwrap()), ("val-0.tar", &whole)]).1.unwrap_err();
    let expected =
        "DIR/train-0.tar: 1.jpg is a link to elsewhere/1.jpg, which is not an earlier entry; replace it";
    assert!(error.starts_with(expected), "{error}");
}

#[test]
fn warns_of_entries_that_may_be_images() {
    let x: &[u8] = b"x";
    let shard =
        tar_of(&[("1.jpg", x), ("1.cls", b"1"), ("1.seg.png", x), ("1.json", x), ("2.png", x), ("2.txt", x)]);
    let (_dir, data) = load_files(&[("train-0.tar", &shard), ("val-0.tar", &shard), ("test-0.tar", &shard)]);
    let warning = data.unwrap().warning.unwrap();
    assert!(warning.contains("skipped 3 files or folders that may be data"), "{warning}");
    assert!(warning.contains("test-0.tar; train-0.tar: 2.png; val-0.tar: 2.png"), "{warning}");
}

#[test]
fn reads_shards_that_were_joined() {
    let [first, second] = [["1.jpg", "1.cls"], ["2.jpg", "2.cls"]]
        .map(|[image, class]| tar_of(&[(image, b"x"), (class, b"1")]));
    let joined = [first.clone(), second].concat();
    let (_dir, data) = load_files(&[("train-0.tar", &joined), ("val-0.tar", &first)]);
    let data = data.unwrap();
    assert_eq!((data.train.len(), data.test.len()), (2, 1));
    let garbage = [first.clone(), vec![7; 1024]].concat();
    let error = load_files(&[("train-0.tar", &garbage), ("val-0.tar", &first)]).1.unwrap_err();
    assert!(error.starts_with("DIR/train-0.tar: invalid tar file: "), "{error}");
}

#[test]
fn warns_of_shards_in_folders_below() {
    let shard = tar_of(&[("1.jpg", b"x"), ("1.cls", b"1")]);
    let (dir, data) = load_files(&[("train-0.tar", &shard), ("val-0.tar", &shard)]);
    assert_eq!(data.unwrap().warning, None);
    fs::create_dir(dir.path().join("part2")).unwrap();
    fs::write(dir.path().join("part2/train-1.tar"), &shard).unwrap();
    fs::write(dir.path().join("part2/notes.txt"), "x").unwrap();
    let warning = load(dir.path(), 8, 1).unwrap().warning.unwrap();
    assert!(
        warning.contains("skipped 1 file or folder") && warning.ends_with("/part2/train-1.tar"),
        "{warning}"
    );
}

#[test]
fn errors_of_images_name_shard_and_entry() {
    let shard = tar_of(&[("1.jpg", b"x"), ("1.cls", b"2"), ("2.jpg", b"x"), ("2.cls", b"0")]);
    let (_dir, data) = load_files(&[("train-0.tar", &shard), ("val-0.tar", &shard)]);
    let message = data.unwrap().train.read(&[1], None).unwrap_err().to_string();
    assert!(message.ends_with("train-0.tar: 2.jpg at byte 2560: not a JPEG or PNG image"), "{message}");
}

#[test]
fn rejects_an_oversized_entry_name() {
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(tar::EntryType::GNULongName);
    header.set_size(1 << 30);
    header.set_cksum();
    let bytes = [header.as_bytes().as_slice(), &vec![b'a'; 6 << 20]].concat();
    let message = load_files(&[("train-0.tar", &bytes), ("val-0.tar", &bytes)]).1.unwrap_err();
    assert!(message.contains("header too long"), "{message}");
}

proptest! {
    #[test]
    fn mutated_shards_are_rejected_or_indexed(
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
            // Valid checksums, so that the headers are accepted.
            for header in bytes.chunks_exact_mut(512) {
                let mut sum = 8 * u32::from(b' ');
                sum += header.iter().enumerate().filter(|(at, _)| !(148..156).contains(at)).map(|(_, &b)| u32::from(b)).sum::<u32>();
                header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
            }
        }
        if shorter {
            bytes.truncate(cut.index(bytes.len()));
        }
        if let Ok(data) = load_files(&[("train-0.tar", &bytes), ("val-0.tar", &whole)]).1 {
            // Every range is within the file.
            for image in 0..data.train.len() {
                let error = data.train.read(&[image], None).unwrap_err().to_string();
                prop_assert!(error.contains("not a JPEG") || error.contains("cannot decode"), "{}", error);
            }
        }
    }

    #[test]
    fn any_class_does_not_panic(text in prop::collection::vec(any::<u8>(), 0..40)) {
        if let Ok(number) = parse_class(&text, Some(10)) {
            prop_assert!(number < 10);
        }
    }
}
