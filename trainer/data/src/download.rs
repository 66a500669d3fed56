//! Downloads a data set as an archive over HTTP(S).
//!
//! The content is trusted only if its SHA-256 matches, and sizes are bounded. Redirects are followed, since the hash protects
//! the final content.

use std::{
    fs::{self, File},
    io,
    path::{Path, PathBuf},
};

use backon::Retryable;
use datjob_api::{
    report::PreparationStep,
    training::{Dataset, HttpSource},
};
use reqwest::Client;
use sha2::{Digest, Sha256};
use tempfile::NamedTempFile;
use tokio::runtime::Builder;

use super::{DownloadObserver, RetryPolicy, dataset_files, origin, storage};

mod error;
#[cfg(test)]
mod tests;
mod unpack;

pub use error::DownloadError;
pub(super) use unpack::unpack;

/// Downloads the archive, verifies its SHA-256 and unpacks the files of the data set into the existing folder `dir`.
///
/// Does nothing if `dir` already has the files of this archive. `observer` receives the bytes that are downloaded, then those
/// that are unpacked, and transient errors. Returns a warning, if entries that may be data were skipped. Blocks: run it on a separate
/// thread.
pub fn download(
    dataset: Dataset,
    source: &HttpSource,
    dir: &Path,
    retry: RetryPolicy,
    observer: &dyn DownloadObserver,
) -> Result<Option<String>, DownloadError> {
    let identity = format!("{} {}", dataset.name(), source.sha256);
    if !origin::accepts_source(dir, &identity).map_err(write_error(dir))? {
        return Err(DownloadError::OtherSource { dir: dir.to_owned() });
    }
    let check_complete = || dataset_files::check_complete(dataset, dir);
    let marker = dir.join(format!(".unpacked-{}", source.sha256));
    if marker.exists() && check_complete().is_ok() {
        return Ok(None);
    }
    let request = Request { source, limit: dataset_files::archive_limit(dataset), dir };
    // An unnamed file: nothing remains if this process is killed.
    let create = || tempfile::tempfile_in(dir);
    let archive = fetch_with_retries(request, create, |file| file, retry, observer)?;
    storage::retry_on("write", dir, || origin::record_source(dir, &identity)).map_err(write_error(dir))?;
    let skipped = unpack(&archive, dataset, source, dir, observer)?;
    check_complete()
        .map_err(|error| DownloadError::Incomplete { url: redacted_url(source), source: error })?;
    storage::retry_on("create", &marker, || File::create(&marker)).map_err(write_error(&marker))?;
    Ok(skipped.report(dataset, dataset_files::layout_description(dataset)))
}

/// The URL for messages, without its query, which may contain a secret signature.
fn redacted_url(source: &HttpSource) -> String {
    source.url.split(['?', '#']).next().unwrap_or_default().to_owned()
}

/// Maximum size of a single file in bytes.
const MAX_FILE_BYTES: u64 = 64 << 30;

/// Downloads one file into `dir`; its name there is its SHA-256. Creates `dir`. Does nothing if the file exists.
pub fn download_file(
    source: &HttpSource,
    dir: &Path,
    retry: RetryPolicy,
    observer: &dyn DownloadObserver,
) -> Result<PathBuf, DownloadError> {
    let path = dir.join(&source.sha256);
    if path.exists() {
        return Ok(path);
    }
    storage::retry_on("create", dir, || fs::create_dir_all(dir)).map_err(write_error(dir))?;
    let request = Request { source, limit: MAX_FILE_BYTES, dir };
    let create = || NamedTempFile::new_in(dir);
    let file = fetch_with_retries(request, create, NamedTempFile::as_file_mut, retry, observer)?;
    file.persist(&path).map_err(|error| write_error(&path)(error.error))?;
    Ok(path)
}

fn write_error(path: &Path) -> impl Fn(io::Error) -> DownloadError {
    move |source| DownloadError::Write { path: path.to_owned(), source }
}

/// A download.
#[derive(Clone, Copy)]
struct Request<'a> {
    source: &'a HttpSource,
    /// Maximum size in bytes.
    limit: u64,
    /// The folder for the file.
    dir: &'a Path,
}

/// Downloads into a file. Each attempt calls `create` for a new file in the folder of the request, and writes to `as_file` of
/// it.
fn fetch_with_retries<F>(
    request: Request<'_>,
    create: impl Fn() -> io::Result<F>,
    as_file: impl Fn(&mut F) -> &mut File,
    retry: RetryPolicy,
    observer: &dyn DownloadObserver,
) -> Result<F, DownloadError> {
    crate::http::install_tls_provider();
    let runtime = Builder::new_current_thread().enable_all().build().map_err(DownloadError::Runtime)?;
    let client =
        Client::builder().connect_timeout(retry.timeout).read_timeout(retry.timeout).build().map_err(
            |error| DownloadError::Request { url: redacted_url(request.source), source: error.without_url() },
        )?;
    let attempt = || fetch(&client, request, &create, &as_file, observer);
    runtime.block_on(async {
        attempt
            .retry(retry.backoff())
            .when(DownloadError::is_transient)
            .notify(|error, retry_in| {
                tracing::warn!(%error, ?retry_in, "Download failed; retrying.");
                observer.retrying(error, retry_in);
            })
            .await
    })
}

/// One attempt. Bounds the size and verifies the hash.
async fn fetch<F>(
    client: &Client,
    Request { source, limit, dir }: Request<'_>,
    create: impl Fn() -> io::Result<F>,
    as_file: impl Fn(&mut F) -> &mut File,
    observer: &dyn DownloadObserver,
) -> Result<F, DownloadError> {
    let url = || redacted_url(source);
    let response = client.get(&source.url).send().await;
    let mut response =
        response.map_err(|error| DownloadError::Request { url: url(), source: error.without_url() })?;
    if !response.status().is_success() {
        return Err(DownloadError::Status { url: url(), status: response.status() });
    }
    let size = response.content_length();
    let too_large = || DownloadError::TooLarge { url: url(), limit };
    if size.is_some_and(|size| size > limit) {
        return Err(too_large());
    }
    let mut file = storage::retry_on("create a file in", dir, &create).map_err(write_error(dir))?;
    let (mut hash, mut received) = (Sha256::new(), 0);
    loop {
        let block = response.chunk().await.map_err(|error| DownloadError::Interrupted {
            url: url(),
            received,
            source: error.without_url(),
        })?;
        let Some(block) = block else { break };
        received += block.len() as u64;
        if received > limit {
            return Err(too_large());
        }
        hash.update(&block);
        storage::write_all(as_file(&mut file), dir, &block).map_err(write_error(dir))?;
        observer.progress(PreparationStep::Downloading, received, size);
    }
    let found = hex::encode(hash.finalize());
    if found != source.sha256 {
        return Err(DownloadError::HashMismatch { url: url(), expected: source.sha256.clone(), found });
    }
    Ok(file)
}
