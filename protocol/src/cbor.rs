//! The only door to CBOR. Objects are maps with integer keys or arrays, written by [`cbor_map!`]; what is read was
//! scanned before. Unknown, missing and repeated keys are errors: an object means one thing.

use crate::scan::{self, Ceiling};
pub(crate) use ciborium::Value as Item;

/// Why bytes are not the object they should be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// Not acceptable CBOR.
    #[error(transparent)]
    Scan(#[from] scan::ScanError),
    /// CBOR, but not of this shape.
    #[error("{0}")]
    Shape(String),
}

impl DecodeError {
    pub(crate) fn shape(text: impl Into<String>) -> Self {
        DecodeError::Shape(text.into())
    }
}

/// Something with one CBOR form.
pub(crate) trait Cbor: Sized {
    fn to_item(&self) -> Item;
    fn from_item(item: Item) -> Result<Self, DecodeError>;
}

/// The bytes of an object.
pub(crate) fn encode<T: Cbor>(object: &T) -> Vec<u8> {
    encode_item(&object.to_item())
}

pub(crate) fn encode_item(item: &Item) -> Vec<u8> {
    let mut out = Vec::with_capacity(128);
    ciborium::into_writer(item, &mut out).expect("writing to memory cannot fail");
    out
}

/// The object of scanned bytes.
pub(crate) fn decode<T: Cbor>(bytes: &[u8], ceiling: Ceiling) -> Result<T, DecodeError> {
    T::from_item(decode_item(bytes, ceiling)?)
}

pub(crate) fn decode_item(bytes: &[u8], ceiling: Ceiling) -> Result<Item, DecodeError> {
    scan::scan(bytes, ceiling)?;
    ciborium::from_reader(bytes).map_err(|error| DecodeError::shape(format!("not CBOR: {error}")))
}

macro_rules! integer {
    ($($ty:ty),*) => { $(impl Cbor for $ty {
        fn to_item(&self) -> Item { Item::from(*self) }
        fn from_item(item: Item) -> Result<Self, DecodeError> {
            match item {
                Item::Integer(value) => <$ty>::try_from(i128::from(value)).map_err(|_| DecodeError::shape("integer out of range")),
                _ => Err(DecodeError::shape("an integer was expected")),
            }
        }
    })* };
}
integer!(u8, u16, u32, u64, i64);

impl Cbor for bool {
    fn to_item(&self) -> Item {
        Item::Bool(*self)
    }
    fn from_item(item: Item) -> Result<Self, DecodeError> {
        item.as_bool().ok_or_else(|| DecodeError::shape("true or false was expected"))
    }
}

impl Cbor for f32 {
    fn to_item(&self) -> Item {
        Item::Float(f64::from(*self))
    }
    fn from_item(item: Item) -> Result<Self, DecodeError> {
        item.as_float().map(|value| value as f32).ok_or_else(|| DecodeError::shape("a float was expected"))
    }
}

impl Cbor for String {
    fn to_item(&self) -> Item {
        Item::Text(self.clone())
    }
    fn from_item(item: Item) -> Result<Self, DecodeError> {
        item.into_text().map_err(|_| DecodeError::shape("text was expected"))
    }
}

/// A byte string, as opposed to an array of small numbers.
#[derive(Clone, PartialEq, Eq, Hash, Default)]
pub struct Blob(pub Vec<u8>);

impl std::fmt::Debug for Blob {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} bytes", self.0.len())
    }
}

impl From<Vec<u8>> for Blob {
    fn from(bytes: Vec<u8>) -> Self {
        Blob(bytes)
    }
}

impl Cbor for Blob {
    fn to_item(&self) -> Item {
        Item::Bytes(self.0.clone())
    }
    fn from_item(item: Item) -> Result<Self, DecodeError> {
        item.into_bytes().map(Blob).map_err(|_| DecodeError::shape("a byte string was expected"))
    }
}

impl<const N: usize> Cbor for [u8; N] {
    fn to_item(&self) -> Item {
        Item::Bytes(self.to_vec())
    }
    fn from_item(item: Item) -> Result<Self, DecodeError> {
        Blob::from_item(item)?.0.try_into().map_err(|_| DecodeError::shape(format!("{N} bytes were expected")))
    }
}

impl<T: Cbor> Cbor for Vec<T> {
    fn to_item(&self) -> Item {
        Item::Array(self.iter().map(T::to_item).collect())
    }
    fn from_item(item: Item) -> Result<Self, DecodeError> {
        let items = item.into_array().map_err(|_| DecodeError::shape("an array was expected"))?;
        items.into_iter().map(T::from_item).collect()
    }
}

/// Text to text, in the map's own order (labels, facts).
impl Cbor for std::collections::BTreeMap<String, String> {
    fn to_item(&self) -> Item {
        Item::Map(self.iter().map(|(key, value)| (key.to_item(), value.to_item())).collect())
    }
    fn from_item(item: Item) -> Result<Self, DecodeError> {
        let mut map = Self::new();
        for (key, value) in item.into_map().map_err(|_| DecodeError::shape("a map was expected"))? {
            if map.insert(String::from_item(key)?, String::from_item(value)?).is_some() {
                return Err(DecodeError::shape("a key is repeated"));
            }
        }
        Ok(map)
    }
}

/// Takes the fields of a map with integer keys, one by one.
pub(crate) struct Fields(Vec<(Item, Item)>);

impl Fields {
    pub(crate) fn of(item: Item, what: &'static str) -> Result<Self, DecodeError> {
        item.into_map().map(Fields).map_err(|_| DecodeError::shape(format!("{what}: a map was expected")))
    }

    pub(crate) fn take<T: Cbor>(&mut self, key: i64, name: &'static str) -> Result<Option<T>, DecodeError> {
        let Some(at) = self.0.iter().position(|(found, _)| *found == Item::from(key)) else { return Ok(None) };
        let (_, item) = self.0.swap_remove(at);
        T::from_item(item).map(Some).map_err(|error| DecodeError::shape(format!("{name}: {error}")))
    }

    /// What is left is unknown or repeated.
    pub(crate) fn end(self, what: &'static str) -> Result<(), DecodeError> {
        match self.0.first() {
            None => Ok(()),
            Some((key, _)) => Err(DecodeError::shape(format!("{what}: key {key:?} is unknown or repeated"))),
        }
    }
}

/// A field of [`cbor_map!`]: required for plain types, absent allowed for options.
pub(crate) trait CborField: Sized {
    fn put(&self, key: i64, out: &mut Vec<(Item, Item)>);
    fn pull(fields: &mut Fields, key: i64, name: &'static str) -> Result<Self, DecodeError>;
}

impl<T: Cbor> CborField for T {
    fn put(&self, key: i64, out: &mut Vec<(Item, Item)>) {
        out.push((Item::from(key), self.to_item()));
    }
    fn pull(fields: &mut Fields, key: i64, name: &'static str) -> Result<Self, DecodeError> {
        fields.take(key, name)?.ok_or_else(|| DecodeError::shape(format!("{name} is missing")))
    }
}

impl<T: Cbor> CborField for Option<T> {
    fn put(&self, key: i64, out: &mut Vec<(Item, Item)>) {
        if let Some(value) = self {
            value.put(key, out);
        }
    }
    fn pull(fields: &mut Fields, key: i64, name: &'static str) -> Result<Self, DecodeError> {
        fields.take(key, name)
    }
}

/// Defines a struct that is a CBOR map with the given integer keys, in rising order.
macro_rules! cbor_map {
    ($( $(#[$meta:meta])* pub struct $name:ident { $( $(#[$fmeta:meta])* $key:literal => $field:ident : $ty:ty ),* $(,)? } )*) => { $(
        $(#[$meta])*
        pub struct $name { $( $(#[$fmeta])* pub $field: $ty ),* }
        impl $crate::cbor::Cbor for $name {
            fn to_item(&self) -> $crate::cbor::Item {
                #[allow(unused_mut, reason = "an object may have no fields")]
                let mut out = Vec::new();
                $( $crate::cbor::CborField::put(&self.$field, $key, &mut out); )*
                $crate::cbor::Item::Map(out)
            }
            fn from_item(item: $crate::cbor::Item) -> Result<Self, $crate::cbor::DecodeError> {
                #[allow(unused_mut, reason = "an object may have no fields")]
                let mut fields = $crate::cbor::Fields::of(item, stringify!($name))?;
                let object = $name { $( $field: $crate::cbor::CborField::pull(&mut fields, $key, stringify!($field))? ),* };
                fields.end(stringify!($name))?;
                Ok(object)
            }
        }
    )* };
}

/// Defines an enum that is an array `[number, fields…]` in CBOR.
macro_rules! cbor_enum {
    ($(#[$meta:meta])* pub enum $name:ident { $( $(#[$vmeta:meta])* $key:literal => $variant:ident { $( $(#[$fmeta:meta])* $field:ident : $ty:ty ),* $(,)? } ),* $(,)? }) => {
        $(#[$meta])*
        pub enum $name { $( $(#[$vmeta])* $variant { $( $(#[$fmeta])* $field: $ty ),* } ),* }
        impl $crate::cbor::Cbor for $name {
            fn to_item(&self) -> $crate::cbor::Item {
                match self { $( $name::$variant { $($field),* } => $crate::cbor::Item::Array(vec![
                    $crate::cbor::Item::from($key), $( $crate::cbor::Cbor::to_item($field) ),*
                ]) ),* }
            }
            fn from_item(item: $crate::cbor::Item) -> Result<Self, $crate::cbor::DecodeError> {
                let mut items = item.into_array().map_err(|_| $crate::cbor::DecodeError::shape(concat!(stringify!($name), ": an array was expected")))?.into_iter();
                let kind: u64 = items.next().map($crate::cbor::Cbor::from_item).transpose()?.ok_or_else(|| $crate::cbor::DecodeError::shape(concat!(stringify!($name), ": empty")))?;
                let object = match kind {
                    $( $key => $name::$variant { $( $field: $crate::cbor::Cbor::from_item(items.next().ok_or_else(|| $crate::cbor::DecodeError::shape(concat!(stringify!($field), " is missing")))?)
                        .map_err(|error| $crate::cbor::DecodeError::shape(format!(concat!(stringify!($field), ": {}"), error)))? ),* }, )*
                    other => return Err($crate::cbor::DecodeError::shape(format!(concat!(stringify!($name), ": unknown kind {}"), other))),
                };
                if items.next().is_some() { return Err($crate::cbor::DecodeError::shape(concat!(stringify!($name), ": more items than it has fields"))); }
                Ok(object)
            }
        }
    };
}
pub(crate) use {cbor_enum, cbor_map};

/// An option inside an array form is null when absent.
impl<T: Cbor> Cbor for Maybe<T> {
    fn to_item(&self) -> Item {
        self.0.as_ref().map_or(Item::Null, T::to_item)
    }
    fn from_item(item: Item) -> Result<Self, DecodeError> {
        if item == Item::Null { Ok(Maybe(None)) } else { T::from_item(item).map(|value| Maybe(Some(value))) }
    }
}

/// A value that may be null, for arrays; maps leave absent fields out instead.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Maybe<T>(pub Option<T>);

impl<T> From<Option<T>> for Maybe<T> {
    fn from(value: Option<T>) -> Self {
        Maybe(value)
    }
}
