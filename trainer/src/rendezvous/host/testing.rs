//! A rendezvous on a volume that answers when a test says so.

use std::{
    net::Ipv4Addr,
    sync::{Arc, Mutex, mpsc},
    time::Duration,
};

use datjob_api::report::Failure;
use datjob_c10d::TcpStore;
use datjob_data::files::FileError;

use super::{Host, Options, recording::Volume};
use crate::rendezvous::{
    Heartbeat, State,
    generation_file::RecordGeneration,
    quorum::Quorum,
    verdict_file::{RecordFailure, Recorded, VerdictError},
};

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

impl RecordFailure for StalledVolume {
    fn record(&self, failure: &Failure) -> Result<Recorded, VerdictError> {
        self.0.lock().unwrap().recv_timeout(PATIENCE).unwrap_or(Ok(()))?;
        Ok(Recorded::Failure(failure.clone()))
    }
}

/// A volume that records every failure at once.
#[derive(Debug)]
struct ReadyVolume;

impl RecordFailure for ReadyVolume {
    fn record(&self, failure: &Failure) -> Result<Recorded, VerdictError> {
        Ok(Recorded::Failure(failure.clone()))
    }
}

impl RecordGeneration for ReadyVolume {
    fn record(&self, _generation: u32) -> Result<(), FileError> {
        Ok(())
    }
}

/// Options of the rendezvous of job "uid" with this number of pods, in attempt 1.
pub(crate) fn options(pods: u32) -> Options {
    Options {
        job_uid: "uid".into(),
        attempt: 1,
        pods,
        bind: Ipv4Addr::LOCALHOST.into(),
        store_port: 0,
        training_hash: None,
        token: None,
        retries_pods: false,
    }
}

fn host(options: &Options, volume: Volume) -> Arc<Host> {
    let store = TcpStore::host(options.bind, options.store_port, PATIENCE).unwrap();
    Arc::new(Host::new(options, Quorum::new(options.pods, 0), volume, store))
}

/// The rendezvous of [`options`]. Each write of a generation waits for its result.
pub(crate) fn host_on_stalled_volume(pods: u32) -> (Arc<Host>, mpsc::Sender<Result<(), FileError>>) {
    let (results, receiver) = mpsc::channel();
    let generation = Box::new(StalledVolume(Mutex::new(receiver)));
    (host(&options(pods), Volume { generation, verdict: Box::new(ReadyVolume) }), results)
}

/// The rendezvous of [`options`], on a volume that records everything at once.
pub(crate) fn host_with(options: &Options) -> Arc<Host> {
    host(options, Volume { generation: Box::new(ReadyVolume), verdict: Box::new(ReadyVolume) })
}

/// The rendezvous of [`options`]. Each write of a failure waits for its result.
pub(crate) fn host_with_stalled_verdicts(pods: u32) -> (Arc<Host>, mpsc::Sender<Result<(), FileError>>) {
    let (results, receiver) = mpsc::channel();
    let verdict = Box::new(StalledVolume(Mutex::new(receiver)));
    (host(&options(pods), Volume { generation: Box::new(ReadyVolume), verdict }), results)
}

/// The heartbeat of a pod that has its data and no workers yet.
pub(crate) fn heartbeat(pod: u32, pod_uid: &str) -> Heartbeat {
    Heartbeat {
        pod,
        pod_uid: pod_uid.into(),
        incarnation: 1,
        sequence: 0,
        attempt: 1,
        job_uid: "uid".into(),
        state: State::Idle { ended: None },
        trains: false,
        preparation: None,
        storage: None,
        wait: None,
        failure: None,
    }
}
