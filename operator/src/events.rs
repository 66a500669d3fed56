//! Events of a job. The status stage creates them; this module publishes them in the background.
//!
//! The status has the same information, so a lost event is not retried.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use k8s_openapi::api::core::v1::ObjectReference;
use kube::runtime::events::{Event as Published, EventType, Recorder};

use tokio::{
    sync::{mpsc, oneshot},
    time::{Instant, sleep, timeout},
};
use tracing::warn;

use crate::{
    calls::{CallError, call},
    metrics::Metrics,
    text::truncate,
};

/// Maximum size of a note for the API server.
const MAX_NOTE_BYTES: usize = 1024;
/// Maximum number of events that wait.
const CAPACITY: usize = 20_000;
/// While many jobs wait for their reconciliation, the time between two events.
const BUSY_INTERVAL: Duration = Duration::from_millis(200);
/// How often is checked whether many jobs still wait.
const CHECK_INTERVAL: Duration = Duration::from_millis(20);
/// How long an operator that stops publishes the events that wait.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(1);

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
    /// Whether it is left out while many jobs wait for their reconciliation.
    pub routine: bool,
}

impl Event {
    /// Creates an event of type Normal.
    pub fn normal(reason: &'static str, key: impl Into<String>, note: impl Into<String>) -> Self {
        Self { warning: false, reason, note: note.into(), key: key.into(), routine: false }
    }

    /// Creates an event of type Normal that happens again and again in a job that trains. The status has its latest value.
    pub fn routine(reason: &'static str, key: impl Into<String>, note: impl Into<String>) -> Self {
        Self { routine: true, ..Self::normal(reason, key, note) }
    }

    /// Creates an event of type Warning.
    pub fn warning(reason: &'static str, key: impl Into<String>, note: impl Into<String>) -> Self {
        Self { warning: true, ..Self::normal(reason, key, note) }
    }
}

/// Publishes events one by one. While many jobs wait for their reconciliation it publishes few and no routine ones, because
/// those jobs have priority.
pub struct EventPublisher {
    queue: mpsc::Sender<Item>,
    stopping: Arc<AtomicBool>,
    metrics: Arc<Metrics>,
}

enum Item {
    Event(Box<(Event, ObjectReference)>),
    /// All events before it are published.
    Drained(oneshot::Sender<()>),
}

impl EventPublisher {
    /// Starts to publish with `recorder`. `is_busy` returns whether many jobs wait for their reconciliation.
    pub fn start(
        recorder: Recorder,
        metrics: Arc<Metrics>,
        is_busy: impl Fn() -> bool + Send + Sync + 'static,
    ) -> Self {
        let (queue, waiting) = mpsc::channel(CAPACITY);
        let stopping = Arc::new(AtomicBool::new(false));
        let stop = Arc::clone(&stopping);
        let is_busy = move || is_busy() && !stop.load(Ordering::Relaxed);
        let recorder = Arc::new(recorder);
        tokio::spawn(run(waiting, BUSY_INTERVAL, is_busy, move |event, regarding| {
            publish_logged(Arc::clone(&recorder), event, regarding)
        }));
        Self { queue, stopping, metrics }
    }

    /// Queues an event. Drops it if too many wait.
    pub fn publish(&self, event: Event, regarding: ObjectReference) {
        if self.queue.try_send(Item::Event(Box::new((event, regarding)))).is_err() {
            self.metrics.record_dropped_event();
        }
    }

    /// Waits until all events are published, for at most a second. Those that remain are lost.
    pub async fn drain(&self) {
        self.stopping.store(true, Ordering::Relaxed);
        let (done, drained) = oneshot::channel();
        if self.queue.try_send(Item::Drained(done)).is_ok() {
            let _ = timeout(DRAIN_TIMEOUT, drained).await;
        }
    }
}

async fn run<F: Future<Output = ()>>(
    mut waiting: mpsc::Receiver<Item>,
    busy_interval: Duration,
    is_busy: impl Fn() -> bool,
    publish: impl Fn(Event, ObjectReference) -> F,
) {
    let mut last: Option<Instant> = None;
    while let Some(item) = waiting.recv().await {
        match item {
            Item::Event(published) => {
                let (event, regarding) = *published;
                if event.routine && is_busy() {
                    continue;
                }
                while is_busy() && last.is_some_and(|last| last.elapsed() < busy_interval) {
                    sleep(CHECK_INTERVAL).await;
                }
                last = Some(Instant::now());
                publish(event, regarding).await;
            }
            // After its timeout, `drain` does not wait.
            Item::Drained(done) => drop(done.send(())),
        }
    }
}

async fn publish_logged(recorder: Arc<Recorder>, event: Event, regarding: ObjectReference) {
    if let Err(error) = publish(&recorder, &event, &regarding).await {
        let (job, namespace) = (regarding.name.unwrap_or_default(), regarding.namespace.unwrap_or_default());
        warn!(%job, %namespace, %error, "Cannot publish the event.");
    }
}

async fn publish(recorder: &Recorder, event: &Event, regarding: &ObjectReference) -> Result<(), CallError> {
    let published = Published {
        type_: if event.warning { EventType::Warning } else { EventType::Normal },
        reason: event.reason.to_owned(),
        note: Some(truncate(&event.note, MAX_NOTE_BYTES)),
        action: truncate(&format!("{} {}", event.reason, event.key), 128),
        secondary: None,
    };
    call(format!("publish the event {}", event.reason), recorder.publish(&published, regarding)).await
}

#[cfg(test)]
mod tests {
    use std::sync::{Mutex, atomic::AtomicUsize};

    use super::*;

    #[tokio::test]
    async fn busy_operators_publish_few_events_and_the_others_before_they_stop() {
        let (queue, waiting) = mpsc::channel(CAPACITY);
        let (stopping, published) = (Arc::new(AtomicBool::new(false)), Arc::new(Mutex::new(Vec::new())));
        let (stop, record) = (Arc::clone(&stopping), Arc::clone(&published));
        let checks = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&checks);
        let is_busy = move || {
            counted.fetch_add(1, Ordering::Relaxed);
            !stop.load(Ordering::Relaxed)
        };
        tokio::spawn(run(waiting, Duration::from_hours(1), is_busy, move |event, _| {
            record.lock().unwrap().push(event.reason);
            std::future::ready(())
        }));
        let publisher = EventPublisher { queue, stopping, metrics: Arc::default() };
        let events = [
            Event::normal("First", "", ""),
            Event::routine("Routine", "", ""),
            Event::normal("Second", "", ""),
            Event::normal("Third", "", ""),
            Event::routine("LastRoutine", "", ""),
        ];
        for event in events {
            publisher.publish(event, ObjectReference::default());
        }
        while checks.load(Ordering::Relaxed) < 4 {
            tokio::task::yield_now().await;
        }
        assert_eq!(*published.lock().unwrap(), ["First"]);
        publisher.drain().await;
        assert_eq!(*published.lock().unwrap(), ["First", "Second", "Third", "LastRoutine"]);
    }
}
