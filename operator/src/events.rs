//! Events of a job. The status stage creates them; this module publishes them.

use k8s_openapi::api::core::v1::ObjectReference;
use kube::runtime::events::{Event as Published, EventType, Recorder};

use crate::{
    calls::{CallError, call},
    text::truncate,
};

/// Maximum size of a note for the API server.
const MAX_NOTE_BYTES: usize = 1024;

/// Something that happened to a job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// Whether its type is Warning.
    pub warning: bool,
    /// Reason in CamelCase.
    pub reason: &'static str,
    /// Message of the event.
    pub note: String,
    /// Distinguishes events with the same reason, for example by generation. The recorder aggregates events that differ
    /// only in their note, and keeps the first note.
    pub key: String,
}

impl Event {
    /// Creates an event of type Normal.
    pub fn normal(reason: &'static str, key: impl Into<String>, note: impl Into<String>) -> Self {
        Self { warning: false, reason, note: note.into(), key: key.into() }
    }

    /// Creates an event of type Warning.
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
