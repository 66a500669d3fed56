//! Bounds the lists of events of the whole operator.
//!
//! The API server has no index of events by object: a list reads all events of the namespace. With thousands of jobs whose pods
//! are missing or stuck, lists without a bound would take most of its time.

use tokio::{sync::Mutex, time::Instant};

/// After a list, no other one starts for this many times its duration.
const PAUSE: u32 = 4;

/// The lists of events: one at a time, and at most a fifth of the time.
#[derive(Debug, Default)]
pub struct EventLists(Mutex<Option<Instant>>);

impl EventLists {
    /// Runs a list, unless it must wait.
    pub async fn run<T>(&self, list: impl Future<Output = T>) -> Option<T> {
        let mut next = self.0.try_lock().ok()?;
        let start = Instant::now();
        if next.is_some_and(|next| start < next) {
            return None;
        }
        let result = list.await;
        *next = Some(Instant::now() + start.elapsed() * PAUSE);
        Some(result)
    }
}

#[cfg(test)]
mod tests {
    use std::{
        future::{pending, ready},
        time::Duration,
    };

    use futures::FutureExt as _;

    use super::*;

    #[tokio::test]
    async fn one_list_runs_at_a_time() {
        let lists = EventLists::default();
        let mut first = Box::pin(lists.run(pending::<()>()));
        assert!(first.as_mut().now_or_never().is_none());
        assert_eq!(lists.run(ready(2)).await, None);
        // A reconciliation that is aborted.
        drop(first);
        assert_eq!(lists.run(ready(3)).await, Some(3));
    }

    #[tokio::test]
    async fn lists_take_at_most_a_fifth_of_the_time() {
        let lists = EventLists::default();
        let (start, list) = (Instant::now(), Duration::from_millis(10));
        lists.run(async { std::thread::sleep(list) }).await;
        assert!(lists.0.lock().await.unwrap() >= start + 5 * list);
        let later = EventLists(Mutex::new(Some(start + Duration::from_hours(1))));
        assert_eq!(later.run(ready(1)).await, None);
    }
}
