//! Rules between fields of an object of the spec: their form. Pure.
//!
//! The API server evaluates a rule in CEL, the operator and `dat-trainer` in Rust, with the same sentence. The API server
//! does so at every write of a DatJob, also of its status, and for each field that a rule reads it copies the schemas of
//! all fields of the object. Therefore a rule belongs to the smallest object that has its fields, reads few of them, and
//! ends at an absent field if it can.

use serde_json::{Value, json};

/// A rule between fields of a `T`.
pub(super) struct Rule<T> {
    /// Path of the field below `T`.
    pub(super) field: &'static str,
    /// What is wrong and what to write. It names the fields.
    pub(super) problem: &'static str,
    /// The rule in CEL, where `self` is a `T`; `None` if the API server would have to search several objects for a rare
    /// mistake.
    pub(super) cel: Option<&'static str>,
    /// The rule in Rust.
    pub(super) holds: fn(&T) -> bool,
}

impl<T> Rule<T> {
    /// The rules in the form of `x-kubernetes-validations`.
    pub(super) fn schema(rules: &[Self]) -> Vec<Value> {
        let schema = |Self { field, problem, cel, .. }: &Self| {
            Some(json!({"rule": (*cel)?, "message": problem, "fieldPath": format!(".{field}")}))
        };
        rules.iter().filter_map(schema).collect()
    }

    /// The first rule that `value` violates.
    pub(super) fn violated<'a>(rules: &'a [Self], value: &T) -> Option<&'a Self> {
        rules.iter().find(|rule| !(rule.holds)(value))
    }
}
