//! Rules of the schema of `spec.pod`. The API server evaluates those in CEL at every write of a DatJob.
//!
//! The operator checks the same, and what CEL cannot check cheaply: see `validate/pod.rs` and `validate/volumes.rs` there.

use schemars::{Schema, SchemaGenerator, json_schema};
use serde_json::{Value, json};

use crate::contract;

fn rule(cel: impl Into<String>, message: &str) -> Value {
    json!({"rule": cel.into(), "message": message})
}

pub(super) fn pull_policy(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"type": "string", "enum": ["Always", "IfNotPresent", "Never"]})
}

pub(super) fn env_names() -> Value {
    rule(
        "self.all(variable, !variable.name.startsWith('DATJOB_') || variable.name == 'DATJOB_LOG')",
        "env names that start with DATJOB_ are reserved, except DATJOB_LOG; choose another name",
    )
}

pub(super) fn label_keys() -> Value {
    let domains = contract::RESERVED_DOMAINS.map(not_under).join(" && ");
    rule(
        format!("self.all(key, {domains} && key != '{}')", contract::RESERVED_LABEL),
        "labels under datjob.io, app.kubernetes.io, apps.kubernetes.io and statefulset.kubernetes.io, and \
         controller-revision-hash, are reserved for the operator and Kubernetes; choose another key",
    )
}

pub(super) fn annotation_keys() -> Value {
    rule(
        format!("self.all(key, {})", not_under(contract::RESERVED_DOMAINS[0])),
        "annotations under datjob.io are reserved for the operator; choose another key",
    )
}

/// Whether the prefix of a key is neither a domain nor below it.
fn not_under(domain: &str) -> String {
    format!("!key.startsWith('{domain}/') && !key.contains('.{domain}/')")
}

pub(super) fn volume_name() -> [Value; 1] {
    crate::patterns::matches([
        "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$",
        "expected lower-case letters, digits and '-', with a letter or digit at the start and the end",
    ])
}

pub(super) fn volume() -> [Value; 2] {
    [
        rule(
            "[has(self.persistentVolumeClaim), has(self.configMap), has(self.secret), has(self.emptyDir)].filter(x, x).size() \
             == 1",
            "set exactly one of: persistentVolumeClaim, configMap, secret, emptyDir",
        ),
        rule(
            "!self.name.startsWith('datjob-')",
            "volume names that start with datjob- are reserved for the operator; choose another name",
        ),
    ]
}
