//! The one value that crosses: what a pack takes and gives, as CBOR on the wire and JSON for people.
//! Mapping rules are the contract's table; types come from [`crate::types`]. CBOR is here; JSON, the check against
//! a type, the command line's `name=value` and the text for people have a file each.
//!
//! ```
//! use outhaul_protocol::types::{Command, Field, IntType, Type};
//! use outhaul_protocol::value::{Value, params_from_args};
//!
//! let field = |name: &str, ty| Field { name: name.into(), ty, doc: None };
//! let snap = Command {
//!     name: "camera.snap".into(),
//!     doc: None,
//!     params: vec![
//!         field("zones", Type::List(Box::new(Type::String))),
//!         field("max_width", Type::Option(Box::new(Type::Int(IntType::U32)))),
//!     ],
//!     result: Some(Type::F32),
//!     error: None,
//! };
//! assert_eq!(snap.signature(), "camera.snap(zones: list<string>, max_width?: u32) -> f32");
//!
//! let typed = ["zones=a", "zones=b", "max-width=640"].map(String::from);
//! let params = params_from_args(&typed, &snap, &mut |path| std::fs::read(path))?;
//! assert_eq!(params.to_json(None).to_string(), r#"{"max_width":640,"zones":["a","b"]}"#);
//! assert_eq!(params.render(None), "zones:     a, b\nmax_width: 640");
//!
//! // {"zones": ["a", "b"], "max_width": 640}
//! let bytes = b"\xa2\x65zones\x82\x61a\x61b\x69max_width\x19\x02\x80";
//! assert_eq!(params.to_cbor(), bytes);
//! assert_eq!(Value::from_cbor(bytes)?, params);
//!
//! let wrong = params_from_args(&["max_width=wide".into()], &snap, &mut |path| std::fs::read(path)).unwrap_err();
//! assert_eq!(wrong.message, "`params.zones`: is missing; list<string> was expected");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod args;
mod check;
mod json;
mod render;
mod strict;

pub use args::{params, params_from_args, params_from_json};
pub use check::{ParamError, check_params};
pub use strict::parse_json;

use crate::cbor::{self, Cbor, DecodeError, Item};
use crate::scan::Ceiling;
use std::collections::HashSet;

/// A value of a pack's command.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// `none`, or absent.
    Null,
    /// A truth value.
    Bool(bool),
    /// Any integer of 8 to 64 bits, signed or not.
    Int(i128),
    /// `f32` or `f64`; NaN equals nothing, as everywhere.
    Float(f64),
    /// A string, char, enum case or variant case without payload.
    Text(String),
    /// `list<u8>`.
    Bytes(Vec<u8>),
    /// A list or tuple; flags are an array of text.
    Array(Vec<Value>),
    /// A record, a variant case with payload or a result inside a value; order is the type's.
    Map(Vec<(String, Value)>),
}

impl Value {
    /// The value of a map's key.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<&Value> {
        match self {
            Value::Map(entries) => entries.iter().find(|(name, _)| name == key).map(|(_, value)| value),
            _ => None,
        }
    }

    /// What stands in a result for its `stream<u8>`: length and SHA-256 of the bytes that went over the result lane.
    #[must_use]
    pub fn stream(bytes: u64, sha256: [u8; 32]) -> Value {
        Value::Map(vec![("bytes".into(), Value::Int(bytes.into())), ("sha256".into(), Value::Text(hex::encode(sha256)))])
    }

    /// Length and SHA-256 of a stream, when this is what [`Value::stream`] makes.
    #[must_use]
    pub fn as_stream(&self) -> Option<(u64, [u8; 32])> {
        let Value::Map(entries) = self else { return None };
        let (Some(Value::Int(bytes)), Some(Value::Text(digest))) = (self.get("bytes"), self.get("sha256")) else { return None };
        let mut sha256 = [0; 32];
        hex::decode_to_slice(digest, &mut sha256).ok()?;
        (entries.len() == 2).then_some((u64::try_from(*bytes).ok()?, sha256))
    }

    /// The value of CBOR, scanned under [`Ceiling::VALUE`]. Keys are text and none is repeated.
    pub fn from_cbor(bytes: &[u8]) -> Result<Value, DecodeError> {
        cbor::decode(bytes, Ceiling::VALUE)
    }

    /// Its CBOR. Floats take the shortest form that keeps them; NaN and the infinities stay what they are.
    #[must_use]
    pub fn to_cbor(&self) -> Vec<u8> {
        cbor::encode(self)
    }

    /// What a reader would call it.
    pub(crate) fn kind(&self) -> &'static str {
        match self {
            Value::Null => "null",
            Value::Bool(_) => "true or false",
            Value::Int(_) => "an integer",
            Value::Float(_) => "a float",
            Value::Text(_) => "text",
            Value::Bytes(_) => "bytes",
            Value::Array(_) => "a list",
            Value::Map(_) => "an object",
        }
    }
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Value::Text(text.into())
    }
}

impl From<String> for Value {
    fn from(text: String) -> Self {
        Value::Text(text)
    }
}

impl Cbor for Value {
    fn to_item(&self) -> Item {
        match self {
            Value::Null => Item::Null,
            Value::Bool(value) => Item::Bool(*value),
            // No type holds more than 64 bits, so nothing checked is lost; the other end refuses the null.
            Value::Int(value) => ciborium::value::Integer::try_from(*value).map_or(Item::Null, Item::Integer),
            Value::Float(value) => Item::Float(*value),
            Value::Text(text) => Item::Text(text.clone()),
            Value::Bytes(bytes) => Item::Bytes(bytes.clone()),
            Value::Array(items) => Item::Array(items.iter().map(Value::to_item).collect()),
            Value::Map(entries) => Item::Map(entries.iter().map(|(key, value)| (key.to_item(), value.to_item())).collect()),
        }
    }

    fn from_item(item: Item) -> Result<Self, DecodeError> {
        Ok(match item {
            Item::Null => Value::Null,
            Item::Bool(value) => Value::Bool(value),
            Item::Integer(value) => Value::Int(value.into()),
            Item::Float(value) => Value::Float(value),
            Item::Text(text) => Value::Text(text),
            Item::Bytes(bytes) => Value::Bytes(bytes),
            Item::Array(items) => Value::Array(items.into_iter().map(Value::from_item).collect::<Result<_, _>>()?),
            Item::Map(entries) => Value::Map(map(entries)?),
            _ => return Err(DecodeError::shape("a value of this kind does not cross")),
        })
    }
}

fn map(entries: Vec<(Item, Item)>) -> Result<Vec<(String, Value)>, DecodeError> {
    let mut out = Vec::with_capacity(entries.len());
    for (key, value) in entries {
        let key = key.into_text().map_err(|_| DecodeError::shape("a key of a value is not text"))?;
        out.push((key, Value::from_item(value)?));
    }
    let mut seen = HashSet::with_capacity(out.len());
    match out.iter().find(|(key, _)| !seen.insert(key.as_str())) {
        Some((key, _)) => Err(DecodeError::shape(format!("key {key:?} is repeated"))),
        None => Ok(out),
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Any value that has a CBOR form; no NaN, which equals nothing.
    pub(crate) fn any_value() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::Bool),
            any::<i64>().prop_map(|value| Value::Int(value.into())),
            any::<u64>().prop_map(|value| Value::Int(value.into())),
            any::<f64>().prop_filter("NaN", |value| !value.is_nan()).prop_map(Value::Float),
            any::<String>().prop_map(Value::Text),
            proptest::collection::vec(any::<u8>(), 0..40).prop_map(Value::Bytes),
        ];
        leaf.prop_recursive(4, 40, 6, |inner| {
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..6).prop_map(Value::Array),
                proptest::collection::btree_map("[a-z_]{1,8}", inner, 0..6).prop_map(|map| Value::Map(map.into_iter().collect())),
            ]
        })
    }

    #[test]
    fn golden_bytes_of_each_kind() {
        let value = Value::Map(vec![
            ("null".into(), Value::Null),
            ("yes".into(), Value::Bool(true)),
            ("int".into(), Value::Int(i128::from(u64::MAX))),
            ("neg".into(), Value::Int(i128::from(i64::MIN))),
            ("half".into(), Value::Float(0.5)),
            ("nan".into(), Value::Float(f64::NAN)),
            ("inf".into(), Value::Float(f64::NEG_INFINITY)),
            ("text".into(), "ü".into()),
            ("bytes".into(), Value::Bytes(vec![0, 255])),
            ("list".into(), Value::Array(vec![Value::Int(1), Value::Null])),
        ]);
        let hex = concat!(
            "aa",
            "646e756c6cf6",
            "63796573f5",
            "63696e741bffffffffffffffff",
            "636e65673b7fffffffffffffff",
            "6468616c66f93800",
            "636e616ef97e00",
            "63696e66f9fc00",
            "647465787462c3bc",
            "6562797465734200ff",
            "646c6973748201f6",
        );
        assert_eq!(hex::encode(value.to_cbor()), hex);
        let back = Value::from_cbor(&value.to_cbor()).unwrap();
        assert_eq!(hex::encode(back.to_cbor()), hex);
        assert!(matches!(back.get("nan"), Some(Value::Float(value)) if value.is_nan()));
    }

    #[test]
    fn keys_are_text_and_unique() {
        assert!(Value::from_cbor(&[0xa1, 0x01, 0x01]).is_err());
        assert!(Value::from_cbor(&[0xa2, 0x61, 0x61, 0x01, 0x61, 0x61, 0x02]).unwrap_err().to_string().contains("\"a\" is repeated"));
    }

    #[test]
    fn a_stream_is_its_length_and_digest() {
        let stream = Value::stream(7, [0xab; 32]);
        assert_eq!(stream.as_stream(), Some((7, [0xab; 32])));
        assert_eq!(Value::Null.as_stream(), None);
    }

    proptest! {
        #[test]
        fn cbor_round_trip(value in any_value()) {
            prop_assert_eq!(Value::from_cbor(&value.to_cbor()).unwrap(), value);
        }

        #[test]
        fn random_flipped_and_cut_bytes_never_panic(
            bytes in proptest::collection::vec(any::<u8>(), 0..100), value in any_value(), at in any::<usize>(), bit in 0..8,
        ) {
            let _ = Value::from_cbor(&bytes);
            let mut good = value.to_cbor();
            let at = at % good.len();
            let _ = Value::from_cbor(&good[..at]);
            good[at] ^= 1u8 << bit;
            let _ = Value::from_cbor(&good);
        }
    }
}
