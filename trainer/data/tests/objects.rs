//! Fetching a data set from an S3 server that runs in the test.

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use datjob_api::training::{Dataset, ObjectStoreSource};
use datjob_data::{
    RetryPolicy,
    objects::{Credentials, ObjectsError, fetch},
};
use s3s::auth::SimpleAuth;
use sha2::{Digest, Sha256};

#[path = "common/s3.rs"]
mod s3;

use s3::{Fault, Server};

const RETRY: RetryPolicy =
    RetryPolicy { max_attempts: 3, initial_delay: Duration::from_millis(1), timeout: Duration::from_secs(1) };

fn sum(bytes: &[u8]) -> String {
    hex::encode(Sha256::digest(bytes))
}

fn files(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![dir.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else {
                found.push(path.strip_prefix(dir).unwrap().to_owned());
            }
        }
    }
    found.retain(|path| ![".fetched-", ".source"].iter().any(|own| path.to_str().unwrap().starts_with(own)));
    found.sort();
    found
}

fn cifar100(server: &Server) {
    server.put("data/cifar/train.bin", &[1; 5000]);
    server.put("data/cifar/test.bin", &[2; 300]);
    server.put("data/cifar/README.md", b"no part of it");
    server.put("data/other/test.bin", &[3; 300]);
}

fn sentence(result: Result<(), ObjectsError>) -> String {
    result.unwrap_err().to_string()
}

#[test]
fn the_data_sets_objects_are_fetched_once_and_nothing_else() {
    let server = Server::new(None);
    cifar100(&server);
    let dir = tempfile::tempdir().unwrap();
    let get = || fetch(Dataset::Cifar100, &server.source("/data/cifar/"), None, dir.path(), RETRY);
    get().unwrap();
    assert_eq!(files(dir.path()), [Path::new("test.bin"), Path::new("train.bin")]);
    assert_eq!(fs::read(dir.path().join("train.bin")).unwrap(), [1; 5000]);
    assert_eq!(server.objects_asked(), ["/bucket/data/cifar/test.bin", "/bucket/data/cifar/train.bin"]);
    get().unwrap();
    assert_eq!(server.asked.lock().unwrap().len(), 0, "the marker tells that all is there");
    // Without the marker: what is there with its size is not fetched again.
    for entry in fs::read_dir(dir.path()).unwrap() {
        let path = entry.unwrap().path();
        if path.file_name().unwrap().to_str().unwrap().starts_with(".fetched-") {
            fs::remove_file(path).unwrap();
        }
    }
    fs::remove_file(dir.path().join("test.bin")).unwrap();
    get().unwrap();
    assert_eq!(server.objects_asked(), ["/bucket/data/cifar/test.bin"]);
    // Files of the same names and sizes may be other ones.
    let other = fetch(Dataset::Cifar100, &server.source("/data/other"), None, dir.path(), RETRY);
    assert!(sentence(other).contains("contains data from another source; use another folder"));
}

#[test]
fn folders_and_shards_keep_their_names() {
    let server = Server::new(None);
    for name in ["train/a/1.jpg", "train/b/1 ö.JPEG", "val/a/2.jpeg", "val/notes.txt", "extra/x.jpg"] {
        server.put(name, name.as_bytes());
    }
    let dir = tempfile::tempdir().unwrap();
    fetch(Dataset::ImageFolder, &server.source(""), None, dir.path(), RETRY).unwrap();
    let expected = ["train/a/1.jpg", "train/b/1 ö.JPEG", "val/a/2.jpeg"].map(PathBuf::from);
    assert_eq!(files(dir.path()), expected);
    assert_eq!(fs::read(dir.path().join(&expected[1])).unwrap(), "train/b/1 ö.JPEG".as_bytes());

    server.put("val/a/notes.txt", b"none");
    let empty = tempfile::tempdir().unwrap();
    let refused = fetch(Dataset::ImageFolder, &server.source(""), None, empty.path(), RETRY);
    assert_eq!(
        sentence(refused),
        "s3://bucket/val/a/notes.txt: unexpected file among the images; names must end in .jpg or .jpeg"
    );
    server.put("web/train-00.tar", &[1; 10]);
    server.put("web/val-00.tar", &[]);
    server.put("web/classes.txt", b"a\nb\n");
    let dir = tempfile::tempdir().unwrap();
    fetch(Dataset::Webdataset, &server.source("/web"), None, dir.path(), RETRY).unwrap();
    assert_eq!(files(dir.path()), ["classes.txt", "train-00.tar", "val-00.tar"].map(PathBuf::from));
}

#[test]
fn what_breaks_off_goes_on_where_it_ended() {
    let server = Server::new(None);
    cifar100(&server);
    let content: Vec<u8> = (0..100_000_u32).map(|at| (at * 7 % 251) as u8).collect();
    server.put("data/cifar/train.bin", &content);
    server.put("data/cifar/test.bin", &[]);
    let dir = tempfile::tempdir().unwrap();
    // More faults in all than there are tries: what makes progress goes on.
    *server.faults.lock().unwrap() =
        vec![Fault::BreakOff, Fault::Unavailable, Fault::BreakOff, Fault::BreakOff, Fault::Unavailable];
    fetch(Dataset::Cifar100, &server.source("/data/cifar"), None, dir.path(), RETRY).unwrap();
    assert_eq!(fs::read(dir.path().join("train.bin")).unwrap(), content);
    let train = "/bucket/data/cifar/train.bin";
    let ranges = ["", "", " bytes=50000-", " bytes=75000-", " bytes=75000-", " bytes=87500-"];
    assert_eq!(server.objects_asked(), ranges.map(|range| format!("{train}{range}")));
    assert_eq!(files(dir.path()).len(), 2, "nothing partial is left");
}

#[test]
fn another_process_goes_on_with_what_is_there() {
    let server = Server::new(None);
    cifar100(&server);
    server.put("data/cifar/test.bin", &[]);
    let dir = tempfile::tempdir().unwrap();
    let get = || fetch(Dataset::Cifar100, &server.source("/data/cifar"), None, dir.path(), RETRY);
    *server.faults.lock().unwrap() = vec![Fault::Unavailable, Fault::Unavailable, Fault::BreakOff];
    assert!(sentence(get()).contains("503"));
    server.objects_asked();
    get().unwrap();
    assert_eq!(server.objects_asked(), ["/bucket/data/cifar/train.bin bytes=2500-"]);
    assert_eq!(fs::read(dir.path().join("train.bin")).unwrap(), [1; 5000]);
}

#[test]
fn sums_are_honoured() {
    let server = Server::new(None);
    cifar100(&server);
    let get = |dir: &tempfile::TempDir| {
        fetch(Dataset::Cifar100, &server.source("/data/cifar"), None, dir.path(), RETRY)
    };
    let list = |train: &[u8]| {
        format!("{}  train.bin\n{} *./test.bin\n{}  README.md\n", sum(train), sum(&[2; 300]), sum(b"other"))
    };
    server.put("data/cifar/SHA256SUMS", list(&[1; 5000]).as_bytes());
    let dir = tempfile::tempdir().unwrap();
    // A file of the right size and with another content is fetched anew.
    fs::write(dir.path().join("test.bin"), [9; 300]).unwrap();
    get(&dir).unwrap();
    assert_eq!(fs::read(dir.path().join("test.bin")).unwrap(), [2; 300]);

    server.put("data/cifar/SHA256SUMS", list(b"something else").as_bytes());
    let dir = tempfile::tempdir().unwrap();
    let (found, expected) = (sum(&[1; 5000]), sum(b"something else"));
    assert_eq!(
        sentence(get(&dir)),
        format!(
            "s3://bucket/data/cifar/train.bin: SHA-256 mismatch: expected {expected} (SHA256SUMS), received {found}"
        )
    );
    assert!(!dir.path().join("train.bin").exists());

    server.put("data/cifar/SHA256SUMS", b"what is this");
    assert_eq!(
        sentence(get(&dir)),
        "s3://bucket/data/cifar/SHA256SUMS: line 1 is not in sha256sum format: \"what is this\""
    );
    server.put("data/cifar/SHA256SUMS", format!("{found}  train.bin\n{found}  sub/train.bin\n").as_bytes());
    assert_eq!(
        sentence(get(&dir)),
        "s3://bucket/data/cifar/SHA256SUMS: the listed object sub/train.bin does not exist"
    );
}

#[test]
fn keys_open_what_is_closed() {
    let server = Server::new(Some(SimpleAuth::from_single("key", "secret")));
    cifar100(&server);
    let get = |keys: Option<(&str, &str)>| {
        let dir = tempfile::tempdir().unwrap();
        let keys = keys.map(|(key, secret)| Credentials { key: key.into(), secret: secret.into() });
        fetch(Dataset::Cifar100, &server.source("/data/cifar"), keys.as_ref(), dir.path(), RETRY)
    };
    get(Some(("key", "secret"))).unwrap();
    for keys in [None, Some(("key", "guess"))] {
        let refused = sentence(get(keys));
        assert!(
            refused.starts_with("cannot read s3://bucket/data/cifar: ") && refused.contains("403"),
            "{refused}"
        );
        let advice = "objectStore.secretName must allow s3:ListBucket and s3:GetObject";
        assert!(refused.ends_with(advice), "{refused}");
        assert!(!refused.contains("guess"), "{refused}");
    }
}

#[test]
fn each_fault_has_its_sentence() {
    let server = Server::new(None);
    cifar100(&server);
    let dir = tempfile::tempdir().unwrap();
    let get = |dataset, source: &ObjectStoreSource| sentence(fetch(dataset, source, None, dir.path(), RETRY));
    let nothing = get(Dataset::ImageFolder, &server.source("/data/cifar"));
    assert!(
        nothing.starts_with("s3://bucket/data/cifar: the data set is incomplete: ")
            && nothing
                .contains("training or test images are missing; image-folder needs train/CLASS/NAME.jpg"),
        "{nothing}"
    );
    let bucket = ObjectStoreSource { url: "s3://no-such-bucket/x".into(), ..server.source("") };
    let missing = get(Dataset::Mnist, &bucket);
    assert!(missing.contains("NoSuchBucket") && missing.contains("check spec."), "{missing}");
    assert_eq!(server.asked.lock().unwrap().len(), 2, "a refusal is final");
    let closed = ObjectStoreSource { endpoint: Some("http://127.0.0.1:9".into()), ..server.source("") };
    let unreachable = get(Dataset::Mnist, &closed);
    assert!(unreachable.contains("127.0.0.1:9") && unreachable.contains("refused"), "{unreachable}");
    // TLS is spoken, and the server does not speak it.
    let tls = ObjectStoreSource { endpoint: Some(server.url.replace("http", "https")), ..server.source("") };
    let sentence_ = get(Dataset::Mnist, &tls);
    assert!(sentence_.contains("InvalidContentType") || sentence_.contains("corrupt message"), "{sentence_}");
    server.put("twice/a/test.bin", b"1");
    server.put("twice/b/test.bin", b"1");
    let twice = get(Dataset::Cifar100, &server.source("/twice"));
    let duplicate = "b/test.bin: duplicate of a/test.bin; both are the file test.bin of the data set";
    assert!(twice.ends_with(duplicate), "{twice}");
}

#[test]
fn a_secret_that_is_named_must_be_there() {
    let source = ObjectStoreSource {
        url: "s3://bucket".into(),
        endpoint: None,
        region: None,
        secret_name: Some("keys".into()),
    };
    // The tests run without these variables.
    let missing = Credentials::from_environment(&source).err().unwrap().to_string();
    assert!(missing.contains("AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY must be set too"), "{missing}");
    let anonymous = ObjectStoreSource { secret_name: None, ..source };
    assert!(Credentials::from_environment(&anonymous).unwrap().is_none());
}
