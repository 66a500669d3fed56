//! Counts restarts: those after a failure are limited, those after a disruption are not. Pure.

use std::{sync::Arc, time::Duration};

use datjob_api::{
    datjob::{Restarts, World},
    report::{Failure, FailureReason},
    restarts::is_progress,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::ResourceExt as _;

use super::StatusBuilder;
use crate::{clock::elapsed, controller::watch::Pod, jitter::fnv1a};

/// Why a world had to re-form.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RestartCause {
    /// A worker or an agent ended, or no world formed although all pods ran.
    Failure,
    /// A pod was deleted, evicted or preempted, or its node was lost.
    Disruption,
    /// A fault of storage that may pass, or files or an image of a pod that a person can fix.
    Fixable,
}

impl StatusBuilder<'_> {
    /// Records a new world of these pods, after `restarts` restarts. `failure` is why the world before ended, if that is known.
    pub(super) fn record_world(
        &mut self,
        pods: &[Arc<Pod>],
        restarts: u32,
        failure: Option<&Failure>,
    ) -> RestartCause {
        let pods = hash(pods);
        let is_fixable = failure
            .is_some_and(|failure| failure.reason == FailureReason::Storage || failure.reason.is_of_pod());
        let cause = match &self.previous.world {
            Some(world) if world.pods == pods && is_fixable => RestartCause::Fixable,
            Some(world) if world.pods == pods => RestartCause::Failure,
            // A StatefulSet replaces a pod only if something removed it.
            _ => RestartCause::Disruption,
        };
        self.count_restarts(cause, restarts);
        let epochs = self.completed_epochs();
        // The new world may have resumed from an earlier epoch.
        let known = self.previous.progress.as_ref().map_or(0, |progress| progress.epoch);
        let before = self.previous.world.as_ref().map_or(0, |world| world.epochs);
        let epochs = epochs.max(known).max(before);
        self.next.world = Some(World { since: Time(self.now), pods, epochs });
        cause
    }

    /// Counts restarts.
    pub(super) fn count_restarts(&mut self, cause: RestartCause, count: u32) {
        let Restarts { total, failures, disruptions, recent_failures } = &mut self.next.restarts;
        match cause {
            RestartCause::Failure => {
                *failures = failures.saturating_add(count);
                *recent_failures = recent_failures.saturating_add(count);
            }
            RestartCause::Disruption | RestartCause::Fixable => {
                *disruptions = disruptions.saturating_add(count);
            }
        }
        *total = total.saturating_add(count);
    }

    /// Starts the count of failures anew after a completed epoch or an hour of training.
    pub(super) fn forget_failures_after_progress(&mut self) {
        if let Some(world) = &self.next.world {
            self.forget_failures(elapsed(world.since.0, self.now));
        }
    }

    /// Starts the count of failures anew if the earlier world completed an epoch. Its time says nothing: the pods may have
    /// waited most of it.
    pub(super) fn forget_failures_after_epoch(&mut self) {
        self.forget_failures(Duration::ZERO);
    }

    fn forget_failures(&mut self, trained: Duration) {
        let epochs = self.completed_epochs();
        if self.next.world.as_ref().is_some_and(|world| is_progress(world.epochs, epochs, trained)) {
            self.next.restarts.recent_failures = 0;
        }
    }

    fn completed_epochs(&self) -> u32 {
        self.next.progress.as_ref().map_or(0, |progress| progress.epoch)
    }
}

/// A hash of the pods' UIDs. Their list would take 150 KB for 4096 pods.
fn hash(pods: &[Arc<Pod>]) -> String {
    let mut uids: Vec<String> = pods.iter().map(|pod| pod.uid().unwrap_or_default()).collect();
    uids.sort_unstable();
    format!("{:016x}", fnv1a(uids.join(" ").as_bytes()))
}
