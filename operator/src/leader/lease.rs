//! The Lease of the leader: acquiring, renewing and releasing it.
//!
//! Each write contains the resource version that was read, so one of two concurrent writers gets a conflict. Clocks of
//! different machines are never compared: a standby treats a lease as expired when it has not changed for its duration
//! by its local clock. A leader stops earlier, when it has not renewed the lease for [`RENEW_DEADLINE`], which is less
//! than [`LEASE_DURATION`].

use std::time::{Duration, Instant};

use jiff::Timestamp;
use k8s_openapi::{
    api::coordination::v1::{Lease, LeaseSpec},
    apimachinery::pkg::apis::meta::v1::MicroTime,
};
use kube::{
    Api, Client,
    api::{ObjectMeta, PostParams},
};
use tokio::time::sleep;
use tracing::{debug, info, warn};

use crate::calls::{CallError, call};

/// How long a lease is valid without renewal.
pub const LEASE_DURATION: Duration = Duration::from_secs(15);
/// How long a leader retries to renew before it stops.
pub const RENEW_DEADLINE: Duration = Duration::from_secs(10);
/// How often a leader renews the lease.
const RENEW_PERIOD: Duration = Duration::from_secs(3);
/// How often a standby reads the lease.
const READ_PERIOD: Duration = Duration::from_secs(1);

/// Why this operator is no longer the leader.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub enum LeaseLost {
    /// Another operator acquired the lease.
    #[error(
        "lost the lease {lease}: another operator acquired it, or it was deleted; this operator exits and becomes a standby \
         after its restart"
    )]
    Taken {
        /// The lease.
        lease: String,
    },
    /// The lease could not be renewed in time.
    #[error(
        "the lease {lease} was not renewed for {} s ({last}); this operator exits before another one takes over",
        RENEW_DEADLINE.as_secs()
    )]
    RenewalFailed {
        /// The lease.
        lease: String,
        /// The last error.
        last: String,
    },
}

/// A participant in the election.
#[derive(Clone)]
pub(super) struct Candidate {
    api: Api<Lease>,
    namespace: String,
    name: String,
    identity: String,
}

/// What a standby does with a lease.
#[derive(Debug, PartialEq, Eq)]
enum LeaseAction {
    Acquire,
    Wait,
}

/// A version of the lease and when it was first observed.
#[derive(Debug, Clone, PartialEq, Eq)]
struct ObservedLease {
    version: String,
    since: Instant,
}

impl Candidate {
    pub(super) fn new(client: Client, namespace: &str, name: &str, identity: &str) -> Self {
        Self {
            api: Api::namespaced(client, namespace),
            namespace: namespace.to_owned(),
            name: name.to_owned(),
            identity: identity.to_owned(),
        }
    }

    /// Waits until this candidate acquires the lease.
    pub(super) async fn acquire(&self) -> LeaseGuard {
        let mut observed: Option<ObservedLease> = None;
        let mut reported = String::new();
        loop {
            match self.try_acquire(&mut observed).await {
                Ok(Some(lease)) => {
                    info!(lease = %self.path(), identity = %self.identity, "Acquired the lease; this operator is the leader.");
                    return LeaseGuard { candidate: self.clone(), lease, renewed: Instant::now() };
                }
                // Another candidate was faster.
                Err(error) if error.is_conflict() => debug!(%error, "Another operator acquired the lease."),
                Err(error) if error.to_string() != reported => {
                    reported = error.to_string();
                    warn!(%error, "Cannot acquire the lease; retrying.");
                }
                Ok(None) | Err(_) => {}
            }
            sleep(READ_PERIOD).await;
        }
    }

    async fn try_acquire(&self, observed: &mut Option<ObservedLease>) -> Result<Option<Lease>, CallError> {
        let now = Instant::now();
        let found = call(format!("get Lease {}", self.path()), self.api.get_opt(&self.name)).await?;
        let Some(found) = found else {
            let lease = self.held_lease(None);
            let params = PostParams::default();
            let create = self.api.create(&params, &lease);
            return call(format!("create Lease {}", self.path()), create).await.map(Some);
        };
        track_version(observed, &found, now);
        match decide(&found, &self.identity, observed.as_ref(), now) {
            LeaseAction::Wait => Ok(None),
            LeaseAction::Acquire => self.replace(&self.held_lease(Some(&found))).await.map(Some),
        }
    }

    /// The lease with this candidate as its holder.
    fn held_lease(&self, found: Option<&Lease>) -> Lease {
        let before = found.and_then(|lease| lease.spec.clone()).unwrap_or_default();
        let metadata = found.map_or_else(
            || ObjectMeta {
                name: Some(self.name.clone()),
                namespace: Some(self.namespace.clone()),
                ..ObjectMeta::default()
            },
            |lease| lease.metadata.clone(),
        );
        let now = MicroTime(Timestamp::now());
        let same = before.holder_identity.as_deref() == Some(self.identity.as_str());
        Lease {
            metadata,
            spec: Some(LeaseSpec {
                holder_identity: Some(self.identity.clone()),
                lease_duration_seconds: Some(LEASE_DURATION.as_secs() as i32),
                acquire_time: before.acquire_time.filter(|_| same).or(Some(now.clone())),
                renew_time: Some(now),
                lease_transitions: Some(
                    before.lease_transitions.unwrap_or(0) + i32::from(found.is_some() && !same),
                ),
                ..LeaseSpec::default()
            }),
        }
    }

    async fn replace(&self, lease: &Lease) -> Result<Lease, CallError> {
        let params = PostParams::default();
        let replace = self.api.replace(&self.name, &params, lease);
        call(format!("update Lease {}", self.path()), replace).await
    }

    fn path(&self) -> String {
        format!("{}/{}", self.namespace, self.name)
    }
}

/// The lease while this process is the leader.
pub(super) struct LeaseGuard {
    candidate: Candidate,
    lease: Lease,
    renewed: Instant,
}

impl LeaseGuard {
    /// Renews the lease until it is lost. Dropping the future leaves the lease as last written.
    pub(super) async fn renew_until_lost(&mut self) -> LeaseLost {
        loop {
            sleep(RENEW_PERIOD).await;
            // A renewal after the deadline would be too late.
            let remaining = RENEW_DEADLINE.saturating_sub(self.renewed.elapsed());
            let renewal = tokio::time::timeout(remaining, self.renew());
            let error = match renewal.await {
                Ok(Ok(())) => continue,
                Ok(Err(error)) if error.is_conflict() || error.is_not_found() => {
                    return LeaseLost::Taken { lease: self.candidate.path() };
                }
                Ok(Err(error)) => error.to_string(),
                Err(_) => "timed out before the renewal deadline".to_owned(),
            };
            warn!(%error, "Cannot renew the lease; retrying until the renewal deadline.");
            if self.renewed.elapsed() >= RENEW_DEADLINE {
                return LeaseLost::RenewalFailed { lease: self.candidate.path(), last: error };
            }
        }
    }

    async fn renew(&mut self) -> Result<(), CallError> {
        // The time before the request, because the write happens at an unknown time after it.
        let start = Instant::now();
        self.lease = self.candidate.replace(&self.candidate.held_lease(Some(&self.lease))).await?;
        self.renewed = start;
        Ok(())
    }

    /// Releases the lease, so that a standby does not wait for its expiry.
    pub(super) async fn release(self) {
        let mut lease = self.candidate.held_lease(Some(&self.lease));
        if let Some(spec) = &mut lease.spec {
            spec.holder_identity = None;
            spec.lease_duration_seconds = Some(1);
        }
        match self.candidate.replace(&lease).await {
            Ok(_) => info!(lease = %self.candidate.path(), "Released the lease."),
            Err(error) => warn!(%error, "Cannot release the lease; it expires instead."),
        }
    }
}

fn track_version(observed: &mut Option<ObservedLease>, lease: &Lease, now: Instant) {
    let version = lease.metadata.resource_version.clone().unwrap_or_default();
    if observed.as_ref().is_none_or(|observed| observed.version != version) {
        *observed = Some(ObservedLease { version, since: now });
    }
}

fn decide(lease: &Lease, identity: &str, observed: Option<&ObservedLease>, now: Instant) -> LeaseAction {
    let spec = lease.spec.clone().unwrap_or_default();
    let holder = spec.holder_identity.unwrap_or_default();
    let duration = Duration::from_secs(spec.lease_duration_seconds.unwrap_or(15).max(1) as u64);
    let expired = observed.is_some_and(|observed| now.duration_since(observed.since) >= duration);
    if holder.is_empty() || holder == identity || expired { LeaseAction::Acquire } else { LeaseAction::Wait }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lease(holder: Option<&str>, version: &str) -> Lease {
        Lease {
            metadata: ObjectMeta { resource_version: Some(version.into()), ..ObjectMeta::default() },
            spec: Some(LeaseSpec {
                holder_identity: holder.map(Into::into),
                lease_duration_seconds: Some(15),
                ..LeaseSpec::default()
            }),
        }
    }

    #[test]
    fn acquires_a_free_own_or_expired_lease() {
        let start = Instant::now();
        let mut observed = None;
        track_version(&mut observed, &lease(Some("other"), "1"), start);
        let at = |seconds| start + Duration::from_secs(seconds);
        assert_eq!(decide(&lease(Some("other"), "1"), "me", observed.as_ref(), at(14)), LeaseAction::Wait);
        assert_eq!(decide(&lease(Some("other"), "1"), "me", observed.as_ref(), at(15)), LeaseAction::Acquire);
        // A renewal restarts the time to expiry.
        track_version(&mut observed, &lease(Some("other"), "2"), at(14));
        assert_eq!(decide(&lease(Some("other"), "2"), "me", observed.as_ref(), at(20)), LeaseAction::Wait);
        assert_eq!(decide(&lease(Some("me"), "2"), "me", observed.as_ref(), at(20)), LeaseAction::Acquire);
        assert_eq!(decide(&lease(None, "2"), "me", observed.as_ref(), at(20)), LeaseAction::Acquire);
        assert_eq!(decide(&lease(Some(""), "2"), "me", observed.as_ref(), at(20)), LeaseAction::Acquire);
    }

    #[test]
    fn a_leader_stops_before_its_lease_expires() {
        assert!(RENEW_DEADLINE + RENEW_PERIOD < LEASE_DURATION);
    }
}
