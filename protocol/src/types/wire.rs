//! Types in CBOR, as small as they get, because every agent describes its packs to every relay. A plain type is its
//! number; any other is a flat array that starts with its number, so that one level of type is one level of CBOR:
//!
//! | number | type | array |
//! |---|---|---|
//! | 0 | bool | – |
//! | 1–8 | s8 u8 s16 u16 s32 u32 s64 u64 | – |
//! | 9–14 | f32 f64 char string `list<u8>` `stream<u8>` | – |
//! | 20 | list | `[20, type]` |
//! | 21 | tuple | `[21, type…]` |
//! | 22 | record | `[22, name, type, doc or null, …]` |
//! | 23 | enum | `[23, name…]` |
//! | 24 | variant | `[24, name, type or null, …]` |
//! | 25 | flags | `[25, name…]` |
//! | 26 | option | `[26, type]`, not of an option |
//! | 27 | result | `[27, type or null, type or null]` |
//!
//! A field is `[name, type]` or `[name, type, doc]`, a case `[name]` or `[name, type]`, a command
//! `[name, doc or null, [field…], result type or null]`, and one item more when it can fail: its error type or null.

use super::{Case, Command, Field, IntType, Type};
use crate::cbor::{Cbor, DecodeError, Item, Maybe};

const PLAIN: [Type; 6] = [Type::F32, Type::F64, Type::Char, Type::String, Type::Bytes, Type::Stream];
const FIRST_INT: u64 = 1;
const FIRST_PLAIN: u64 = 9;
const LIST: u64 = 20;
const TUPLE: u64 = 21;
const RECORD: u64 = 22;
const ENUM: u64 = 23;
const VARIANT: u64 = 24;
const FLAGS: u64 = 25;
const OPTION: u64 = 26;
const RESULT: u64 = 27;

impl Cbor for Type {
    fn to_item(&self) -> Item {
        match self {
            Type::Bool => Item::from(0),
            Type::Int(width) => Item::from(FIRST_INT + *width as u64),
            Type::F32 => Item::from(FIRST_PLAIN),
            Type::F64 => Item::from(FIRST_PLAIN + 1),
            Type::Char => Item::from(FIRST_PLAIN + 2),
            Type::String => Item::from(FIRST_PLAIN + 3),
            Type::Bytes => Item::from(FIRST_PLAIN + 4),
            Type::Stream => Item::from(FIRST_PLAIN + 5),
            Type::List(item) => array(LIST, [item.to_item()]),
            Type::Tuple(types) => array(TUPLE, types.iter().map(Type::to_item)),
            Type::Record(fields) => {
                array(RECORD, fields.iter().flat_map(|field| [field.name.to_item(), field.ty.to_item(), doc(&field.doc)]))
            }
            Type::Enum(names) => array(ENUM, names.iter().map(String::to_item)),
            Type::Variant(cases) => array(VARIANT, cases.iter().flat_map(|case| [case.name.to_item(), or_null(case.ty.as_ref())])),
            Type::Flags(names) => array(FLAGS, names.iter().map(String::to_item)),
            Type::Option(inner) => array(OPTION, [inner.to_item()]),
            Type::Result(ok, error) => array(RESULT, [or_null(ok.as_deref()), or_null(error.as_deref())]),
        }
    }

    fn from_item(item: Item) -> Result<Self, DecodeError> {
        match item {
            Item::Array(items) => composite(items),
            number => plain(u64::from_item(number)?),
        }
    }
}

fn array(number: u64, items: impl IntoIterator<Item = Item>) -> Item {
    Item::Array(std::iter::once(Item::from(number)).chain(items).collect())
}

fn or_null<T: Cbor>(value: Option<&T>) -> Item {
    value.map_or(Item::Null, T::to_item)
}

fn doc(doc: &Option<String>) -> Item {
    or_null(doc.as_ref())
}

fn plain(number: u64) -> Result<Type, DecodeError> {
    let at = |first: u64| number.checked_sub(first).and_then(|at| usize::try_from(at).ok());
    if number == 0 {
        return Ok(Type::Bool);
    }
    if let Some(width) = at(FIRST_INT).and_then(|at| IntType::ALL.get(at)) {
        return Ok(Type::Int(*width));
    }
    at(FIRST_PLAIN).and_then(|at| PLAIN.get(at)).cloned().ok_or_else(|| DecodeError::shape(format!("type: unknown number {number}")))
}

fn composite(items: Vec<Item>) -> Result<Type, DecodeError> {
    let mut items = Items(items.into_iter());
    let number: u64 = items.take("number")?;
    let ty = match number {
        LIST => Type::List(Box::new(items.take("item")?)),
        TUPLE => Type::Tuple(items.all(|items| items.take("item"))?),
        RECORD => {
            let fields = items.all(|items| Ok(Field { name: items.name()?, ty: items.take("type")?, doc: items.maybe("doc")? }))?;
            unique(fields.iter().map(|field| &field.name))?;
            Type::Record(fields)
        }
        ENUM => Type::Enum(items.names()?),
        VARIANT => {
            let cases = items.all(|items| Ok(Case { name: items.name()?, ty: items.maybe("type")? }))?;
            unique(cases.iter().map(|case| &case.name))?;
            Type::Variant(cases)
        }
        FLAGS => Type::Flags(items.names()?),
        OPTION => match items.take("type")? {
            Type::Option(_) => return Err(DecodeError::shape("an option of an option does not cross")),
            inner => Type::Option(Box::new(inner)),
        },
        RESULT => Type::Result(items.maybe("ok")?.map(Box::new), items.maybe("error")?.map(Box::new)),
        other => return Err(DecodeError::shape(format!("type: unknown number {other}"))),
    };
    items.end()?;
    Ok(ty)
}

/// Takes the items of an array one after the other.
struct Items(std::vec::IntoIter<Item>);

impl Items {
    fn of(item: Item, what: &str) -> Result<Self, DecodeError> {
        item.into_array().map(|items| Items(items.into_iter())).map_err(|_| DecodeError::shape(format!("{what}: an array was expected")))
    }

    fn take<T: Cbor>(&mut self, name: &str) -> Result<T, DecodeError> {
        let item = self.0.next().ok_or_else(|| DecodeError::shape(format!("{name} is missing")))?;
        T::from_item(item)
    }

    fn maybe<T: Cbor>(&mut self, name: &str) -> Result<Option<T>, DecodeError> {
        self.take::<Maybe<T>>(name).map(|value| value.0)
    }

    /// A name as WIT allows it, with `_` for `-`: nothing in it can move a cursor or pass for another name's path.
    fn name(&mut self) -> Result<String, DecodeError> {
        let name: String = self.take("name")?;
        match is_name(&name) {
            true => Ok(name),
            false => Err(DecodeError::shape(format!("{name:?} is not a name"))),
        }
    }

    fn names(&mut self) -> Result<Vec<String>, DecodeError> {
        let names = self.all(Items::name)?;
        unique(names.iter())?;
        Ok(names)
    }

    fn all<T>(&mut self, mut one: impl FnMut(&mut Self) -> Result<T, DecodeError>) -> Result<Vec<T>, DecodeError> {
        let mut out = Vec::new();
        while self.0.len() > 0 {
            out.push(one(self)?);
        }
        Ok(out)
    }

    fn end(self) -> Result<(), DecodeError> {
        match self.0.len() {
            0 => Ok(()),
            left => Err(DecodeError::shape(format!("type: {left} items more than it has"))),
        }
    }
}

fn is_name(name: &str) -> bool {
    !name.is_empty() && name.chars().all(|character| character.is_ascii_alphanumeric() || character == '_')
}

fn unique<'n>(names: impl Iterator<Item = &'n String>) -> Result<(), DecodeError> {
    let mut seen = std::collections::HashSet::new();
    for name in names {
        if !seen.insert(name) {
            return Err(DecodeError::shape(format!("name `{name}` is repeated")));
        }
    }
    Ok(())
}

impl Cbor for Field {
    fn to_item(&self) -> Item {
        let mut items = vec![self.name.to_item(), self.ty.to_item()];
        items.extend(self.doc.as_ref().map(Cbor::to_item));
        Item::Array(items)
    }

    fn from_item(item: Item) -> Result<Self, DecodeError> {
        let mut items = Items::of(item, "field")?;
        let mut field = Field { name: items.name()?, ty: items.take("type")?, doc: None };
        if items.0.len() > 0 {
            field.doc = Some(items.take("doc")?);
        }
        items.end()?;
        Ok(field)
    }
}

impl Cbor for Case {
    fn to_item(&self) -> Item {
        let mut items = vec![self.name.to_item()];
        items.extend(self.ty.as_ref().map(Cbor::to_item));
        Item::Array(items)
    }

    fn from_item(item: Item) -> Result<Self, DecodeError> {
        let mut items = Items::of(item, "case")?;
        let mut case = Case { name: items.name()?, ty: None };
        if items.0.len() > 0 {
            case.ty = Some(items.take("type")?);
        }
        items.end()?;
        Ok(case)
    }
}

impl Cbor for Command {
    fn to_item(&self) -> Item {
        let mut items = vec![self.name.to_item(), doc(&self.doc), self.params.to_item(), or_null(self.result.as_ref())];
        items.extend(self.error.as_ref().map(|error| or_null(error.as_ref())));
        Item::Array(items)
    }

    fn from_item(item: Item) -> Result<Self, DecodeError> {
        let mut items = Items::of(item, "command")?;
        let name: String = items.take("name")?;
        if name.split_once('.').is_none_or(|(interface, function)| !is_name(interface) || !is_name(function)) {
            return Err(DecodeError::shape(format!("{name:?} is not a command")));
        }
        let mut command =
            Command { name, doc: items.maybe("doc")?, params: items.take("params")?, result: items.maybe("result")?, error: None };
        if items.0.len() > 0 {
            command.error = Some(items.maybe("error")?);
        }
        items.end()?;
        unique(command.params.iter().map(|field| &field.name))?;
        Ok(command)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cbor::{decode, encode};
    use crate::scan::Ceiling;
    use crate::types::tests::{any_type, sample_types, system_run};
    use proptest::prelude::*;

    fn round_trip<T: Cbor + PartialEq + std::fmt::Debug>(object: &T) {
        assert_eq!(&decode::<T>(&encode(object), Ceiling::VALUE).unwrap(), object);
    }

    #[test]
    fn golden_command() {
        let hex = concat!(
            "85",
            "6a73797374656d2e72756e",
            "781f52756e7320612070726f6772616d20776974686f75742061207368656c6c2e",
            "83",
            "8364617267768214",
            "0c",
            "781d7468652070726f6772616d20616e642069747320617267756d656e7473",
            "826363776482181a0c",
            "8263656e7682181a82148315",
            "0c0c",
            "87",
            "16",
            "677375636365737300f6",
            "69657869745f636f646582181a05f6",
            "851818",
            "6664656e696564",
            "0c",
            "64676f6e65",
            "f6",
        );
        assert_eq!(hex::encode(encode(&system_run())), hex);
        round_trip(&system_run());
    }

    #[test]
    fn each_type_has_its_bytes() {
        for (ty, _, _) in sample_types() {
            round_trip(&ty);
        }
        for (number, ty) in [(0, Type::Bool), (1, Type::Int(IntType::S8)), (8, Type::Int(IntType::U64)), (9, Type::F32), (14, Type::Stream)]
        {
            assert_eq!(encode(&ty), [number]);
        }
    }

    #[test]
    fn how_a_command_fails_survives() {
        for error in [None, Some(None), Some(Some(Type::String))] {
            round_trip(&Command { name: "a.b".into(), doc: None, params: vec![], result: None, error });
        }
    }

    #[test]
    fn what_packs_cannot_say_is_refused() {
        let bad = |item: Item| Type::from_item(item).unwrap_err().to_string();
        assert!(bad(Item::from(15)).contains("unknown number 15"));
        assert!(bad(array(28, [])).contains("unknown number 28"));
        assert!(bad(array(OPTION, [array(OPTION, [Item::from(0)])])).contains("option of an option"));
        assert!(bad(array(ENUM, [Item::from("a"), Item::from("a")])).contains("repeated"));
        assert!(bad(array(ENUM, [Item::from("\u{202e}")])).contains("not a name"));
        assert!(bad(array(LIST, [Item::from(0), Item::from(0)])).contains("more than it has"));
        assert!(bad(Item::Array(vec![])).contains("missing"));
        let command = |name: &str| Command { name: name.into(), doc: None, params: vec![], result: None, error: None };
        for name in ["a", "a.b.c", ".b", "a.", "a b.c"] {
            assert!(decode::<Command>(&encode(&command(name)), Ceiling::VALUE).is_err(), "{name}");
        }
    }

    proptest! {
        #[test]
        fn any_type_round_trips(ty in any_type()) {
            round_trip(&ty);
        }

        #[test]
        fn random_flipped_and_cut_bytes_never_panic(
            bytes in proptest::collection::vec(any::<u8>(), 0..60), ty in any_type(), at in any::<usize>(), bit in 0..8,
        ) {
            let _ = decode::<Type>(&bytes, Ceiling::VALUE);
            let _ = decode::<Command>(&bytes, Ceiling::VALUE);
            let mut good = encode(&ty);
            let at = at % good.len();
            let _ = decode::<Type>(&good[..at], Ceiling::VALUE);
            good[at] ^= 1u8 << bit;
            let _ = decode::<Type>(&good, Ceiling::VALUE);
        }
    }
}
