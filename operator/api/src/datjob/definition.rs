//! The `CustomResourceDefinition`: what the derive makes of the types, and what no derive can say.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    CustomResourceDefinition, JSON, JSONSchemaProps, JSONSchemaPropsOrArray, ValidationRule,
};
use kube::CustomResourceExt;

use super::DatJob;

/// Longest name of a job: its pods carry the name of a revision of their StatefulSet (name, dash, 10 characters) in a
/// label of at most 63.
pub const MAX_NAME_LENGTH: usize = 52;

/// The definition as it is installed in a cluster.
pub fn definition() -> CustomResourceDefinition {
    let mut crd = DatJob::crd();
    for version in &mut crd.spec.versions {
        if let Some(root) = version.schema.as_mut().and_then(|schema| schema.open_api_v3_schema.as_mut()) {
            explain_unions(root);
            root.x_kubernetes_validations.get_or_insert_default().extend(name_rules());
            if let Some(status) = property(root, "status") {
                // An object without status counts as current; -1 says that nobody has looked at it yet.
                status.default = Some(JSON(serde_json::json!({"observedGeneration": -1})));
            }
        }
    }
    crd
}

fn property<'a>(schema: &'a mut JSONSchemaProps, name: &str) -> Option<&'a mut JSONSchemaProps> {
    schema.properties.as_mut()?.get_mut(name)
}

fn rule(rule: impl Into<String>, message: impl Into<String>) -> ValidationRule {
    ValidationRule { rule: rule.into(), message: Some(message.into()), ..ValidationRule::default() }
}

/// Adds to every union a rule that says in words what `oneOf` says to machines.
fn explain_unions(schema: &mut JSONSchemaProps) {
    let members: Vec<String> =
        schema.one_of.iter().flatten().flat_map(|one| one.required.clone().unwrap_or_default()).collect();
    if !members.is_empty() {
        let present =
            members.iter().map(|member| format!("has(self.{member})")).collect::<Vec<_>>().join(", ");
        schema.x_kubernetes_validations.get_or_insert_default().push(rule(
            format!("[{present}].filter(x, x).size() == 1"),
            format!("set exactly one of: {}", members.join(", ")),
        ));
    }
    schema.properties.iter_mut().flat_map(|properties| properties.values_mut()).for_each(explain_unions);
    if let Some(JSONSchemaPropsOrArray::Schema(items)) = &mut schema.items {
        explain_unions(items);
    }
}

fn name_rules() -> [ValidationRule; 2] {
    [
        rule(
            "self.metadata.name.matches('^[a-z]([-a-z0-9]*[a-z0-9])?$')",
            "metadata.name must begin with a letter and hold lower-case letters, digits and dashes alone: a Service is named after it",
        ),
        rule(
            format!("self.metadata.name.size() <= {MAX_NAME_LENGTH}"),
            format!(
                "metadata.name must have at most {MAX_NAME_LENGTH} characters: labels of the pods are made of it"
            ),
        ),
    ]
}
