use std::{io, path::PathBuf};

use reqwest::StatusCode;
use thiserror::Error;

use crate::{
    DataError,
    http::{causes, is_untrusted_certificate},
    image_folder,
};

/// Why a data set could not be fetched; each sentence names the URL or the file.
#[derive(Debug, Error)]
pub enum DownloadError {
    /// No answer, or not one in HTTP.
    #[error("cannot download {url}: {}{}", causes(.source), certificate_advice(.source))]
    Request {
        /// What was asked for.
        url: String,
        /// What went wrong; without the URL, whose query may be secret.
        source: reqwest::Error,
    },
    /// The server refuses.
    #[error("cannot download {url}: HTTP status {status}{}", advice(*.status))]
    Status {
        /// What was asked for.
        url: String,
        /// The status and its usual name, as in `404 Not Found`.
        status: StatusCode,
    },
    /// The connection broke, or the server fell silent, before the archive was complete.
    #[error("cannot download {url}: interrupted after {received} bytes: {}", causes(.source))]
    Interrupted {
        /// What was asked for.
        url: String,
        /// Bytes that had come.
        received: u64,
        /// What went wrong.
        source: reqwest::Error,
    },
    /// The archive is too large.
    #[error("{url}: too large: must be at most {limit} bytes")]
    TooLarge {
        /// What was asked for.
        url: String,
        /// The bound.
        limit: u64,
    },
    /// Something else came than was asked for.
    #[error("{url}: SHA-256 mismatch: expected {expected} (http.sha256 in the spec), received {found}")]
    Hash {
        /// What was asked for.
        url: String,
        /// What the manifest says.
        expected: String,
        /// What came.
        found: String,
    },
    /// The archive is damaged or none.
    #[error("{url}: invalid tar or tar.gz archive: {source}")]
    Archive {
        /// Where it came from.
        url: String,
        /// What went wrong.
        source: io::Error,
    },
    /// A file in the archive is too large.
    #[error("{url}: {file} in the archive has {size} bytes; must be at most {limit}")]
    FileTooLarge {
        /// Where the archive came from.
        url: String,
        /// The file.
        file: String,
        /// Its size.
        size: u64,
        /// The bound.
        limit: u64,
    },
    /// What lies where images do is none.
    #[error("{url}: {file} in the archive: {}", image_folder::NO_JPEG)]
    NoImage {
        /// Where the archive came from.
        url: String,
        /// The file.
        file: String,
    },
    /// The archive lacks files of the data set.
    #[error("{url}: the archive is incomplete: {source}")]
    Incomplete {
        /// Where the archive came from.
        url: String,
        /// What is missing.
        source: DataError,
    },
    /// The archive holds more than one data set.
    #[error("{url}: {part} is in both {first:?} and {second:?}; the archive must contain only one data set")]
    Twice {
        /// Where the archive came from.
        url: String,
        /// A part of the data set.
        part: String,
        /// A folder that has it.
        first: String,
        /// Another one.
        second: String,
    },
    /// The directory has the files of another source.
    #[error("{}: contains data from another source; use another folder or empty this one", dir.display())]
    OtherSource {
        /// The directory.
        dir: PathBuf,
    },
    /// The directory cannot be written to.
    #[error("I/O error on {}: {source}", path.display())]
    Write {
        /// The file or directory.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// No runtime for the connection.
    #[error("cannot start the download: {0}")]
    Start(io::Error),
}

fn certificate_advice(error: &reqwest::Error) -> &'static str {
    if is_untrusted_certificate(error) {
        "; set the environment variable SSL_CERT_FILE to a file with the server's CA certificate"
    } else {
        ""
    }
}

fn advice(status: StatusCode) -> &'static str {
    match status.as_u16() {
        401 | 403 => "; the URL must be readable without credentials",
        400..=499 => "; check http.url in the spec",
        _ => "",
    }
}

impl DownloadError {
    /// Whether another try may bring what this one did not.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Request { source, .. } => {
                !(source.is_builder() || source.is_redirect() || is_untrusted_certificate(source))
            }
            Self::Status { status, .. } => status.is_server_error() || matches!(status.as_u16(), 408 | 429),
            Self::Interrupted { .. } => true,
            Self::TooLarge { .. }
            | Self::Hash { .. }
            | Self::Archive { .. }
            | Self::FileTooLarge { .. }
            | Self::NoImage { .. }
            | Self::Incomplete { .. }
            | Self::Twice { .. }
            | Self::OtherSource { .. }
            | Self::Write { .. }
            | Self::Start(_) => false,
        }
    }
}
