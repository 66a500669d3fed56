//! Detects objects with the name of a child that do not belong to the job. Pure.
//!
//! Forced server-side apply would take them over, for example a Service with the job's name.

use kube::{Resource, ResourceExt as _};

use super::identity::Identity;
use crate::calls::CallError;

/// Why a child cannot be applied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ApplyConflict {
    /// A child of a deleted job with the same name. The garbage collector deletes it.
    Leftover {
        /// Kind and name.
        object: String,
    },
    /// An object of another owner.
    Foreign {
        /// Kind and name.
        object: String,
    },
    /// The API server rejected it because of a quota, an admission policy or an invalid value.
    Rejected {
        /// Message of the API server.
        message: String,
    },
}

impl ApplyConflict {
    /// Converts a rejection by the API server. Returns other errors, which are retried.
    pub fn from_rejection(error: CallError) -> Result<Self, CallError> {
        if error.is_rejection() { Ok(Self::Rejected { message: error.to_string() }) } else { Err(error) }
    }

    /// Reason of the condition and of the event.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Leftover { .. } => "AwaitingCleanup",
            Self::Foreign { .. } => "NameTaken",
            Self::Rejected { .. } => "Refused",
        }
    }

    /// Message of the condition.
    pub fn message(&self) -> String {
        match self {
            Self::Leftover { object } => {
                format!("Waiting for Kubernetes to delete the old {object}.")
            }
            Self::Foreign { object } => format!(
                "{object} already exists and does not belong to this job; delete it, or create this job with another name."
            ),
            Self::Rejected { message } => {
                format!(
                    "The API server rejected a request: {}. Retrying every 30 s.",
                    crate::text::clause(message)
                )
            }
        }
    }
}

/// The conflict with an existing object, or `None` if it belongs to the job.
pub fn find_conflict<K: Resource<DynamicType = ()>>(found: &K, identity: &Identity) -> Option<ApplyConflict> {
    find_conflict_of_kind(&K::kind(&()), found, identity)
}

/// Like [`find_conflict`], for an object without a static kind, for example only metadata.
pub fn find_conflict_of_kind<K: Resource>(
    kind: &str,
    found: &K,
    identity: &Identity,
) -> Option<ApplyConflict> {
    let object = format!("{kind} {}", found.name_any());
    let owner = found.owner_references().iter().find(|owner| owner.controller == Some(true));
    match owner {
        Some(owner) if owner.uid == identity.uid && found.meta().deletion_timestamp.is_none() => None,
        // Also the job's object while it is being deleted; it is applied again after that.
        Some(owner) if owner.kind == identity.owner().kind && owner.name == identity.name => {
            Some(ApplyConflict::Leftover { object })
        }
        _ => Some(ApplyConflict::Foreign { object }),
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::Service;

    use super::*;

    #[test]
    fn does_not_take_over_objects_of_other_owners() {
        let identity = Identity { name: "job".into(), namespace: "ns".into(), uid: "uid".into() };
        let own = Service { metadata: identity.child("job"), ..Service::default() };
        assert_eq!(find_conflict(&own, &identity), None);

        let earlier = Identity { uid: "earlier".into(), ..identity.clone() };
        let left = Service { metadata: earlier.child("job"), ..Service::default() };
        assert!(matches!(find_conflict(&left, &identity), Some(ApplyConflict::Leftover { .. })));

        let mut plain = own.clone();
        plain.metadata.owner_references = None;
        let found = find_conflict(&plain, &identity).unwrap();
        assert!(found.reason() == "NameTaken" && found.message().contains("Service job"), "{found:?}");

        let mut dying = own;
        dying.metadata.deletion_timestamp =
            Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(jiff::Timestamp::UNIX_EPOCH));
        assert!(matches!(find_conflict(&dying, &identity), Some(ApplyConflict::Leftover { .. })));
    }
}
