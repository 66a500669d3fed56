//! Fetching a data set's objects from S3, or from a store that speaks its protocol.
//!
//! What lies below the prefix is put where [`names`] says. An object whose file is there with its size is not fetched
//! again; what broke off goes on where it ended. `SHA256SUMS`, where it lies directly below the prefix, is believed over
//! what is there. A marker tells that all was fetched.

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
mod error;
pub(super) mod sums;

pub use error::ObjectsError;

use super::{RetryPolicy, names, origin};
use bucket::Bucket;

/// Objects that are fetched at the same time.
const AT_A_TIME: usize = 16;
/// How the names of markers begin.
const MARKER: &str = ".fetched-";
/// How the names of files that are not complete begin.
const PARTIAL: &str = ".partial-";

/// A key of an object store.
#[derive(Clone)]
pub struct Credentials {
    /// The key's public name.
    pub key: String,
    /// The secret.
    pub secret: String,
}

impl Credentials {
    /// Those of the environment, where the source says that there are some.
    pub fn from_environment(source: &ObjectStoreSource) -> Result<Option<Self>, ObjectsError> {
        if source.secret_name.is_none() {
            return Ok(None);
        }
        let [key, secret] = ENV_AWS.map(|name| env::var(name).ok().filter(|value| !value.is_empty()));
        let both = key.zip(secret).map(|(key, secret)| Self { key, secret });
        both.map(Some).ok_or(ObjectsError::NoCredentials)
    }
}

/// Fetches the data set's objects below the prefix into `dir`, which exists; requests are signed where there are
/// credentials. Does nothing where all was fetched before. Blocks; run it on a thread of its own.
pub fn fetch(
    dataset: Dataset,
    source: &ObjectStoreSource,
    credentials: Option<&Credentials>,
    dir: &Path,
    retry: RetryPolicy,
) -> Result<(), ObjectsError> {
    let identity = identity(dataset, source);
    if !origin::is_free_for(dir, &identity).map_err(writing(dir))? {
        return Err(ObjectsError::OtherSource { dir: dir.to_owned() });
    }
    let marker = dir.join(format!("{MARKER}{identity}"));
    if marker.exists() && names::complete(dataset, dir).is_ok() {
        return Ok(());
    }
    let bucket = Arc::new(Bucket::new(source, credentials, dir, retry)?);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .thread_name("objects")
        .worker_threads(4)
        .enable_all()
        .build()
        .map_err(ObjectsError::Start)?;
    runtime.block_on(async {
        let wanted = bucket.with_retries(|| bucket.wanted(dataset)).await?;
        let bytes: u64 = wanted.iter().map(|object| object.size).sum();
        tracing::info!(objects = wanted.len(), bytes, "Downloading the data set.");
        if !wanted.is_empty() {
            origin::claim(dir, &identity).map_err(writing(dir))?;
        }
        let fetching = |object| {
            let bucket = Arc::clone(&bucket);
            // A task each, so that they are spread over the threads.
            async move {
                let task = tokio::spawn(async move { bucket.fetch(&object).await });
                task.await.map_err(|error| ObjectsError::Start(io::Error::other(error)))?
            }
        };
        stream::iter(wanted.into_iter().map(fetching)).buffer_unordered(AT_A_TIME).try_collect::<()>().await
    })?;
    names::complete(dataset, dir)
        .map_err(|error| ObjectsError::Incomplete { url: source.url.clone(), source: error })?;
    remove_partials(dir).map_err(writing(dir))?;
    File::create(&marker).map(drop).map_err(writing(&marker))
}

/// Removes what came of objects that were replaced in the store meanwhile.
fn remove_partials(dir: &Path) -> io::Result<()> {
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        if entry.file_name().to_string_lossy().starts_with(PARTIAL) {
            fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

/// Names what is fetched from where.
fn identity(dataset: Dataset, source: &ObjectStoreSource) -> String {
    let endpoint = source.endpoint.as_deref().unwrap_or_default();
    let mut hash = Sha256::new();
    for part in [dataset.name(), &source.url, endpoint] {
        hash.update(part);
        hash.update([0]);
    }
    hex::encode(hash.finalize())
}

fn writing(path: &Path) -> impl Fn(io::Error) -> ObjectsError {
    move |source| ObjectsError::Write { path: path.to_owned(), source }
}
