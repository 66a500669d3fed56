//! The rules read fields of the schema. What they refuse is tested in `check/tests.rs` and, on an API server, in
//! `e2e/tests/tests/cluster/refusal.rs`.

use schemars::{JsonSchema, generate::SchemaSettings};

use super::{
    super::{data, evaluation, model, schedule, source},
    *,
};

/// The schema of a field, also in a member of a union or in an optional object.
fn descend<'a>(schema: &'a Value, name: &str) -> Option<&'a Value> {
    schema["properties"].get(name).or_else(|| {
        let alternatives =
            ["oneOf", "anyOf", "allOf"].into_iter().filter_map(|keyword| schema[keyword].as_array());
        alternatives.flatten().find_map(|alternative| descend(alternative, name))
    })
}

fn assert_exists(schema: &Value, path: &str) {
    path.split('.').fold(schema, |schema, name| {
        descend(schema, name).unwrap_or_else(|| panic!("{path}: the schema has no field {name}"))
    });
}

/// The fields that a rule reads, without the methods that it calls on them.
fn fields(cel: &str) -> impl Iterator<Item = &str> {
    cel.split("self.").skip(1).map(|rest| {
        let end = rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '.').unwrap_or(rest.len());
        let path = &rest[..end];
        if rest[end..].starts_with('(') { path.rsplit_once('.').map_or("", |(path, _)| path) } else { path }
    })
}

fn assert_reads_the_schema<T: JsonSchema>(rules: &[Rule<T>]) {
    let settings = SchemaSettings::draft2020_12().with(|settings| settings.inline_subschemas = true);
    let schema = settings.into_generator().into_root_schema_for::<T>().to_value();
    for rule in rules {
        assert_exists(&schema, rule.field);
        let Some(cel) = rule.cel else { continue };
        assert!(fields(cel).count() > 0, "{cel}");
        fields(cel).for_each(|path| assert_exists(&schema, path));
    }
}

#[test]
fn rules_read_fields_of_the_schema() {
    assert_reads_the_schema(&RULES);
    assert_reads_the_schema(&model::RULES);
    assert_reads_the_schema(&data::RULES);
    assert_reads_the_schema(&data::AUGMENTATION_RULES);
    assert_reads_the_schema(&schedule::RULES);
    assert_reads_the_schema(&evaluation::RULES);
    assert_reads_the_schema(&source::VOLUME_RULES);
    assert_reads_the_schema(&source::VOLUME_FILE_RULES);
}

#[test]
fn paths_stay_on_the_volume() {
    for path in ["", "a", "a/b", ".a/..b/c..", "..."] {
        assert!(source::is_relative(path), "{path}");
    }
    for path in ["/", "/a", "..", "../a", "a/../b", "a/.."] {
        assert!(!source::is_relative(path), "{path}");
    }
}
