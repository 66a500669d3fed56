//! Fetching a data set as an archive over HTTP(S).
//!
//! What a server sends is trusted only as far as its SHA-256 goes: sizes are bounded. Redirects are followed, since the hash
//! says what must come in the end.

use std::{
    fs::{self, File},
    io::{self, Write},
    path::{Path, PathBuf},
};

use backon::Retryable;
use datjob_api::training::{Dataset, HttpSource};
use reqwest::Client;
use sha2::{Digest, Sha256};
use tempfile::NamedTempFile;
use tokio::runtime::Builder;

use super::{RetryPolicy, names, origin};

mod error;
#[cfg(test)]
mod tests;
mod unpack;

pub use error::DownloadError;
pub(super) use unpack::unpack;

/// Fetches the archive, compares its SHA-256 and unpacks the data set's standard files into `dir`, which exists.
///
/// Does nothing where `dir` already holds what an archive of that hash contained. `progress` hears how many bytes have
/// come and, where the server said it, how many there are. Blocks; run it on a thread of its own.
pub fn download(
    dataset: Dataset,
    source: &HttpSource,
    dir: &Path,
    retry: RetryPolicy,
    progress: &dyn Fn(u64, Option<u64>),
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
    let archive = fetch_patiently((source, limit), dir, begin, retry, progress)?;
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
pub fn download_file(source: &HttpSource, dir: &Path, retry: RetryPolicy) -> Result<PathBuf, DownloadError> {
    let path = dir.join(&source.sha256);
    if path.exists() {
        return Ok(path);
    }
    fs::create_dir_all(dir).map_err(writing(dir))?;
    let begin = || NamedTempFile::new_in(dir);
    let file = fetch_patiently((source, FILE_BYTES), dir, begin, retry, &|_, _| {})?;
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
    retry: RetryPolicy,
    progress: &dyn Fn(u64, Option<u64>),
) -> Result<F, DownloadError> {
    crate::http::install_tls_provider();
    let runtime = Builder::new_current_thread().enable_all().build().map_err(DownloadError::Start)?;
    let client = Client::builder()
        .connect_timeout(retry.timeout)
        .read_timeout(retry.timeout)
        .build()
        .map_err(|error| DownloadError::Request { url: shown(source.0), source: error.without_url() })?;
    let attempt = || fetch(&client, source, dir, &begin, progress);
    runtime.block_on(async {
        attempt
            .retry(retry.backoff())
            .when(DownloadError::is_transient)
            .notify(|error, retry_in| tracing::warn!(%error, ?retry_in, "Download failed; retrying."))
            .await
    })
}

/// One try: what came, of bounded size, its hash compared.
async fn fetch<F: Write>(
    client: &Client,
    (source, limit): (&HttpSource, u64),
    dir: &Path,
    begin: impl Fn() -> io::Result<F>,
    progress: &dyn Fn(u64, Option<u64>),
) -> Result<F, DownloadError> {
    let url = || shown(source);
    let answer = client.get(&source.url).send().await;
    let mut answer =
        answer.map_err(|error| DownloadError::Request { url: url(), source: error.without_url() })?;
    if !answer.status().is_success() {
        return Err(DownloadError::Status { url: url(), status: answer.status() });
    }
    let size = answer.content_length();
    let too_large = || DownloadError::TooLarge { url: url(), limit };
    if size.is_some_and(|size| size > limit) {
        return Err(too_large());
    }
    let mut file = begin().map_err(writing(dir))?;
    let (mut hash, mut received) = (Sha256::new(), 0);
    loop {
        let block = answer.chunk().await.map_err(|error| DownloadError::Interrupted {
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
        file.write_all(&block).map_err(writing(dir))?;
        progress(received, size);
    }
    let found = hex::encode(hash.finalize());
    if found != source.sha256 {
        return Err(DownloadError::Hash { url: url(), expected: source.sha256.clone(), found });
    }
    Ok(file)
}
