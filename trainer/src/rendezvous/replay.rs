//! Rejects heartbeats that were received before. Pure.

use std::collections::{BTreeMap, VecDeque};

use super::message::{Heartbeat, Refused};

/// How many incarnations of the agents under one index are remembered.
const MAX_INCARNATIONS: usize = 16;

/// The newest sequence number of each agent.
#[derive(Debug, Default)]
pub(super) struct ReplayGuard {
    /// By index of the pod; the newest agent last.
    pods: BTreeMap<u32, VecDeque<Sender>>,
}

#[derive(Debug)]
struct Sender {
    pod_uid: String,
    incarnation: u64,
    newest: u64,
}

impl ReplayGuard {
    /// Records the sequence number of a heartbeat. Rejects one that is not higher than all before of this agent.
    pub(super) fn check(&mut self, heartbeat: &Heartbeat) -> Result<(), Refused> {
        let Heartbeat { pod, incarnation, sequence, .. } = *heartbeat;
        let senders = self.pods.entry(pod).or_default();
        let is_sender =
            |sender: &&mut Sender| sender.incarnation == incarnation && sender.pod_uid == heartbeat.pod_uid;
        if let Some(sender) = senders.iter_mut().find(is_sender) {
            let newest = sender.newest;
            if sequence <= newest {
                return Err(Refused::Replayed { pod, sequence, newest });
            }
            sender.newest = sequence;
            return Ok(());
        }
        if senders.len() == MAX_INCARNATIONS {
            senders.pop_front();
        }
        senders.push_back(Sender { pod_uid: heartbeat.pod_uid.clone(), incarnation, newest: sequence });
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rendezvous::host::testing::heartbeat;

    fn check(guard: &mut ReplayGuard, incarnation: u64, sequence: u64) -> Result<(), Refused> {
        guard.check(&Heartbeat { incarnation, sequence, ..heartbeat(1, "a") })
    }

    fn replayed(sequence: u64, newest: u64) -> Result<(), Refused> {
        Err(Refused::Replayed { pod: 1, sequence, newest })
    }

    #[test]
    fn a_heartbeat_counts_once() {
        let mut guard = ReplayGuard::default();
        assert_eq!([1, 2, 5].map(|sequence| check(&mut guard, 7, sequence)), [Ok(()), Ok(()), Ok(())]);
        assert_eq!([5, 3].map(|sequence| check(&mut guard, 7, sequence)), [replayed(5, 5), replayed(3, 5)]);
        // Another agent counts anew, and that of the first one is known still.
        assert_eq!([check(&mut guard, 8, 1), check(&mut guard, 7, 4)], [Ok(()), replayed(4, 5)]);
        assert_eq!(guard.check(&Heartbeat { sequence: 1, ..heartbeat(1, "b") }), Ok(()));
    }

    #[test]
    fn the_memory_is_bounded() {
        let mut guard = ReplayGuard::default();
        for incarnation in 0..100 {
            assert_eq!(check(&mut guard, incarnation, 1), Ok(()));
        }
        assert_eq!(guard.pods[&1].len(), MAX_INCARNATIONS);
        assert_eq!(check(&mut guard, 99, 1), replayed(1, 1));
    }
}
