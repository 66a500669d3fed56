//! Names of a job, and labels and owner references of its children. Pure.

use std::collections::BTreeMap;

use datjob_api::{contract, datjob::DatJob};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta, OwnerReference};
use kube::{Resource as _, ResourceExt as _};

/// Value of `app.kubernetes.io/name` on children.
pub const APP_NAME: &str = "datjob-trainer";
/// Field manager of the status, and value of `app.kubernetes.io/managed-by` on children.
pub const FIELD_MANAGER: &str = "datjob-operator";

/// Names of one job.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Identity {
    /// Its name.
    pub name: String,
    /// Its namespace.
    pub namespace: String,
    /// Its UID.
    pub uid: String,
}

impl Identity {
    /// The names of a job, or `None` if it has no UID yet.
    pub fn of(job: &DatJob) -> Option<Self> {
        Some(Self { name: job.name_any(), namespace: job.namespace()?, uid: job.uid()? })
    }

    /// Labels of all children.
    pub fn labels(&self) -> BTreeMap<String, String> {
        [
            ("app.kubernetes.io/component", "trainer"),
            ("app.kubernetes.io/instance", &self.name),
            ("app.kubernetes.io/managed-by", FIELD_MANAGER),
            ("app.kubernetes.io/name", APP_NAME),
            (contract::LABEL_JOB_NAME, &self.name),
            (contract::LABEL_JOB_UID, &self.uid),
        ]
        .into_iter()
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .collect()
    }

    /// Selects the pods of this job by its UID, because a later job can have the same name.
    pub fn selector(&self) -> LabelSelector {
        LabelSelector {
            match_labels: Some([(contract::LABEL_JOB_UID.to_owned(), self.uid.clone())].into()),
            ..LabelSelector::default()
        }
    }

    /// Owner reference to the job.
    pub fn owner(&self) -> OwnerReference {
        OwnerReference {
            api_version: DatJob::api_version(&()).into_owned(),
            kind: DatJob::kind(&()).into_owned(),
            name: self.name.clone(),
            uid: self.uid.clone(),
            controller: Some(true),
            block_owner_deletion: Some(true),
        }
    }

    /// Metadata of a child.
    pub fn child(&self, name: impl Into<String>) -> ObjectMeta {
        ObjectMeta {
            name: Some(name.into()),
            namespace: Some(self.namespace.clone()),
            labels: Some(self.labels()),
            owner_references: Some(vec![self.owner()]),
            ..ObjectMeta::default()
        }
    }
}
