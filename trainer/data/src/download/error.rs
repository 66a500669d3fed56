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
    #[error("{url}: {}{}", causes(.source), certificate_advice(.source))]
    Request {
        /// What was asked for.
        url: String,
        /// What went wrong; without the URL, whose query may be secret.
        source: reqwest::Error,
    },
    /// The server refuses.
    #[error("{url}: the server answers {status}{}", advice(*.status))]
    Status {
        /// What was asked for.
        url: String,
        /// The status and its usual name, as in `404 Not Found`.
        status: StatusCode,
    },
    /// The connection broke, or the server fell silent, before the archive was complete.
    #[error("{url}: broke off after {received} bytes: {}", causes(.source))]
    Interrupted {
        /// What was asked for.
        url: String,
        /// Bytes that had come.
        received: u64,
        /// What went wrong.
        source: reqwest::Error,
    },
    /// The archive is too large.
    #[error("{url}: the archive has more than {limit} bytes, no data set needs so many")]
    TooLarge {
        /// What was asked for.
        url: String,
        /// The bound.
        limit: u64,
    },
    /// Something else came than was asked for.
    #[error("{url}: its SHA-256 is {found}, the spec's sha256 says {expected}")]
    Hash {
        /// What was asked for.
        url: String,
        /// What the manifest says.
        expected: String,
        /// What came.
        found: String,
    },
    /// The archive is damaged or none.
    #[error("{url}: is no tar or tar.gz that can be unpacked: {source}")]
    Archive {
        /// Where it came from.
        url: String,
        /// What went wrong.
        source: io::Error,
    },
    /// A file in the archive is too large.
    #[error("{url}: {file} in it has {size} bytes, more than the {limit} that any file of the data set has")]
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
    #[error("{url}: {file} in it {}", image_folder::NO_JPEG)]
    NoImage {
        /// Where the archive came from.
        url: String,
        /// The file.
        file: String,
    },
    /// The archive lacks files of the data set.
    #[error("{url}: after unpacking: {source}")]
    Incomplete {
        /// Where the archive came from.
        url: String,
        /// What is missing.
        source: DataError,
    },
    /// The archive holds more than one data set.
    #[error("{url}: it has {part} in {first:?} and in {second:?}; make an archive of one data set")]
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
    #[error("{}: holds what was fetched from another source; name an empty folder, or empty this one", dir.display())]
    OtherSource {
        /// The directory.
        dir: PathBuf,
    },
    /// The directory cannot be written to.
    #[error("{}: cannot be written: {source}", path.display())]
    Write {
        /// The file or directory.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// No runtime for the connection.
    #[error("cannot start a download: {0}")]
    Start(io::Error),
}

fn certificate_advice(error: &reqwest::Error) -> &'static str {
    if is_untrusted_certificate(error) {
        "; name a file with its authority in the environment variable SSL_CERT_FILE"
    } else {
        ""
    }
}

fn advice(status: StatusCode) -> &'static str {
    match status.as_u16() {
        401 | 403 => "; the archive must be readable without credentials",
        400..=499 => "; look at the spec's url",
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
