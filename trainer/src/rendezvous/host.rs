//! Pod 0's side of the rendezvous: the quorum, c10d's store, and what is recorded on the volume.
//!
//! The quorum's lock is held only to compute. The clock is read inside it, so that waiting for the lock does not count as
//! silence. The volume is written outside it: a volume that does not answer delays a new world, but no heartbeat or report.

use std::{
    net::IpAddr,
    path::Path,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use datjob_api::report::{Failure, Preparation, WaitingForStorage};
use datjob_c10d::{C10dError, TcpStore};
use datjob_data::{files::FileError, storage::Wait};
use tokio::{task, time};

use super::{
    generation_file::{GenerationError, GenerationFile},
    message::{Heartbeat, Refused, Reply, Verdict, World},
    preparation::Preparations,
    quorum::{Decision, Quorum},
    replay::ReplayGuard,
    token::Token,
    verdict_file::{VerdictError, VerdictFile},
};
use crate::checkpoint;

mod recording;

use recording::Volume;

/// How long an operation on the store may take on this end.
const STORE_TIMEOUT: Duration = Duration::from_mins(1);
/// How long a reply waits for the recording of a generation or a failure. Longer recordings continue after the reply.
const RECORD_PATIENCE: Duration = Duration::from_secs(1);

/// The job of a rendezvous, and where the rendezvous listens.
#[derive(Clone, Debug)]
pub struct Options {
    /// UID of the job.
    pub job_uid: String,
    /// The attempt.
    pub attempt: u32,
    /// Number of pods.
    pub pods: u32,
    /// Where c10d's store listens.
    pub bind: IpAddr,
    /// Port of c10d's store; 0 for any.
    pub store_port: u16,
    /// Hash of the training spec, which valid results have; `None` if the spec cannot be read.
    pub training_hash: Option<String>,
    /// The token of the attempt; without one, heartbeats are not authenticated.
    pub token: Option<Token>,
    /// Whether pods retry after failures of configuration and data, once the job has trained.
    pub retries_pods: bool,
}

/// The rendezvous of one job.
#[derive(Debug)]
pub struct Host {
    job_uid: String,
    attempt: u32,
    pods: u32,
    quorum: Mutex<Quorum>,
    preparations: Mutex<Preparations>,
    started: Instant,
    volume: Volume,
    token: Option<Token>,
    replays: Mutex<ReplayGuard>,
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
    /// The generation.
    #[error(transparent)]
    Generation(#[from] GenerationError),
    /// The verdict.
    #[error(transparent)]
    Verdict(#[from] VerdictError),
    /// c10d's store.
    #[error(transparent)]
    Store(#[from] C10dError),
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
    /// Why a pod cannot join, or why the last world ended.
    pub failure: Option<Failure>,
    /// How the job ended.
    pub verdict: Option<Verdict>,
}

impl Host {
    /// Opens the rendezvous. `directory` is the job's checkpoint directory. Waits until its volume can be read.
    ///
    /// If a failure of this attempt is recorded there, the job has failed already, unless it has valid results.
    pub fn open(options: &Options, directory: &Path) -> Result<Self, HostError> {
        let Options { job_uid, attempt, pods, bind, store_port, training_hash, .. } = options;
        let generation = GenerationFile::new(directory);
        let verdict = VerdictFile::new(directory, job_uid, *attempt, training_hash.clone());
        let mut quorum = Quorum::new(*pods, generation.read()?);
        if options.retries_pods {
            quorum.retry_pods(checkpoint::exists(directory)?);
        }
        if let Some(failure) = verdict.read()? {
            quorum.confirm_failure(failure);
        }
        let store = TcpStore::host(*bind, *store_port, STORE_TIMEOUT)?;
        let volume = Volume { generation: Box::new(generation), verdict: Box::new(verdict) };
        Ok(Self::new(options, quorum, volume, store))
    }

    fn new(options: &Options, quorum: Quorum, volume: Volume, store: TcpStore) -> Self {
        Self {
            job_uid: options.job_uid.clone(),
            attempt: options.attempt,
            pods: options.pods,
            quorum: Mutex::new(quorum),
            preparations: Mutex::default(),
            started: Instant::now(),
            volume,
            token: options.token.clone(),
            replays: Mutex::default(),
            generation_wait: Mutex::default(),
            store,
        }
    }

    /// Checks that a request is from a pod of this attempt: `mac` is the HMAC of its body.
    pub fn authenticate(&self, body: &[u8], mac: Option<&[u8]>) -> Result<(), Refused> {
        match &self.token {
            Some(token) => token.verify(body, mac).map_err(Refused::Unauthenticated),
            None => Ok(()),
        }
    }

    /// Records a heartbeat and returns what the pod's workers should be doing. Does not wait for a volume that does not answer.
    pub async fn exchange(self: &Arc<Self>, heartbeat: &Heartbeat) -> Result<Reply, Refused> {
        let host = Arc::clone(self);
        match self.receive(heartbeat)? {
            Decision::Propose(generation) => {
                let recording = task::spawn_blocking(move || host.record_generation(generation));
                self.await_recording(recording, Quorum::postpone).await;
            }
            Decision::ProposeVerdict(failure) => {
                let recording = task::spawn_blocking(move || host.record_failure(failure));
                self.await_recording(recording, Quorum::postpone_failure).await;
            }
            _ => {}
        }
        Ok(self.reply())
    }

    /// Waits for a recording. One that takes longer continues; a later reply has its result.
    async fn await_recording(
        &self,
        recording: task::JoinHandle<()>,
        postpone: impl FnOnce(&mut Quorum, Duration),
    ) {
        if let Ok(Err(error)) = time::timeout(RECORD_PATIENCE, recording).await {
            tracing::error!(%error, "Recording on the checkpoint volume crashed; retrying.");
            let (mut quorum, now) = self.lock();
            postpone(&mut quorum, now);
        }
    }

    fn receive(&self, heartbeat: &Heartbeat) -> Result<Decision, Refused> {
        if heartbeat.job_uid != self.job_uid {
            let (ours, theirs) = (self.job_uid.clone(), heartbeat.job_uid.clone());
            return Err(Refused::OtherJob { ours, theirs });
        }
        if heartbeat.attempt != self.attempt {
            return Err(Refused::OtherAttempt { ours: self.attempt, theirs: heartbeat.attempt });
        }
        if self.token.is_some() && heartbeat.pod < self.pods {
            // Every record is whole.
            self.replays.lock().unwrap_or_else(PoisonError::into_inner).check(heartbeat)?;
        }
        let (mut quorum, now) = self.lock();
        quorum.record_heartbeat(now, heartbeat)?;
        let decision = quorum.decide(now);
        let may_have_trouble = match &decision {
            Decision::Propose(_) | Decision::Recording(_) | Decision::ProposeVerdict(_) => true,
            // The pause after a generation that could not be recorded.
            Decision::Wait { missing } => missing.is_empty(),
            Decision::Keep(_) | Decision::End { .. } | Decision::RecordingVerdict | Decision::Over => false,
        };
        if !may_have_trouble {
            *self.generation_wait() = None;
        }
        drop(quorum);
        let Heartbeat { pod, incarnation, .. } = *heartbeat;
        if pod < self.pods {
            self.preparations().record(now, pod, incarnation, heartbeat.preparation.as_ref());
        }
        if let Decision::End { generation, reason } = &decision {
            tracing::warn!(generation, reason, "World ended.");
        }
        Ok(decision)
    }

    fn reply(&self) -> Reply {
        let (quorum, _) = self.lock();
        let world = quorum.running().map(|generation| World { generation, store_port: self.store.port() });
        Reply { world, verdict: quorum.verdict().cloned() }
    }

    /// The final failure of the job, if it has failed and that is durable.
    pub fn failure(&self) -> Option<Failure> {
        match self.lock().0.verdict() {
            Some(Verdict::Failed(failure)) => Some(failure.clone()),
            _ => None,
        }
    }

    /// The results are durable: nothing more is to be done.
    pub fn succeed(&self) {
        let (mut quorum, _) = self.lock();
        quorum.succeed();
    }

    /// What the rendezvous knows now.
    pub fn snapshot(&self) -> Snapshot {
        let now = self.started.elapsed();
        let (preparation, last_progress) = {
            let preparations = self.preparations();
            (preparations.summary(now), preparations.last_progress())
        };
        let (quorum, now) = self.lock();
        Snapshot {
            generation: quorum.generation(),
            running: quorum.running(),
            joined: quorum.joined(now),
            preparation,
            preparation_idle: last_progress.map(|moment| now.saturating_sub(moment)),
            storage: quorum.waiting_for_storage(now),
            failure: quorum.current_failure(now),
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

    /// Locks the quorum, then reads the clock: time spent waiting for the lock must not count as silence.
    fn lock(&self) -> (MutexGuard<'_, Quorum>, Duration) {
        // A panic elsewhere cannot leave the quorum half changed in a way that matters: it is decided anew each time.
        let mut quorum = self.quorum.lock().unwrap_or_else(PoisonError::into_inner);
        let now = self.started.elapsed();
        if let Some(stall) = quorum.tick(now) {
            tracing::warn!(
                seconds = stall.as_secs(),
                "The rendezvous was stalled; the lease of every pod starts anew."
            );
        }
        (quorum, now)
    }
}

#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
