//! Handwritten schemas.

use std::borrow::Cow;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};

use crate::{
    epsilon::{self, Epsilon},
    patterns::cel_matches,
    training::{Architecture, model},
};

impl JsonSchema for Epsilon {
    fn schema_name() -> Cow<'static, str> {
        "Epsilon".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        let value =
            "(self.contains('/') ? double(self.split('/')[0]) / double(self.split('/')[1]) : double(self))";
        json_schema!({
            "type": "string",
            "maxLength": 32,
            "x-kubernetes-validations": [{
                "rule": format!("{} && {value} > 0.0 && {value} <= 100.0", cel_matches(epsilon::PATTERN)),
                "message": "expected a number greater than 0 and at most 100, in units of the pixel range [0, 1], for example \
                    \"8/255\" or \"0.031\""
            }]
        })
    }
}

impl JsonSchema for Architecture {
    fn schema_name() -> Cow<'static, str> {
        "Architecture".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "string",
            "maxLength": 32,
            "x-kubernetes-validations": [{
                "rule": format!(
                    "{} && (!self.startsWith('wide-resnet-') || (int(self.split('-')[2]) % 6 == 4 && int(self.split('-')[2]) <= \
                     106 && int(self.split('-')[3]) <= 20))",
                    cel_matches(model::PATTERN)
                ),
                "message": "expected small-cnn, resnet18, resnet34, resnet50, preact-resnet18 or wide-resnet-DEPTH-WIDTH, where \
                    DEPTH is 6n + 4 and at most 106, and WIDTH at most 20; for example wide-resnet-28-10"
            }]
        })
    }
}
