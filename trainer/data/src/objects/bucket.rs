//! Downloads the objects of a data set from a bucket.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read},
    path::{Path, PathBuf},
};

use backon::{BackoffBuilder, Retryable};
use datjob_api::training::ObjectStoreSource;
use futures::StreamExt;
use object_store::{
    ClientOptions, GetOptions, GetRange, ObjectStore, RetryConfig,
    aws::{AmazonS3, AmazonS3Builder},
    path::Path as Location,
};
use sha2::{Digest, Sha256};

use super::{Credentials, ObjectsError, PARTIAL_PREFIX, TotalProgress, write_error};
use crate::{RetryPolicy, storage};

mod list;

/// The region if the manifest does not set one.
const DEFAULT_REGION: &str = "us-east-1";

/// An object of a data set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct DatasetObject {
    location: Location,
    pub(super) size: u64,
    e_tag: Option<String>,
    /// The path of its file relative to the data directory.
    target: PathBuf,
    /// Its SHA-256 in `SHA256SUMS`.
    sha256: Option<String>,
}

/// A bucket and the directory for its objects.
pub(super) struct Bucket {
    store: AmazonS3,
    name: String,
    prefix: Location,
    dir: PathBuf,
    retry: RetryPolicy,
    pub(super) progress: TotalProgress,
}

impl Bucket {
    pub(super) fn new(
        source: &ObjectStoreSource,
        credentials: Option<&Credentials>,
        dir: &Path,
        retry: RetryPolicy,
        progress: TotalProgress,
    ) -> Result<Self, ObjectsError> {
        crate::http::install_tls_provider();
        let client_error = |error| ObjectsError::Client { url: source.url.clone(), source: error };
        let (bucket, prefix) = source.bucket_and_prefix().ok_or_else(|| ObjectsError::Object {
            url: source.url.clone(),
            problem: "invalid S3 URL; expected s3://bucket/prefix".to_owned(),
        })?;
        let client = ClientOptions::new()
            .with_allow_http(source.endpoint.as_ref().is_some_and(|endpoint| endpoint.starts_with("http://")))
            .with_connect_timeout(retry.timeout)
            .with_read_timeout(retry.timeout)
            // The download of a large object has no time limit.
            .with_timeout_disabled();
        let builder = AmazonS3Builder::new()
            .with_client_options(client)
            // `fetch` retries, and resumes at the last byte received.
            .with_retry(RetryConfig { max_retries: 0, ..RetryConfig::default() })
            .with_bucket_name(bucket)
            .with_region(source.region.as_deref().unwrap_or(DEFAULT_REGION));
        let builder = match &source.endpoint {
            Some(endpoint) => builder.with_endpoint(endpoint.trim_end_matches('/')),
            None => builder,
        };
        let builder = match credentials {
            Some(Credentials { access_key_id, secret_access_key }) => {
                builder.with_access_key_id(access_key_id).with_secret_access_key(secret_access_key)
            }
            None => builder.with_skip_signature(true),
        };
        let prefix = Location::parse(prefix)
            .map_err(|error| client_error(object_store::Error::InvalidPath { source: error }))?;
        let store = builder.build().map_err(client_error)?;
        Ok(Self { store, name: bucket.to_owned(), prefix, dir: dir.to_owned(), retry, progress })
    }

    fn url(&self, object: &Location) -> String {
        format!("s3://{}/{object}", self.name)
    }

    fn store_error(&self, object: &Location, source: object_store::Error) -> ObjectsError {
        ObjectsError::Store { url: self.url(object), source }
    }

    /// Calls `request`, and retries it after transient errors.
    pub(super) async fn with_retries<T, R: Future<Output = Result<T, ObjectsError>>>(
        &self,
        request: impl Fn() -> R,
    ) -> Result<T, ObjectsError> {
        request
            .retry(self.retry.backoff())
            .when(ObjectsError::is_transient)
            .notify(|error, retry_in| {
                tracing::warn!(%error, ?retry_in, "Object store request failed; retrying.");
                self.progress.retrying(error, retry_in);
            })
            .await
    }

    /// Downloads an object, unless its file exists.
    pub(super) async fn fetch(&self, object: &DatasetObject) -> Result<(), ObjectsError> {
        let path = self.dir.join(&object.target);
        if fs::metadata(&path).is_ok_and(|file| file.is_file() && file.len() == object.size) {
            match self.verify(object, &path).await {
                Err(ObjectsError::HashMismatch { .. }) => {
                    fs::remove_file(&path).map_err(write_error(&path))?;
                }
                result => return result.inspect(|()| self.progress.advance(object.size)),
            }
        }
        if let Some(parent) = path.parent() {
            storage::retry_on("create", parent, || fs::create_dir_all(parent))
                .map_err(write_error(parent))?;
        }
        let partial = self.dir.join(partial_name(object));
        self.fetch_rest(object, &partial).await?;
        if let Err(error) = self.verify(object, &partial).await {
            fs::remove_file(&partial).map_err(write_error(&partial))?;
            return Err(error);
        }
        storage::retry_on("write", &path, || fs::rename(&partial, &path)).map_err(write_error(&path))
    }

    /// Downloads the rest of a partial file. Only attempts without progress count.
    async fn fetch_rest(&self, object: &DatasetObject, partial: &Path) -> Result<(), ObjectsError> {
        let open = || OpenOptions::new().create(true).append(true).open(partial);
        let mut file = storage::retry_on("open", partial, open).map_err(write_error(partial))?;
        let length = |file: &File| file.metadata().map(|file| file.len()).map_err(write_error(partial));
        let mut delays = self.retry.backoff().build();
        self.progress.advance(length(&file)?.min(object.size));
        loop {
            let offset = length(&file)?;
            if offset >= object.size {
                break;
            }
            match self.append(object, offset, &mut file, partial).await {
                Ok(()) => {}
                Err(error) if error.is_transient() => {
                    if length(&file)? > offset {
                        delays = self.retry.backoff().build();
                    }
                    let Some(retry_in) = delays.next() else { return Err(error) };
                    tracing::warn!(%error, ?retry_in, "Download of an object failed; retrying.");
                    self.progress.retrying(&error, retry_in);
                    tokio::time::sleep(retry_in).await;
                }
                Err(error) => return Err(error),
            }
        }
        match length(&file)? {
            size if size == object.size => Ok(()),
            received => {
                fs::remove_file(partial).map_err(write_error(partial))?;
                Err(ObjectsError::Size { url: self.url(&object.location), size: object.size, received })
            }
        }
    }

    /// Sends one request for the bytes from `offset` on and appends them to the file.
    async fn append(
        &self,
        object: &DatasetObject,
        offset: u64,
        file: &mut File,
        path: &Path,
    ) -> Result<(), ObjectsError> {
        let store_error = |error| self.store_error(&object.location, error);
        let options = GetOptions {
            range: (offset > 0).then_some(GetRange::Offset(offset)),
            if_match: object.e_tag.clone(),
            ..GetOptions::default()
        };
        let response = self.store.get_opts(&object.location, options).await.map_err(store_error)?;
        let mut received = offset;
        let mut body = response.into_stream();
        while let Some(bytes) = body.next().await {
            let bytes = bytes.map_err(store_error)?;
            received += bytes.len() as u64;
            if received > object.size {
                let (url, size) = (self.url(&object.location), object.size);
                return Err(ObjectsError::Size { url, size, received });
            }
            storage::write_all(file, path, &bytes).map_err(write_error(path))?;
            self.progress.advance(bytes.len() as u64);
        }
        if received < object.size {
            let (url, size) = (self.url(&object.location), object.size);
            return Err(ObjectsError::Size { url, size, received });
        }
        Ok(())
    }

    /// Verifies a file, if the object has a checksum.
    async fn verify(&self, object: &DatasetObject, path: &Path) -> Result<(), ObjectsError> {
        let Some(expected) = object.sha256.clone() else { return Ok(()) };
        let file = path.to_owned();
        let found = tokio::task::spawn_blocking(move || sha256(&file))
            .await
            .map_err(|error| ObjectsError::Runtime(io::Error::other(error)))?
            .map_err(write_error(path))?;
        if found == expected {
            return Ok(());
        }
        Err(ObjectsError::HashMismatch { url: self.url(&object.location), expected, found })
    }
}

/// The SHA-256 of a file, in hexadecimal.
fn sha256(path: &Path) -> io::Result<String> {
    let mut file = File::open(path)?;
    let (mut hash, mut block) = (Sha256::new(), vec![0; 1 << 16]);
    loop {
        match file.read(&mut block)? {
            0 => return Ok(hex::encode(hash.finalize())),
            count => hash.update(&block[..count]),
        }
    }
}

/// The name of the partial file of an object. Each version of the object has a different name.
fn partial_name(object: &DatasetObject) -> String {
    let mut hash = Sha256::new();
    hash.update(object.location.as_ref());
    hash.update([0]);
    hash.update(object.size.to_le_bytes());
    hash.update(object.e_tag.as_deref().unwrap_or_default());
    format!("{PARTIAL_PREFIX}{}", hex::encode(&hash.finalize()[..16]))
}
