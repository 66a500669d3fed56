//! Requests to reconcile jobs. A job waits at most once: its reconciliation sees all changes before its start.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use futures::{Stream, stream};
use kube::runtime::reflector::ObjectRef;
use tokio::sync::Notify;

use super::identity::{Identity, Watched};

/// A reference to a job.
pub type JobRef = ObjectRef<Watched>;

/// The jobs that wait for a reconciliation.
#[derive(Clone, Debug, Default)]
pub struct Triggers(Arc<Queue>);

#[derive(Debug, Default)]
struct Queue {
    state: Mutex<State>,
    added: Notify,
}

#[derive(Debug, Default)]
struct State {
    /// All waiting jobs, and since when they wait.
    waiting: HashMap<JobRef, Instant>,
    /// Waiting jobs that are not in the stream yet.
    new: Vec<JobRef>,
}

impl Triggers {
    /// Requests a reconciliation of the job with these names.
    pub fn send(&self, job: &Identity) {
        self.send_ref(JobRef::new(&job.name).within(&job.namespace));
    }

    /// Requests a reconciliation.
    pub fn send_ref(&self, job: JobRef) {
        let mut state = self.lock();
        if !state.waiting.contains_key(&job) {
            state.waiting.insert(job.clone(), Instant::now());
            state.new.push(job);
            drop(state);
            self.0.added.notify_one();
        }
    }

    /// A reconciliation starts, or the job does not exist. Returns how long the job waited; `None` if it did not, for
    /// example at a deadline.
    pub fn start(&self, job: &JobRef) -> Option<Duration> {
        self.lock().waiting.remove(job).map(|since| since.elapsed())
    }

    /// Number of waiting jobs.
    pub fn depth(&self) -> usize {
        self.lock().waiting.len()
    }

    /// The requests, for the controller.
    pub fn stream(&self) -> impl Stream<Item = JobRef> + Send + 'static {
        stream::unfold((self.clone(), Vec::new()), async |(triggers, mut batch)| {
            loop {
                if let Some(job) = batch.pop() {
                    return Some((job, (triggers, batch)));
                }
                batch = std::mem::take(&mut triggers.lock().new);
                // The oldest is the last.
                batch.reverse();
                if batch.is_empty() {
                    triggers.0.added.notified().await;
                }
            }
        })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // A panic leaves no entry half-changed.
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use futures::{FutureExt as _, StreamExt as _};

    use super::*;

    #[test]
    fn a_job_waits_once_until_its_reconciliation_starts() {
        let triggers = Triggers::default();
        let job = |name: &str| Identity { name: name.into(), namespace: "ns".into(), uid: String::new() };
        for name in ["a", "b", "a"] {
            triggers.send(&job(name));
        }
        let mut stream = Box::pin(triggers.stream());
        let mut next = || stream.next().now_or_never().flatten().map(|job| job.name);
        assert_eq!([next(), next(), next()], [Some("a".into()), Some("b".into()), None]);
        triggers.send(&job("a"));
        assert_eq!((next(), triggers.depth()), (None, 2), "its reconciliation has not started");
        let a = JobRef::new("a").within("ns");
        assert!(triggers.start(&a).is_some() && triggers.start(&a).is_none());
        triggers.send(&job("a"));
        assert_eq!((next(), triggers.depth()), (Some("a".into()), 2));
    }
}
