//! Detects objects with the name of a child that do not belong to the job, for example a Service with the job's name. Pure.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

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
    /// The job requests GPUs, and the installation has no image for them.
    GpusDisabled,
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
            Self::GpusDisabled => "GpusDisabled",
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
            Self::GpusDisabled => {
                "spec.pod.resources requests GPUs, which are disabled in this installation; upgrade it \
                with gpu.enabled=true, or create the job without GPUs."
                    .to_owned()
            }
            Self::Rejected { message } => {
                format!(
                    "The API server rejected a request: {}. Retrying every 30 s.",
                    crate::text::clause(message)
                )
            }
        }
    }
}

/// The owner of an object, and whether the object is being deleted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Owner {
    controller: Option<ControllerReference>,
    is_deleted: bool,
}

/// The owner reference with `controller: true`.
#[derive(Clone, Debug, PartialEq, Eq)]
struct ControllerReference {
    kind: String,
    name: String,
    uid: String,
}

impl Owner {
    /// The owner of an object with this metadata.
    pub fn of(metadata: &ObjectMeta) -> Self {
        let references = metadata.owner_references.iter().flatten();
        let controller = references.into_iter().find(|owner| owner.controller == Some(true));
        Self {
            controller: controller.map(|owner| ControllerReference {
                kind: owner.kind.clone(),
                name: owner.name.clone(),
                uid: owner.uid.clone(),
            }),
            is_deleted: metadata.deletion_timestamp.is_some(),
        }
    }
}

/// The conflict with an existing object, or `None` if it belongs to the job.
pub fn find_conflict(kind: &str, name: &str, owner: &Owner, identity: &Identity) -> Option<ApplyConflict> {
    let object = format!("{kind} {name}");
    match &owner.controller {
        Some(controller) if controller.uid == identity.uid && !owner.is_deleted => None,
        // Also the job's object while it is being deleted; it is created again after that.
        Some(controller) if controller.kind == identity.owner().kind && controller.name == identity.name => {
            Some(ApplyConflict::Leftover { object })
        }
        _ => Some(ApplyConflict::Foreign { object }),
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

    use super::*;

    #[test]
    fn does_not_take_over_objects_of_other_owners() {
        let identity = Identity { name: "job".into(), namespace: "ns".into(), uid: "uid".into() };
        let conflict =
            |metadata: &ObjectMeta| find_conflict("Service", "job", &Owner::of(metadata), &identity);
        let own = identity.child("job");
        assert_eq!(conflict(&own), None);

        let earlier = Identity { uid: "earlier".into(), ..identity.clone() };
        assert!(matches!(conflict(&earlier.child("job")), Some(ApplyConflict::Leftover { .. })));

        let plain = ObjectMeta { owner_references: None, ..own.clone() };
        let found = conflict(&plain).unwrap();
        assert!(found.reason() == "NameTaken" && found.message().contains("Service job"), "{found:?}");

        let deletion_timestamp = Some(Time(jiff::Timestamp::UNIX_EPOCH));
        let dying = ObjectMeta { deletion_timestamp, ..own };
        assert!(matches!(conflict(&dying), Some(ApplyConflict::Leftover { .. })));
    }
}
