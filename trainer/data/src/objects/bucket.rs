//! The objects of a data set in a bucket, and bringing one to its place.

use std::{
    collections::BTreeMap,
    fs::{self, File, OpenOptions},
    io::{self, Read, Write},
    path::{Path, PathBuf},
};

use backon::{BackoffBuilder, Retryable};
use datjob_api::training::{Dataset, ObjectStoreSource};
use futures::StreamExt;
use object_store::{
    ClientOptions, GetOptions, GetRange, ObjectMeta, ObjectStore, ObjectStoreExt, RetryConfig,
    aws::{AmazonS3, AmazonS3Builder},
    path::Path as Location,
};
use sha2::{Digest, Sha256};

use super::{Credentials, ObjectsError, PARTIAL, sums::Sums, writing};
use crate::{RetryPolicy, image_folder, names};

/// Most objects of a data set; ImageNet has 1.3 million images.
const OBJECT_LIMIT: usize = 20_000_000;
/// Most bytes of `SHA256SUMS`.
const SUMS_LIMIT: u64 = 2 << 30;
/// The object with the sums.
const SUMS: &str = "SHA256SUMS";
/// The region where the manifest names none.
const REGION: &str = "us-east-1";

/// An object to fetch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Wanted {
    object: Location,
    pub(super) size: u64,
    e_tag: Option<String>,
    /// Where it belongs below the data directory.
    place: PathBuf,
    /// What `SHA256SUMS` says of it.
    sha256: Option<String>,
}

/// A bucket, and where its objects are put.
pub(super) struct Bucket {
    store: AmazonS3,
    name: String,
    prefix: Location,
    dir: PathBuf,
    retry: RetryPolicy,
}

impl Bucket {
    pub(super) fn new(
        source: &ObjectStoreSource,
        credentials: Option<&Credentials>,
        dir: &Path,
        retry: RetryPolicy,
    ) -> Result<Self, ObjectsError> {
        crate::http::install_tls_provider();
        let unusable = |error| ObjectsError::Client { url: source.url.clone(), source: error };
        let (bucket, prefix) = source.bucket_and_prefix().ok_or_else(|| ObjectsError::Object {
            url: source.url.clone(),
            problem: "invalid S3 URL; expected s3://bucket/prefix".to_owned(),
        })?;
        let client = ClientOptions::new()
            .with_allow_http(source.endpoint.as_ref().is_some_and(|endpoint| endpoint.starts_with("http://")))
            .with_connect_timeout(retry.timeout)
            .with_read_timeout(retry.timeout)
            // A large object takes as long as it takes.
            .with_timeout_disabled();
        let builder = AmazonS3Builder::new()
            .with_client_options(client)
            // What failed is tried again from the byte where it ended, by `fetch`.
            .with_retry(RetryConfig { max_retries: 0, ..RetryConfig::default() })
            .with_bucket_name(bucket)
            .with_region(source.region.as_deref().unwrap_or(REGION));
        let builder = match &source.endpoint {
            Some(endpoint) => builder.with_endpoint(endpoint.trim_end_matches('/')),
            None => builder,
        };
        let builder = match credentials {
            Some(Credentials { key, secret }) => {
                builder.with_access_key_id(key).with_secret_access_key(secret)
            }
            None => builder.with_skip_signature(true),
        };
        let prefix = Location::parse(prefix)
            .map_err(|error| unusable(object_store::Error::InvalidPath { source: error }))?;
        let store = builder.build().map_err(unusable)?;
        Ok(Self { store, name: bucket.to_owned(), prefix, dir: dir.to_owned(), retry })
    }

    fn url(&self, object: &Location) -> String {
        format!("s3://{}/{object}", self.name)
    }

    fn failed(&self, object: &Location, source: object_store::Error) -> ObjectsError {
        ObjectsError::Store { url: self.url(object), source }
    }

    /// The data set's objects, with their sums.
    pub(super) async fn wanted(&self, dataset: Dataset) -> Result<Vec<Wanted>, ObjectsError> {
        let mut listed = self.store.list(Some(&self.prefix));
        let mut sums = Sums::default();
        let mut objects: BTreeMap<String, Wanted> = BTreeMap::new();
        let mut places: BTreeMap<PathBuf, String> = BTreeMap::new();
        while let Some(meta) = listed.next().await {
            let meta = meta.map_err(|error| self.failed(&self.prefix, error))?;
            let Some(name) = self.below_prefix(&meta.location) else { continue };
            if name == SUMS {
                sums = self.sums(&meta).await?;
                continue;
            }
            let Some(place) = names::place(dataset, &name) else { continue };
            let refused = |problem| ObjectsError::Object { url: self.url(&meta.location), problem };
            if names::is_misplaced(dataset, &place) {
                return Err(refused(image_folder::NO_JPEG.to_owned()));
            }
            let limit = names::file_limit(dataset);
            if meta.size > limit {
                return Err(refused(format!("too large: {} bytes; must be at most {limit}", meta.size)));
            }
            if let Some(other) = places.insert(place.clone(), name.clone()) {
                let path = place.display();
                return Err(refused(format!(
                    "duplicate of {other}; both are the file {path} of the data set"
                )));
            }
            if objects.len() == OBJECT_LIMIT {
                return Err(refused(format!("too many objects: a data set has at most {OBJECT_LIMIT}")));
            }
            let ObjectMeta { location: object, size, e_tag, .. } = meta;
            objects.insert(name, Wanted { object, size, e_tag, place, sha256: None });
        }
        for name in sums.names().filter(|name| names::place(dataset, name).is_some()) {
            let Some(object) = objects.get_mut(name) else {
                let problem = format!("the listed object {name} does not exist");
                return Err(ObjectsError::Sums { url: self.url(&self.prefix.clone().join(SUMS)), problem });
            };
            object.sha256 = sums.of(name).map(str::to_owned);
        }
        Ok(objects.into_values().collect())
    }

    /// The path of an object below the prefix.
    fn below_prefix(&self, object: &Location) -> Option<String> {
        let parts: Vec<_> = object.prefix_match(&self.prefix)?.collect();
        Some(parts.iter().map(AsRef::as_ref).collect::<Vec<&str>>().join("/"))
    }

    async fn sums(&self, meta: &ObjectMeta) -> Result<Sums, ObjectsError> {
        let unusable = |problem| ObjectsError::Sums { url: self.url(&meta.location), problem };
        if meta.size > SUMS_LIMIT {
            return Err(unusable(format!("too large: {} bytes; must be at most {SUMS_LIMIT}", meta.size)));
        }
        let failed = |error| self.failed(&meta.location, error);
        let bytes = self.store.get_range(&meta.location, 0..meta.size.max(1)).await.map_err(failed)?;
        Sums::parse(&bytes).map_err(unusable)
    }

    /// Calls `request`, and retries it after transient errors.
    pub(super) async fn with_retries<T, R: Future<Output = Result<T, ObjectsError>>>(
        &self,
        request: impl Fn() -> R,
    ) -> Result<T, ObjectsError> {
        request
            .retry(self.retry.backoff())
            .when(ObjectsError::is_transient)
            .notify(
                |error, retry_in| tracing::warn!(%error, ?retry_in, "Object store request failed; retrying."),
            )
            .await
    }

    /// Brings an object to its place, unless it is there.
    pub(super) async fn fetch(&self, wanted: &Wanted) -> Result<(), ObjectsError> {
        let target = self.dir.join(&wanted.place);
        if fs::metadata(&target).is_ok_and(|file| file.is_file() && file.len() == wanted.size) {
            match self.verify(wanted, &target).await {
                Err(ObjectsError::Hash { .. }) => fs::remove_file(&target).map_err(writing(&target))?,
                verified => return verified,
            }
        }
        if let Some(parent) = target.parent() {
            fs::create_dir_all(parent).map_err(writing(parent))?;
        }
        let partial = self.dir.join(partial_name(wanted));
        self.complete(wanted, &partial).await?;
        if let Err(error) = self.verify(wanted, &partial).await {
            fs::remove_file(&partial).map_err(writing(&partial))?;
            return Err(error);
        }
        fs::rename(&partial, &target).map_err(writing(&target))
    }

    /// Downloads the rest of a partial file. Only attempts without progress count.
    async fn complete(&self, wanted: &Wanted, partial: &Path) -> Result<(), ObjectsError> {
        let mut file =
            OpenOptions::new().create(true).append(true).open(partial).map_err(writing(partial))?;
        let length = |file: &File| file.metadata().map(|file| file.len()).map_err(writing(partial));
        let mut delays = self.retry.backoff().build();
        loop {
            let begin = length(&file)?;
            if begin >= wanted.size {
                break;
            }
            match self.append(wanted, begin, &mut file, partial).await {
                Ok(()) => {}
                Err(error) if error.is_transient() => {
                    if length(&file)? > begin {
                        delays = self.retry.backoff().build();
                    }
                    let Some(retry_in) = delays.next() else { return Err(error) };
                    tracing::warn!(%error, ?retry_in, "Download of an object failed; retrying.");
                    tokio::time::sleep(retry_in).await;
                }
                Err(error) => return Err(error),
            }
        }
        match length(&file)? {
            size if size == wanted.size => Ok(()),
            received => {
                fs::remove_file(partial).map_err(writing(partial))?;
                Err(ObjectsError::Size { url: self.url(&wanted.object), size: wanted.size, received })
            }
        }
    }

    /// One request: the object's bytes from `begin` on.
    async fn append(
        &self,
        wanted: &Wanted,
        begin: u64,
        file: &mut File,
        path: &Path,
    ) -> Result<(), ObjectsError> {
        let failed = |error| self.failed(&wanted.object, error);
        let options = GetOptions {
            range: (begin > 0).then_some(GetRange::Offset(begin)),
            if_match: wanted.e_tag.clone(),
            ..GetOptions::default()
        };
        let answer = self.store.get_opts(&wanted.object, options).await.map_err(failed)?;
        let mut received = begin;
        let mut body = answer.into_stream();
        while let Some(bytes) = body.next().await {
            let bytes = bytes.map_err(failed)?;
            received += bytes.len() as u64;
            if received > wanted.size {
                let (url, size) = (self.url(&wanted.object), wanted.size);
                return Err(ObjectsError::Size { url, size, received });
            }
            file.write_all(&bytes).map_err(writing(path))?;
        }
        if received < wanted.size {
            let (url, size) = (self.url(&wanted.object), wanted.size);
            return Err(ObjectsError::Size { url, size, received });
        }
        Ok(())
    }

    /// Compares a file with its sum, where there is one.
    async fn verify(&self, wanted: &Wanted, path: &Path) -> Result<(), ObjectsError> {
        let Some(expected) = wanted.sha256.clone() else { return Ok(()) };
        let file = path.to_owned();
        let found = tokio::task::spawn_blocking(move || sha256(&file))
            .await
            .map_err(|error| ObjectsError::Start(io::Error::other(error)))?
            .map_err(writing(path))?;
        if found == expected {
            return Ok(());
        }
        Err(ObjectsError::Hash { url: self.url(&wanted.object), expected, found })
    }
}

/// SHA-256 of a file, in hexadecimal.
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

/// A name for what of an object has come; another version of it has another.
fn partial_name(wanted: &Wanted) -> String {
    let mut hash = Sha256::new();
    hash.update(wanted.object.as_ref());
    hash.update([0]);
    hash.update(wanted.size.to_le_bytes());
    hash.update(wanted.e_tag.as_deref().unwrap_or_default());
    format!("{PARTIAL}{}", hex::encode(&hash.finalize()[..16]))
}
