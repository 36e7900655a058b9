//! JSON Schema, draft 2020-12, of what a command takes and gives. In parameters an option may be left out; in a
//! result every field is there and an option may be null. Docs are escaped: a model reads them.

use super::{Case, Command, Field, Type};
use crate::limits;
use crate::text::escape_control_lines;
use serde_json::{Map, Value as Json, json};

/// The dialect every schema names.
pub const DIALECT: &str = "https://json-schema.org/draft/2020-12/schema";

/// Whether a caller writes it or reads it.
#[derive(Clone, Copy, PartialEq)]
enum Way {
    In,
    Out,
}

impl Command {
    /// The schema of its parameters: an object, nothing unknown in it.
    #[must_use]
    pub fn params_schema(&self) -> Json {
        dialect(object(&self.params, Way::In))
    }

    /// The schema of its result; of `null` when it has none.
    #[must_use]
    pub fn result_schema(&self) -> Json {
        dialect(self.result.as_ref().map_or_else(nothing, |ty| schema(ty, Way::Out)))
    }

    /// The schema of an error's `detail`; none when it cannot fail, of `null` when its error has no type.
    #[must_use]
    pub fn error_schema(&self) -> Option<Json> {
        self.error.as_ref().map(|error| dialect(error.as_ref().map_or_else(nothing, |ty| schema(ty, Way::Out))))
    }

    /// What `nodes describe` says of it: name, doc, signature and the three schemas.
    #[must_use]
    pub fn to_json(&self) -> Json {
        json!({
            "name": self.name,
            "doc": self.doc.as_deref().map(escape_control_lines),
            "signature": self.signature(),
            "params": self.params_schema(),
            "result": self.result_schema(),
            "error": self.error_schema(),
        })
    }
}

fn dialect(mut schema: Json) -> Json {
    schema["$schema"] = DIALECT.into();
    schema
}

fn nothing() -> Json {
    json!({"type": "null"})
}

fn schema(ty: &Type, way: Way) -> Json {
    match ty {
        Type::Bool => json!({"type": "boolean"}),
        Type::Int(width) => {
            let (low, high) = width.range();
            json!({"type": "integer", "minimum": exact(low), "maximum": exact(high)})
        }
        Type::F32 | Type::F64 => json!({"anyOf": [{"type": "number"}, {"enum": ["NaN", "Infinity", "-Infinity"]}]}),
        Type::Char => json!({"type": "string", "minLength": 1, "maxLength": 1}),
        Type::String => json!({"type": "string"}),
        Type::Bytes => json!({"type": "string", "contentEncoding": "base64", "maxLength": limits::BYTES_VALUE.div_ceil(3) * 4}),
        Type::List(item) => json!({"type": "array", "items": schema(item, way)}),
        Type::Tuple(types) => {
            let items: Vec<Json> = types.iter().map(|ty| schema(ty, way)).collect();
            json!({"type": "array", "prefixItems": items, "items": false, "minItems": types.len()})
        }
        Type::Record(fields) => object(fields, way),
        Type::Enum(names) => json!({"type": "string", "enum": names}),
        Type::Variant(cases) => variant(cases, way),
        Type::Flags(names) => json!({"type": "array", "items": {"type": "string", "enum": names}, "uniqueItems": true}),
        Type::Option(inner) => json!({"anyOf": [schema(inner, way), nothing()]}),
        Type::Result(ok, error) => {
            let side = |name: &str, ty: Option<&Type>| single(name, ty.map_or_else(nothing, |ty| schema(ty, way)));
            json!({"oneOf": [side("ok", ok.as_deref()), side("error", error.as_deref())]})
        }
        Type::Stream => json!({
            "type": "object",
            "properties": {
                "bytes": {"type": "integer", "minimum": 0},
                "sha256": {"type": "string", "pattern": "^[0-9a-f]{64}$"},
                "data": {"type": "string", "contentEncoding": "base64", "description": "the bytes, unless they were written to a file"},
            },
            "required": ["bytes", "sha256"],
            "additionalProperties": false,
        }),
    }
}

/// A bound as JSON writes it: every WIT integer fits one of the two.
fn exact(bound: i128) -> Json {
    u64::try_from(bound).map(Json::from).or_else(|_| i64::try_from(bound).map(Json::from)).unwrap_or(Json::Null)
}

fn object(fields: &[Field], way: Way) -> Json {
    let needed = |field: &&Field| way == Way::Out || !matches!(field.ty, Type::Option(_));
    let required: Vec<&str> = fields.iter().filter(needed).map(|field| field.name.as_str()).collect();
    let properties: Map<String, Json> = fields.iter().map(|field| (field.name.clone(), property(field, way))).collect();
    json!({"type": "object", "properties": properties, "required": required, "additionalProperties": false})
}

fn property(field: &Field, way: Way) -> Json {
    let mut schema = schema(&field.ty, way);
    if let Some(doc) = &field.doc {
        schema["description"] = escape_control_lines(doc).into();
    }
    schema
}

fn single(name: &str, value: Json) -> Json {
    json!({"type": "object", "properties": {name: value}, "required": [name], "additionalProperties": false})
}

/// Cases without payload are one `enum`, each other one an object of one.
fn variant(cases: &[Case], way: Way) -> Json {
    let plain: Vec<&str> = cases.iter().filter(|case| case.ty.is_none()).map(|case| case.name.as_str()).collect();
    let loaded = cases.iter().filter_map(|case| case.ty.as_ref().map(|ty| single(&case.name, schema(ty, way))));
    let words = (!plain.is_empty()).then(|| json!({"type": "string", "enum": plain}));
    json!({"oneOf": words.into_iter().chain(loaded).collect::<Vec<_>>()})
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::IntType;
    use crate::types::tests::{any_type, field, system_run};
    use proptest::prelude::*;

    #[test]
    fn the_schemas_of_system_run() {
        let command = system_run();
        assert_eq!(
            command.params_schema(),
            json!({
                "$schema": DIALECT, "type": "object", "additionalProperties": false, "required": ["argv"],
                "properties": {
                    "argv": {"type": "array", "items": {"type": "string"}, "description": "the program and its arguments"},
                    "cwd": {"anyOf": [{"type": "string"}, {"type": "null"}]},
                    "env": {"anyOf": [
                        {"type": "array", "items": {
                            "type": "array", "prefixItems": [{"type": "string"}, {"type": "string"}], "items": false, "minItems": 2,
                        }},
                        {"type": "null"},
                    ]},
                },
            })
        );
        assert_eq!(command.result_schema()["required"], json!(["success", "exit_code"]));
        assert_eq!(
            command.error_schema().unwrap()["oneOf"],
            json!([
                {"type": "string", "enum": ["gone"]},
                {"type": "object", "properties": {"denied": {"type": "string"}}, "required": ["denied"], "additionalProperties": false},
            ])
        );
    }

    #[test]
    fn sixty_four_bits_are_exact() {
        let schema = schema(&Type::Int(IntType::U64), Way::In);
        assert_eq!(schema.to_string(), r#"{"maximum":18446744073709551615,"minimum":0,"type":"integer"}"#);
    }

    #[test]
    fn docs_cannot_hide_or_reorder() {
        let shown = property(&Field { doc: Some("a\u{202e}b\nc".into()), ..field("x", Type::Bool) }, Way::In);
        assert_eq!(shown["description"], "a\\u{202e}b\nc");
    }

    #[test]
    fn how_it_ends_is_told_apart() {
        let command = Command { name: "a.b".into(), doc: None, params: vec![], result: None, error: None };
        assert_eq!(command.result_schema()["type"], "null");
        assert_eq!(command.error_schema(), None);
        assert_eq!(Command { error: Some(None), ..command }.error_schema().unwrap()["type"], "null");
    }

    proptest! {
        #[test]
        fn every_type_has_a_schema(ty in any_type()) {
            prop_assert!(schema(&ty, Way::In).is_object());
        }
    }
}
