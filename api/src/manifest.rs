//! Reads a DatJob manifest on a workstation, as kubectl reads it. The fields that only apply to a cluster are not checked.

use std::{fs, path::Path};

use serde::Deserialize;
use serde_json::Value;

use crate::Training;

mod yaml;

/// The API version of a DatJob.
const API_VERSION: &str = "datjob.io/v1alpha1";

/// A DatJob manifest, without the fields that only apply to a cluster.
#[derive(Debug)]
pub struct Manifest {
    /// Name of the job.
    pub name: String,
    /// Spec of the job.
    pub spec: Spec,
}

/// A DatJob as it is written.
#[derive(Deserialize)]
struct Job {
    metadata: Metadata,
    spec: Spec,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Metadata {
    name: Option<String>,
    generate_name: Option<String>,
}

/// Spec of a job.
#[derive(Debug, Deserialize)]
pub struct Spec {
    /// Limit on restarts.
    #[serde(default)]
    pub lifecycle: Lifecycle,
    /// Training spec.
    pub training: Training,
}

/// The fields of a spec. Those that [`Spec`] does not have only apply to a cluster.
const SPEC_FIELDS: [&str; 8] = [
    "replicas",
    "workersPerPod",
    "managedBy",
    "lifecycle",
    "pod",
    "checkpoints",
    "networkPolicy",
    "training",
];

/// The fields of `spec.lifecycle`.
const LIFECYCLE_FIELDS: [&str; 3] = ["maxRestarts", "startupDeadlineSeconds", "activeDeadlineSeconds"];

/// Limit on restarts.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Lifecycle {
    /// Maximum number of restarts.
    #[serde(default = "default_max_restarts")]
    pub max_restarts: u32,
}

impl Default for Lifecycle {
    fn default() -> Self {
        Self { max_restarts: default_max_restarts() }
    }
}

fn default_max_restarts() -> u32 {
    6
}

/// A failure to read a manifest.
#[derive(Debug, thiserror::Error)]
pub enum ManifestError {
    /// The file cannot be read.
    #[error("cannot read the manifest {path}: {error}")]
    Read {
        /// Path of the file.
        path: String,
        /// The cause.
        error: std::io::Error,
    },
    /// The content is invalid.
    #[error("invalid DatJob manifest {path}: {problem}")]
    Manifest {
        /// Path of the file.
        path: String,
        /// What is invalid.
        problem: String,
    },
}

/// Reads the only DatJob of a file of YAML or JSON documents. Other objects are ignored.
pub fn read(path: &Path) -> Result<Manifest, ManifestError> {
    let name = path.display().to_string();
    let text = fs::read_to_string(path).map_err(|error| ManifestError::Read { path: name.clone(), error })?;
    parse(&text).map_err(|problem| ManifestError::Manifest { path: name, problem })
}

/// Reads the only DatJob of a text; the error is a sentence.
fn parse(text: &str) -> Result<Manifest, String> {
    let objects: Vec<Value> = yaml::documents(text)?.into_iter().flat_map(items).collect();
    let (jobs, others): (Vec<Value>, Vec<Value>) =
        objects.into_iter().partition(|object| object["kind"] == "DatJob");
    let mut jobs = jobs.into_iter();
    match (jobs.next(), jobs.len()) {
        (Some(job), 0) => manifest(job),
        (Some(job), _) => {
            let names: Vec<&str> = std::iter::once(&job).chain(jobs.as_slice()).map(job_name).collect();
            Err(format!("expected one DatJob, found {}; write each to its own file", names.join(", ")))
        }
        (None, _) => {
            let kinds: Vec<&str> = others.iter().filter_map(|object| object["kind"].as_str()).collect();
            let found = if kinds.is_empty() { "no object with a kind".to_owned() } else { kinds.join(", ") };
            Err(format!("expected an object of kind DatJob, found {found}"))
        }
    }
}

/// The items of a list, as `kubectl get -o yaml` writes it, or the object itself.
fn items(object: Value) -> Vec<Value> {
    let is_list = object["kind"].as_str().is_some_and(|kind| kind.ends_with("List"));
    match object {
        Value::Object(mut fields) if is_list => match fields.remove("items") {
            Some(Value::Array(items)) => items,
            _ => Vec::new(),
        },
        object => vec![object],
    }
}

fn job_name(job: &Value) -> &str {
    let metadata = &job["metadata"];
    metadata["name"].as_str().or(metadata["generateName"].as_str()).unwrap_or("a DatJob without a name")
}

/// Refuses fields that an object does not have.
fn check_fields(path: &str, object: &Value, known: &[&str]) -> Result<(), String> {
    let mut names = object.as_object().into_iter().flatten().map(|(name, _)| name.as_str());
    match names.find(|name| !known.contains(name)) {
        Some(unknown) => {
            Err(format!("{path}.{unknown}: unknown field; expected one of {}", known.join(", ")))
        }
        None => Ok(()),
    }
}

fn manifest(job: Value) -> Result<Manifest, String> {
    if job["apiVersion"] != API_VERSION {
        return Err(format!("apiVersion: unsupported value {}; expected {API_VERSION}", job["apiVersion"]));
    }
    check_fields("spec", &job["spec"], &SPEC_FIELDS)?;
    check_fields("spec.lifecycle", &job["spec"]["lifecycle"], &LIFECYCLE_FIELDS)?;
    let Job { metadata, spec } = serde_path_to_error::deserialize(job).map_err(|error| {
        let (path, problem) = (error.path().to_string(), error.inner());
        if path == "." { problem.to_string() } else { format!("{path}: {problem}") }
    })?;
    // The API server appends random characters to generateName.
    let generated = metadata.generate_name.map(|prefix| prefix.trim_end_matches('-').to_owned());
    let name = metadata.name.or(generated).filter(|name| !name.is_empty());
    let name = name.ok_or_else(|| "metadata: missing field `name`".to_owned())?;
    Ok(Manifest { name, spec })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn job(name: &str) -> Value {
        json!({
            "apiVersion": API_VERSION,
            "kind": "DatJob",
            "metadata": {"name": name, "labels": {"a": "b"}},
            "spec": {
                "replicas": 2,
                "checkpoints": {"persistentVolumeClaim": {"claimName": "c"}},
                "training": {
                    "model": {"architecture": "small-cnn"},
                    "data": {
                        "dataset": "mnist",
                        "source": {"volume": {"persistentVolumeClaim": {"claimName": "d"}}}
                    },
                    "threatModel": {"epsilon": "0.1"},
                    "attack": {"fgsm": {}},
                    "schedule": {"epochs": 1}
                }
            }
        })
    }

    fn problem(text: &str) -> String {
        parse(text).unwrap_err()
    }

    #[test]
    fn reads_one_job_among_other_objects() {
        let claim = json!({"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": "c"}});
        assert_eq!(parse(&format!("---\n{claim}\n---\n{}\n---\n", job("a"))).unwrap().name, "a");
        let list = json!({"apiVersion": "v1", "kind": "List", "items": [claim, job("b")]});
        assert_eq!(parse(&list.to_string()).unwrap().name, "b");
    }

    #[test]
    fn refuses_several_jobs_and_none() {
        let two = format!("{}\n---\n{}", job("a"), job("b"));
        assert_eq!(problem(&two), "expected one DatJob, found a, b; write each to its own file");
        assert_eq!(
            problem("kind: ConfigMap\n---\nkind: Secret\n"),
            "expected an object of kind DatJob, found ConfigMap, Secret"
        );
        assert_eq!(problem(""), "expected an object of kind DatJob, found no object with a kind");
    }

    #[test]
    fn generate_name_names_the_run() {
        let mut generated = job("x");
        generated["metadata"] = json!({"generateName": "trial-"});
        assert_eq!(parse(&generated.to_string()).unwrap().name, "trial");
        generated["metadata"] = json!({});
        assert_eq!(problem(&generated.to_string()), "metadata: missing field `name`");
    }

    #[test]
    fn errors_name_the_field() {
        let with = |pointer: &str, value: Value| {
            let mut job = job("a");
            *job.pointer_mut(pointer).unwrap() = value;
            problem(&job.to_string())
        };
        assert_eq!(
            with("/apiVersion", json!("datjob.io/v2")),
            "apiVersion: unsupported value \"datjob.io/v2\"; expected datjob.io/v1alpha1"
        );
        assert_eq!(
            with("/spec/training/attack", json!({"pgd": {"step": 1}})),
            "spec.training.attack.pgd.step: unknown field `step`, expected `steps` or `stepSize`"
        );
        assert!(
            with("/spec/training/schedule", json!({"epochs": "3"}))
                .starts_with("spec.training.schedule.epochs: invalid type: string \"3\", expected u32")
        );
        let mut typo = job("a");
        typo["spec"]["replica"] = 3.into();
        let expected = "spec.replica: unknown field; expected one of replicas, workersPerPod, ";
        assert!(problem(&typo.to_string()).starts_with(expected));
        let mut typo = job("a");
        typo["spec"]["lifecycle"] = json!({"maxRestart": 3});
        assert!(
            problem(&typo.to_string())
                .starts_with("spec.lifecycle.maxRestart: unknown field; expected one of")
        );
    }

    #[test]
    #[cfg(feature = "crd")]
    fn knows_the_fields_of_the_resource() {
        use kube::CustomResourceExt;
        let crd = serde_json::to_value(crate::datjob::DatJob::crd()).unwrap();
        let spec = &crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"];
        let sorted = |fields: &[&str]| {
            let mut fields: Vec<String> = fields.iter().map(|field| (*field).to_owned()).collect();
            fields.sort();
            fields
        };
        let lifecycle = &spec["properties"]["lifecycle"];
        for (schema, fields) in [(spec, sorted(&SPEC_FIELDS)), (lifecycle, sorted(&LIFECYCLE_FIELDS))] {
            assert!(schema["properties"].as_object().unwrap().keys().eq(&fields), "{fields:?}");
        }
    }
}
