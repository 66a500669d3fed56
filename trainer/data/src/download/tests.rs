//! Tests of downloads from a server in the test process.

use std::{
    io::{BufRead, BufReader, Write},
    net::{TcpListener, TcpStream},
    sync::{Arc, Mutex},
    thread,
    time::Duration,
};

use super::*;

const RETRY: RetryPolicy = RetryPolicy {
    max_attempts: 3,
    initial_delay: Duration::from_millis(1),
    timeout: Duration::from_millis(500),
};

/// Serves one response per request, in order, and then closes the port.
fn serve(responses: Vec<Vec<u8>>) -> (String, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let requests = Arc::new(Mutex::new(Vec::new()));
    let log = Arc::clone(&requests);
    thread::spawn(move || {
        for response in responses {
            let (stream, _) = listener.accept().unwrap();
            log.lock().unwrap().push(read_request(&stream));
            // The client may close the connection early.
            let _ = (&stream).write_all(&response);
        }
    });
    (format!("http://{address}"), requests)
}

fn read_request(stream: &TcpStream) -> String {
    let mut lines = BufReader::new(stream).lines().map(Result::unwrap);
    let first = lines.next().unwrap();
    for _ in lines.take_while(|line| !line.is_empty()) {}
    first
}

fn response(status: &str, headers: &str, body: &[u8]) -> Vec<u8> {
    let length = body.len();
    let head = format!("HTTP/1.1 {status}\r\nconnection: close\r\ncontent-length: {length}\r\n{headers}\r\n");
    [head.as_bytes(), body].concat()
}

fn ok(body: &[u8]) -> Vec<u8> {
    response("200 OK", "", body)
}

fn tar_of(files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut tar = tar::Builder::new(Vec::new());
    for (name, contents) in files {
        let mut header = tar::Header::new_gnu();
        header.set_size(contents.len() as u64);
        header.set_mode(0o644);
        tar.append_data(&mut header, name, *contents).unwrap();
    }
    tar.into_inner().unwrap()
}

fn cifar100() -> Vec<u8> {
    tar_of(&[
        ("cifar-100-binary/train.bin", b"training"),
        ("cifar-100-binary/test.bin", b"test"),
        ("cifar-100-binary/fine_label_names.txt", b"apple"),
    ])
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut out = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    out.write_all(bytes).unwrap();
    out.finish().unwrap()
}

fn source(url: &str, archive: &[u8]) -> HttpSource {
    HttpSource { url: url.to_owned(), sha256: hex::encode(Sha256::digest(archive)) }
}

fn names(dir: &Path) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| !name.starts_with('.'))
        .collect();
    names.sort();
    names
}

fn fetch_cifar100(source: &HttpSource, dir: &Path) -> Result<Option<String>, DownloadError> {
    download(Dataset::Cifar100, source, dir, RETRY, &())
}

/// Records progress and errors. No file may be in `dir` before the download is complete.
#[derive(Default)]
struct Recorder {
    dir: PathBuf,
    progress: Mutex<Vec<(PreparationStep, u64, Option<u64>)>>,
    errors: Mutex<Vec<(String, Duration)>>,
}

impl DownloadObserver for Recorder {
    fn progress(&self, step: PreparationStep, done: u64, total: Option<u64>) {
        if step == PreparationStep::Downloading {
            let files = fs::read_dir(&self.dir).unwrap().count();
            assert_eq!(files, 0, "a killed process would leave a partial file");
        }
        self.progress.lock().unwrap().push((step, done, total));
    }

    fn retrying(&self, error: &dyn std::fmt::Display, retry_in: Duration) {
        self.errors.lock().unwrap().push((error.to_string(), retry_in));
    }
}

#[test]
fn downloads_a_file_once_and_names_it_by_its_hash() {
    let (url, requests) = serve(vec![ok(b"weights"), ok(b"others")]);
    let dir = tempfile::tempdir().unwrap();
    let files = dir.path().join("files");
    let weights = source(&url, b"weights");
    for _ in 0..2 {
        let path = download_file(&weights, &files, RETRY, &()).unwrap();
        assert_eq!(path, files.join(&weights.sha256));
        assert_eq!(fs::read(path).unwrap(), b"weights");
    }
    assert_eq!(requests.lock().unwrap().len(), 1);
    let message = download_file(&source(&url, b"more"), &files, RETRY, &()).unwrap_err().to_string();
    assert!(message.contains("SHA-256 mismatch: expected "), "{message}");
    assert_eq!(fs::read_dir(&files).unwrap().count(), 1, "a file with another hash is not kept");
}

#[test]
fn unpacks_only_the_standard_files() {
    for archive in [cifar100(), gzip(&cifar100())] {
        let (url, _) = serve(vec![ok(&archive)]);
        let dir = tempfile::tempdir().unwrap();
        let source = source(&url, &archive);
        let observer = Recorder { dir: dir.path().to_owned(), ..Recorder::default() };
        download(Dataset::Cifar100, &source, dir.path(), RETRY, &observer).unwrap();
        assert_eq!(names(dir.path()), ["test.bin", "train.bin"]);
        assert_eq!(fs::read(dir.path().join("train.bin")).unwrap(), b"training");
        let size = archive.len() as u64;
        let ends =
            [PreparationStep::Downloading, PreparationStep::Unpacking].map(|step| (step, size, Some(size)));
        let seen = observer.progress.into_inner().unwrap();
        assert_eq!(
            [seen[seen.iter().position(|one| one.0 != ends[0].0).unwrap() - 1], seen[seen.len() - 1]],
            ends
        );
        // The server is gone: the second call needs no request.
        fetch_cifar100(&source, dir.path()).unwrap();
    }
}

#[test]
fn paths_in_the_archive_cannot_leave_the_folder() {
    let mut tar = tar::Builder::new(Vec::new());
    let mut add = |name: &str, kind, contents: &[u8]| {
        let mut header = tar::Header::new_gnu();
        header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
        header.set_entry_type(kind);
        header.set_size(contents.len() as u64);
        header.set_link_name("/etc/passwd").unwrap();
        header.set_cksum();
        tar.append(&header, contents).unwrap();
    };
    add("../../train.bin", tar::EntryType::Regular, b"training");
    add("test.bin", tar::EntryType::Symlink, b"");
    let archive = tar.into_inner().unwrap();
    let (url, _) = serve(vec![ok(&archive)]);
    let dir = tempfile::tempdir().unwrap();
    let inner = dir.path().join("a/b");
    fs::create_dir_all(&inner).unwrap();
    let error = fetch_cifar100(&source(&url, &archive), &inner).unwrap_err().to_string();
    let expected =
        "1 links in the archive point to files that are not in it: test.bin -> /etc/passwd; replace them";
    assert!(error.contains(expected), "{error}");
    assert_eq!(names(&inner), ["train.bin"]);
    assert_eq!(names(dir.path()), ["a"]);
}

#[test]
fn unpacks_image_folders_and_shards() {
    let archive = tar_of(&[
        ("imagenet/train/n01/a.JPEG", b"a"),
        ("imagenet/train/n02/b.jpg", b"b"),
        ("imagenet/val/n01/c.jpg", b"c"),
        ("imagenet/README.md", b"text"),
    ]);
    let (url, _) = serve(vec![ok(&archive)]);
    let dir = tempfile::tempdir().unwrap();
    let fetch = |source: &HttpSource| download(Dataset::ImageFolder, source, dir.path(), RETRY, &());
    fetch(&source(&url, &archive)).unwrap();
    assert_eq!(names(dir.path()), ["train", "val"]);
    assert_eq!(fs::read(dir.path().join("train/n02/b.jpg")).unwrap(), b"b");
    fetch(&source(&url, &archive)).unwrap();

    let shards = tar_of(&[("x/train-0.tar", b"a"), ("x/classes.txt", b"b")]);
    let (url, _) = serve(vec![ok(&shards)]);
    let dir = tempfile::tempdir().unwrap();
    let source = source(&url, &shards);
    let error = download(Dataset::Webdataset, &source, dir.path(), RETRY, &()).unwrap_err();
    assert!(error.to_string().contains("training or test images are missing"), "{error}");
    assert_eq!(names(dir.path()), ["classes.txt", "train-0.tar"]);
}

/// A tar file of files, and of links of a kind with their targets.
fn tar_with_links(files: &[(&str, &[u8])], links: &[(&str, tar::EntryType, &str)]) -> Vec<u8> {
    let mut tar = tar::Builder::new(Vec::new());
    let header = |kind, size| {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(kind);
        header.set_size(size);
        header.set_mode(0o644);
        header
    };
    for (name, contents) in files {
        tar.append_data(&mut header(tar::EntryType::Regular, contents.len() as u64), name, *contents)
            .unwrap();
    }
    for (name, kind, target) in links {
        tar.append_link(&mut header(*kind, 0), name, target).unwrap();
    }
    tar.into_inner().unwrap()
}

#[test]
fn unpacks_archives_that_were_joined() {
    let [one, two] = [["train/a/1.jpg", "val/a/1.jpg"], ["train/b/1.jpg", "val/b/1.jpg"]]
        .map(|[train, val]| tar_of(&[(train, b"x"), (val, b"y")]));
    for archive in [[one.clone(), two.clone()].concat(), [gzip(&one), gzip(&two)].concat()] {
        let (url, _) = serve(vec![ok(&archive)]);
        let dir = tempfile::tempdir().unwrap();
        download(Dataset::ImageFolder, &source(&url, &archive), dir.path(), RETRY, &()).unwrap();
        assert!(dir.path().join("train/a/1.jpg").exists() && dir.path().join("val/b/1.jpg").exists());
    }
}

#[test]
fn links_within_the_archive_become_files() {
    let files: [(&str, &[u8]); 4] = [
        ("d/train/a/1.jpg", b"one"),
        ("d/train/b/1.jpg", b"two"),
        ("d/val/a/1.jpg", b"three"),
        ("d/pool/x.jpg", b"four"),
    ];
    let (hard, symbolic) = (tar::EntryType::Link, tar::EntryType::Symlink);
    let archive = tar_with_links(
        &files,
        &[
            ("d/train/a/2.jpg", hard, "d/train/a/1.jpg"),
            ("d/train/a/3.jpg", symbolic, "../b/1.jpg"),
            ("d/train/a/4.jpg", symbolic, "3.jpg"),
            ("d/train/b/5.jpg", symbolic, "../../pool/x.jpg"),
            ("d/train/b/6.jpg", hard, "d/pool/x.jpg"),
        ],
    );
    for archive in [archive.clone(), gzip(&archive)] {
        let (url, _) = serve(vec![ok(&archive)]);
        let dir = tempfile::tempdir().unwrap();
        let warning =
            download(Dataset::ImageFolder, &source(&url, &archive), dir.path(), RETRY, &()).unwrap();
        assert_eq!(warning, None);
        for (name, contents) in
            [("a/1", "one"), ("a/2", "one"), ("a/3", "two"), ("a/4", "two"), ("b/5", "four"), ("b/6", "four")]
        {
            let found = fs::read_to_string(dir.path().join(format!("train/{name}.jpg"))).unwrap();
            assert_eq!(found, contents, "{name}");
        }
    }
}

#[test]
fn refuses_entries_that_would_leave_out_data() {
    let files: [(&str, &[u8]); 2] = [("train/a/1.jpg", b"one"), ("val/a/1.jpg", b"three")];
    let (hard, symbolic) = (tar::EntryType::Link, tar::EntryType::Symlink);
    for (name, kind, target, expected) in [
        (
            "train/a/2.jpg",
            hard,
            "gone.jpg",
            "1 links in the archive point to files that are not in it: train/a/2.jpg -> gone.jpg",
        ),
        ("train/a/2.jpg", symbolic, "2.jpg", "train/a/2.jpg -> 2.jpg"),
        ("train/a/2.jpg", symbolic, "/data/1.jpg", "train/a/2.jpg -> /data/1.jpg"),
        ("train/a/2.jpg", symbolic, "../../raw/train/a/1.jpg", "train/a/2.jpg -> raw/train/a/1.jpg"),
        (
            "train/2.jpg",
            tar::EntryType::Regular,
            "x",
            "train/2.jpg in the archive: image outside a class folder",
        ),
        ("train/b", symbolic, "a", "train/b in the archive: links to folders are not supported"),
        ("test", symbolic, "val", "test in the archive: links to folders are not supported"),
        (
            "train/a/2.jpg",
            tar::EntryType::Fifo,
            "x",
            "train/a/2.jpg in the archive: expected a file, found a device",
        ),
    ] {
        let archive = tar_with_links(&files, &[(name, kind, target)]);
        let (url, _) = serve(vec![ok(&archive)]);
        let dir = tempfile::tempdir().unwrap();
        let error = download(Dataset::ImageFolder, &source(&url, &archive), dir.path(), RETRY, &());
        let error = error.unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }
}

#[test]
fn warns_of_images_that_are_not_part_of_the_data_set() {
    let archive = tar_of(&[
        ("train/a/1.jpg", b"one"),
        ("val/a/1.jpg", b"two"),
        ("unlabelled/2.jpg", b"three"),
        ("README.md", b"text"),
    ]);
    let (url, _) = serve(vec![ok(&archive)]);
    let dir = tempfile::tempdir().unwrap();
    let warning = download(Dataset::ImageFolder, &source(&url, &archive), dir.path(), RETRY, &());
    let warning = warning.unwrap().unwrap();
    assert!(
        warning.contains("skipped 1 file or folder that may be data")
            && warning.ends_with(": unlabelled/2.jpg"),
        "{warning}"
    );
}

#[test]
fn rejects_a_non_image_among_the_images() {
    let archive = tar_of(&[("x/train/n01/a.JPEG", b"a"), ("x/train/n01/b.png", b"b")]);
    let (url, _) = serve(vec![ok(&archive)]);
    let dir = tempfile::tempdir().unwrap();
    let error = download(Dataset::ImageFolder, &source(&url, &archive), dir.path(), RETRY, &());
    let expected = format!(
        "{url}: train/n01/b.png in the archive: unexpected file among the images; names must end in .jpg or .jpeg"
    );
    assert_eq!(error.unwrap_err().to_string(), expected);
}

#[test]
fn rejects_a_folder_with_data_of_another_source() {
    let other = tar_of(&[("train.bin", b"a"), ("test.bin", b"b")]);
    let (url, requests) = serve(vec![ok(&cifar100()), ok(&cifar100())]);
    let dir = tempfile::tempdir().unwrap();
    let wrong = source(&url, b"something else");
    assert!(matches!(fetch_cifar100(&wrong, dir.path()), Err(DownloadError::HashMismatch { .. })));
    fetch_cifar100(&source(&url, &cifar100()), dir.path()).unwrap();
    let message = fetch_cifar100(&source(&url, &other), dir.path()).unwrap_err().to_string();
    assert!(message.ends_with(": contains data from another source; use another folder or empty this one"));
    assert_eq!((requests.lock().unwrap().len(), names(dir.path()).len()), (2, 2));
}

#[test]
fn rejects_an_archive_with_two_data_sets() {
    let archive = tar_of(&[
        ("photo/train/dog/1.jpg", b"a"),
        ("photo/train/cat/1.jpg", b"b"),
        ("sketch/train/dog/1.jpg", b"c"),
    ]);
    let (url, _) = serve(vec![ok(&archive)]);
    let dir = tempfile::tempdir().unwrap();
    let source = HttpSource { url: format!("{url}/x.tar?signature=secret"), ..source(&url, &archive) };
    let error = download(Dataset::ImageFolder, &source, dir.path(), RETRY, &());
    let message = error.unwrap_err().to_string();
    assert!(message.contains(r#"/x.tar: train is in both "photo/" and "sketch/""#), "{message}");
    assert!(!message.contains("secret"), "{message}");
}

#[test]
fn follows_redirects() {
    let archive = cifar100();
    let (target, _) = serve(vec![ok(&archive)]);
    let (url, _) = serve(vec![response("302 Found", &format!("location: {target}/elsewhere\r\n"), b"")]);
    let dir = tempfile::tempdir().unwrap();
    fetch_cifar100(&source(&url, &archive), dir.path()).unwrap();
}

#[test]
fn retries_transient_errors() {
    let archive = cifar100();
    let cut_short = ok(&archive)[..200].to_vec();
    let (url, requests) = serve(vec![response("503 Service Unavailable", "", b""), cut_short, ok(&archive)]);
    let dir = tempfile::tempdir().unwrap();
    let source = HttpSource { url: format!("{url}/x.tar?signature=secret"), ..source(&url, &archive) };
    let observer = Recorder { dir: dir.path().to_owned(), ..Recorder::default() };
    download(Dataset::Cifar100, &source, dir.path(), RETRY, &observer).unwrap();
    assert_eq!(requests.lock().unwrap().len(), 3);
    let errors = observer.errors.into_inner().unwrap();
    let unavailable = format!("cannot download {url}/x.tar: HTTP status 503 Service Unavailable");
    assert_eq!(errors[0], (unavailable, Duration::from_millis(1)));
    assert!(
        errors[1].0.contains("interrupted after") && errors[1].1 == Duration::from_millis(2),
        "{errors:?}"
    );
    assert_eq!(errors.len(), 2);
}

#[test]
fn times_out_on_a_silent_server() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let dir = tempfile::tempdir().unwrap();
    let retry = RetryPolicy { max_attempts: 1, timeout: Duration::from_millis(50), ..RETRY };
    let error = download(Dataset::Cifar100, &source(&url, b""), dir.path(), retry, &());
    let error = error.unwrap_err();
    assert!(matches!(error, DownloadError::Request { .. }) && error.is_transient(), "{error}");
}

#[test]
fn does_not_retry_client_errors() {
    let (url, requests) = serve(vec![response("404 Not Found", "", b"")]);
    let dir = tempfile::tempdir().unwrap();
    let error = fetch_cifar100(&source(&url, b""), dir.path()).unwrap_err().to_string();
    assert_eq!(
        error,
        format!("cannot download {url}: HTTP status 404 Not Found; check http.url in the spec")
    );
    assert_eq!(requests.lock().unwrap().len(), 1);
}

#[test]
fn a_hash_mismatch_names_both_hashes() {
    let (url, requests) = serve(vec![ok(b"something else")]);
    let dir = tempfile::tempdir().unwrap();
    let error = fetch_cifar100(&source(&url, b"the archive"), dir.path()).unwrap_err().to_string();
    let [found, expected] =
        [&b"something else"[..], b"the archive"].map(|bytes| hex::encode(Sha256::digest(bytes)));
    assert_eq!(
        error,
        format!("{url}: SHA-256 mismatch: expected {expected} (http.sha256 in the spec), received {found}")
    );
    assert_eq!(requests.lock().unwrap().len(), 1);
    assert!(names(dir.path()).is_empty());
}

#[test]
fn rejects_invalid_archives() {
    for archive in
        [b"<html>Please log in</html>".repeat(40), gzip(b"no tar"), gzip(&cifar100())[..60].to_vec()]
    {
        let (url, _) = serve(vec![ok(&archive)]);
        let dir = tempfile::tempdir().unwrap();
        let error = fetch_cifar100(&source(&url, &archive), dir.path()).unwrap_err();
        assert!(matches!(error, DownloadError::Archive { .. }), "{error}");
    }
}

#[test]
fn rejects_a_content_length_above_the_limit() {
    let head = b"HTTP/1.1 200 OK\r\ncontent-length: 99999999999\r\n\r\n".to_vec();
    let (url, _) = serve(vec![head]);
    let dir = tempfile::tempdir().unwrap();
    let error = fetch_cifar100(&source(&url, b""), dir.path()).unwrap_err();
    assert!(matches!(error, DownloadError::TooLarge { .. }), "{error}");
}

#[test]
fn reports_a_missing_directory() {
    let archive = cifar100();
    let (url, _) = serve(vec![ok(&archive)]);
    let dir = tempfile::tempdir().unwrap();
    let missing = dir.path().join("missing");
    let error = fetch_cifar100(&source(&url, &archive), &missing).unwrap_err().to_string();
    assert!(error.starts_with(&format!("I/O error on {}: ", missing.display())), "{error}");
}
