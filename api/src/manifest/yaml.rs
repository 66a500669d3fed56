//! YAML as kubectl reads it: several documents, merge keys, a byte order mark; and a key that is written twice is an error.
//! Pure.

use serde::Deserialize;
use serde_json::Value;

/// The documents of a text as JSON, without empty ones; the error is a sentence.
pub(super) fn documents(text: &str) -> Result<Vec<Value>, String> {
    // libyaml would end the document at a byte order mark.
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut documents = Vec::new();
    for document in serde_yaml::Deserializer::from_str(text) {
        let mut yaml = serde_yaml::Value::deserialize(document).map_err(|error| describe(text, &error))?;
        yaml.apply_merge().map_err(|error| error.to_string())?;
        // Via JSON, as in an API server, because serde_yaml expects tags for enum variants.
        let json = serde_json::to_value(yaml).map_err(|error| error.to_string())?;
        if !json.is_null() {
            documents.push(json);
        }
    }
    Ok(documents)
}

/// An error with the lines of a key that is written twice; serde_yaml gives the line of the mapping.
fn describe(text: &str, error: &serde_yaml::Error) -> String {
    const DUPLICATE: &str = "duplicate entry with key ";
    let message = error.to_string();
    let Some((path, rest)) = message.split_once(DUPLICATE) else { return message };
    let (Some(key), Some(location)) =
        (rest.strip_prefix('"').and_then(|rest| rest.split('"').next()), error.location())
    else {
        return message;
    };
    let lines = lines_of_key(text, key, location.line(), location.column());
    let field = format!("{}.{key}", path.trim_end_matches(": ")).trim_start_matches('.').to_owned();
    let lines = match &lines[..] {
        [first, second, ..] if first != second => format!("on lines {first} and {second}"),
        _ => format!("in the mapping on line {}", location.line()),
    };
    format!("{field}: duplicate key {lines}; remove one")
}

/// The lines (from 1) of a key in the mapping that begins at a line and column (from 1).
fn lines_of_key(text: &str, key: &str, line: usize, column: usize) -> Vec<usize> {
    let is_key = |rest: &str| {
        [format!("{key}:"), format!("\"{key}\":"), format!("'{key}':")]
            .iter()
            .any(|start| rest.starts_with(start))
    };
    let indent = column.saturating_sub(1);
    let mut found = Vec::new();
    for (index, content) in text.lines().enumerate().skip(line.saturating_sub(1)) {
        let (before, rest) = content.split_at_checked(indent).unwrap_or((content, ""));
        let is_first = index + 1 == line;
        if !is_first && before.chars().any(|character| character != ' ' && character != '\t') {
            // Less indented: the mapping has ended, unless the line is a comment.
            if before.trim_start().starts_with('#') {
                continue;
            }
            break;
        }
        if is_key(rest) {
            found.push(index + 1);
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_key_that_is_written_twice_is_an_error_with_its_lines() {
        let nested = "kind: DatJob\nspec:\n  training:\n    threatModel:\n      norm: Linf\n      epsilon: \"8/255\"\n  \
                      # a comment\n      deep: {epsilon: 1}\n      epsilon: \"1/255\"\n    other: {epsilon: 3}\n";
        assert_eq!(
            documents(nested).unwrap_err(),
            "spec.training.threatModel.epsilon: duplicate key on lines 6 and 9; remove one"
        );
        assert_eq!(
            documents("a: 1\nb: 2\n'a': 3\n").unwrap_err(),
            "a: duplicate key on lines 1 and 3; remove one"
        );
        let list = "final:\n- pgd: {steps: 1}\n- steps: 2\n  runs: 1\n  steps: 3\n";
        assert_eq!(
            documents(list).unwrap_err(),
            "final[1].steps: duplicate key on lines 3 and 5; remove one"
        );
        let flow = documents("a: 1\nb: {c: 1, c: 2}\n").unwrap_err();
        assert_eq!(flow, "b.c: duplicate key in the mapping on line 2; remove one");
    }

    #[test]
    fn merges_mappings() {
        let text = "a: &defaults {x: 1, y: 2}\nb: {<<: *defaults, y: 3}\n";
        assert_eq!(documents(text).unwrap(), [json!({"a": {"x": 1, "y": 2}, "b": {"x": 1, "y": 3}})]);
    }

    #[test]
    fn reads_a_byte_order_mark_and_carriage_returns() {
        assert_eq!(documents("\u{feff}a: 1\r\nb: {c: 2}\r\n").unwrap(), [json!({"a": 1, "b": {"c": 2}})]);
    }

    #[test]
    fn skips_empty_documents() {
        assert_eq!(documents("---\n# nothing\n---\na: 1\n---\n").unwrap(), [json!({"a": 1})]);
        assert!(documents("").unwrap().is_empty());
    }
}
