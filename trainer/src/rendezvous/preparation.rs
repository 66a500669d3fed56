//! Which pods prepare data, and when one of them last made progress. Pure: times are durations since a fixed moment.

use std::collections::BTreeMap;

use datjob_api::report::{Preparation, PreparationState, PreparationStep};

use super::lease::{Instant, is_recent};

/// The pods of a job that prepare data.
#[derive(Debug, Default)]
pub struct Preparations {
    pods: BTreeMap<u32, PreparingPod>,
    last_progress: Option<Instant>,
}

/// Bytes that are done in a step.
type Mark = (PreparationStep, u64);

#[derive(Debug)]
struct PreparingPod {
    incarnation: u64,
    /// When its last heartbeat was received.
    received: Instant,
    /// Whether its data has been ready since the last world formed.
    was_ready: bool,
    /// `None` once its data is ready.
    state: Option<PreparationState>,
    /// The farthest mark of this incarnation.
    reached: Mark,
    /// The farthest mark of earlier incarnations. Reaching it again does not count as progress.
    reached_before: Option<Mark>,
}

impl Preparations {
    /// Records a heartbeat of a pod; `state` is absent if it does not prepare data.
    pub fn record(&mut self, now: Instant, pod: u32, incarnation: u64, state: Option<&PreparationState>) {
        let Some(state) = state else {
            if let Some(known) = self.pods.get_mut(&pod)
                && known.state.take().is_some()
                && !std::mem::replace(&mut known.was_ready, true)
            {
                self.last_progress = Some(now);
            }
            return;
        };
        let mark = (state.step, state.done);
        let known = self.pods.get(&pod);
        let was_ready = known.is_some_and(|known| known.was_ready);
        let (reached, reached_before, changed) = match known {
            None => (mark, None, true),
            // The pod begins its next download.
            Some(known) if known.incarnation == incarnation && state.step < known.reached.0 => {
                (mark, None, true)
            }
            Some(known) if known.incarnation == incarnation => {
                let before = known.state.as_ref().map(|state| (state.step, state.done));
                (known.reached.max(mark), known.reached_before, before != Some(mark))
            }
            Some(known) => {
                (mark, Some(known.reached_before.unwrap_or(known.reached).max(known.reached)), true)
            }
        };
        if changed && reached_before.is_none_or(|before| mark > before) {
            self.last_progress = Some(now);
        }
        let state = Some(state.clone());
        let pod_state =
            PreparingPod { incarnation, received: now, was_ready, state, reached, reached_before };
        self.pods.insert(pod, pod_state);
    }

    /// Forgets all pods: their data is ready. A pod that replaces one of them may begin anew.
    pub fn clear(&mut self) {
        *self = Self::default();
    }

    /// When a pod last made progress.
    pub fn last_progress(&self) -> Option<Instant> {
        self.last_progress
    }

    /// The preparation for the report: the first pod with an error, or else the one that is farthest behind.
    pub fn summary(&self, now: Instant) -> Option<Preparation> {
        let preparing: Vec<(u32, &PreparationState)> = self
            .pods
            .iter()
            .filter(|(_, known)| is_recent(known.received, now))
            .filter_map(|(pod, known)| Some((*pod, known.state.as_ref()?)))
            .collect();
        let behind = |(_, state): &&(u32, &PreparationState)| {
            (state.error.is_none(), state.step, state.percent(), state.done)
        };
        let (pod, state) = preparing.iter().min_by_key(behind)?;
        Some(Preparation { pods: preparing.len() as u32, pod: *pod, state: (*state).clone() })
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn at(seconds: u64) -> Instant {
        Duration::from_secs(seconds)
    }

    fn downloaded(done: u64) -> PreparationState {
        PreparationState { step: PreparationStep::Downloading, done, total: Some(100), error: None }
    }

    fn failing(done: u64) -> PreparationState {
        PreparationState { error: Some("cannot read x: refused; retrying in 2 s".into()), ..downloaded(done) }
    }

    #[test]
    fn names_a_pod_with_an_error_or_the_one_that_is_farthest_behind() {
        let mut preparations = Preparations::default();
        assert_eq!(preparations.summary(at(0)), None);
        preparations.record(at(0), 0, 1, Some(&downloaded(40)));
        preparations.record(at(0), 1, 1, Some(&downloaded(30)));
        let unpacking = PreparationState { step: PreparationStep::Unpacking, ..downloaded(1) };
        preparations.record(at(0), 2, 1, Some(&unpacking));
        let summary = preparations.summary(at(1)).unwrap();
        assert_eq!((summary.pods, summary.pod, summary.state.done), (3, 1, 30));
        preparations.record(at(2), 0, 1, Some(&failing(40)));
        assert_eq!(preparations.summary(at(2)).unwrap().pod, 0);
        // A pod that has its data, and two that are silent.
        preparations.record(at(3), 0, 1, None);
        assert_eq!(preparations.summary(at(3)).unwrap().pods, 2);
        assert_eq!(preparations.summary(at(11)), None);
    }

    #[test]
    fn only_new_bytes_are_progress() {
        let mut preparations = Preparations::default();
        let mut progress = |second, incarnation, state: Option<&PreparationState>| {
            preparations.record(at(second), 1, incarnation, state);
            preparations.last_progress()
        };
        assert_eq!(progress(0, 1, None), None);
        assert_eq!(progress(1, 1, Some(&downloaded(0))), Some(at(1)));
        assert_eq!(progress(2, 1, Some(&downloaded(50))), Some(at(2)));
        assert_eq!(progress(3, 1, Some(&failing(50))), Some(at(2)));
        // A download that begins again after an interruption.
        assert_eq!(progress(4, 1, Some(&downloaded(10))), Some(at(4)));
        // An agent that restarts and downloads the same bytes again, over and over.
        assert_eq!(progress(5, 2, Some(&downloaded(0))), Some(at(4)));
        assert_eq!(progress(6, 2, Some(&downloaded(50))), Some(at(4)));
        assert_eq!(progress(7, 3, Some(&downloaded(40))), Some(at(4)));
        assert_eq!(progress(8, 3, Some(&downloaded(51))), Some(at(8)));
        assert_eq!(progress(9, 3, None), Some(at(9)), "the data is ready");
        assert_eq!(progress(10, 3, None), Some(at(9)));
        // Its data is on disk, and its agent restarts over and over.
        assert_eq!(progress(11, 4, Some(&downloaded(0))), Some(at(9)));
        assert_eq!(progress(12, 4, None), Some(at(9)));
    }

    #[test]
    fn the_next_download_of_a_restarted_pod_is_progress() {
        let mut preparations = Preparations::default();
        let unpacked = PreparationState { step: PreparationStep::Unpacking, ..downloaded(100) };
        for (second, incarnation, state) in [(0, 1, &unpacked), (1, 2, &unpacked), (2, 2, &downloaded(3))] {
            preparations.record(at(second), 1, incarnation, Some(state));
        }
        assert_eq!(preparations.last_progress(), Some(at(2)));
    }

    #[test]
    fn a_pod_that_is_replaced_after_a_world_begins_anew() {
        let mut preparations = Preparations::default();
        preparations.record(at(0), 1, 1, Some(&downloaded(100)));
        preparations.record(at(1), 1, 1, None);
        preparations.clear();
        assert_eq!(preparations.last_progress(), None);
        preparations.record(at(900), 1, 2, Some(&downloaded(1)));
        assert_eq!(preparations.last_progress(), Some(at(900)));
    }
}
