//! Checks values against the bounds of the schema: ranges of numbers, lengths of strings and lists. Pure.
//!
//! On a workstation, no API server checks a manifest. This check uses the same schema, so each bound is defined only at
//! its field.

use std::{fmt::Write as _, sync::LazyLock};

use schemars::generate::SchemaSettings;
use serde_json::{Number, Value};

use super::{InvalidTraining, Training};

/// The schema of [`Training`], without references.
static SCHEMA: LazyLock<Value> = LazyLock::new(|| {
    let settings = SchemaSettings::draft2020_12().with(|settings| settings.inline_subschemas = true);
    settings.into_generator().into_root_schema_for::<Training>().to_value()
});

impl Training {
    /// Checks every bound of the schema; the first violation is the error.
    pub(super) fn check_bounds(&self) -> Result<(), InvalidTraining> {
        let refuse = |field: &str, problem: String| InvalidTraining { field: field.to_owned(), problem };
        let value = serde_json::to_value(self).map_err(|error| refuse("", error.to_string()))?;
        match violation(&SCHEMA, &value, &mut String::new()) {
            Some((field, problem)) => Err(refuse(&field, problem)),
            None => Ok(()),
        }
    }
}

/// Finds the first value that violates a bound. The structure of the value already matches the schema.
fn violation(schema: &Value, value: &Value, path: &mut String) -> Option<(String, String)> {
    if let Some(problem) = problem(schema, value) {
        return Some((path.clone(), problem));
    }
    // The value has no fields of other alternatives.
    for keyword in ["oneOf", "anyOf", "allOf"] {
        for alternative in schema[keyword].as_array().into_iter().flatten() {
            if let Some(found) = violation(alternative, value, path) {
                return Some(found);
            }
        }
    }
    let end = path.len();
    let mut descend = |schema: &Value, value: &Value, part: &dyn Fn(&mut String)| {
        part(path);
        let found = violation(schema, value, path);
        path.truncate(end);
        found
    };
    match value {
        Value::Object(fields) => fields.iter().find_map(|(name, value)| {
            let schema = schema["properties"].get(name)?;
            descend(schema, value, &|path| {
                path.push_str(if path.is_empty() { "" } else { "." });
                path.push_str(name);
            })
        }),
        Value::Array(items) => {
            let schema = schema.get("items")?;
            items.iter().enumerate().find_map(|(index, value)| {
                descend(schema, value, &|path| {
                    // Writing to a string cannot fail.
                    let _ = write!(path, "[{index}]");
                })
            })
        }
        _ => None,
    }
}

/// The bound that this value violates, without its fields or items.
fn problem(schema: &Value, value: &Value) -> Option<String> {
    let bounds = |min: &str, max: &str| (schema[min].as_f64(), schema[max].as_f64());
    let limits = bounds("minimum", "maximum");
    let numbers = || range(limits, |bound| bound.to_string());
    match value {
        Value::Number(number) => outside(number.as_f64()?, limits)
            .then(|| format!("invalid value {}: must be {}", shortest(number), numbers())),
        // JSON writes numbers that are not finite as null; fields without a value are left out.
        Value::Null if accepts_numbers(schema) => {
            Some(format!("invalid value, not a finite number: must be {}", numbers()))
        }
        Value::String(text) => {
            let lengths = bounds("minLength", "maxLength");
            outside(text.chars().count() as f64, lengths).then(|| {
                format!("invalid length: must be {}", range(lengths, |bound| format!("{bound} characters")))
            })
        }
        Value::Array(items) => {
            let lengths = bounds("minItems", "maxItems");
            outside(items.len() as f64, lengths).then(|| {
                format!("invalid length: must be {}", range(lengths, |bound| format!("{bound} items")))
            })
        }
        _ => None,
    }
}

/// The schema of an optional number has a list of types.
fn accepts_numbers(schema: &Value) -> bool {
    let types = &schema["type"];
    types == "number" || types.as_array().is_some_and(|types| types.iter().any(|name| name == "number"))
}

fn outside(value: f64, (min, max): (Option<f64>, Option<f64>)) -> bool {
    min.is_some_and(|min| value < min) || max.is_some_and(|max| value > max)
}

fn range((min, max): (Option<f64>, Option<f64>), unit: impl Fn(f64) -> String) -> String {
    match (min, max) {
        (Some(min), Some(max)) => format!("between {min} and {}, inclusive", unit(max)),
        (Some(min), None) => format!("at least {}", unit(min)),
        (None, Some(max)) => format!("at most {}", unit(max)),
        (None, None) => "finite".to_owned(),
    }
}

/// Formats whole numbers without decimals: 1, not 1.0.
fn shortest(number: &Number) -> String {
    number.as_f64().map_or_else(|| number.to_string(), |value| value.to_string())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn check(schema: &Value, value: &Value) -> Option<(String, String)> {
        violation(schema, value, &mut String::new())
    }

    #[test]
    fn paths_have_field_names_and_indices() {
        let schema = json!({"properties": {"final": {"items": {"oneOf": [
            {"properties": {"pgd": {"properties": {"steps": {"maximum": 9}}}}},
            {"properties": {"cw": {"properties": {"steps": {"maximum": 5}}}}}
        ]}}}});
        let value = json!({"final": [{"pgd": {"steps": 9}}, {"cw": {"steps": 6}}]});
        let expected = ("final[1].cw.steps".to_owned(), "invalid value 6: must be at most 5".to_owned());
        assert_eq!(check(&schema, &value), Some(expected));
    }

    #[test]
    fn checks_numbers_strings_and_lists() {
        let number = json!({"type": "number", "minimum": 0.5, "maximum": 2.0});
        let message = |schema, value| check(schema, &value).map(|(_, problem)| problem).unwrap_or_default();
        assert_eq!(message(&number, json!(3.0)), "invalid value 3: must be between 0.5 and 2, inclusive");
        assert_eq!(message(&number, json!(0.5)), "");
        assert!(message(&number, json!(null)).starts_with("invalid value, not a finite number"));
        let optional = json!({"type": ["number", "null"], "maximum": 2.0});
        assert!(message(&optional, json!(null)).starts_with("invalid value, not a finite number"));
        let list = json!({"minItems": 1, "maxItems": 2, "items": {"maxLength": 3}});
        assert_eq!(message(&list, json!([])), "invalid length: must be between 1 and 2 items, inclusive");
        assert_eq!(message(&list, json!(["äöüß"])), "invalid length: must be at most 3 characters");
        assert_eq!(message(&list, json!(["äöü"])), "");
    }

    #[test]
    fn the_schema_has_no_references() {
        assert!(!SCHEMA.to_string().contains("$ref"));
        assert!(SCHEMA.to_string().matches("\"minimum\"").count() > 50);
    }
}
