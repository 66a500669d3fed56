//! Reports a job that the operator cannot decode, for example one of an older CustomResourceDefinition.

use datjob_api::datjob::{DatJob, DatJobStatus};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::{
    Api, Resource as _, ResourceExt as _,
    api::{ApiResource, DynamicObject, Patch, PatchParams},
    runtime::controller::Action,
};
use serde_json::{Value, json};
use tracing::error;

use super::{Context, watch::UndecodableJob};
use crate::{
    calls::{CallError, call},
    conditions::{self, FINISHED, READY, STALLED, UNDECODABLE},
    installation::Installation,
};

/// A separate field manager: with [`super::identity::FIELD_MANAGER`], this status would remove all other fields.
const FIELD_MANAGER: &str = "datjob-operator-undecodable";

/// The conditions of a job that cannot be decoded, and their values. The others, of the other field manager, stay.
const CONDITIONS: [(&str, bool); 2] = [(READY, false), (STALLED, true)];

/// Sets the conditions of a job that cannot be decoded, if they differ. Leaves finished jobs, whose outcome is final, and
/// those of another installation.
pub(super) async fn report(context: &Context, invalid: &UndecodableJob) -> Result<Action, CallError> {
    let (name, namespace) = (invalid.metadata.name.clone(), invalid.metadata.namespace.clone());
    let (Some(name), Some(namespace)) = (name, namespace) else { return Ok(Action::await_change()) };
    let kind = ApiResource::erase::<DatJob>(&());
    let api = Api::<DynamicObject>::namespaced_with(context.client.clone(), &namespace, &kind);
    let found = call(format!("get DatJob {namespace}/{name}"), api.get_opt(&name)).await?;
    let Some(found) = found else { return Ok(Action::await_change()) };
    let before: Vec<Condition> =
        serde_json::from_value(found.data["status"]["conditions"].clone()).unwrap_or_default();
    if is_foreign(&context.installation, &found.data) || is_finished(&before) {
        return Ok(Action::await_change());
    }
    context.metrics.record_undecodable();
    error!(job = %name, %namespace, error = %invalid.error, "Cannot decode the job; skipping it.");
    let mut status = DatJobStatus {
        conditions: before
            .into_iter()
            .filter(|one| CONDITIONS.iter().any(|(kind, _)| one.type_ == *kind))
            .collect(),
        ..DatJobStatus::default()
    };
    let unchanged = status.conditions.clone();
    let message = format!(
        "The operator cannot decode this job: {}. Correct it, or delete it and create it again with this release.",
        invalid.error
    );
    let generation = found.metadata.generation.unwrap_or_default();
    for (kind, value) in CONDITIONS {
        conditions::set(&mut status, kind, value, UNDECODABLE, &message, generation, Timestamp::now());
    }
    if status.conditions == unchanged {
        return Ok(Action::await_change());
    }
    let body = json!({
        "apiVersion": DatJob::api_version(&()),
        "kind": DatJob::kind(&()),
        "metadata": {"resourceVersion": found.resource_version()},
        "status": {"observedGeneration": generation, "conditions": status.conditions},
    });
    let params = PatchParams::apply(FIELD_MANAGER).force();
    call(
        format!("write the status of DatJob {namespace}/{name}"),
        api.patch_status(&name, &params, &Patch::Apply(body)),
    )
    .await?;
    Ok(Action::await_change())
}

fn is_foreign(installation: &Installation, job: &Value) -> bool {
    let recorded = job["status"]["managedBy"].as_str().unwrap_or_default();
    installation.management_by(job["spec"]["managedBy"].as_str(), recorded).is_foreign()
}

fn is_finished(conditions: &[Condition]) -> bool {
    conditions.iter().any(|condition| condition.type_ == FINISHED && condition.status == "True")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn jobs_of_other_installations_and_finished_jobs_are_left_alone() {
        let installation = Installation::new(Some("ns"), "operator");
        let foreign = |job: &Value| is_foreign(&installation, job);
        assert!(!foreign(&json!({"spec": {}})));
        assert!(!foreign(&json!({"spec": {}, "status": {"managedBy": "ns/operator"}})));
        assert!(foreign(&json!({"spec": {}, "status": {"managedBy": "ns/other"}})));
        assert!(foreign(&json!({"spec": {"managedBy": "example.com/queue"}})));
        let condition = |value: &str| {
            serde_json::from_value::<Condition>(
                json!({"type": FINISHED, "status": value, "reason": "", "message": "",
                "lastTransitionTime": "2026-01-01T00:00:00Z"}),
            )
            .unwrap()
        };
        assert!(is_finished(&[condition("True")]) && !is_finished(&[condition("False")]));
    }
}
