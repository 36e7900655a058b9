//! Values as JSON, read and written by their type. What is read may leave options out; what is written has every
//! field. Bytes are base64 (RFC 4648, section 4), floats that JSON cannot say are `"NaN"`, `"Infinity"`,
//! `"-Infinity"`, integers keep all 64 bits.

use super::Value;
use super::check::{
    ParamError, Place, case, choice, fits_f32, in_range, known, missing, one_char, one_of, payload, same_length, short_enough, side,
};
use crate::error::Failure;
use crate::text::escape_control_lines;
use crate::types::{Case, Field, Type};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde_json::{Map, Number, Value as Json, json};

impl Value {
    /// The value of JSON by its type; the place of a mistake starts with `value`.
    pub fn from_json(json: &Json, ty: &Type) -> Result<Value, ParamError> {
        from_json(json, ty, Place::Root("value"))
    }

    /// The same; the place of a mistake starts with `root`, such as `params.argv`.
    pub fn from_json_at(json: &Json, ty: &Type, root: &str) -> Result<Value, ParamError> {
        from_json(json, ty, Place::Root(root))
    }

    /// Its JSON. The type keeps an `f32` short; without it everything else reads the same.
    #[must_use]
    pub fn to_json(&self, ty: Option<&Type>) -> Json {
        match (ty, self) {
            (Some(Type::Option(inner)), value) if *value != Value::Null => value.to_json(Some(inner)),
            (Some(Type::F32), Value::Float(value)) => float(shortest_f32(*value)),
            (Some(Type::List(item)), Value::Array(items)) => items.iter().map(|value| value.to_json(Some(item))).collect(),
            (Some(Type::Tuple(types)), Value::Array(items)) => {
                items.iter().enumerate().map(|(at, value)| value.to_json(types.get(at))).collect()
            }
            (_, Value::Null) => Json::Null,
            (_, Value::Bool(value)) => Json::Bool(*value),
            (_, Value::Int(value)) => integer(*value),
            (_, Value::Float(value)) => float(*value),
            (_, Value::Text(text)) => Json::String(text.clone()),
            (_, Value::Bytes(bytes)) => Json::String(BASE64.encode(bytes)),
            (_, Value::Array(items)) => items.iter().map(|value| value.to_json(None)).collect(),
            (ty, Value::Map(entries)) => {
                let entry = |(key, value): &(String, Value)| (key.clone(), value.to_json(ty.and_then(|ty| ty.member(key))));
                Json::Object(entries.iter().map(entry).collect())
            }
        }
    }
}

impl Type {
    /// The type of a map's key: of a record's field, a case's payload, one side of a result.
    pub(super) fn member(&self, key: &str) -> Option<&Type> {
        match self {
            Type::Record(fields) => fields.iter().find(|field| field.name == key).map(|field| &field.ty),
            Type::Variant(cases) => cases.iter().find(|case| case.name == key).and_then(|case| case.ty.as_ref()),
            Type::Result(ok, _) if key == "ok" => ok.as_deref(),
            Type::Result(_, error) => error.as_deref(),
            Type::Option(inner) => inner.member(key),
            _ => None,
        }
    }
}

fn integer(value: i128) -> Json {
    let number = u64::try_from(value).map(Number::from).or_else(|_| i64::try_from(value).map(Number::from));
    number.map_or_else(|_| Json::String(value.to_string()), Json::Number)
}

fn float(value: f64) -> Json {
    Number::from_f64(value).map_or_else(|| float_name(value).into(), Json::Number)
}

/// What JSON calls a float that is no number.
pub(super) fn float_name(value: f64) -> &'static str {
    match (value.is_nan(), value > 0.0) {
        (true, _) => "NaN",
        (false, true) => "Infinity",
        (false, false) => "-Infinity",
    }
}

/// 0.1 for the `f32` 0.1, not 0.10000000149011612.
pub(super) fn shortest_f32(value: f64) -> f64 {
    let narrow = value as f32;
    if f64::from(narrow) == value { narrow.to_string().parse().unwrap_or(value) } else { value }
}

/// A float by the name JSON gives it.
pub(super) fn named_float(name: &str) -> Option<f64> {
    match name {
        "NaN" => Some(f64::NAN),
        "Infinity" => Some(f64::INFINITY),
        "-Infinity" => Some(f64::NEG_INFINITY),
        _ => None,
    }
}

pub(super) fn from_json(json: &Json, ty: &Type, place: Place<'_>) -> Result<Value, ParamError> {
    let wrong = || place.wanted(ty, found(json));
    match (ty, json) {
        (Type::Option(_), Json::Null) => Ok(Value::Null),
        (Type::Option(inner), json) => from_json(json, inner, place),
        (Type::Bool, Json::Bool(value)) => Ok(Value::Bool(*value)),
        (Type::Int(width), Json::Number(number)) => {
            let value = number.as_u64().map(i128::from).or(number.as_i64().map(i128::from)).ok_or_else(wrong)?;
            in_range(*width, value, place).map(|()| Value::Int(value))
        }
        (Type::F32 | Type::F64, Json::Number(number)) => narrow(number.as_f64().ok_or_else(wrong)?, ty, place),
        (Type::F32 | Type::F64, Json::String(name)) => named_float(name).map(Value::Float).ok_or_else(wrong),
        (Type::Char, Json::String(text)) => one_char(text, place).map(|()| Value::Text(text.clone())),
        (Type::String, Json::String(text)) => Ok(Value::Text(text.clone())),
        (Type::Bytes, Json::String(text)) => bytes(text, place),
        (Type::List(item), Json::Array(items)) => {
            let items = items.iter().enumerate().map(|(at, json)| from_json(json, item, Place::Index(&place, at)));
            Ok(Value::Array(items.collect::<Result<_, _>>()?))
        }
        (Type::Tuple(types), Json::Array(items)) => {
            same_length(types.len(), items.len(), place)?;
            let items = types.iter().zip(items).enumerate();
            let items = items.map(|(at, (ty, json))| from_json(json, ty, Place::Index(&place, at)));
            Ok(Value::Array(items.collect::<Result<_, _>>()?))
        }
        (Type::Record(fields), Json::Object(map)) => record(fields, map, place),
        (Type::Enum(names), Json::String(name)) => one_of(names, name, place).map(|()| Value::Text(name.clone())),
        (Type::Variant(cases), Json::String(name)) => plain_case(cases, name, place),
        (Type::Variant(cases), Json::Object(map)) => {
            let (name, json) = only(map, place)?;
            single(name, from_json(json, payload(cases, name, place)?, Place::Key(&place, name))?)
        }
        (Type::Flags(names), Json::Array(items)) => flags(names, items, place),
        (Type::Result(ok, error), Json::Object(map)) => {
            let (name, json) = only(map, place)?;
            match (side(ok.as_deref(), error.as_deref(), name, place)?, json) {
                (Some(ty), json) => single(name, from_json(json, ty, Place::Key(&place, name))?),
                (None, Json::Null) => single(name, Value::Null),
                (None, json) => Err(Place::Key(&place, name).error(format!("null was expected, found {}", found(json)))),
            }
        }
        (Type::Stream, json) => stream(json).ok_or_else(wrong),
        _ => Err(wrong()),
    }
}

/// A float as its type holds it.
pub(super) fn narrow(value: f64, ty: &Type, place: Place<'_>) -> Result<Value, ParamError> {
    match ty {
        Type::F32 => fits_f32(value, place).map(Value::Float),
        _ => Ok(Value::Float(value)),
    }
}

/// Bytes of base64, within their limit.
pub(super) fn bytes(text: &str, place: Place<'_>) -> Result<Value, ParamError> {
    let bytes = BASE64.decode(text).map_err(|error| place.error(format!("base64 was expected: {error}")))?;
    short_enough(bytes.len(), place).map(|()| Value::Bytes(bytes))
}

/// A case that has no payload.
pub(super) fn plain_case(cases: &[Case], name: &str, place: Place<'_>) -> Result<Value, ParamError> {
    match case(cases, name, place)?.ty {
        None => Ok(Value::Text(name.to_owned())),
        Some(_) => Err(place.error(format!("case `{name}` has a value: {{\"{name}\": …}}"))),
    }
}

fn record(fields: &[Field], map: &Map<String, Json>, place: Place<'_>) -> Result<Value, ParamError> {
    known(map.keys(), fields, place)?;
    let entry = |field: &Field| {
        let value = match map.get(&field.name) {
            Some(json) => from_json(json, &field.ty, Place::Key(&place, &field.name))?,
            None if matches!(field.ty, Type::Option(_)) => Value::Null,
            None => return Err(missing(field, place)),
        };
        Ok((field.name.clone(), value))
    };
    fields.iter().map(entry).collect::<Result<_, _>>().map(Value::Map)
}

fn flags(names: &[String], items: &[Json], place: Place<'_>) -> Result<Value, ParamError> {
    let mut out: Vec<Value> = Vec::new();
    for (at, item) in items.iter().enumerate() {
        let place = Place::Index(&place, at);
        let name = item.as_str().ok_or_else(|| place.error(format!("{} was expected, found {}", choice(names), found(item))))?;
        one_of(names, name, place)?;
        if !out.iter().any(|flag| *flag == Value::Text(name.into())) {
            out.push(name.into());
        }
    }
    Ok(Value::Array(out))
}

fn only<'j>(map: &'j Map<String, Json>, place: Place<'_>) -> Result<(&'j String, &'j Json), ParamError> {
    let mut entries = map.iter();
    match (entries.next(), entries.next()) {
        (Some(entry), None) => Ok(entry),
        _ => Err(place.error(format!("an object with one key was expected, found {}", map.len()))),
    }
}

fn single(name: &str, value: Value) -> Result<Value, ParamError> {
    Ok(Value::Map(vec![(name.to_owned(), value)]))
}

fn stream(json: &Json) -> Option<Value> {
    let value = Value::Map(vec![
        ("bytes".into(), Value::Int(json.get("bytes")?.as_u64()?.into())),
        ("sha256".into(), json.get("sha256")?.as_str()?.into()),
    ]);
    value.as_stream().is_some().then_some(value)
}

fn found(json: &Json) -> String {
    match json {
        Json::Null => "null".into(),
        Json::Bool(value) => value.to_string(),
        Json::Number(number) => number.to_string(),
        Json::String(_) => "text".into(),
        Json::Array(_) => "a list".into(),
        Json::Object(_) => "an object".into(),
    }
}

impl Failure {
    /// What JSON says of it: `{code, message, hint, detail}`, `ty` being the detail's type when the command is known.
    #[must_use]
    pub fn to_json(&self, ty: Option<&Type>) -> Json {
        json!({
            "code": self.code.as_str(),
            "message": escape_control_lines(&self.message),
            "hint": self.hint.as_deref().map(escape_control_lines),
            "detail": self.detail.as_ref().map(|detail| detail.to_json(ty)),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Code;
    use crate::limits;
    use crate::types::IntType;
    use crate::types::tests::{any_type, field, sample_types};
    use crate::value::tests::any_value;
    use proptest::prelude::*;

    fn say(json: Json, ty: &Type) -> String {
        Value::from_json_at(&json, ty, "params.x").unwrap_err().to_string()
    }

    #[test]
    fn each_row_of_the_table_both_ways() {
        for (ty, value, json) in sample_types() {
            assert_eq!(Value::from_json(&json, &ty).as_ref(), Ok(&value), "{ty}");
            assert_eq!(value.to_json(Some(&ty)), json, "{ty}");
            assert!(value.check(&ty).is_ok());
        }
        assert!(matches!(Value::from_json(&json!("NaN"), &Type::F32), Ok(Value::Float(value)) if value.is_nan()));
        assert_eq!(Value::Float(f64::NAN).to_json(None), json!("NaN"));
    }

    #[test]
    fn what_goes_in_may_leave_options_out_and_what_comes_out_does_not() {
        let ty = Type::Record(vec![field("a", Type::Bool), field("b", Type::Option(Box::new(Type::Bool)))]);
        let value = Value::from_json(&json!({"a": true}), &ty).unwrap();
        assert_eq!(value.to_json(Some(&ty)), json!({"a": true, "b": null}));
    }

    #[test]
    fn a_mistake_has_a_place() {
        let argv = Type::List(Box::new(Type::String));
        assert_eq!(say(json!(["a", "b", 3]), &argv), "`params.x[2]`: string was expected, found 3");
        let record = Type::Record(vec![field("deep", Type::Tuple(vec![Type::Bool, Type::Int(IntType::U8)]))]);
        assert_eq!(say(json!({"deep": [true, 256]}), &record), "`params.x.deep[1]`: 256 is outside 0 to 255 (u8)");
        assert_eq!(say(json!({"deep": [true]}), &record), "`params.x.deep`: 2 items were expected, found 1");
        assert_eq!(say(json!({}), &record), "`params.x.deep`: is missing; a list of 2 was expected");
        assert_eq!(say(json!(1.5), &Type::Int(IntType::S8)), "`params.x`: s8 was expected, found 1.5");
        assert_eq!(say(json!("A"), &Type::Bytes), "`params.x`: base64 was expected: Invalid input length: 1");
        assert_eq!(
            say(json!("west"), &Type::Enum(vec!["front".into(), "back".into()])),
            "`params.x`: one of `front`, `back` was expected, found `west`"
        );
    }

    #[test]
    fn bytes_end_at_their_limit() {
        let exactly = json!(BASE64.encode(vec![1; limits::BYTES_VALUE]));
        assert!(Value::from_json(&exactly, &Type::Bytes).is_ok());
        let more = json!(BASE64.encode(vec![1; limits::BYTES_VALUE + 1]));
        assert!(say(more, &Type::Bytes).contains("at most 65536 bytes"));
    }

    #[test]
    fn a_failure_has_its_four_keys() {
        let mut failure = Failure::new(Code::CommandFailed, "no \u{1b}sensor").hint("look");
        failure.detail = Some(Value::Float(f64::from(0.1f32)));
        let wanted = json!({"code": "command_failed", "message": "no \\u{1b}sensor", "hint": "look", "detail": 0.1});
        assert_eq!(failure.to_json(Some(&Type::F32)), wanted);
        assert_eq!(Failure::new(Code::Trap, "x").to_json(None), json!({"code": "trap", "message": "x", "hint": null, "detail": null}));
    }

    #[test]
    fn a_stream_keeps_the_bytes_the_caller_put_beside_it() {
        let Value::Map(mut entries) = Value::stream(2, [0; 32]) else { panic!("a map") };
        entries.push(("data".into(), Value::Bytes(vec![1, 2])));
        assert_eq!(Value::Map(entries).to_json(Some(&Type::Stream))["data"], "AQI=");
        let plain = Value::stream(2, [0; 32]);
        assert_eq!(Value::from_json(&plain.to_json(None), &Type::Stream), Ok(plain));
    }

    proptest! {
        #[test]
        fn what_a_type_reads_it_accepts_and_writes_back(value in any_value(), ty in any_type()) {
            let json = value.to_json(Some(&ty));
            if let Ok(read) = Value::from_json(&json, &ty) {
                prop_assert_eq!(read.check(&ty), Ok(()));
                let again = Value::from_json(&read.to_json(Some(&ty)), &ty);
                prop_assert_eq!(again, Ok(read));
            }
        }
    }
}
