//! Observes objects with watches, in the background.

use std::{
    collections::HashMap,
    fmt::Debug,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use futures::{Stream, StreamExt as _, pin_mut};
use kube::{
    Api, Resource, ResourceExt as _,
    runtime::{
        WatchStreamExt as _,
        watcher::{self, Event, watcher},
    },
};
use serde::de::DeserializeOwned;
use tokio::task::JoinHandle;

/// A watch in the background, until it is dropped.
#[derive(Debug)]
pub struct Watch(JoinHandle<()>);

impl Drop for Watch {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// A change of an object.
#[derive(Clone, Copy, Debug)]
pub enum Change<'a, K> {
    /// It was created or changed, or existed before the watch.
    Applied(&'a K),
    /// It was deleted.
    Deleted(&'a K),
}

/// Calls a function for each change of an object.
pub fn watch<K>(
    api: Api<K>,
    config: watcher::Config,
    on_change: impl FnMut(Change<'_, K>) + Send + 'static,
) -> Watch
where
    K: Resource + Clone + Debug + DeserializeOwned + Send + Sync + 'static,
    K::DynamicType: Default,
{
    Watch(tokio::spawn(consume(watcher(api, config).default_backoff(), on_change)))
}

async fn consume<K>(
    events: impl Stream<Item = Result<Event<K>, watcher::Error>>,
    mut on_change: impl FnMut(Change<'_, K>),
) {
    pin_mut!(events);
    while let Some(event) = events.next().await {
        match event {
            Ok(Event::Apply(object) | Event::InitApply(object)) => on_change(Change::Applied(&object)),
            Ok(Event::Delete(object)) => on_change(Change::Deleted(&object)),
            Ok(Event::Init | Event::InitDone) => {}
            Err(error) => eprintln!("watch failed: {error}; retrying"),
        }
    }
}

/// When each object was first seen, by name.
#[derive(Clone, Debug, Default)]
pub struct FirstSeen(Arc<Mutex<HashMap<String, Instant>>>);

impl FirstSeen {
    /// Records an object, unless it was seen before.
    pub fn record(&self, name: &str) {
        let mut seen = self.lock();
        if !seen.contains_key(name) {
            seen.insert(name.to_owned(), Instant::now());
        }
    }

    /// Number of objects seen.
    pub fn count(&self) -> usize {
        self.lock().len()
    }

    /// When an object was first seen.
    pub fn get(&self, name: &str) -> Option<Instant> {
        self.lock().get(name).copied()
    }

    /// All times, in seconds since `start`.
    pub fn seconds_since(&self, start: Instant) -> Vec<f64> {
        self.lock().values().map(|at| at.saturating_duration_since(start).as_secs_f64()).collect()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Instant>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Records when objects first appear.
pub fn watch_appearance<K>(api: Api<K>) -> (FirstSeen, Watch)
where
    K: Resource + Clone + Debug + DeserializeOwned + Send + Sync + 'static,
    K::DynamicType: Default,
{
    let seen = FirstSeen::default();
    let record = seen.clone();
    let watch = watch(api, watcher::Config::default(), move |change| {
        if let Change::Applied(object) = change {
            record.record(&object.name_any());
        }
    });
    (seen, watch)
}

/// Whether the objects are in an expected state, and when the last one changed.
#[derive(Clone, Debug, Default)]
pub struct States(Arc<Mutex<StatesInner>>);

#[derive(Debug, Default)]
struct StatesInner {
    reached: HashMap<String, bool>,
    last_change: Option<Instant>,
}

impl States {
    /// Records whether an object is in the expected state.
    pub fn record(&self, name: &str, reached: bool) {
        let mut inner = self.lock();
        inner.reached.insert(name.to_owned(), reached);
        inner.last_change = Some(Instant::now());
    }

    /// Number of objects in the expected state.
    pub fn count(&self) -> usize {
        self.lock().reached.values().filter(|reached| **reached).count()
    }

    /// Time since the last change of any object.
    pub fn quiet_for(&self) -> Duration {
        self.lock().last_change.map(|at| at.elapsed()).unwrap_or_default()
    }

    /// Time of the last change of any object.
    pub fn last_change(&self) -> Option<Instant> {
        self.lock().last_change
    }

    fn lock(&self) -> MutexGuard<'_, StatesInner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_time_counts() {
        let seen = FirstSeen::default();
        let start = Instant::now();
        seen.record("a");
        let first = seen.get("a");
        seen.record("a");
        assert_eq!((seen.count(), seen.get("a"), seen.get("b")), (1, first, None));
        assert_eq!(seen.seconds_since(start).len(), 1);
    }

    #[test]
    fn the_last_state_counts() {
        let states = States::default();
        states.record("a", true);
        states.record("a", false);
        states.record("b", true);
        assert_eq!(states.count(), 1);
    }
}
