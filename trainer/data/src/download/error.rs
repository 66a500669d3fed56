//! Errors of downloads over HTTP(S).

use std::{io, path::PathBuf};

use reqwest::StatusCode;
use thiserror::Error;

use crate::{
    DataError, Tally,
    http::{error_chain, is_untrusted_certificate},
    image_folder,
};

/// A download failed. Each message names the URL or the file.
#[derive(Debug, Error)]
pub enum DownloadError {
    /// The request failed: no response, or not an HTTP response.
    #[error("cannot download {url}: {}{}", error_chain(.source), certificate_advice(.source))]
    Request {
        /// The requested URL.
        url: String,
        /// The cause, without the URL, whose query may be secret.
        source: reqwest::Error,
    },
    /// The server responded with an error status.
    #[error("cannot download {url}: HTTP status {status}{}", advice(*.status))]
    Status {
        /// The requested URL.
        url: String,
        /// The status with its reason phrase, as in `404 Not Found`.
        status: StatusCode,
    },
    /// The connection failed or timed out before the archive was complete.
    #[error("cannot download {url}: interrupted after {received} bytes: {}", error_chain(.source))]
    Interrupted {
        /// The requested URL.
        url: String,
        /// Bytes received so far.
        received: u64,
        /// The cause.
        source: reqwest::Error,
    },
    /// The archive is too large.
    #[error("{url}: too large: must be at most {limit} bytes")]
    TooLarge {
        /// The requested URL.
        url: String,
        /// Maximum size in bytes.
        limit: u64,
    },
    /// The SHA-256 of the content does not match.
    #[error("{url}: SHA-256 mismatch: expected {expected} (http.sha256 in the spec), received {found}")]
    HashMismatch {
        /// The requested URL.
        url: String,
        /// The SHA-256 in the manifest.
        expected: String,
        /// The SHA-256 of the content.
        found: String,
    },
    /// The archive is corrupt, or the content is not an archive.
    #[error("{url}: invalid tar or tar.gz archive: {}", error_chain(.source))]
    Archive {
        /// The URL of the archive.
        url: String,
        /// The cause.
        source: io::Error,
    },
    /// A file in the archive is too large.
    #[error("{url}: {file} in the archive has {size} bytes; must be at most {limit}")]
    FileTooLarge {
        /// The URL of the archive.
        url: String,
        /// The file.
        file: String,
        /// Its size in bytes.
        size: u64,
        /// Maximum size in bytes.
        limit: u64,
    },
    /// A file among the images is not an image.
    #[error("{url}: {file} in the archive: {}", image_folder::UNEXPECTED_FILE)]
    UnexpectedFile {
        /// The URL of the archive.
        url: String,
        /// The file.
        file: String,
    },
    /// Links to files that the archive does not have.
    #[error(
        "{url}: {} links in the archive point to files that are not in it: {links}; replace them by files (tar \
         --dereference --hard-dereference)",
        links.count()
    )]
    Links {
        /// The URL of the archive.
        url: String,
        /// The links and where they point.
        links: Tally,
    },
    /// An entry in the place of a file of the data set that is not a file.
    #[error("{url}: {entry} in the archive: {problem}")]
    Entry {
        /// The URL of the archive.
        url: String,
        /// The entry.
        entry: String,
        /// The problem and its fix.
        problem: &'static str,
    },
    /// The archive lacks files of the data set.
    #[error("{url}: the archive is incomplete: {source}")]
    Incomplete {
        /// The URL of the archive.
        url: String,
        /// The missing files.
        source: DataError,
    },
    /// The archive holds more than one data set.
    #[error("{url}: {part} is in both {first:?} and {second:?}; the archive must contain only one data set")]
    DuplicatePart {
        /// The URL of the archive.
        url: String,
        /// The duplicate file or folder.
        part: String,
        /// A folder that contains it.
        first: String,
        /// Another folder that contains it.
        second: String,
    },
    /// The directory has files of another source.
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
        /// The cause.
        source: io::Error,
    },
    /// The async runtime cannot be created.
    #[error("cannot start the download: {0}")]
    Runtime(io::Error),
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
    /// Whether a retry may succeed.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Request { source, .. } => {
                !(source.is_builder() || source.is_redirect() || is_untrusted_certificate(source))
            }
            Self::Status { status, .. } => status.is_server_error() || matches!(status.as_u16(), 408 | 429),
            Self::Interrupted { .. } => true,
            Self::TooLarge { .. }
            | Self::HashMismatch { .. }
            | Self::Archive { .. }
            | Self::FileTooLarge { .. }
            | Self::UnexpectedFile { .. }
            | Self::Incomplete { .. }
            | Self::DuplicatePart { .. }
            | Self::OtherSource { .. }
            | Self::Write { .. }
            | Self::Links { .. }
            | Self::Entry { .. }
            | Self::Runtime(_) => false,
        }
    }
}
