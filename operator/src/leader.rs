//! Leader election by a Lease: one operator reconciles, the others stand by.
//!
//! Every write carries the resource version that was read, so of two that write at once one gets a conflict and has
//! lost. The clocks of two machines are never compared: a lease counts as expired when it has not changed for its
//! duration by the clock of the one who waits. The leader gives up before that: it stops when it could not renew for
//! [`RENEW_DEADLINE`], which is less than [`DURATION`].

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

/// How long a lease lasts that is not renewed.
pub const DURATION: Duration = Duration::from_secs(15);
/// When a leader that cannot renew stops.
pub const RENEW_DEADLINE: Duration = Duration::from_secs(10);
/// How often the lease is renewed, and looked at by those who wait.
const PERIOD: Duration = Duration::from_secs(3);

/// Why this operator leads no longer.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum Lost {
    /// Another wrote the lease.
    #[error(
        "another operator acquired the lease {lease}; this operator exits and becomes a standby after its restart"
    )]
    Taken {
        /// The lease.
        lease: String,
    },
    /// The API server was out of reach for too long.
    #[error(
        "cannot renew the lease {lease} for {} s ({last}); this operator exits before another one takes over",
        RENEW_DEADLINE.as_secs()
    )]
    NotRenewed {
        /// The lease.
        lease: String,
        /// The last error.
        last: String,
    },
}

/// Who takes part in the election.
#[derive(Clone)]
pub struct Candidate {
    api: Api<Lease>,
    namespace: String,
    name: String,
    identity: String,
}

/// What one who waits does about a lease.
#[derive(Debug, PartialEq, Eq)]
enum Move {
    Take,
    Wait,
}

/// A version of the lease, and when it was first seen.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Seen {
    version: String,
    since: Instant,
}

impl Candidate {
    /// A candidate for the lease of that name.
    pub fn new(client: Client, namespace: &str, name: &str, identity: &str) -> Self {
        Self {
            api: Api::namespaced(client, namespace),
            namespace: namespace.to_owned(),
            name: name.to_owned(),
            identity: identity.to_owned(),
        }
    }

    /// Waits until this candidate leads; gives the lease as it wrote it.
    pub async fn acquire(&self) -> Held {
        let mut seen: Option<Seen> = None;
        let mut reported = String::new();
        loop {
            match self.try_acquire(&mut seen).await {
                Ok(Some(lease)) => {
                    info!(lease = %self.path(), identity = %self.identity, "Acquired the lease; this operator is the leader.");
                    return Held { candidate: self.clone(), lease, renewed: Instant::now() };
                }
                // Somebody else was faster.
                Err(error) if error.is_conflict() => debug!(%error, "Another operator acquired the lease."),
                Err(error) if error.to_string() != reported => {
                    reported = error.to_string();
                    warn!(%error, "Cannot acquire the lease; retrying.");
                }
                Ok(None) | Err(_) => {}
            }
            sleep(PERIOD).await;
        }
    }

    async fn try_acquire(&self, seen: &mut Option<Seen>) -> Result<Option<Lease>, CallError> {
        let now = Instant::now();
        let found = call(format!("get Lease {}", self.path()), self.api.get_opt(&self.name)).await?;
        let Some(found) = found else {
            let lease = self.claim(None);
            let params = PostParams::default();
            let create = self.api.create(&params, &lease);
            return call(format!("create Lease {}", self.path()), create).await.map(Some);
        };
        observe(seen, &found, now);
        match decide(&found, &self.identity, seen.as_ref(), now) {
            Move::Wait => Ok(None),
            Move::Take => self.replace(&self.claim(Some(&found))).await.map(Some),
        }
    }

    /// The lease with this candidate as its holder.
    fn claim(&self, found: Option<&Lease>) -> Lease {
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
                lease_duration_seconds: Some(DURATION.as_secs() as i32),
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
        call(format!("write Lease {}", self.path()), replace).await
    }

    fn path(&self) -> String {
        format!("{}/{}", self.namespace, self.name)
    }
}

/// A lease that this process holds.
pub struct Held {
    candidate: Candidate,
    lease: Lease,
    renewed: Instant,
}

impl Held {
    /// Renews the lease until it is lost. Dropping the future keeps the lease as it was last written.
    pub async fn keep(&mut self) -> Lost {
        loop {
            sleep(PERIOD).await;
            // A renewal may not take longer than what is left: an answer that comes later is no lease.
            let left = RENEW_DEADLINE.saturating_sub(self.renewed.elapsed());
            let renewal = tokio::time::timeout(left, self.renew());
            let error = match renewal.await {
                Ok(Ok(())) => continue,
                Ok(Err(error)) if error.is_conflict() || error.is_not_found() => {
                    return Lost::Taken { lease: self.candidate.path() };
                }
                Ok(Err(error)) => error.to_string(),
                Err(_) => "timed out".to_owned(),
            };
            warn!(%error, "Cannot renew the lease; retrying.");
            if self.renewed.elapsed() >= RENEW_DEADLINE {
                return Lost::NotRenewed { lease: self.candidate.path(), last: error };
            }
        }
    }

    async fn renew(&mut self) -> Result<(), CallError> {
        // From before the request: the lease may have been written at any time since.
        let begin = Instant::now();
        self.lease = self.candidate.replace(&self.candidate.claim(Some(&self.lease))).await?;
        self.renewed = begin;
        Ok(())
    }

    /// Gives the lease back, so that another need not wait for its end.
    pub async fn release(self) {
        let mut lease = self.candidate.claim(Some(&self.lease));
        if let Some(spec) = &mut lease.spec {
            spec.holder_identity = None;
            spec.lease_duration_seconds = Some(1);
        }
        match self.candidate.replace(&lease).await {
            Ok(_) => info!(lease = %self.candidate.path(), "Lease released."),
            Err(error) => warn!(%error, "Cannot release the lease; it expires instead."),
        }
    }
}

fn observe(seen: &mut Option<Seen>, lease: &Lease, now: Instant) {
    let version = lease.metadata.resource_version.clone().unwrap_or_default();
    if seen.as_ref().is_none_or(|seen| seen.version != version) {
        *seen = Some(Seen { version, since: now });
    }
}

fn decide(lease: &Lease, identity: &str, seen: Option<&Seen>, now: Instant) -> Move {
    let spec = lease.spec.clone().unwrap_or_default();
    let holder = spec.holder_identity.unwrap_or_default();
    let duration = Duration::from_secs(spec.lease_duration_seconds.unwrap_or(15).max(1) as u64);
    let expired = seen.is_some_and(|seen| now.duration_since(seen.since) >= duration);
    if holder.is_empty() || holder == identity || expired { Move::Take } else { Move::Wait }
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
    fn a_lease_is_taken_when_free_ours_or_unchanged_for_its_duration() {
        let begin = Instant::now();
        let mut seen = None;
        observe(&mut seen, &lease(Some("other"), "1"), begin);
        let at = |seconds| begin + Duration::from_secs(seconds);
        assert_eq!(decide(&lease(Some("other"), "1"), "me", seen.as_ref(), at(14)), Move::Wait);
        assert_eq!(decide(&lease(Some("other"), "1"), "me", seen.as_ref(), at(15)), Move::Take);
        // Renewed: the count begins anew.
        observe(&mut seen, &lease(Some("other"), "2"), at(14));
        assert_eq!(decide(&lease(Some("other"), "2"), "me", seen.as_ref(), at(20)), Move::Wait);
        assert_eq!(decide(&lease(Some("me"), "2"), "me", seen.as_ref(), at(20)), Move::Take);
        assert_eq!(decide(&lease(None, "2"), "me", seen.as_ref(), at(20)), Move::Take);
        assert_eq!(decide(&lease(Some(""), "2"), "me", seen.as_ref(), at(20)), Move::Take);
    }

    #[test]
    fn a_leader_stops_before_another_may_begin() {
        assert!(RENEW_DEADLINE + PERIOD < DURATION);
    }
}
