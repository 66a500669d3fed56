//! Fetching a data set as an archive over HTTP(S).

use std::{path::Path, time::Duration};

use datjob_api::training::{Dataset, HttpSource};
use thiserror::Error;

/// Why a data set could not be fetched.
#[derive(Debug, Error)]
pub enum DownloadError {}

/// How often and how patiently a download is tried.
#[derive(Clone, Copy, Debug)]
pub struct Retries {
    /// Tries in all.
    pub tries: u32,
    /// The wait before the second try; each further one takes twice as long.
    pub wait: Duration,
    /// The longest silence of the server, also while connecting.
    pub silence: Duration,
}

/// Fetches.
pub fn download(
    _dataset: Dataset,
    _source: &HttpSource,
    _dir: &Path,
    _retries: Retries,
    _progress: &mut dyn FnMut(u64, Option<u64>),
) -> Result<(), DownloadError> {
    Ok(())
}
