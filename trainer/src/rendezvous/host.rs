//! Pod 0's side of the rendezvous: the quorum, c10d's store, and the generation on disk.

use std::{
    net::IpAddr,
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use datjob_api::report::{Failure, FailureReason, Preparation, WaitingForStorage};
use datjob_c10d::{C10dError, TcpStore};

use super::{
    message::{Heartbeat, Reply, Verdict, World},
    preparation::Preparations,
    quorum::{Decision, Quorum},
};
use datjob_data::{
    files::{self, FileError},
    storage::{self, Wait},
};

/// How long an operation on the store may take on this end.
const STORE_TIMEOUT: Duration = Duration::from_mins(1);
/// The file in the job's checkpoint directory that holds the generation.
const GENERATION_FILE: &str = "generation";

/// The rendezvous of one job.
#[derive(Debug)]
pub struct Host {
    job_uid: String,
    attempt: u32,
    pods: u32,
    quorum: Mutex<Quorum>,
    preparations: Mutex<Preparations>,
    started: Instant,
    generation_file: PathBuf,
    /// While the generation cannot be recorded.
    generation_wait: Mutex<Option<Wait>>,
    store: TcpStore,
}

/// Why there can be no rendezvous.
#[derive(Debug, thiserror::Error)]
pub enum HostError {
    /// The checkpoint volume.
    #[error(transparent)]
    Files(#[from] FileError),
    /// The file with the generation holds something else.
    #[error("invalid generation {content:?} in {}: the checkpoint volume is corrupt", path.display())]
    Generation {
        /// The file.
        path: PathBuf,
        /// What it holds.
        content: String,
    },
    /// c10d's store.
    #[error(transparent)]
    Store(#[from] C10dError),
}

/// A heartbeat that is not of this job.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum Refused {
    /// Of another job.
    #[error("heartbeat of job {theirs} rejected: this rendezvous belongs to job {ours}")]
    OtherJob {
        /// The job of this rendezvous.
        ours: String,
        /// The job of the heartbeat.
        theirs: String,
    },
    /// Of another attempt.
    #[error("heartbeat of attempt {theirs} rejected: this rendezvous runs attempt {ours}")]
    OtherAttempt {
        /// The attempt of this rendezvous.
        ours: u32,
        /// The attempt of the heartbeat.
        theirs: u32,
    },
}

/// What the rendezvous knows, for reports.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// How many worlds were formed.
    pub generation: u32,
    /// The generation that runs now.
    pub running: Option<u32>,
    /// Number of pods with a recent heartbeat that have their data.
    pub joined: u32,
    /// Preparation of data by the pods.
    pub preparation: Option<Preparation>,
    /// Time since a pod last made progress in it.
    pub preparation_idle: Option<Duration>,
    /// The pods that wait for their storage.
    pub storage: Option<WaitingForStorage>,
    /// Why the last world ended.
    pub failure: Option<Failure>,
    /// How the job ended.
    pub verdict: Option<Verdict>,
}

impl Host {
    /// Opens the rendezvous of `pods` pods. `bind` and `store_port` are where c10d's store listens (port 0: any);
    /// `directory` is the job's checkpoint directory. Waits until its volume can be read.
    pub fn open(
        job_uid: &str,
        attempt: u32,
        pods: u32,
        bind: IpAddr,
        store_port: u16,
        directory: &Path,
    ) -> Result<Self, HostError> {
        let generation_file = directory.join(GENERATION_FILE);
        let generation = match storage::read_if_exists(&generation_file, 64)? {
            None => 0,
            Some(bytes) => {
                let content = String::from_utf8_lossy(&bytes).trim().to_owned();
                content
                    .parse()
                    .map_err(|_| HostError::Generation { path: generation_file.clone(), content })?
            }
        };
        Ok(Self {
            job_uid: job_uid.to_owned(),
            attempt,
            pods,
            quorum: Mutex::new(Quorum::new(pods, generation)),
            preparations: Mutex::default(),
            started: Instant::now(),
            generation_file,
            generation_wait: Mutex::default(),
            store: TcpStore::host(bind, store_port, STORE_TIMEOUT)?,
        })
    }

    /// Records a heartbeat and returns what the pod's workers should be doing.
    pub fn exchange(&self, heartbeat: &Heartbeat) -> Result<Reply, Refused> {
        if heartbeat.job_uid != self.job_uid {
            let (ours, theirs) = (self.job_uid.clone(), heartbeat.job_uid.clone());
            return Err(Refused::OtherJob { ours, theirs });
        }
        if heartbeat.attempt != self.attempt {
            return Err(Refused::OtherAttempt { ours: self.attempt, theirs: heartbeat.attempt });
        }
        let now = self.started.elapsed();
        let Heartbeat { pod, incarnation, .. } = *heartbeat;
        if pod < self.pods {
            self.preparations().record(now, pod, incarnation, heartbeat.preparation.as_ref());
        }
        let mut quorum = self.quorum();
        quorum.record_heartbeat(now, heartbeat);
        match quorum.decide(now) {
            Decision::Form(generation) => {
                self.preparations().clear();
                self.record(&mut quorum, generation, heartbeat);
            }
            // The pause after a generation that could not be recorded.
            Decision::Wait { missing } if missing.is_empty() => {}
            Decision::End { generation, reason } => {
                *self.generation_wait() = None;
                tracing::warn!(generation, reason, "World ended.");
            }
            Decision::Keep(_) | Decision::Wait { .. } | Decision::Over => *self.generation_wait() = None,
        }
        let world = quorum.running().map(|generation| World { generation, store_port: self.store.port() });
        Ok(Reply { world, verdict: quorum.verdict().cloned() })
    }

    /// Makes the generation durable before any pod receives it.
    fn record(&self, quorum: &mut Quorum, generation: u32, heartbeat: &Heartbeat) {
        let mut wait = self.generation_wait();
        let written = files::write_atomically(&self.generation_file, generation.to_string().as_bytes());
        match written.map_err(|error| (storage::trouble(&error), error)) {
            Ok(()) => {
                *wait = None;
                tracing::info!(generation, "World formed.");
            }
            Err((Some(trouble), _)) => {
                if let Some(wait) = &*wait {
                    wait.update(trouble);
                } else {
                    tracing::warn!("Storage fault: {}; retrying every second.", trouble.message);
                    *wait = Some(Wait::begin(trouble));
                }
                quorum.postpone(self.started.elapsed());
            }
            Err((None, error)) => {
                *wait = None;
                let failure = Failure::new(FailureReason::Data, error.to_string());
                quorum.record_heartbeat(
                    self.started.elapsed(),
                    &Heartbeat { failure: Some(failure), ..heartbeat.clone() },
                );
                quorum.decide(self.started.elapsed());
            }
        }
    }

    /// The results are durable: nothing more is to be done.
    pub fn succeed(&self) {
        self.quorum().succeed();
    }

    /// What the rendezvous knows now.
    pub fn snapshot(&self) -> Snapshot {
        let now = self.started.elapsed();
        let (preparation, last_progress) = {
            let preparations = self.preparations();
            (preparations.summary(now), preparations.last_progress())
        };
        let quorum = self.quorum();
        Snapshot {
            generation: quorum.generation(),
            running: quorum.running(),
            joined: quorum.joined(now),
            preparation,
            preparation_idle: last_progress.map(|moment| now.saturating_sub(moment)),
            storage: quorum.waiting_for_storage(now),
            failure: quorum.last_failure().cloned(),
            verdict: quorum.verdict().cloned(),
        }
    }

    fn generation_wait(&self) -> MutexGuard<'_, Option<Wait>> {
        // Replaced as a whole.
        self.generation_wait.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn preparations(&self) -> MutexGuard<'_, Preparations> {
        // Every record is whole.
        self.preparations.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn quorum(&self) -> MutexGuard<'_, Quorum> {
        // A panic elsewhere cannot leave the quorum half changed in a way that matters: it is decided anew each time.
        self.quorum.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
