//! The bounds that the schema states: ranges of numbers, lengths of texts and lists. Pure.
//!
//! An API server checks a manifest against the schema of the custom resource. A manifest on a workstation never meets one;
//! here it is checked against the same schema, so that a bound stands only at its field.

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

/// The path and the problem of the first value that violates a bound. The value has the structure that the schema asks for.
fn violation(schema: &Value, value: &Value, path: &mut String) -> Option<(String, String)> {
    if let Some(problem) = problem(schema, value) {
        return Some((path.clone(), problem));
    }
    // An alternative that is not this value's has none of its fields.
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
                    // A String takes everything.
                    let _ = write!(path, "[{index}]");
                })
            })
        }
        _ => None,
    }
}

/// What is wrong with this value itself.
fn problem(schema: &Value, value: &Value) -> Option<String> {
    let bounds = |least: &str, most: &str| (schema[least].as_f64(), schema[most].as_f64());
    match value {
        Value::Number(number) => {
            let range = range(bounds("minimum", "maximum"), |bound| bound.to_string());
            outside(number.as_f64()?, bounds("minimum", "maximum"))
                .then(|| format!("invalid value {}: must be {}", shortest(number), range))
        }
        // JSON writes numbers that are not finite as null; fields without a value are left out.
        Value::Null if schema["type"] == "number" => Some(format!(
            "invalid value, not a finite number: must be {}",
            range(bounds("minimum", "maximum"), |bound| bound.to_string())
        )),
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

fn outside(value: f64, (least, most): (Option<f64>, Option<f64>)) -> bool {
    least.is_some_and(|least| value < least) || most.is_some_and(|most| value > most)
}

fn range((least, most): (Option<f64>, Option<f64>), unit: impl Fn(f64) -> String) -> String {
    match (least, most) {
        (Some(least), Some(most)) => format!("between {least} and {}, inclusive", unit(most)),
        (Some(least), None) => format!("at least {}", unit(least)),
        (None, Some(most)) => format!("at most {}", unit(most)),
        (None, None) => "finite".to_owned(),
    }
}

/// As people write it: 1, not 1.0.
fn shortest(number: &Number) -> String {
    number.as_f64().map_or_else(|| number.to_string(), |value| value.to_string())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn of(schema: &Value, value: &Value) -> Option<(String, String)> {
        violation(schema, value, &mut String::new())
    }

    #[test]
    fn the_path_is_as_people_write_it() {
        let schema = json!({"properties": {"final": {"items": {"oneOf": [
            {"properties": {"pgd": {"properties": {"steps": {"maximum": 9}}}}},
            {"properties": {"cw": {"properties": {"steps": {"maximum": 5}}}}}
        ]}}}});
        let value = json!({"final": [{"pgd": {"steps": 9}}, {"cw": {"steps": 6}}]});
        let expected = ("final[1].cw.steps".to_owned(), "invalid value 6: must be at most 5".to_owned());
        assert_eq!(of(&schema, &value), Some(expected));
    }

    #[test]
    fn numbers_texts_and_lists_have_bounds() {
        let number = json!({"type": "number", "minimum": 0.5, "maximum": 2.0});
        let message = |schema, value| of(schema, &value).map(|(_, problem)| problem).unwrap_or_default();
        assert_eq!(message(&number, json!(3.0)), "invalid value 3: must be between 0.5 and 2, inclusive");
        assert_eq!(message(&number, json!(0.5)), "");
        assert!(message(&number, json!(null)).starts_with("invalid value, not a finite number"));
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
