//! A watched job. One that cannot be decoded does not block the others.

use std::borrow::Cow;

use datjob_api::datjob::DatJob;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::{Resource, ResourceExt as _, core::PartialObjectMeta};
use serde::{Deserialize, Deserializer, de::Error as _};
use serde_json::Value;

/// A watched job.
#[derive(Clone, Debug)]
pub struct Watched(pub Result<DatJob, UndecodableJob>);

/// A job that cannot be decoded.
#[derive(Clone, Debug)]
pub struct UndecodableJob {
    /// The field, and what is wrong with it.
    pub error: String,
    /// Metadata of the job.
    pub metadata: ObjectMeta,
}

impl<'de> Deserialize<'de> for Watched {
    /// Decodes a job of the API server. The values are kept for the metadata, because a failed attempt consumes the
    /// deserializer. kube's `DeserializeGuard` copies them, with a larger type.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let value = Value::deserialize(deserializer)?;
        if let Ok(job) = DatJob::deserialize(&value) {
            return Ok(Self(Ok(job)));
        }
        // Recording the path makes decoding slower.
        match serde_path_to_error::deserialize(&value) {
            Ok(job) => Ok(Self(Ok(job))),
            Err(error) => {
                let partial = PartialObjectMeta::<DatJob>::deserialize(&value).map_err(D::Error::custom)?;
                Ok(Self(Err(UndecodableJob { error: error.to_string(), metadata: partial.metadata })))
            }
        }
    }
}

impl Resource for Watched {
    type DynamicType = ();
    type Scope = <DatJob as Resource>::Scope;

    fn kind((): &()) -> Cow<'_, str> {
        DatJob::kind(&())
    }

    fn group((): &()) -> Cow<'_, str> {
        DatJob::group(&())
    }

    fn version((): &()) -> Cow<'_, str> {
        DatJob::version(&())
    }

    fn plural((): &()) -> Cow<'_, str> {
        DatJob::plural(&())
    }

    fn meta(&self) -> &ObjectMeta {
        self.0.as_ref().map_or_else(|undecodable| &undecodable.metadata, DatJob::meta)
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        self.0.as_mut().map_or_else(|undecodable| &mut undecodable.metadata, DatJob::meta_mut)
    }
}

/// Drops the parts of a job that the operator does not read: the managed fields, and the copy of the spec that
/// `kubectl apply` keeps.
pub(super) fn trim(job: &mut Watched) {
    job.meta_mut().managed_fields = None;
    job.annotations_mut().remove("kubectl.kubernetes.io/last-applied-configuration");
}

#[cfg(test)]
mod tests {
    use kube::{
        core::{ObjectList, WatchEvent},
        runtime::reflector::ObjectRef,
    };
    use serde_json::json;

    use super::*;
    use crate::testing::minimal;

    /// A valid job, and one with a batch size that is not a number.
    fn jobs() -> [Value; 2] {
        let valid = serde_json::to_value(minimal()).unwrap();
        let mut undecodable = valid.clone();
        undecodable["spec"]["training"]["schedule"]["batchSize"] = json!("many");
        [valid, undecodable]
    }

    #[test]
    fn a_list_has_the_jobs_that_cannot_be_decoded() {
        let list = json!({"apiVersion": "datjob.io/v1alpha1", "kind": "DatJobList", "metadata": {}, "items": jobs()});
        let list: ObjectList<Watched> = serde_json::from_str(&list.to_string()).unwrap();
        let [valid, undecodable] = &list.items[..] else { panic!("{list:?}") };
        let minimal = minimal();
        assert_eq!(valid.0.as_ref().unwrap().spec, minimal.spec);
        assert_eq!(ObjectRef::from_obj(undecodable), ObjectRef::from_obj(valid));
        assert_eq!(undecodable.meta().uid, minimal.metadata.uid);
        let error = &undecodable.0.as_ref().unwrap_err().error;
        assert!(
            error.starts_with("spec.training.schedule.batchSize: invalid type: string \"many\""),
            "{error}"
        );
    }

    #[test]
    fn an_event_has_a_job_that_cannot_be_decoded() {
        for (job, decodable) in jobs().into_iter().zip([true, false]) {
            let event = json!({"type": "MODIFIED", "object": job}).to_string();
            let event: WatchEvent<Watched> = serde_json::from_str(&event).unwrap();
            let WatchEvent::Modified(found) = event else { panic!("{event:?}") };
            assert_eq!(found.0.is_ok(), decodable);
        }
    }
}
