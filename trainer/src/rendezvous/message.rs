//! What agents and the rendezvous tell each other.

use datjob_api::report::{Failure, PreparationState, StorageTrouble};
use serde::{Deserialize, Serialize};

use super::token::Unauthenticated;

/// Path of the rendezvous on the agent's port of pod 0.
pub const PATH: &str = "/v1/rendezvous";

/// What an agent tells.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Heartbeat {
    /// Index of the pod.
    pub pod: u32,
    /// UID of the pod: distinguishes it from a pod that replaced it under the same index.
    pub pod_uid: String,
    /// Tells one life of the agent from the next.
    pub incarnation: u64,
    /// Rises with every heartbeat of an incarnation; 0 from trainers that do not count.
    #[serde(default)]
    pub sequence: u64,
    /// The attempt of the pod; a heartbeat of another attempt is refused.
    pub attempt: u32,
    /// UID of the job; a heartbeat of another job is refused.
    pub job_uid: String,
    /// What the pod's workers are doing.
    pub state: State,
    /// Whether the pod's workers train: they have checked their data.
    #[serde(default)]
    pub trains: bool,
    /// How far the pod is in preparing data, if `state` is [`State::Preparing`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub preparation: Option<PreparationState>,
    /// The fault of storage that the pod waits for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub storage: Option<StorageTrouble>,
    /// What the pod's workers wait in, if all of them wait for other ranks or their device.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wait: Option<PodWait>,
    /// Why the workers ended, or why they cannot start.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<Failure>,
}

/// A wait of all workers of a pod for other ranks or for their device.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PodWait {
    /// The operation, for example `all_reduce`.
    pub operation: String,
    /// Whether each of them has made no progress until its deadline.
    pub is_overdue: bool,
}

/// What the workers of a pod are doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum State {
    /// The pod prepares its data and has no workers.
    Preparing,
    /// There are none; `ended` is the last generation in which there were.
    Idle {
        /// The last generation that ended here.
        ended: Option<u32>,
    },
    /// They run in this generation.
    Running(u32),
    /// They ended well in this generation.
    Done(u32),
}

impl State {
    /// The newest generation in which the pod had workers.
    pub fn generation(self) -> Option<u32> {
        match self {
            Self::Preparing => None,
            Self::Idle { ended } => ended,
            Self::Running(generation) | Self::Done(generation) => Some(generation),
        }
    }
}

/// The reply to a heartbeat.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Reply {
    /// The world that workers should be running in; none means that none should be running.
    pub world: Option<World>,
    /// How the job ended; workers are no longer needed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verdict: Option<Verdict>,
}

/// Why the rendezvous rejected a heartbeat.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
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
    /// Of a pod that another one has replaced. It never counts again.
    #[error("heartbeat of pod {pod} with UID {pod_uid} rejected: the pod with UID {successor} replaced it")]
    Superseded {
        /// Index of both pods.
        pod: u32,
        /// UID of the pod that sent the heartbeat.
        pod_uid: String,
        /// UID of the pod that replaced it.
        successor: String,
    },
    /// Of a generation that was never recorded.
    #[error(
        "heartbeat of pod {pod} in generation {theirs} rejected: the newest generation on the checkpoint volume is {ours}; if \
         files of the volume were removed or restored, delete the pods of the job"
    )]
    UnknownGeneration {
        /// Index of the pod.
        pod: u32,
        /// The newest recorded generation.
        ours: u32,
        /// The generation of the heartbeat.
        theirs: u32,
    },
    /// Without the HMAC of this attempt.
    #[error("heartbeat rejected: {0}")]
    Unauthenticated(Unauthenticated),
    /// Received before.
    #[error(
        "heartbeat {sequence} of pod {pod} rejected: heartbeat {newest} was received before; it may be a replay"
    )]
    Replayed {
        /// Index of the pod.
        pod: u32,
        /// Sequence number of the heartbeat.
        sequence: u64,
        /// The newest sequence number of the same agent.
        newest: u64,
    },
}

/// A formed world.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct World {
    /// Its generation.
    pub generation: u32,
    /// Port of c10d's store on the rendezvous' host.
    pub store_port: u16,
}

/// How a job ended.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Verdict {
    /// The results are durable.
    Succeeded,
    /// It cannot be done.
    Failed(Failure),
}
