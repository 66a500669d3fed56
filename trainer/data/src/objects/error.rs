//! Errors of downloads from object stores.

use std::{io, path::PathBuf};

use datjob_api::contract::ENV_AWS;
use thiserror::Error;

use crate::{
    DataError,
    http::{error_chain, is_untrusted_certificate},
};

/// A download from an object store failed. Each message names the object or the file.
#[derive(Debug, Error)]
pub enum ObjectsError {
    /// The credentials are missing in the environment.
    #[error(
        "spec.training.data.source.objectStore.secretName is set: the environment variables {} and {} must be set too",
        ENV_AWS[0],
        ENV_AWS[1]
    )]
    MissingCredentials,
    /// The S3 client cannot be created for this source.
    #[error("{url}: cannot create an S3 client: {}", error_chain(.source))]
    Client {
        /// Bucket and prefix.
        url: String,
        /// The problem.
        source: object_store::Error,
    },
    /// The directory has files of another source.
    #[error("{}: contains data from another source; use another folder or empty this one", dir.display())]
    OtherSource {
        /// The directory.
        dir: PathBuf,
    },
    /// A request to the store failed.
    #[error("cannot read {url}: {}{}", error_chain(.source), advice(.source))]
    Store {
        /// The object, or bucket and prefix.
        url: String,
        /// The cause.
        source: object_store::Error,
    },
    /// The number of bytes received is not the size of the object.
    #[error("{url}: expected {size} bytes, received {received}")]
    Size {
        /// The object.
        url: String,
        /// Its size in bytes.
        size: u64,
        /// Bytes received.
        received: u64,
    },
    /// The SHA-256 of an object does not match `SHA256SUMS`.
    #[error("{url}: SHA-256 mismatch: expected {expected} (SHA256SUMS), received {found}")]
    HashMismatch {
        /// The object.
        url: String,
        /// The SHA-256 in `SHA256SUMS`.
        expected: String,
        /// The SHA-256 of the content.
        found: String,
    },
    /// `SHA256SUMS` is invalid.
    #[error("{url}: {problem}")]
    Checksums {
        /// The object.
        url: String,
        /// The problem.
        problem: String,
    },
    /// An object is not valid in the data set.
    #[error("{url}: {problem}")]
    Object {
        /// The object, or bucket and prefix.
        url: String,
        /// The problem.
        problem: String,
    },
    /// Objects of the data set are missing.
    #[error("{url}: the data set is incomplete: {source}")]
    Incomplete {
        /// Bucket and prefix.
        url: String,
        /// The missing files.
        source: DataError,
    },
    /// The directory cannot be written to.
    #[error("I/O error on {}: {source}", path.display())]
    Write {
        /// The file or directory.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// The async runtime cannot be created, or a task failed.
    #[error("cannot download the objects: {0}")]
    Runtime(io::Error),
}

impl ObjectsError {
    /// Whether a retry may succeed.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Size { size, received, .. } => received < size,
            // Client errors are permanent, except "too many requests" and "request timeout".
            Self::Store { source: source @ object_store::Error::Generic { .. }, .. } => {
                !is_untrusted_certificate(source)
                    && http_status(source).is_none_or(|status| status >= 500 || matches!(status, 408 | 429))
            }
            _ => false,
        }
    }
}

/// The HTTP status of a failed request. The crate has error variants for requests of objects; for lists it has only the text.
fn http_status(error: &object_store::Error) -> Option<u16> {
    use object_store::Error;
    match error {
        Error::PermissionDenied { .. } => Some(403),
        Error::Unauthenticated { .. } => Some(401),
        Error::NotFound { .. } => Some(404),
        Error::Precondition { .. } => Some(412),
        _ => error_chain(error).split_once("status code: ")?.1.get(..3)?.parse().ok(),
    }
}

fn advice(error: &object_store::Error) -> &'static str {
    match http_status(error) {
        Some(401 | 403) => {
            "; the keys in spec.training.data.source.objectStore.secretName must allow s3:ListBucket and s3:GetObject"
        }
        Some(404) => "; check spec.training.data.source.objectStore.url",
        Some(412) => "; the object changed during the download",
        _ => "",
    }
}
