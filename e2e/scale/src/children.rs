//! What the operator creates for a job, from its pure functions: the children and the first status.

use anyhow::{Context as _, bail};
use datjob_api::datjob::DatJob;
use datjob_operator::controller::{
    apply::{ActiveJob, Applied},
    attempt::AttemptAction,
    build::{AttemptToken, Children, Settings, build},
    identity::Identity,
    observe::Observation,
    status::status,
    update::status_body,
    validate::{Validation, validate},
};
use jiff::Timestamp;
use kube::ResourceExt as _;
use serde_json::Value;

use crate::{cluster::CONTROLLER_NAMESPACE, operator::TRAINER_IMAGE};

/// The children of a job's first attempt.
pub fn children(job: &DatJob) -> anyhow::Result<Children> {
    let identity = Identity::of(job).context("the API server returned a job without UID")?;
    let settings = Settings {
        trainer_image: TRAINER_IMAGE.to_owned(),
        trainer_cuda_image: None,
        operator_namespace: Some(CONTROLLER_NAMESPACE.to_owned()),
    };
    match validate(job, &identity) {
        Validation::Valid(valid) => {
            Ok(build(&valid, AttemptAction::Start(1), &AttemptToken::random()?, &settings))
        }
        Validation::Invalid(invalid) => bail!("the operator rejects the benchmark's job: {invalid}"),
        Validation::Finished => bail!("the new job {} has finished", job.name_any()),
    }
}

/// The body of the first write of a job's status.
pub fn first_status(job: &DatJob, now: Timestamp) -> Value {
    let active =
        ActiveJob { observation: Observation::default(), action: AttemptAction::Start(1), conflict: None };
    let outcome = status(job, &Applied::Active(Box::new(active)), now);
    status_body(job, &outcome.status)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::job::{Placement, indexed};

    #[test]
    fn a_new_job_has_five_children_and_a_status() {
        let mut job = indexed(1, 2, Placement::Nowhere).unwrap();
        job.metadata.uid = Some("uid".into());
        job.metadata.resource_version = Some("7".into());
        let children = children(&job).unwrap();
        assert!(children.stateful_set.is_some() && children.network_policy.is_some());
        let status = first_status(&job, Timestamp::UNIX_EPOCH);
        assert_eq!(status["metadata"]["resourceVersion"], "7");
        assert_eq!(status["status"]["attempt"], 1);
    }
}
