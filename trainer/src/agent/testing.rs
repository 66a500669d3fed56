//! The configuration of an agent in tests.

use std::{
    collections::BTreeMap,
    net::Ipv4Addr,
    path::{Path, PathBuf},
};

use super::{Config, Files, config::TrainingSource};

/// The configuration of pod 0 of two pods.
pub(super) fn config(directory: &Path) -> Config {
    Config {
        job_uid: "uid".into(),
        pod_uid: "pod".into(),
        address: Ipv4Addr::LOCALHOST.to_string(),
        pod_index: 0,
        replicas: 2,
        workers: 1,
        gpus: 0,
        attempt: 1,
        token: None,
        rendezvous_host: Ipv4Addr::LOCALHOST.to_string(),
        rendezvous_port: 0,
        store_bind: Ipv4Addr::LOCALHOST.into(),
        store_port: 0,
        training: TrainingSource::File(PathBuf::new()),
        data: directory.to_owned(),
        downloads: true,
        files: Files { mounted: None, given: BTreeMap::new(), downloaded: directory.to_owned() },
        checkpoints: directory.to_owned(),
        retries_pods: false,
        max_restarts: None,
    }
}
