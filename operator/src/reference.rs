//! Renders the API reference as Markdown from the schema: a section per object, a row per field. Pure.

use std::{collections::BTreeMap, fmt::Write as _};

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    CustomResourceDefinition, JSONSchemaProps, JSONSchemaPropsOrArray, JSONSchemaPropsOrBool,
};

/// Prefixes of fields with Kubernetes types, which `kubectl explain` documents.
const KUBERNETES_OWN: [&str; 2] = ["spec.networkPolicy.egress[]", "spec.pod."];

const INTRODUCTION: &str = "\
# DatJob reference

Generated from the Rust types by `make generate`; `kubectl explain datjob.spec` shows the same texts. A field without a
default is optional unless it is marked as required. Objects below `spec.pod` and items of `spec.networkPolicy.egress` are
types of Kubernetes and have no section here; `kubectl explain` describes them.
";

/// Renders the reference of the newest version.
pub fn markdown(definition: &CustomResourceDefinition) -> String {
    let mut text = INTRODUCTION.to_owned();
    let version = definition.spec.versions.last();
    let schema = version.and_then(|version| version.schema.as_ref()?.open_api_v3_schema.as_ref());
    for part in ["spec", "status"] {
        if let Some(schema) = schema.and_then(|root| root.properties.as_ref()?.get(part)) {
            section(&mut text, part, schema);
        }
    }
    text
}

/// Writes the section of an object and of the objects in it.
fn section(text: &mut String, path: &str, schema: &JSONSchemaProps) {
    let Some(fields) = fields(path, schema) else { return };
    let _ = writeln!(text, "\n## {path}\n");
    let _ = writeln!(text, "{}", schema.description.as_deref().unwrap_or_default());
    let members = members(schema);
    if !members.is_empty() {
        let _ =
            writeln!(text, "\nExactly one of: {}.", members.iter().map(code).collect::<Vec<_>>().join(", "));
    }
    let _ = writeln!(text, "\n| Field | Type | Description |\n|---|---|---|");
    let required = object(schema).and_then(|object| object.required.as_deref()).unwrap_or_default();
    for (name, field) in fields {
        let mut type_column = table_cell(&type_and_bounds(field, required.contains(name)));
        let below = path_below(path, name, field);
        if self::fields(&below, field).is_some() {
            type_column = type_column.replacen("object", &format!("[object](#{})", anchor(&below)), 1);
        }
        let description = field.description.as_deref().unwrap_or_default();
        let _ = writeln!(text, "| `{name}` | {type_column} | {} |", table_cell(description));
    }
    let rules =
        object(schema).and_then(|object| object.x_kubernetes_validations.as_deref()).unwrap_or_default();
    // "Exactly one of" already states this rule.
    let messages = rules.iter().filter_map(|rule| rule.message.as_deref());
    let messages: Vec<&str> = messages.filter(|message| !message.starts_with("set exactly one of")).collect();
    if !messages.is_empty() {
        let _ = writeln!(text, "\nValidation rules:\n");
    }
    for message in messages {
        let _ = writeln!(text, "- {}", one_line(message));
    }
    for (name, field) in fields {
        section(text, &path_below(path, name, field), field);
    }
}

/// The fields of an object that has a section.
fn fields<'a>(path: &str, schema: &'a JSONSchemaProps) -> Option<&'a BTreeMap<String, JSONSchemaProps>> {
    let own = KUBERNETES_OWN.iter().any(|own| path.starts_with(own));
    object(schema)?.properties.as_ref().filter(|_| !own)
}

fn path_below(path: &str, name: &str, field: &JSONSchemaProps) -> String {
    let brackets = if is_array(field) { "[]" } else { "" };
    format!("{path}.{name}{brackets}")
}

/// The anchor that GitHub generates for a heading.
fn anchor(heading: &str) -> String {
    heading.chars().filter(char::is_ascii_alphanumeric).collect::<String>().to_lowercase()
}

/// The schema of a field, or of the items of an array.
fn object(schema: &JSONSchemaProps) -> Option<&JSONSchemaProps> {
    match &schema.items {
        Some(JSONSchemaPropsOrArray::Schema(items)) => Some(items),
        Some(JSONSchemaPropsOrArray::Schemas(_)) => None,
        None => Some(schema),
    }
}

fn is_array(schema: &JSONSchemaProps) -> bool {
    schema.items.is_some()
}

/// The members of a union.
fn members(schema: &JSONSchemaProps) -> Vec<&str> {
    let alternatives = object(schema).and_then(|object| object.one_of.as_deref()).unwrap_or_default();
    alternatives.iter().flat_map(|one| one.required.iter().flatten()).map(String::as_str).collect()
}

/// Type, bounds, default, and whether a field is required.
fn type_and_bounds(field: &JSONSchemaProps, required: bool) -> String {
    let items = object(field).filter(|_| is_array(field));
    let mut parts = vec![match items {
        Some(items) => format!("list of {}", type_name(items)),
        None => type_name(field),
    }];
    let counted = |unit: &str, min: Option<i64>, max: Option<i64>| {
        let number = |number: i64| number as f64;
        bounds(min.filter(|&min| min > 0).map(number), max.map(number))
            .map(|bounds| format!("{bounds} {unit}"))
    };
    parts.extend(bounds(field.minimum, field.maximum));
    parts.extend(counted("characters", field.min_length, field.max_length));
    parts.extend(counted("items", field.min_items, field.max_items));
    // The fields of an object have their own defaults.
    if let Some(default) = field.default.as_ref().filter(|default| !default.0.is_object()) {
        parts.push(format!("default `{}`", default.0));
    }
    if required && field.default.is_none() {
        parts.push("required".to_owned());
    }
    parts.join(", ")
}

fn type_name(schema: &JSONSchemaProps) -> String {
    if let Some(values) = &schema.enum_ {
        let values = values.iter().filter(|value| !value.0.is_null());
        return values
            .map(|value| code(value.0.to_string().trim_matches('"')))
            .collect::<Vec<_>>()
            .join(" or ");
    }
    let integer_or_string = schema.x_kubernetes_int_or_string == Some(true);
    match (&schema.additional_properties, schema.type_.as_deref()) {
        (_, None) if integer_or_string => "integer or string".to_owned(),
        (Some(JSONSchemaPropsOrBool::Schema(values)), _) => format!("map of string to {}", type_name(values)),
        (_, Some(name)) => name.to_owned(),
        (_, None) => "any value".to_owned(),
    }
}

fn bounds(min: Option<f64>, max: Option<f64>) -> Option<String> {
    match (min, max) {
        (Some(min), Some(max)) => Some(format!("{min} to {max}")),
        (Some(min), None) => Some(format!("at least {min}")),
        (None, Some(max)) => Some(format!("at most {max}")),
        (None, None) => None,
    }
}

fn code(text: impl std::fmt::Display) -> String {
    format!("`{text}`")
}

/// Escapes text for a table cell.
fn table_cell(text: &str) -> String {
    one_line(text).replace('|', "\\|")
}

fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn render(spec: serde_json::Value) -> String {
        let schema: JSONSchemaProps = serde_json::from_value(spec).unwrap();
        let mut text = String::new();
        section(&mut text, "spec", &schema);
        text
    }

    #[test]
    fn a_row_has_bounds_default_and_required() {
        let text = render(json!({
            "description": "What.",
            "type": "object",
            "required": ["count"],
            "properties": {
                "count": {"type": "integer", "minimum": 1, "maximum": 8, "description": "How many\nof them."},
                "norm": {"type": "string", "enum": ["Linf", "L2", null], "default": "Linf", "description": "a | b"},
                "names": {"type": "array", "maxItems": 3, "items": {"type": "string"}, "description": "Names."}
            }
        }));
        assert!(text.contains("\n## spec\n\nWhat.\n"), "{text}");
        assert!(text.contains("| `count` | integer, 1 to 8, required | How many of them. |"), "{text}");
        assert!(text.contains("| `norm` | `Linf` or `L2`, default `\"Linf\"` | a \\| b |"), "{text}");
        assert!(text.contains("| `names` | list of string, at most 3 items | Names. |"), "{text}");
    }

    #[test]
    fn a_union_and_its_members_have_sections() {
        let text = render(json!({
            "type": "object",
            "oneOf": [{"required": ["a"]}, {"required": ["b"]}],
            "x-kubernetes-validations": [
                {"rule": "true", "message": "set exactly one of: a, b"},
                {"rule": "true", "message": "it never changes"}
            ],
            "properties": {
                "a": {"type": "object", "properties": {"x": {"type": "integer", "description": "X."}}},
                "b": {"type": "array", "items": {"type": "object", "properties": {"y": {"type": "string", "description": "Y."}}}}
            }
        }));
        assert!(text.contains("Exactly one of: `a`, `b`."), "{text}");
        assert!(text.contains("- it never changes\n") && !text.contains("- set exactly"), "{text}");
        assert!(text.contains("| `b` | list of [object](#specb) |"), "{text}");
        assert!(text.contains("## spec.a\n") && text.contains("## spec.b[]\n"), "{text}");
    }

    #[test]
    fn kubernetes_types_have_no_section() {
        let volume = json!({"type": "object", "properties": {"name": {"type": "string"}}});
        let volumes = json!({"type": "array", "items": volume, "description": "Volumes."});
        let pod = json!({"type": "object", "properties": {"volumes": volumes}});
        let text = render(json!({"type": "object", "properties": {"pod": pod}}));
        assert!(text.contains("| `volumes` | list of object | Volumes. |"), "{text}");
        assert!(!text.contains("## spec.pod.volumes"), "{text}");
    }
}
