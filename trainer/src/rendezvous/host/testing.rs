//! A rendezvous on a volume that answers when a test says so.

use std::{
    net::Ipv4Addr,
    sync::{Arc, Mutex, mpsc},
    time::Duration,
};

use datjob_c10d::TcpStore;
use datjob_data::files::FileError;

use super::Host;
use crate::rendezvous::{Heartbeat, State, generation_file::RecordGeneration, quorum::Quorum};

/// How long a write waits for a test that says nothing.
const PATIENCE: Duration = Duration::from_secs(20);

/// Writes return what a test sends.
#[derive(Debug)]
struct StalledVolume(Mutex<mpsc::Receiver<Result<(), FileError>>>);

impl RecordGeneration for StalledVolume {
    fn record(&self, _generation: u32) -> Result<(), FileError> {
        self.0.lock().unwrap().recv_timeout(PATIENCE).unwrap_or(Ok(()))
    }
}

/// The rendezvous of job "uid" with this number of pods, in attempt 1. Each write of a generation waits for its result.
pub(crate) fn host_on_stalled_volume(pods: u32) -> (Arc<Host>, mpsc::Sender<Result<(), FileError>>) {
    let (results, receiver) = mpsc::channel();
    let store = TcpStore::host(Ipv4Addr::LOCALHOST.into(), 0, PATIENCE).unwrap();
    let volume = Box::new(StalledVolume(Mutex::new(receiver)));
    (Arc::new(Host::new("uid", 1, pods, Quorum::new(pods, 0), volume, store)), results)
}

/// The heartbeat of a pod that has its data and no workers yet.
pub(crate) fn heartbeat(pod: u32, pod_uid: &str) -> Heartbeat {
    Heartbeat {
        pod,
        pod_uid: pod_uid.into(),
        incarnation: 1,
        attempt: 1,
        job_uid: "uid".into(),
        state: State::Idle { ended: None },
        preparation: None,
        storage: None,
        wait: None,
        failure: None,
    }
}
