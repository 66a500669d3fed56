//! Downloads the objects of a data set from S3 or an S3-compatible store.
//!
//! `dataset_files` gives the target path of each object below the prefix. An object is skipped if its file exists with the
//! same size, and an interrupted download resumes. If `SHA256SUMS` exists directly below the prefix, all files are
//! verified, existing ones included. A marker file records that the download is complete.

use std::{
    env,
    fs::{self, File},
    io,
    path::Path,
    sync::Arc,
};

use datjob_api::{
    contract::ENV_AWS,
    training::{Dataset, ObjectStoreSource},
};
use futures::{StreamExt, TryStreamExt, stream};
use sha2::{Digest, Sha256};

mod bucket;
pub(super) mod checksums;
mod error;
mod progress;

pub use error::ObjectsError;

use super::{DownloadObserver, RetryPolicy, dataset_files, origin, storage};
use bucket::Bucket;
use progress::TotalProgress;

/// Maximum number of concurrent downloads.
const CONCURRENT_DOWNLOADS: usize = 16;
/// Prefix of the names of marker files.
const MARKER_PREFIX: &str = ".fetched-";
/// Prefix of the names of partial files.
const PARTIAL_PREFIX: &str = ".partial-";

/// An access key of an object store.
#[derive(Clone)]
pub struct Credentials {
    /// The access key ID.
    pub access_key_id: String,
    /// The secret access key.
    pub secret_access_key: String,
}

impl Credentials {
    /// Reads the credentials from the environment, if the source names a secret.
    pub fn from_environment(source: &ObjectStoreSource) -> Result<Option<Self>, ObjectsError> {
        if source.secret_name.is_none() {
            return Ok(None);
        }
        let [id, secret] = ENV_AWS.map(|name| env::var(name).ok().filter(|value| !value.is_empty()));
        let both = id.zip(secret);
        both.map(|(access_key_id, secret_access_key)| Some(Self { access_key_id, secret_access_key }))
            .ok_or(ObjectsError::MissingCredentials)
    }
}

/// Downloads the objects of the data set below the prefix into the existing folder `dir`. Requests are signed if there are
/// credentials. Does nothing if an earlier download is complete. Returns a warning, if objects that may be data were skipped.
/// `observer` receives the bytes on disk and transient errors. Blocks: run it on a separate thread.
pub fn fetch(
    dataset: Dataset,
    source: &ObjectStoreSource,
    credentials: Option<&Credentials>,
    dir: &Path,
    retry: RetryPolicy,
    observer: Arc<dyn DownloadObserver>,
) -> Result<Option<String>, ObjectsError> {
    let identity = source_id(dataset, source);
    if !origin::accepts_source(dir, &identity).map_err(write_error(dir))? {
        return Err(ObjectsError::OtherSource { dir: dir.to_owned() });
    }
    let marker = dir.join(format!("{MARKER_PREFIX}{identity}"));
    if marker.exists() && dataset_files::check_complete(dataset, dir).is_ok() {
        return Ok(None);
    }
    let bucket = Arc::new(Bucket::new(source, credentials, dir, retry, TotalProgress::new(observer))?);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .thread_name("objects")
        .worker_threads(4)
        .enable_all()
        .build()
        .map_err(ObjectsError::Runtime)?;
    let skipped = runtime.block_on(async {
        let (objects, skipped) = bucket.with_retries(|| bucket.list_objects(dataset)).await?;
        let bytes: u64 = objects.iter().map(|object| object.size).sum();
        tracing::info!(objects = objects.len(), bytes, "Downloading the data set.");
        bucket.progress.begin(bytes);
        if !objects.is_empty() {
            storage::retry_on("write", dir, || origin::record_source(dir, &identity))
                .map_err(write_error(dir))?;
        }
        let fetch = |object| {
            let bucket = Arc::clone(&bucket);
            // One task per object, so that the threads share the work.
            async move {
                let task = tokio::spawn(async move { bucket.fetch(&object).await });
                task.await.map_err(|error| ObjectsError::Runtime(io::Error::other(error)))?
            }
        };
        stream::iter(objects.into_iter().map(fetch))
            .buffer_unordered(CONCURRENT_DOWNLOADS)
            .try_collect::<()>()
            .await?;
        Ok::<_, ObjectsError>(skipped)
    })?;
    dataset_files::check_complete(dataset, dir)
        .map_err(|error| ObjectsError::Incomplete { url: source.url.clone(), source: error })?;
    remove_partials(dir).map_err(write_error(dir))?;
    storage::retry_on("create", &marker, || File::create(&marker)).map_err(write_error(&marker))?;
    Ok(skipped.report(dataset, dataset_files::layout_description(dataset)))
}

/// Removes partial files of objects that were replaced in the store during the download.
fn remove_partials(dir: &Path) -> io::Result<()> {
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        if entry.file_name().to_string_lossy().starts_with(PARTIAL_PREFIX) {
            fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

/// A hash that identifies the data set and its source.
fn source_id(dataset: Dataset, source: &ObjectStoreSource) -> String {
    let endpoint = source.endpoint.as_deref().unwrap_or_default();
    let mut hash = Sha256::new();
    for part in [dataset.name(), &source.url, endpoint] {
        hash.update(part);
        hash.update([0]);
    }
    hex::encode(hash.finalize())
}

fn write_error(path: &Path) -> impl Fn(io::Error) -> ObjectsError {
    move |source| ObjectsError::Write { path: path.to_owned(), source }
}
