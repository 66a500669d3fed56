//! Fetching a data set as an archive over HTTP(S).
//!
//! What a server sends is trusted only as far as its SHA-256 goes: sizes are bounded. Redirects are followed, since the hash
//! says what must come in the end.

use std::{
    fs::{self, File},
    io::{self, Read, Write},
    path::{Path, PathBuf},
    thread,
    time::Duration,
};

use datjob_api::training::{Dataset, HttpSource};
use sha2::{Digest, Sha256};
use tempfile::NamedTempFile;

use super::{names, origin};

mod error;
#[cfg(test)]
mod tests;
mod unpack;

pub use error::DownloadError;
pub(super) use unpack::unpack;

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
    // It has no name: nothing is left of it when this process is killed.
    let begin = || tempfile::tempfile_in(dir);
    let archive = fetch_patiently((source, limit), dir, begin, retries, progress)?;
    origin::claim(dir, &identity).map_err(writing(dir))?;
    unpack(archive, dataset, source, dir)?;
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
    let begin = || NamedTempFile::new_in(dir);
    let file = fetch_patiently((source, FILE_BYTES), dir, begin, retries, &mut |_, _| {})?;
    file.persist(&path).map_err(|error| writing(&path)(error.error))?;
    Ok(path)
}

fn writing(path: &Path) -> impl Fn(io::Error) -> DownloadError {
    move |source| DownloadError::Write { path: path.to_owned(), source }
}

/// Fetches into a file that `begin` makes in `dir`, anew for each try.
fn fetch_patiently<F: Write>(
    source: (&HttpSource, u64),
    dir: &Path,
    begin: impl Fn() -> io::Result<F>,
    retries: Retries,
    progress: &mut dyn FnMut(u64, Option<u64>),
) -> Result<F, DownloadError> {
    let agent: ureq::Agent = ureq::Agent::config_builder()
        .http_status_as_error(false)
        .timeout_connect(Some(retries.silence))
        .timeout_recv_response(Some(retries.silence))
        .timeout_per_read(Some(retries.silence))
        .build()
        .into();
    let mut wait = retries.wait;
    for _ in 1..retries.tries {
        match fetch(&agent, source, dir, &begin, progress) {
            Err(error) if error.is_transient() => {
                tracing::warn!(%error, ?wait, "The download failed and is tried again.");
                thread::sleep(wait);
                wait = wait.saturating_mul(2);
            }
            result => return result,
        }
    }
    fetch(&agent, source, dir, &begin, progress)
}

/// One try: what came, of bounded size, its hash compared.
fn fetch<F: Write>(
    agent: &ureq::Agent,
    (source, limit): (&HttpSource, u64),
    dir: &Path,
    begin: impl Fn() -> io::Result<F>,
    progress: &mut dyn FnMut(u64, Option<u64>),
) -> Result<F, DownloadError> {
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
    let mut file = begin().map_err(writing(dir))?;
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
