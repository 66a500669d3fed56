//! Decodes values of a status that another release may have written. Pure.

use serde::{Deserialize as _, Deserializer, de::DeserializeOwned};
use serde_json::Value;

/// Decodes a value; the default if this release does not know it. The operator then rebuilds it. Otherwise one unknown
/// member of an enum would make the whole job undecodable.
pub(super) fn known_or_default<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: DeserializeOwned + Default,
{
    let value = Value::deserialize(deserializer)?;
    Ok(serde_json::from_value(value).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use kube::core::DeserializeGuard;
    use serde_json::json;

    use super::super::{DatJob, DatJobStatus};

    #[test]
    fn unknown_values_of_another_release_are_absent() {
        let status: DatJobStatus = serde_json::from_value(json!({
            "attempt": 3,
            "state": "Hibernating",
            "split": "holdout",
            "failure": {"reason": "Gremlins", "message": "m"},
            "accuracy": {"epoch": 2, "split": "holdout"},
            "best": {"epoch": 1, "split": "test", "clean": {"correct": 1, "total": 2},
                "robust": {"attack": "pgd-20", "correct": 1, "total": 2}},
            "progress": {"epoch": 2},
            "results": {"bestEpoch": "second"},
        }))
        .unwrap();
        assert_eq!((status.attempt, status.state.as_str()), (3, "Hibernating"));
        assert_eq!((status.split, status.failure, status.accuracy), (None, None, None));
        assert_eq!((status.progress, status.results), (None, None));
        assert_eq!(status.best.unwrap().epoch, 1);
    }

    #[test]
    fn a_watched_job_with_an_unknown_value_is_decoded() {
        let manifest = json!({
            "apiVersion": "datjob.io/v1alpha1", "kind": "DatJob", "metadata": {"name": "job"},
            "spec": {
                "replicas": 1,
                "checkpoints": {"persistentVolumeClaim": {"claimName": "c"}},
                "training": {
                    "model": {"architecture": "small-cnn"},
                    "data": {"dataset": "mnist", "source": {"image": {"reference": "i"}}},
                    "threatModel": {"epsilon": "0.1"}, "attack": {"fgsm": {}}, "schedule": {"epochs": 1}
                }
            },
            "status": {"attempt": 1, "failure": {"reason": "Gremlins", "message": "m"}}
        });
        let job: DeserializeGuard<DatJob> = serde_json::from_value(manifest.clone()).unwrap();
        assert_eq!(job.0.unwrap().status.unwrap().attempt, 1);
        // Counters decide which attempt runs: a wrong one must not become 0.
        let mut wrong = manifest;
        wrong["status"]["attempt"] = json!("first");
        assert!(serde_json::from_value::<DeserializeGuard<DatJob>>(wrong).unwrap().0.is_err());
    }
}
