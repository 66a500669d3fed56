use std::{io, path::PathBuf};

use datjob_api::contract::ENV_AWS;
use thiserror::Error;

use crate::{
    DataError,
    http::{causes, is_untrusted_certificate},
};

/// Why a data set could not be fetched from an object store; each sentence names the object or the file.
#[derive(Debug, Error)]
pub enum ObjectsError {
    /// The credentials are not there.
    #[error(
        "spec.training.data.source.objectStore.secretName is set: the environment variables {} and {} must be set too",
        ENV_AWS[0],
        ENV_AWS[1]
    )]
    NoCredentials,
    /// The source is none that can be asked.
    #[error("{url}: cannot create an S3 client: {}", causes(.source))]
    Client {
        /// Bucket and prefix.
        url: String,
        /// What is wrong with it.
        source: object_store::Error,
    },
    /// The directory has the files of another source.
    #[error("{}: contains data from another source; use another folder or empty this one", dir.display())]
    OtherSource {
        /// The directory.
        dir: PathBuf,
    },
    /// The store refuses, or does not answer.
    #[error("cannot read {url}: {}{}", causes(.source), advice(.source))]
    Store {
        /// The object, or bucket and prefix.
        url: String,
        /// What went wrong.
        source: object_store::Error,
    },
    /// The store sends something else than it announced.
    #[error("{url}: expected {size} bytes, received {received}")]
    Size {
        /// The object.
        url: String,
        /// Its size.
        size: u64,
        /// Bytes that came.
        received: u64,
    },
    /// An object is not what `SHA256SUMS` says.
    #[error("{url}: SHA-256 mismatch: expected {expected} (SHA256SUMS), received {found}")]
    Hash {
        /// The object.
        url: String,
        /// What `SHA256SUMS` says.
        expected: String,
        /// What came.
        found: String,
    },
    /// `SHA256SUMS` cannot be used.
    #[error("{url}: {problem}")]
    Sums {
        /// The object.
        url: String,
        /// What is wrong with it.
        problem: String,
    },
    /// An object cannot be one of the data set.
    #[error("{url}: {problem}")]
    Object {
        /// The object, or bucket and prefix.
        url: String,
        /// What is wrong with it.
        problem: String,
    },
    /// The objects do not make up the data set.
    #[error("{url}: the data set is incomplete: {source}")]
    Incomplete {
        /// Bucket and prefix.
        url: String,
        /// What is missing.
        source: DataError,
    },
    /// The directory cannot be written to.
    #[error("I/O error on {}: {source}", path.display())]
    Write {
        /// The file or directory.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// No threads can be had.
    #[error("cannot download the objects: {0}")]
    Start(io::Error),
}

impl ObjectsError {
    /// Whether another try may bring what this one did not.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Size { size, received, .. } => received < size,
            // A refusal stays one, but for "too many requests" and "request timeout".
            Self::Store { source: source @ object_store::Error::Generic { .. }, .. } => {
                !is_untrusted_certificate(source)
                    && status(source).is_none_or(|status| status >= 500 || matches!(status, 408 | 429))
            }
            _ => false,
        }
    }
}

/// The status of an answer that was no success. The crate tells it of objects by the kind of error, of lists by its words
/// alone.
fn status(error: &object_store::Error) -> Option<u16> {
    use object_store::Error;
    match error {
        Error::PermissionDenied { .. } => Some(403),
        Error::Unauthenticated { .. } => Some(401),
        Error::NotFound { .. } => Some(404),
        Error::Precondition { .. } => Some(412),
        _ => causes(error).split_once("status code: ")?.1.get(..3)?.parse().ok(),
    }
}

fn advice(error: &object_store::Error) -> &'static str {
    match status(error) {
        Some(401 | 403) => {
            "; the keys in spec.training.data.source.objectStore.secretName must allow s3:ListBucket and s3:GetObject"
        }
        Some(404) => "; check spec.training.data.source.objectStore.url",
        Some(412) => "; the object changed during the download",
        _ => "",
    }
}
