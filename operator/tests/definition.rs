//! `crds/datjob.yaml` and `docs/reference.md` are up to date with the types.

use datjob_api::datjob::{DatJob, definition};
use serde_json::{Value, json};

/// The schema of a DatJob.
fn schema() -> Value {
    let definition = serde_json::to_value(definition()).unwrap();
    definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"].clone()
}

fn assert_up_to_date(file: &str, expected: &str) {
    let path = format!("{}/../{file}", env!("CARGO_MANIFEST_DIR"));
    let written = std::fs::read_to_string(path).unwrap_or_default();
    assert!(written == expected, "{file} is stale; run `make generate`");
}

#[test]
fn the_definition_in_the_repository_is_up_to_date() {
    assert_up_to_date("crds/datjob.yaml", &serde_yaml::to_string(&definition()).unwrap());
}

#[test]
fn the_reference_in_the_repository_is_up_to_date() {
    assert_up_to_date("docs/reference.md", &datjob_operator::reference::markdown(&definition()));
}

#[test]
fn the_definition_fits_kubectl_apply() {
    // `kubectl apply` stores the object in an annotation of at most 262,144 bytes.
    let size = serde_json::to_string(&definition()).unwrap().len();
    assert!(size < 200_000, "{size} bytes");
    let written = serde_yaml::to_string(&definition()).unwrap().len();
    assert!(written < 200_000, "{written} bytes as YAML");
}

/// Items of lists with a default would always differ from what a person applied: tools compare lists as a whole.
#[test]
fn items_of_lists_have_no_defaults() {
    fn search(path: &str, schema: &Value, in_list: bool) -> Vec<String> {
        let mut found: Vec<String> =
            (in_list && schema.get("default").is_some()).then(|| path.to_owned()).into_iter().collect();
        for (name, field) in schema["properties"].as_object().into_iter().flatten() {
            found.extend(search(&format!("{path}.{name}"), field, in_list));
        }
        for (keyword, suffix) in [("items", "[]"), ("additionalProperties", "{}")] {
            if let Some(below) = schema.get(keyword) {
                found.extend(search(&format!("{path}{suffix}"), below, in_list || keyword == "items"));
            }
        }
        found
    }
    assert_eq!(search("", &schema(), false), Vec::<String>::new());
}

/// The API server answers a violated pattern with the pattern, and a violated rule with the rule's sentence.
#[test]
fn strings_have_rules_with_a_sentence_instead_of_patterns() {
    let definition = serde_yaml::to_string(&definition()).unwrap();
    let patterns: Vec<&str> = definition.lines().filter(|line| line.trim().starts_with("pattern:")).collect();
    assert_eq!(patterns, Vec::<&str>::new());
}

#[test]
fn names_in_lists_of_pods_are_unique() {
    for (list, key) in [("env", "name"), ("volumes", "name"), ("volumeMounts", "mountPath")] {
        let list = &schema()["properties"]["spec"]["properties"]["pod"]["properties"][list];
        assert_eq!(list["x-kubernetes-list-type"], "map", "{list}");
        assert_eq!(list["x-kubernetes-list-map-keys"], json!([key]), "{list}");
    }
}

#[test]
fn a_teacher_has_no_initial_weights() {
    let pointer = "/properties/spec/properties/training/properties/data/properties/additional/properties/labels/properties/\
                   teacher/properties/model/properties";
    let schema = schema();
    let model = schema.pointer(pointer).unwrap();
    assert!(model.get("architecture").is_some() && model.get("initialWeights").is_none(), "{model}");
}

#[test]
fn fixtures_are_valid_jobs() {
    for manifest in [include_str!("fixtures/minimal.yaml"), include_str!("fixtures/full.yaml")] {
        let json: serde_json::Value = serde_yaml::from_str(manifest).unwrap();
        serde_json::from_value::<DatJob>(json).unwrap();
    }
}

#[test]
fn a_new_status_has_only_the_mark_of_an_unobserved_job() {
    fn defaults(path: &str, schema: &Value) -> Vec<String> {
        let own = schema.get("default").map(|_| path.to_owned());
        let below = schema["properties"].as_object().into_iter().flatten();
        own.into_iter()
            .chain(below.flat_map(|(name, field)| defaults(&format!("{path}.{name}"), field)))
            .collect()
    }
    let status = &schema()["properties"]["status"];
    assert_eq!(status["default"], json!({"observedGeneration": -1}));
    assert_eq!(defaults("status", status), ["status"]);
}
