//! What a job's events say. Which events there are is decided by the status stage; here is how they are published.

use k8s_openapi::api::core::v1::ObjectReference;
use kube::runtime::events::{Event as Published, EventType, Recorder};

use crate::{
    calls::{CallError, call},
    text::truncate,
};

/// Longest note that the API server takes, in bytes.
const MAX_NOTE_BYTES: usize = 1024;

/// Something that happened to a job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// Whether it is a warning.
    pub warning: bool,
    /// One word.
    pub reason: &'static str,
    /// The sentence.
    pub note: String,
    /// What tells this event from another of the same reason, for example a generation: the recorder joins events
    /// that differ in their note alone, and keeps the first note.
    pub key: String,
}

impl Event {
    /// Something that is as it should be.
    pub fn normal(reason: &'static str, key: impl Into<String>, note: impl Into<String>) -> Self {
        Self { warning: false, reason, note: note.into(), key: key.into() }
    }

    /// Something that a person should look at.
    pub fn warning(reason: &'static str, key: impl Into<String>, note: impl Into<String>) -> Self {
        Self { warning: true, ..Self::normal(reason, key, note) }
    }
}

/// Publishes an event about a job.
pub async fn publish(
    recorder: &Recorder,
    event: &Event,
    regarding: &ObjectReference,
) -> Result<(), CallError> {
    let published = Published {
        type_: if event.warning { EventType::Warning } else { EventType::Normal },
        reason: event.reason.to_owned(),
        note: Some(truncate(&event.note, MAX_NOTE_BYTES)),
        action: truncate(&format!("{} {}", event.reason, event.key), 128),
        secondary: None,
    };
    call(format!("publish the event {}", event.reason), recorder.publish(&published, regarding)).await
}
