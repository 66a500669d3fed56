//! Which pod counts under an index of the StatefulSet: the newest one. Pure.
//!
//! A pod that was deleted by force may go on for as long as its node is cut off. Its replacement has the same index.

use std::collections::VecDeque;

/// How many superseded pods an index remembers.
const MAX_SUPERSEDED: usize = 16;

/// The pods that had one index, by UID.
#[derive(Clone, Debug)]
pub(super) struct PodHistory {
    current: String,
    /// The newest generation in which the current pod had workers.
    generation: Option<u32>,
    /// The newest one last.
    superseded: VecDeque<String>,
}

impl PodHistory {
    /// The history of an index whose first known pod is this one.
    pub(super) fn new(pod_uid: &str) -> Self {
        Self { current: pod_uid.to_owned(), generation: None, superseded: VecDeque::new() }
    }

    /// UID of the pod that counts.
    pub(super) fn current(&self) -> &str {
        &self.current
    }

    /// Records a heartbeat; returns whether the pod counts. `generation` is the newest one in which it had workers.
    ///
    /// An unknown pod supersedes the current one, unless it is older: it had workers before the current pod had any, or in
    /// an earlier generation. A host that restarts may receive the heartbeats of both in any order.
    pub(super) fn record(&mut self, pod_uid: &str, generation: Option<u32>) -> bool {
        if pod_uid == self.current {
            self.generation = self.generation.max(generation);
            return true;
        }
        if self.superseded.iter().any(|superseded| superseded == pod_uid) {
            return false;
        }
        let is_older = generation.is_some_and(|own| self.generation.is_none_or(|known| own < known));
        if is_older {
            self.supersede(pod_uid.to_owned());
            return false;
        }
        let replaced = std::mem::replace(&mut self.current, pod_uid.to_owned());
        self.generation = generation;
        self.supersede(replaced);
        true
    }

    fn supersede(&mut self, pod_uid: String) {
        if self.superseded.len() == MAX_SUPERSEDED {
            self.superseded.pop_front();
        }
        self.superseded.push_back(pod_uid);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_pod_counts_and_superseded_ones_never_do() {
        let mut history = PodHistory::new("a");
        assert!(history.record("a", None) && history.record("b", None));
        assert_eq!([history.record("a", None), history.record("b", None)], [false, true]);
        assert!(history.record("c", None));
        assert_eq!(["a", "b", "c"].map(|pod_uid| history.record(pod_uid, None)), [false, false, true]);
        assert_eq!(history.current(), "c");
    }

    /// A host that was replaced knows nobody, and receives the heartbeats of both pods in any order.
    #[test]
    fn a_pod_of_an_earlier_world_is_older() {
        for (older, newer) in [(Some(5), None), (Some(5), Some(6))] {
            let mut history = PodHistory::new("new");
            assert!(history.record("new", newer));
            assert_eq!([history.record("old", older), history.record("new", newer)], [false, true]);
            // Its agent restarts, and it has had no workers since.
            assert!(!history.record("old", None));
            let mut history = PodHistory::new("old");
            assert!(history.record("old", older) && history.record("new", newer));
            assert_eq!([history.record("old", older), history.record("new", newer)], [false, true]);
        }
    }

    #[test]
    fn a_restart_of_the_agent_keeps_the_age_of_its_pod() {
        let mut history = PodHistory::new("new");
        assert!(history.record("new", Some(6)) && history.record("new", None));
        assert!(!history.record("old", Some(5)));
    }

    #[test]
    fn the_memory_is_bounded() {
        let mut history = PodHistory::new("0");
        for pod in 1..100 {
            assert!(history.record(&pod.to_string(), None));
        }
        assert_eq!(history.superseded.len(), MAX_SUPERSEDED);
        assert!(!history.record("98", None));
    }
}
