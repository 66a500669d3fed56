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
        "spec.training.data.source.objectStore.secretName is given, but the environment variables {} and {} are not set",
        ENV_AWS[0],
        ENV_AWS[1]
    )]
    NoCredentials,
    /// The source is none that can be asked.
    #[error("{url}: cannot be asked: {}", causes(.source))]
    Client {
        /// Bucket and prefix.
        url: String,
        /// What is wrong with it.
        source: object_store::Error,
    },
    /// The directory has the files of another source.
    #[error("{}: holds what was fetched from another source; name an empty folder, or empty this one", dir.display())]
    OtherSource {
        /// The directory.
        dir: PathBuf,
    },
    /// The store refuses, or does not answer.
    #[error("{url}: {}{}", causes(.source), advice(.source))]
    Store {
        /// The object, or bucket and prefix.
        url: String,
        /// What went wrong.
        source: object_store::Error,
    },
    /// The store sends something else than it announced.
    #[error("{url}: {size} bytes were announced, {received} came")]
    Size {
        /// The object.
        url: String,
        /// Its size.
        size: u64,
        /// Bytes that came.
        received: u64,
    },
    /// An object is not what `SHA256SUMS` says.
    #[error("{url}: its SHA-256 is {found}, SHA256SUMS says {expected}")]
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
    #[error("{url}: after fetching: {source}")]
    Incomplete {
        /// Bucket and prefix.
        url: String,
        /// What is missing.
        source: DataError,
    },
    /// The directory cannot be written to.
    #[error("{}: cannot be written: {source}", path.display())]
    Write {
        /// The file or directory.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// No threads can be had.
    #[error("the objects cannot be fetched: {0}")]
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
            "; the credentials of spec.training.data.source.objectStore.secretName must allow to list and to read"
        }
        Some(404) => "; look at spec.training.data.source.objectStore.url",
        Some(412) => "; the object has changed while it was fetched",
        _ => "",
    }
}
