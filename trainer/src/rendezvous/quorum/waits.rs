//! Pods whose workers wait for other ranks. Pure.

use std::collections::BTreeMap;

use datjob_api::report::{Failure, FailureReason};

use super::{Formed, Quorum};
use crate::rendezvous::{PodWait, State};

impl Quorum {
    /// A sentence, if all ranks of a world have waited for each other until their deadlines. A connection between two pods may
    /// be cut without an error, or a device may not end its work.
    pub(super) fn all_wait(&self, world: &Formed) -> Option<String> {
        let mut waits = Vec::new();
        for pod in world.incarnations.keys() {
            let member = self.members.get(pod)?;
            match (member.state, &member.wait) {
                (State::Done(_), _) => {}
                (_, Some(wait)) if wait.is_overdue => waits.push((*pod, wait)),
                _ => return None,
            }
        }
        (!waits.is_empty()).then(|| format!("all ranks wait for each other: {}", list(waits)))
    }

    /// What the pods of a generation wait in; `None` if no pod waits.
    pub(super) fn waits_of(&self, generation: u32) -> Option<String> {
        let is_of = |state| state == State::Running(generation);
        let members = self.members.iter().filter(|(_, member)| is_of(member.state));
        let waits: Vec<_> = members.filter_map(|(pod, member)| Some((*pod, member.wait.as_ref()?))).collect();
        let verb = if waits.len() == 1 { "waits" } else { "wait" };
        (!waits.is_empty()).then(|| list(waits).replace(" in ", &format!(" {verb} in ")))
    }
}

/// The failure of a world in which [all wait](Quorum::all_wait).
pub(super) fn failure(sentence: &str) -> Failure {
    let message = format!(
        "{sentence}; a connection between two pods is cut, or a GPU does not end its work: check the network between these pods, \
         and the GPUs"
    );
    Failure::new(FailureReason::Hang, message)
}

/// The pods by operation: "pods 0 and 2 in all_reduce, pod 1 in barrier".
fn list(waits: Vec<(u32, &PodWait)>) -> String {
    let mut pods_by_operation: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for (pod, wait) in waits {
        pods_by_operation.entry(&wait.operation).or_default().push(pod.to_string());
    }
    let operations = pods_by_operation.into_iter().map(|(operation, pods)| match pods.as_slice() {
        [pod] => format!("pod {pod} in {operation}"),
        [first @ .., last] => format!("pods {} and {last} in {operation}", first.join(", ")),
        [] => String::new(),
    });
    operations.collect::<Vec<_>>().join(", ")
}
