//! Requests to reconcile jobs, oldest first. A job waits at most once: its reconciliation sees all changes before its start.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use futures::{Stream, stream};
use kube::runtime::reflector::ObjectRef;
use tokio::sync::Notify;

use super::{CONCURRENCY, identity::Identity, watch::Watched};

/// A reference to a job.
pub type JobRef = ObjectRef<Watched>;

/// Maximum number of jobs that the controller has and has not started. It starts the newest of them first, so all others wait
/// here. Those whose previous reconciliation runs cannot start; there are at most [`CONCURRENCY`].
const MAX_HANDED_OVER: usize = 2 * CONCURRENCY as usize;

/// The jobs that wait for a reconciliation.
#[derive(Clone, Debug, Default)]
pub struct Triggers(Arc<Queue>);

#[derive(Debug, Default)]
struct Queue {
    state: Mutex<State>,
    changed: Notify,
}

#[derive(Debug, Default)]
struct State {
    /// All waiting jobs.
    waiting: HashMap<JobRef, Waiting>,
    /// The jobs that are not handed over, oldest first. Those that have started in the meantime are not waiting.
    queue: VecDeque<JobRef>,
    /// Number of waiting jobs that are handed over.
    handed_over: usize,
}

#[derive(Debug)]
struct Waiting {
    since: Instant,
    is_handed_over: bool,
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
            state.waiting.insert(job.clone(), Waiting { since: Instant::now(), is_handed_over: false });
            state.queue.push_back(job);
            drop(state);
            self.0.changed.notify_one();
        }
    }

    /// A reconciliation starts, or the job does not exist. Returns how long the job waited; `None` if it did not, for
    /// example at a deadline.
    pub fn start(&self, job: &JobRef) -> Option<Duration> {
        let mut state = self.lock();
        let waiting = state.waiting.remove(job)?;
        if waiting.is_handed_over {
            state.handed_over -= 1;
            drop(state);
            self.0.changed.notify_one();
        }
        Some(waiting.since.elapsed())
    }

    /// Number of waiting jobs.
    pub fn depth(&self) -> usize {
        self.lock().waiting.len()
    }

    /// Whether more jobs wait than can be reconciled at once. What can be written later must not delay them.
    pub fn is_busy(&self) -> bool {
        self.depth() > CONCURRENCY as usize
    }

    /// The requests, for the controller.
    pub fn stream(&self) -> impl Stream<Item = JobRef> + Send + 'static {
        stream::unfold(self.clone(), async |triggers| {
            loop {
                if let Some(job) = triggers.hand_over() {
                    return Some((job, triggers));
                }
                triggers.0.changed.notified().await;
            }
        })
    }

    /// The oldest job that is not handed over, unless the controller has enough.
    fn hand_over(&self) -> Option<JobRef> {
        let state = &mut *self.lock();
        while state.handed_over < MAX_HANDED_OVER {
            let job = state.queue.pop_front()?;
            // It may have started at a deadline, and may wait again.
            if let Some(waiting) = state.waiting.get_mut(&job).filter(|waiting| !waiting.is_handed_over) {
                waiting.is_handed_over = true;
                state.handed_over += 1;
                return Some(job);
            }
        }
        None
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

    fn job(name: &str) -> Identity {
        Identity { name: name.into(), namespace: "ns".into(), uid: String::new() }
    }

    fn reference(name: &str) -> JobRef {
        JobRef::new(name).within("ns")
    }

    #[test]
    fn a_job_waits_once_until_its_reconciliation_starts() {
        let triggers = Triggers::default();
        for name in ["a", "b", "a"] {
            triggers.send(&job(name));
        }
        let mut stream = Box::pin(triggers.stream());
        let mut next = || stream.next().now_or_never().flatten().map(|job| job.name);
        assert_eq!([next(), next(), next()], [Some("a".into()), Some("b".into()), None]);
        triggers.send(&job("a"));
        assert_eq!((next(), triggers.depth()), (None, 2), "its reconciliation has not started");
        let a = reference("a");
        assert!(triggers.start(&a).is_some() && triggers.start(&a).is_none());
        triggers.send(&job("a"));
        assert_eq!((next(), triggers.depth()), (Some("a".into()), 2));
    }

    #[test]
    fn the_controller_gets_the_oldest_jobs_and_not_more_than_it_can_start() {
        let triggers = Triggers::default();
        let names: Vec<String> = (0..3 * MAX_HANDED_OVER).map(|index| format!("job-{index}")).collect();
        for name in &names {
            triggers.send(&job(name));
        }
        assert!(triggers.is_busy());
        let mut stream = Box::pin(triggers.stream());
        let mut next = || stream.next().now_or_never().flatten().map(|job| job.name);
        for name in &names[..MAX_HANDED_OVER] {
            assert_eq!(next().as_ref(), Some(name));
        }
        assert_eq!(next(), None);
        // A job that starts at a deadline does not start again, and has its new place if it waits again.
        let early = &names[MAX_HANDED_OVER];
        triggers.start(&reference(early));
        assert_eq!(next(), None);
        triggers.start(&reference(&names[1]));
        assert_eq!([next(), next()], [Some(names[MAX_HANDED_OVER + 1].clone()), None]);
        for name in &names {
            triggers.start(&reference(name));
        }
        triggers.send(&job(early));
        assert_eq!([next(), next()], [Some(early.clone()), None]);
        assert!(triggers.depth() == 1 && !triggers.is_busy());
    }
}
