//! Downloads a data set from an S3 server in the test process.

use std::{
    fmt::Display,
    fs,
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
    time::Duration,
};

use datjob_api::{
    report::PreparationStep,
    training::{Dataset, ObjectStoreSource},
};
use datjob_data::{
    DownloadObserver, RetryPolicy,
    objects::{Credentials, ObjectsError, fetch},
};
use s3s::auth::SimpleAuth;
use sha2::{Digest, Sha256};

#[path = "common/s3.rs"]
mod s3;

use s3::{Fault, Server};

const RETRY: RetryPolicy =
    RetryPolicy { max_attempts: 3, initial_delay: Duration::from_millis(1), timeout: Duration::from_secs(1) };

fn sha256(bytes: &[u8]) -> String {
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

fn message(result: Result<Option<String>, ObjectsError>) -> String {
    result.unwrap_err().to_string()
}

#[test]
fn downloads_only_the_objects_of_the_data_set_and_only_once() {
    let server = Server::new(None);
    cifar100(&server);
    let dir = tempfile::tempdir().unwrap();
    let get =
        || fetch(Dataset::Cifar100, &server.source("/data/cifar/"), None, dir.path(), RETRY, Arc::new(()));
    get().unwrap();
    assert_eq!(files(dir.path()), [Path::new("test.bin"), Path::new("train.bin")]);
    assert_eq!(fs::read(dir.path().join("train.bin")).unwrap(), [1; 5000]);
    assert_eq!(
        server.take_object_requests(),
        ["/bucket/data/cifar/test.bin", "/bucket/data/cifar/train.bin"]
    );
    get().unwrap();
    assert_eq!(server.requests.lock().unwrap().len(), 0, "the marker file means complete");
    // Without the marker file: existing files of the right size are not downloaded again.
    for entry in fs::read_dir(dir.path()).unwrap() {
        let path = entry.unwrap().path();
        if path.file_name().unwrap().to_str().unwrap().starts_with(".fetched-") {
            fs::remove_file(path).unwrap();
        }
    }
    fs::remove_file(dir.path().join("test.bin")).unwrap();
    get().unwrap();
    assert_eq!(server.take_object_requests(), ["/bucket/data/cifar/test.bin"]);
    // Files with the same names and sizes may have different content.
    let other =
        fetch(Dataset::Cifar100, &server.source("/data/other"), None, dir.path(), RETRY, Arc::new(()));
    assert!(message(other).contains("contains data from another source; use another folder"));
}

#[test]
fn folders_and_shards_keep_their_names() {
    let server = Server::new(None);
    for name in ["train/a/1.jpg", "train/b/1 ö.JPEG", "val/a/2.jpeg", "val/notes.txt", "extra/x.jpg"] {
        server.put(name, name.as_bytes());
    }
    let dir = tempfile::tempdir().unwrap();
    fetch(Dataset::ImageFolder, &server.source(""), None, dir.path(), RETRY, Arc::new(())).unwrap();
    let expected = ["train/a/1.jpg", "train/b/1 ö.JPEG", "val/a/2.jpeg"].map(PathBuf::from);
    assert_eq!(files(dir.path()), expected);
    assert_eq!(fs::read(dir.path().join(&expected[1])).unwrap(), "train/b/1 ö.JPEG".as_bytes());

    server.put("val/a/notes.txt", b"none");
    let empty = tempfile::tempdir().unwrap();
    let refused = fetch(Dataset::ImageFolder, &server.source(""), None, empty.path(), RETRY, Arc::new(()));
    assert_eq!(
        message(refused),
        "s3://bucket/val/a/notes.txt: unexpected file among the images; names must end in .jpg or .jpeg"
    );
    server.put("web/train-00.tar", &[1; 10]);
    server.put("web/val-00.tar", &[]);
    server.put("web/classes.txt", b"a\nb\n");
    let dir = tempfile::tempdir().unwrap();
    fetch(Dataset::Webdataset, &server.source("/web"), None, dir.path(), RETRY, Arc::new(())).unwrap();
    assert_eq!(files(dir.path()), ["classes.txt", "train-00.tar", "val-00.tar"].map(PathBuf::from));
}

/// Records the bytes that are done, of 100,000, and the errors.
#[derive(Default)]
struct Recorder {
    progress: Mutex<Vec<u64>>,
    errors: Mutex<Vec<String>>,
}

impl DownloadObserver for Recorder {
    fn progress(&self, _: PreparationStep, done: u64, total: Option<u64>) {
        assert_eq!(total, Some(100_000));
        self.progress.lock().unwrap().push(done);
    }

    fn retrying(&self, error: &dyn Display, _: Duration) {
        self.errors.lock().unwrap().push(error.to_string());
    }
}

#[test]
fn resumes_an_interrupted_download() {
    let server = Server::new(None);
    cifar100(&server);
    let content: Vec<u8> = (0..100_000_u32).map(|at| (at * 7 % 251) as u8).collect();
    server.put("data/cifar/train.bin", &content);
    server.put("data/cifar/test.bin", &[]);
    let dir = tempfile::tempdir().unwrap();
    // More faults than attempts: an attempt with progress resets the retries.
    *server.faults.lock().unwrap() =
        vec![Fault::Interrupt, Fault::Unavailable, Fault::Interrupt, Fault::Interrupt, Fault::Unavailable];
    let recorder = Arc::new(Recorder::default());
    let observer = Arc::clone(&recorder);
    fetch(Dataset::Cifar100, &server.source("/data/cifar"), None, dir.path(), RETRY, observer).unwrap();
    assert_eq!(fs::read(dir.path().join("train.bin")).unwrap(), content);
    // Bytes that an attempt received are counted once.
    let progress = recorder.progress.lock().unwrap();
    assert!(progress.is_sorted() && progress.first() == Some(&0) && progress.last() == Some(&100_000));
    let errors = recorder.errors.lock().unwrap();
    assert!(
        errors.len() == 5 && errors.iter().all(|error| error.contains("/data/cifar/train.bin")),
        "{errors:?}"
    );
    let train = "/bucket/data/cifar/train.bin";
    let ranges = ["", "", " bytes=50000-", " bytes=75000-", " bytes=75000-", " bytes=87500-"];
    assert_eq!(server.take_object_requests(), ranges.map(|range| format!("{train}{range}")));
    assert_eq!(files(dir.path()).len(), 2, "no partial file is left");
}

#[test]
fn a_restarted_process_resumes_the_download() {
    let server = Server::new(None);
    cifar100(&server);
    server.put("data/cifar/test.bin", &[]);
    let dir = tempfile::tempdir().unwrap();
    let get =
        || fetch(Dataset::Cifar100, &server.source("/data/cifar"), None, dir.path(), RETRY, Arc::new(()));
    *server.faults.lock().unwrap() = vec![Fault::Unavailable, Fault::Unavailable, Fault::Interrupt];
    assert!(message(get()).contains("503"));
    server.take_object_requests();
    get().unwrap();
    assert_eq!(server.take_object_requests(), ["/bucket/data/cifar/train.bin bytes=2500-"]);
    assert_eq!(fs::read(dir.path().join("train.bin")).unwrap(), [1; 5000]);
}

#[test]
fn verifies_checksums() {
    let server = Server::new(None);
    cifar100(&server);
    let get = |dir: &tempfile::TempDir| {
        fetch(Dataset::Cifar100, &server.source("/data/cifar"), None, dir.path(), RETRY, Arc::new(()))
    };
    let list = |train: &[u8]| {
        format!(
            "{}  train.bin\n{} *./test.bin\n{}  README.md\n",
            sha256(train),
            sha256(&[2; 300]),
            sha256(b"other")
        )
    };
    server.put("data/cifar/SHA256SUMS", list(&[1; 5000]).as_bytes());
    let dir = tempfile::tempdir().unwrap();
    // A file of the right size with different content is downloaded again.
    fs::write(dir.path().join("test.bin"), [9; 300]).unwrap();
    get(&dir).unwrap();
    assert_eq!(fs::read(dir.path().join("test.bin")).unwrap(), [2; 300]);

    server.put("data/cifar/SHA256SUMS", list(b"something else").as_bytes());
    let dir = tempfile::tempdir().unwrap();
    let (found, expected) = (sha256(&[1; 5000]), sha256(b"something else"));
    assert_eq!(
        message(get(&dir)),
        format!(
            "s3://bucket/data/cifar/train.bin: SHA-256 mismatch: expected {expected} (SHA256SUMS), received {found}"
        )
    );
    assert!(!dir.path().join("train.bin").exists());

    server.put("data/cifar/SHA256SUMS", b"what is this");
    assert_eq!(
        message(get(&dir)),
        "s3://bucket/data/cifar/SHA256SUMS: line 1 is not in sha256sum format: \"what is this\""
    );
    server.put("data/cifar/SHA256SUMS", format!("{found}  train.bin\n{found}  sub/train.bin\n").as_bytes());
    assert_eq!(
        message(get(&dir)),
        "s3://bucket/data/cifar/SHA256SUMS: the listed object sub/train.bin does not exist"
    );
}

#[test]
fn signs_requests_with_the_credentials() {
    let server = Server::new(Some(SimpleAuth::from_single("key", "secret")));
    cifar100(&server);
    let get = |keys: Option<(&str, &str)>| {
        let dir = tempfile::tempdir().unwrap();
        let keys = keys
            .map(|(key, secret)| Credentials { access_key_id: key.into(), secret_access_key: secret.into() });
        fetch(
            Dataset::Cifar100,
            &server.source("/data/cifar"),
            keys.as_ref(),
            dir.path(),
            RETRY,
            Arc::new(()),
        )
    };
    get(Some(("key", "secret"))).unwrap();
    for keys in [None, Some(("key", "guess"))] {
        let refused = message(get(keys));
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
fn errors_name_the_url_and_the_cause() {
    let server = Server::new(None);
    cifar100(&server);
    let dir = tempfile::tempdir().unwrap();
    let get = |dataset, source: &ObjectStoreSource| {
        message(fetch(dataset, source, None, dir.path(), RETRY, Arc::new(())))
    };
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
    assert_eq!(server.requests.lock().unwrap().len(), 2, "client errors are not retried");
    let closed = ObjectStoreSource { endpoint: Some("http://127.0.0.1:9".into()), ..server.source("") };
    let unreachable = get(Dataset::Mnist, &closed);
    assert!(unreachable.contains("127.0.0.1:9") && unreachable.contains("refused"), "{unreachable}");
    // A TLS client connects to a server without TLS.
    let tls = ObjectStoreSource { endpoint: Some(server.url.replace("http", "https")), ..server.source("") };
    let error = get(Dataset::Mnist, &tls);
    assert!(error.contains("InvalidContentType") || error.contains("corrupt message"), "{error}");
    server.put("twice/a/test.bin", b"1");
    server.put("twice/b/test.bin", b"1");
    let twice = get(Dataset::Cifar100, &server.source("/twice"));
    let duplicate = "b/test.bin: duplicate of a/test.bin; both are the file test.bin of the data set";
    assert!(twice.ends_with(duplicate), "{twice}");
}

#[test]
fn a_named_secret_requires_the_credentials_in_the_environment() {
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
