//! JSON text of parameters, read strictly: a repeated key is refused, where a plain parser takes the last in silence.

use crate::error::{Code, Failure};
use crate::limits;
use serde::de::{self, DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value as Json};
use std::fmt;

/// Bytes of JSON text that are read: base64 and spaces make it longer than the value in CBOR may be.
const TEXT: usize = 2 * limits::VALUE;

/// Reads JSON text of parameters. A repeated key is bad usage.
pub fn parse_json(text: &str) -> Result<Json, Failure> {
    if text.len() > TEXT {
        let sentence = format!("parameters of {} bytes, at most {} of JSON are read", text.len(), TEXT);
        return Err(Failure::new(Code::TooLarge, sentence));
    }
    let mut reader = serde_json::Deserializer::from_str(text);
    let json = Strict.deserialize(&mut reader).and_then(|json| reader.end().map(|()| json));
    json.map_err(|error| {
        Failure::new(Code::BadUsage, format!("read parameters as JSON: {error}"))
            .hint(r#"write an object, such as {"count": 3}; in a shell, between single quotes"#)
    })
}

/// Builds a JSON value and refuses repeated keys.
struct Strict;

impl<'de> DeserializeSeed<'de> for Strict {
    type Value = Json;
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Json, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Strict {
    type Value = Json;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }
    fn visit_unit<E>(self) -> Result<Json, E> {
        Ok(Json::Null)
    }
    fn visit_bool<E>(self, value: bool) -> Result<Json, E> {
        Ok(value.into())
    }
    fn visit_u64<E>(self, value: u64) -> Result<Json, E> {
        Ok(value.into())
    }
    fn visit_i64<E>(self, value: i64) -> Result<Json, E> {
        Ok(value.into())
    }
    fn visit_f64<E>(self, value: f64) -> Result<Json, E> {
        Ok(value.into())
    }
    fn visit_str<E>(self, text: &str) -> Result<Json, E> {
        Ok(text.into())
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Json, A::Error> {
        let mut out = Vec::new();
        while let Some(item) = items.next_element_seed(Strict)? {
            out.push(item);
        }
        Ok(Json::Array(out))
    }
    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Json, A::Error> {
        let mut out = Map::new();
        while let Some(key) = entries.next_key::<String>()? {
            let value = entries.next_value_seed(Strict)?;
            if out.contains_key(&key) {
                return Err(de::Error::custom(format!("key {key:?} is named twice")));
            }
            out.insert(key, value);
        }
        Ok(Json::Object(out))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    #[test]
    fn a_key_named_twice_is_bad_usage() {
        let failure = parse_json(r#"{"a": {"b": 1, "b": 2}}"#).unwrap_err();
        assert_eq!(failure.code, Code::BadUsage);
        assert!(failure.message.contains("\"b\" is named twice"), "{failure}");
        assert_eq!(
            parse_json(r#"{"a": [1, -1, 0.5, null, "x", 18446744073709551615]}"#).unwrap(),
            json!({"a": [1, -1, 0.5, null, "x", u64::MAX]})
        );
        assert!(parse_json("{} {}").is_err());
        assert!(parse_json(&"[".repeat(100_000)).is_err());
    }

    proptest! {
        #[test]
        fn any_text_is_read_without_panic(text in "\\PC{0,40}") {
            let _ = parse_json(&text);
        }
    }
}
