//! Strings that match a pattern, as rules of the schema.

use serde_json::{Value, json};

/// Pattern of a URL over HTTP, and the sentence of its rule.
pub(crate) const HTTP_URL: [&str; 2] = [
    "^https?://[^/?#@]+([/?#]|$)",
    "expected a URL without user and password that starts with https:// or http://, for example https://host/data.tar.gz",
];

/// The rule that a string matches a pattern, in the form of `x-kubernetes-validations`. The API server answers with
/// `expected`, while it answers a violated `pattern` of a schema with the pattern. The string needs a maximum length.
pub(crate) fn matches([pattern, expected]: [&str; 2]) -> [Value; 1] {
    [json!({"rule": cel_matches(pattern), "message": expected})]
}

/// The condition in CEL that a string matches a pattern.
pub(crate) fn cel_matches(pattern: &str) -> String {
    format!("self.matches('{}')", pattern.replace('\\', "\\\\"))
}
