//! Fetching a data set as an archive over HTTP(S).
//!
//! What a server sends is trusted only as far as its SHA-256 goes: sizes are bounded, and of the archive only regular
//! files with the names of the data set's files are taken, and put where [`names`] says. Redirects are followed, since
//! the hash says what must come in the end.

use std::{
    collections::HashMap,
    fs::{self, File},
    io::{self, BufReader, Read, Seek, Write},
    path::{Path, PathBuf},
    thread,
    time::Duration,
};

use datjob_api::training::{Dataset, HttpSource};
use flate2::read::MultiGzDecoder;
use sha2::{Digest, Sha256};
use tempfile::NamedTempFile;
use thiserror::Error;

use super::{DataError, files, names, origin};

/// Why a data set could not be fetched; each sentence names the URL or the file.
#[derive(Debug, Error)]
pub enum DownloadError {
    /// No answer, or not one in HTTP.
    #[error("{url}: {source}")]
    Request {
        /// What was asked for.
        url: String,
        /// What went wrong.
        source: Box<ureq::Error>,
    },
    /// The server refuses.
    #[error("{url}: the server answers {status}{}", advice(*.status))]
    Status {
        /// What was asked for.
        url: String,
        /// The status and its usual name, as in `404 Not Found`.
        status: ureq::http::StatusCode,
    },
    /// The connection broke, or the server fell silent, before the archive was complete.
    #[error("{url}: broke off after {received} bytes: {source}")]
    Interrupted {
        /// What was asked for.
        url: String,
        /// Bytes that had come.
        received: u64,
        /// What went wrong.
        source: io::Error,
    },
    /// The archive is too large.
    #[error("{url}: the archive has more than {limit} bytes, no data set needs so many")]
    TooLarge {
        /// What was asked for.
        url: String,
        /// The bound.
        limit: u64,
    },
    /// Something else came than was asked for.
    #[error("{url}: its SHA-256 is {found}, the spec's sha256 says {expected}")]
    Hash {
        /// What was asked for.
        url: String,
        /// What the manifest says.
        expected: String,
        /// What came.
        found: String,
    },
    /// The archive is damaged or none.
    #[error("{url}: is no tar or tar.gz that can be unpacked: {source}")]
    Archive {
        /// Where it came from.
        url: String,
        /// What went wrong.
        source: io::Error,
    },
    /// A file in the archive is too large.
    #[error("{url}: {file} in it has {size} bytes, more than the {limit} that any file of the data set has")]
    FileTooLarge {
        /// Where the archive came from.
        url: String,
        /// The file.
        file: String,
        /// Its size.
        size: u64,
        /// The bound.
        limit: u64,
    },
    /// The archive lacks files of the data set.
    #[error("{url}: after unpacking: {source}")]
    Incomplete {
        /// Where the archive came from.
        url: String,
        /// What is missing.
        source: DataError,
    },
    /// The archive holds more than one data set.
    #[error("{url}: it has {part} in {first:?} and in {second:?}; make an archive of one data set")]
    Twice {
        /// Where the archive came from.
        url: String,
        /// A part of the data set.
        part: String,
        /// A folder that has it.
        first: String,
        /// Another one.
        second: String,
    },
    /// The directory has the files of another source.
    #[error("{}: holds what was fetched from another source; name an empty folder, or empty this one", dir.display())]
    OtherSource {
        /// The directory.
        dir: PathBuf,
    },
    /// The directory cannot be written to.
    #[error("{}: cannot be written: {source}", path.display())]
    Write {
        /// The file or directory.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

fn advice(status: ureq::http::StatusCode) -> &'static str {
    match status.as_u16() {
        401 | 403 => "; the archive must be readable without credentials",
        400..=499 => "; look at the spec's url",
        _ => "",
    }
}

impl DownloadError {
    /// Whether another try may bring what this one did not.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Request { source, .. } => !matches!(
                **source,
                ureq::Error::BadUri(_) | ureq::Error::Http(_) | ureq::Error::TooManyRedirects
            ),
            Self::Status { status, .. } => status.is_server_error() || matches!(status.as_u16(), 408 | 429),
            Self::Interrupted { .. } => true,
            Self::TooLarge { .. }
            | Self::Hash { .. }
            | Self::Archive { .. }
            | Self::FileTooLarge { .. }
            | Self::Incomplete { .. }
            | Self::Twice { .. }
            | Self::OtherSource { .. }
            | Self::Write { .. } => false,
        }
    }
}

/// How often and how patiently a download is tried.
#[derive(Clone, Copy, Debug)]
pub struct Retries {
    /// Tries in all.
    pub tries: u32,
    /// The wait before the second try; each further one takes twice as long.
    pub wait: Duration,
    /// The longest silence of the server, also while connecting.
    pub silence: Duration,
}

impl Default for Retries {
    /// Five tries over half a minute, a minute of silence at most.
    fn default() -> Self {
        Self { tries: 5, wait: Duration::from_secs(2), silence: Duration::from_mins(1) }
    }
}

/// Fetches the archive, compares its SHA-256 and unpacks the data set's standard files into `dir`, which exists.
///
/// Does nothing where `dir` already holds what an archive of that hash contained. `progress` hears how many bytes have
/// come and, where the server said it, how many there are. Blocks; run it on a thread of its own.
pub fn download(
    dataset: Dataset,
    source: &HttpSource,
    dir: &Path,
    retries: Retries,
    progress: &mut dyn FnMut(u64, Option<u64>),
) -> Result<(), DownloadError> {
    let identity = format!("{} {}", dataset.name(), source.sha256);
    if !origin::is_free_for(dir, &identity).map_err(writing(dir))? {
        return Err(DownloadError::OtherSource { dir: dir.to_owned() });
    }
    let complete = || names::complete(dataset, dir);
    let marker = dir.join(format!(".downloaded-{}", source.sha256));
    if marker.exists() && complete().is_ok() {
        return Ok(());
    }
    let limit = names::archive_limit(dataset);
    let archive = fetch_patiently((source, limit), dir, retries, progress)?;
    origin::claim(dir, &identity).map_err(writing(dir))?;
    unpack(&archive, dataset, source, dir)?;
    complete().map_err(|error| DownloadError::Incomplete { url: shown(source), source: error })?;
    File::create(&marker).map_err(writing(&marker))?;
    Ok(())
}

/// The URL as messages have it: a query may be a signature that lets others in.
fn shown(source: &HttpSource) -> String {
    source.url.split(['?', '#']).next().unwrap_or_default().to_owned()
}

/// Most bytes of one file.
const FILE_BYTES: u64 = 64 << 30;

/// Fetches one file into `dir`, which is made, under its SHA-256 as its name. Does nothing where it is there.
pub fn download_file(source: &HttpSource, dir: &Path, retries: Retries) -> Result<PathBuf, DownloadError> {
    let path = dir.join(&source.sha256);
    if path.exists() {
        return Ok(path);
    }
    fs::create_dir_all(dir).map_err(writing(dir))?;
    let file = fetch_patiently((source, FILE_BYTES), dir, retries, &mut |_, _| {})?;
    file.persist(&path).map_err(|error| writing(&path)(error.error))?;
    Ok(path)
}

fn writing(path: &Path) -> impl Fn(io::Error) -> DownloadError {
    move |source| DownloadError::Write { path: path.to_owned(), source }
}

fn fetch_patiently(
    source: (&HttpSource, u64),
    dir: &Path,
    retries: Retries,
    progress: &mut dyn FnMut(u64, Option<u64>),
) -> Result<NamedTempFile, DownloadError> {
    let agent: ureq::Agent = ureq::Agent::config_builder()
        .http_status_as_error(false)
        .timeout_connect(Some(retries.silence))
        .timeout_recv_response(Some(retries.silence))
        .timeout_per_read(Some(retries.silence))
        .build()
        .into();
    let mut wait = retries.wait;
    for _ in 1..retries.tries {
        match fetch(&agent, source, dir, progress) {
            Err(error) if error.is_transient() => {
                tracing::warn!(%error, ?wait, "The download failed and is tried again.");
                thread::sleep(wait);
                wait = wait.saturating_mul(2);
            }
            result => return result,
        }
    }
    fetch(&agent, source, dir, progress)
}

/// One try: the archive, of bounded size, in a temporary file, its hash compared.
fn fetch(
    agent: &ureq::Agent,
    (source, limit): (&HttpSource, u64),
    dir: &Path,
    progress: &mut dyn FnMut(u64, Option<u64>),
) -> Result<NamedTempFile, DownloadError> {
    let url = || shown(source);
    let answer = agent.get(&source.url).call();
    let answer = answer.map_err(|error| DownloadError::Request { url: url(), source: Box::new(error) })?;
    if !answer.status().is_success() {
        return Err(DownloadError::Status { url: url(), status: answer.status() });
    }
    let mut body = answer.into_body();
    let size = body.content_length();
    let too_large = || DownloadError::TooLarge { url: url(), limit };
    if size.is_some_and(|size| size > limit) {
        return Err(too_large());
    }
    let mut file = NamedTempFile::new_in(dir).map_err(writing(dir))?;
    let (mut hash, mut received, mut block) = (Sha256::new(), 0, vec![0; 1 << 16]);
    let mut body = body.as_reader();
    loop {
        let read = body.read(&mut block);
        let count = read.map_err(|source| DownloadError::Interrupted { url: url(), received, source })?;
        if count == 0 {
            break;
        }
        received += count as u64;
        if received > limit {
            return Err(too_large());
        }
        hash.update(&block[..count]);
        file.write_all(&block[..count]).map_err(writing(dir))?;
        progress(received, size);
    }
    let found = hex::encode(hash.finalize());
    if found != source.sha256 {
        return Err(DownloadError::Hash { url: url(), expected: source.sha256.clone(), found });
    }
    Ok(file)
}

/// Takes the data set's files out of the archive.
pub(super) fn unpack(
    archive: &NamedTempFile,
    dataset: Dataset,
    source: &HttpSource,
    dir: &Path,
) -> Result<(), DownloadError> {
    let damaged = |error| DownloadError::Archive { url: shown(source), source: error };
    let mut tar = tar::Archive::new(open(archive).map_err(damaged)?.take(names::archive_limit(dataset)));
    // The folder above each part of the data set: train, val, test; or the file itself.
    let mut above: HashMap<PathBuf, String> = HashMap::new();
    for entry in tar.entries().map_err(damaged)? {
        let mut entry = entry.map_err(damaged)?;
        let path = entry.path().map_err(damaged)?.into_owned();
        let Some(path) = path.to_str() else { continue };
        let Some(file) = names::place(dataset, path) else { continue };
        if !entry.header().entry_type().is_file() {
            continue;
        }
        let part: PathBuf = file.iter().take(1).collect();
        let folder = file.to_str().and_then(|file| path.strip_suffix(file)).unwrap_or_default();
        let first = above.entry(part.clone()).or_insert_with(|| folder.to_owned());
        if first != folder {
            let (part, first, second) = (part.display().to_string(), first.clone(), folder.to_owned());
            return Err(DownloadError::Twice { url: shown(source), part, first, second });
        }
        let (size, limit) = (entry.size(), names::file_limit(dataset));
        if size > limit {
            let (url, file) = (shown(source), file.display().to_string());
            return Err(DownloadError::FileTooLarge { url, file, size, limit });
        }
        let target = dir.join(&file);
        if let Some(parent) = target.parent() {
            fs::create_dir_all(parent).map_err(writing(parent))?;
        }
        let mut out = NamedTempFile::new_in(dir).map_err(writing(dir))?;
        let mut block = vec![0; 1 << 16];
        loop {
            let count = entry.read(&mut block).map_err(damaged)?;
            if count == 0 {
                break;
            }
            out.write_all(&block[..count]).map_err(writing(&target))?;
        }
        out.persist(&target).map_err(|error| writing(&target)(error.error))?;
        if !dataset.is_encoded() {
            remove_other_form(&target);
        }
    }
    Ok(())
}

/// The archive's bytes, unpacked if it begins as gzip does.
fn open(archive: &NamedTempFile) -> io::Result<Box<dyn Read>> {
    let mut file = archive.reopen()?;
    let mut start = [0; 2];
    let gzipped = match file.read_exact(&mut start) {
        Ok(()) => start == [0x1f, 0x8b],
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => false,
        Err(error) => return Err(error),
    };
    file.rewind()?;
    let file = BufReader::with_capacity(1 << 16, file);
    Ok(if gzipped { Box::new(MultiGzDecoder::new(file)) } else { Box::new(file) })
}

/// Removes an older file of the same name without `.gz`, or with it, which would be read in its stead.
fn remove_other_form(target: &Path) {
    let other = if files::is_gzipped(target) {
        target.with_extension("")
    } else {
        PathBuf::from(format!("{}.gz", target.display()))
    };
    // There is none, as a rule.
    let _ = fs::remove_file(other);
}

#[cfg(test)]
mod tests {
    use std::{
        io::BufRead,
        net::{TcpListener, TcpStream},
        sync::{Arc, Mutex},
    };

    use super::*;

    const PATIENCE: Retries =
        Retries { tries: 3, wait: Duration::from_millis(1), silence: Duration::from_millis(500) };

    /// Answers requests one after the other, each by the next of `answers`; then lets go of the port.
    fn serve(answers: Vec<Vec<u8>>) -> (String, Arc<Mutex<Vec<String>>>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let asked = Arc::new(Mutex::new(Vec::new()));
        let log = Arc::clone(&asked);
        thread::spawn(move || {
            for answer in answers {
                let (stream, _) = listener.accept().unwrap();
                log.lock().unwrap().push(read_request(&stream));
                // The client may hang up before the end.
                let _ = (&stream).write_all(&answer);
            }
        });
        (format!("http://{address}"), asked)
    }

    fn read_request(stream: &TcpStream) -> String {
        let mut lines = BufReader::new(stream).lines().map(Result::unwrap);
        let first = lines.next().unwrap();
        for _ in lines.take_while(|line| !line.is_empty()) {}
        first
    }

    fn answer(status: &str, headers: &str, body: &[u8]) -> Vec<u8> {
        let length = body.len();
        let head =
            format!("HTTP/1.1 {status}\r\nconnection: close\r\ncontent-length: {length}\r\n{headers}\r\n");
        [head.as_bytes(), body].concat()
    }

    fn ok(body: &[u8]) -> Vec<u8> {
        answer("200 OK", "", body)
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

    fn fetch_cifar100(source: &HttpSource, dir: &Path) -> Result<(), DownloadError> {
        download(Dataset::Cifar100, source, dir, PATIENCE, &mut |_, _| {})
    }

    #[test]
    fn one_file_is_fetched_once_and_named_by_its_hash() {
        let (url, asked) = serve(vec![ok(b"weights"), ok(b"others")]);
        let dir = tempfile::tempdir().unwrap();
        let files = dir.path().join("files");
        let weights = source(&url, b"weights");
        for _ in 0..2 {
            let path = download_file(&weights, &files, PATIENCE).unwrap();
            assert_eq!(path, files.join(&weights.sha256));
            assert_eq!(fs::read(path).unwrap(), b"weights");
        }
        assert_eq!(asked.lock().unwrap().len(), 1);
        let sentence = download_file(&source(&url, b"more"), &files, PATIENCE).unwrap_err().to_string();
        assert!(sentence.contains("the spec's sha256 says"), "{sentence}");
        assert_eq!(fs::read_dir(&files).unwrap().count(), 1, "what has another hash is not kept");
    }

    #[test]
    fn the_standard_files_are_taken_out_and_nothing_else() {
        for archive in [cifar100(), gzip(&cifar100())] {
            let (url, _) = serve(vec![ok(&archive)]);
            let dir = tempfile::tempdir().unwrap();
            let mut heard = (0, None);
            let source = source(&url, &archive);
            let progress = &mut |bytes, size| heard = (bytes, size);
            download(Dataset::Cifar100, &source, dir.path(), PATIENCE, progress).unwrap();
            assert_eq!(names(dir.path()), ["test.bin", "train.bin"]);
            assert_eq!(fs::read(dir.path().join("train.bin")).unwrap(), b"training");
            assert_eq!(heard, (archive.len() as u64, Some(archive.len() as u64)));
            // The server is gone: a second call finds all in place.
            fetch_cifar100(&source, dir.path()).unwrap();
        }
    }

    #[test]
    fn paths_in_the_archive_lead_nowhere_else() {
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
        assert!(
            error.contains("test.bin: the file is missing; cifar100 consists of train.bin, test.bin"),
            "{error}"
        );
        assert_eq!(names(&inner), ["train.bin"]);
        assert_eq!(names(dir.path()), ["a"]);
    }

    #[test]
    fn a_folder_of_images_keeps_its_folders() {
        let archive = tar_of(&[
            ("imagenet/train/n01/a.JPEG", b"a"),
            ("imagenet/train/n02/b.jpg", b"b"),
            ("imagenet/val/n01/c.jpg", b"c"),
            ("imagenet/README.md", b"text"),
        ]);
        let (url, _) = serve(vec![ok(&archive)]);
        let dir = tempfile::tempdir().unwrap();
        let fetch = |source: &HttpSource| {
            download(Dataset::ImageFolder, source, dir.path(), PATIENCE, &mut |_, _| {})
        };
        fetch(&source(&url, &archive)).unwrap();
        assert_eq!(names(dir.path()), ["train", "val"]);
        assert_eq!(fs::read(dir.path().join("train/n02/b.jpg")).unwrap(), b"b");
        fetch(&source(&url, &archive)).unwrap();

        let shards = tar_of(&[("x/train-0.tar", b"a"), ("x/classes.txt", b"b")]);
        let (url, _) = serve(vec![ok(&shards)]);
        let dir = tempfile::tempdir().unwrap();
        let source = source(&url, &shards);
        let error = download(Dataset::Webdataset, &source, dir.path(), PATIENCE, &mut |_, _| {}).unwrap_err();
        assert!(error.to_string().contains("training or test images are missing"), "{error}");
        assert_eq!(names(dir.path()), ["classes.txt", "train-0.tar"]);
    }

    #[test]
    fn a_folder_is_that_of_one_source() {
        let other = tar_of(&[("train.bin", b"a"), ("test.bin", b"b")]);
        let (url, asked) = serve(vec![ok(&cifar100()), ok(&cifar100())]);
        let dir = tempfile::tempdir().unwrap();
        let wrong = source(&url, b"something else");
        assert!(matches!(fetch_cifar100(&wrong, dir.path()), Err(DownloadError::Hash { .. })));
        fetch_cifar100(&source(&url, &cifar100()), dir.path()).unwrap();
        let sentence = fetch_cifar100(&source(&url, &other), dir.path()).unwrap_err().to_string();
        assert!(sentence.ends_with(
            "holds what was fetched from another source; name an empty folder, or empty this one"
        ));
        assert_eq!((asked.lock().unwrap().len(), names(dir.path()).len()), (2, 2));
    }

    #[test]
    fn two_data_sets_in_an_archive_are_not_mixed() {
        let archive = tar_of(&[
            ("photo/train/dog/1.jpg", b"a"),
            ("photo/train/cat/1.jpg", b"b"),
            ("sketch/train/dog/1.jpg", b"c"),
        ]);
        let (url, _) = serve(vec![ok(&archive)]);
        let dir = tempfile::tempdir().unwrap();
        let source = HttpSource { url: format!("{url}/x.tar?signature=secret"), ..source(&url, &archive) };
        let error = download(Dataset::ImageFolder, &source, dir.path(), PATIENCE, &mut |_, _| {});
        let sentence = error.unwrap_err().to_string();
        assert!(sentence.contains(r#"/x.tar: it has train in "photo/" and in "sketch/""#), "{sentence}");
        assert!(!sentence.contains("secret"), "{sentence}");
    }

    #[test]
    fn redirects_are_followed() {
        let archive = cifar100();
        let (target, _) = serve(vec![ok(&archive)]);
        let (url, _) = serve(vec![answer("302 Found", &format!("location: {target}/elsewhere\r\n"), b"")]);
        let dir = tempfile::tempdir().unwrap();
        fetch_cifar100(&source(&url, &archive), dir.path()).unwrap();
    }

    #[test]
    fn what_may_pass_is_tried_again() {
        let archive = cifar100();
        let cut_short = ok(&archive)[..200].to_vec();
        let (url, asked) = serve(vec![answer("503 Service Unavailable", "", b""), cut_short, ok(&archive)]);
        let dir = tempfile::tempdir().unwrap();
        fetch_cifar100(&source(&url, &archive), dir.path()).unwrap();
        assert_eq!(asked.lock().unwrap().len(), 3);
    }

    #[test]
    fn a_silent_server_is_given_up() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let dir = tempfile::tempdir().unwrap();
        let patience = Retries { tries: 1, silence: Duration::from_millis(50), ..PATIENCE };
        let error = download(Dataset::Cifar100, &source(&url, b""), dir.path(), patience, &mut |_, _| {});
        let error = error.unwrap_err();
        assert!(matches!(error, DownloadError::Request { .. }) && error.is_transient(), "{error}");
    }

    #[test]
    fn a_refusal_is_final() {
        let (url, asked) = serve(vec![answer("404 Not Found", "", b"")]);
        let dir = tempfile::tempdir().unwrap();
        let error = fetch_cifar100(&source(&url, b""), dir.path()).unwrap_err().to_string();
        assert_eq!(error, format!("{url}: the server answers 404 Not Found; look at the spec's url"));
        assert_eq!(asked.lock().unwrap().len(), 1);
    }

    #[test]
    fn another_archive_is_refused_with_both_hashes() {
        let (url, asked) = serve(vec![ok(b"something else")]);
        let dir = tempfile::tempdir().unwrap();
        let error = fetch_cifar100(&source(&url, b"the archive"), dir.path()).unwrap_err().to_string();
        let [found, expected] =
            [&b"something else"[..], b"the archive"].map(|bytes| hex::encode(Sha256::digest(bytes)));
        assert_eq!(error, format!("{url}: its SHA-256 is {found}, the spec's sha256 says {expected}"));
        assert_eq!(asked.lock().unwrap().len(), 1);
        assert!(names(dir.path()).is_empty());
    }

    #[test]
    fn what_is_no_archive_is_refused() {
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
    fn an_announced_size_out_of_bounds_is_refused() {
        let head = b"HTTP/1.1 200 OK\r\ncontent-length: 99999999999\r\n\r\n".to_vec();
        let (url, _) = serve(vec![head]);
        let dir = tempfile::tempdir().unwrap();
        let error = fetch_cifar100(&source(&url, b""), dir.path()).unwrap_err();
        assert!(matches!(error, DownloadError::TooLarge { .. }), "{error}");
    }

    #[test]
    fn a_directory_that_is_missing_is_named() {
        let archive = cifar100();
        let (url, _) = serve(vec![ok(&archive)]);
        let dir = tempfile::tempdir().unwrap();
        let missing = dir.path().join("missing");
        let error = fetch_cifar100(&source(&url, &archive), &missing).unwrap_err().to_string();
        assert!(error.starts_with(&format!("{}: cannot be written: ", missing.display())), "{error}");
    }
}
