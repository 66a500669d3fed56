//! The CustomResourceDefinition: the derived one, with additional rules. Pure.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    CustomResourceDefinition, JSON, JSONSchemaProps, JSONSchemaPropsOrArray, JSONSchemaPropsOrBool,
    ValidationRule,
};
use kube::CustomResourceExt;

use super::DatJob;

/// Maximum length of a job name: a label of its pods, at most 63 characters, contains the name, a dash and a hash of 10
/// characters.
pub const MAX_NAME_LENGTH: usize = 52;

/// Maximum length of a quantity, and maximum number in a map. The API server requires bounds for the cost of their rule.
const MAX_QUANTITY_LENGTH: i64 = 64;
const MAX_QUANTITIES: i64 = 32;

/// Fields of `spec.pod` with large Kubernetes types.
const KUBERNETES_TYPES: [&str; 2] = ["affinity", "topologySpreadConstraints"];

/// The definition to install in a cluster.
pub fn definition() -> CustomResourceDefinition {
    let mut crd = DatJob::crd();
    for version in &mut crd.spec.versions {
        if let Some(root) = version.schema.as_mut().and_then(|schema| schema.open_api_v3_schema.as_mut()) {
            add_union_rules(root);
            for field in KUBERNETES_TYPES {
                let pod = property(root, "spec").and_then(|spec| property(spec, "pod"));
                if let Some(schema) = pod.and_then(|pod| property(pod, field)) {
                    remove_descriptions(schema);
                }
            }
            if let Some(pod) = property(root, "spec").and_then(|spec| property(spec, "pod")) {
                add_quantity_rules(pod);
            }
            root.x_kubernetes_validations.get_or_insert_default().push(name_rule());
            if let Some(status) = property(root, "status") {
                remove_defaults(status);
                // kstatus treats an object without status as current. -1 marks it as not observed.
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

/// Removes the descriptions below a field. `kubectl explain pod.spec` has them, and they would be a quarter of the
/// definition.
fn remove_descriptions(schema: &mut JSONSchemaProps) {
    let items = match &mut schema.items {
        Some(JSONSchemaPropsOrArray::Schema(items)) => Some(&mut **items),
        _ => None,
    };
    for below in schema.properties.iter_mut().flat_map(|all| all.values_mut()).chain(items) {
        below.description = None;
        remove_descriptions(below);
    }
}

/// Removes the defaults below a field. Otherwise the API server would add them to every status, at each write.
fn remove_defaults(schema: &mut JSONSchemaProps) {
    for below in schema.properties.iter_mut().flat_map(|properties| properties.values_mut()) {
        below.default = None;
        remove_defaults(below);
    }
}

/// Adds a rule to quantities, such as 500m and 2Gi, because the API server answers a wrong pattern with the pattern. In
/// `spec.pod`, only quantities are integers or strings.
///
/// The description of the quantities in `resources` is 2,400 characters long.
fn add_quantity_rules(schema: &mut JSONSchemaProps) {
    if schema.x_kubernetes_int_or_string == Some(true) {
        if schema.description.as_ref().is_some_and(|description| description.starts_with("Quantity is ")) {
            schema.description = Some("Quantity, for example 500m or 2Gi.".into());
        }
        schema.max_length = Some(MAX_QUANTITY_LENGTH);
        schema.x_kubernetes_validations.get_or_insert_default().push(rule(
            "type(self) == int || isQuantity(string(self))",
            "expected a quantity, for example 500m (CPU) or 2Gi (memory)",
        ));
    }
    if let Some(JSONSchemaPropsOrBool::Schema(values)) = &mut schema.additional_properties {
        if values.x_kubernetes_int_or_string == Some(true) {
            schema.max_properties = Some(MAX_QUANTITIES);
        }
        add_quantity_rules(values);
    }
    if let Some(JSONSchemaPropsOrArray::Schema(items)) = &mut schema.items {
        add_quantity_rules(items);
    }
    schema.properties.iter_mut().flat_map(|properties| properties.values_mut()).for_each(add_quantity_rules);
}

/// Adds a rule to each union, so that the API server reports its members instead of a mismatch of `oneOf`.
fn add_union_rules(schema: &mut JSONSchemaProps) {
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
    schema.properties.iter_mut().flat_map(|properties| properties.values_mut()).for_each(add_union_rules);
    if let Some(JSONSchemaPropsOrArray::Schema(items)) = &mut schema.items {
        add_union_rules(items);
    }
}

/// One rule for characters and length, because the API server evaluates it at every write.
fn name_rule() -> ValidationRule {
    rule(
        format!("self.metadata.name.matches('^[a-z]([-a-z0-9]{{0,{}}}[a-z0-9])?$')", MAX_NAME_LENGTH - 2),
        format!(
            "metadata.name must have at most {MAX_NAME_LENGTH} lower-case letters, digits and '-', start with a letter and end \
             with a letter or digit, because a Service and a pod label are named after it"
        ),
    )
}
