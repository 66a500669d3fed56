//! Objects that stand where a child should be and are not this job's. Pure.
//!
//! Server-side apply with force would take them over: a job named like somebody's Service must not.

use kube::{Resource, ResourceExt as _};

use super::identity::Identity;
use crate::calls::CallError;

/// Why a child could not be written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ApplyConflict {
    /// A child of an earlier job of the same name; the garbage collector removes it.
    Leftover {
        /// Kind and name.
        object: String,
    },
    /// An object of someone else.
    Foreign {
        /// Kind and name.
        object: String,
    },
    /// The API server will not have it: a quota, an admission rule, a value that only the API server checks.
    Rejected {
        /// The API server's words.
        message: String,
    },
}

impl ApplyConflict {
    /// The conflict that a refusal of the API server is; other errors are tried again.
    pub fn from_rejection(error: CallError) -> Result<Self, CallError> {
        if error.is_rejection() { Ok(Self::Rejected { message: error.to_string() }) } else { Err(error) }
    }

    /// One word.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Leftover { .. } => "AwaitingCleanup",
            Self::Foreign { .. } => "NameTaken",
            Self::Rejected { .. } => "Refused",
        }
    }

    /// What happened, to what, and what to do.
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

/// What is in the way where this object stands; nothing where it is the job's own.
pub fn find_conflict<K: Resource<DynamicType = ()>>(found: &K, identity: &Identity) -> Option<ApplyConflict> {
    find_conflict_of_kind(&K::kind(&()), found, identity)
}

/// As [`conflict`], for an object whose type does not know its kind (metadata alone).
pub fn find_conflict_of_kind<K: Resource>(
    kind: &str,
    found: &K,
    identity: &Identity,
) -> Option<ApplyConflict> {
    let object = format!("{kind} {}", found.name_any());
    let owner = found.owner_references().iter().find(|owner| owner.controller == Some(true));
    match owner {
        Some(owner) if owner.uid == identity.uid && found.meta().deletion_timestamp.is_none() => None,
        // Also our own on its way out: it is written again when it is gone.
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
    fn objects_of_others_are_not_taken_over() {
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
