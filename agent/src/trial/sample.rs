//! Values made from types alone, to call commands nobody wrote a case for: the least of a type, and one with everything in
//! it.

use outhaul_protocol::types::{Command, Field, Type};
use outhaul_protocol::value::Value;

/// How much of a type a sample has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Amount {
    /// Options are none, lists are empty, the first case.
    Least,
    /// Options are there, lists have an item, the last case.
    Full,
}

/// Parameters for a command.
pub(super) fn params(command: &Command, amount: Amount) -> Value {
    let given = |field: &&Field| amount == Amount::Full || !matches!(field.ty, Type::Option(_));
    Value::Map(command.params.iter().filter(given).map(|field| (field.name.clone(), value(&field.ty, amount))).collect())
}

/// A value of a type.
pub(super) fn value(ty: &Type, amount: Amount) -> Value {
    let full = amount == Amount::Full;
    let choice = |count: usize| if full { count.saturating_sub(1) } else { 0 };
    match ty {
        Type::Bool => Value::Bool(full),
        Type::Int(width) => Value::Int(if full { width.range().1 } else { 0 }),
        Type::F32 | Type::F64 => Value::Float(if full { 0.5 } else { 0.0 }),
        Type::Char => Value::Text(if full { "é" } else { "a" }.into()),
        Type::String => Value::Text(if full { "text, \"quoted\"" } else { "" }.into()),
        Type::Bytes => Value::Bytes(if full { vec![0, 255] } else { Vec::new() }),
        Type::List(item) => Value::Array(if full { vec![value(item, amount)] } else { Vec::new() }),
        Type::Tuple(types) => Value::Array(types.iter().map(|ty| value(ty, amount)).collect()),
        Type::Record(fields) => Value::Map(fields.iter().map(|field| (field.name.clone(), value(&field.ty, amount))).collect()),
        Type::Enum(names) => Value::Text(names.get(choice(names.len())).cloned().unwrap_or_default()),
        Type::Flags(names) => Value::Array(if full { names.iter().cloned().map(Value::Text).collect() } else { Vec::new() }),
        Type::Variant(cases) => match cases.get(choice(cases.len())) {
            Some(case) => match &case.ty {
                Some(ty) => Value::Map(vec![(case.name.clone(), value(ty, amount))]),
                None => Value::Text(case.name.clone()),
            },
            None => Value::Null,
        },
        Type::Option(inner) if full => value(inner, amount),
        Type::Option(_) => Value::Null,
        Type::Result(ok, error) => {
            let (name, side) = if full { ("error", error) } else { ("ok", ok) };
            Value::Map(vec![(name.into(), side.as_ref().map_or(Value::Null, |ty| value(ty, amount)))])
        }
        // Only in results, where its place holds a length and a digest.
        Type::Stream => Value::stream(0, [0; 32]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use outhaul_protocol::types::{Case, IntType};
    use outhaul_protocol::value::check_params;

    #[test]
    fn samples_are_of_their_types() {
        let field = |name: &str, ty| Field { name: name.into(), ty, doc: None };
        let case = |name: &str, ty| Case { name: name.into(), ty };
        let boxed = Box::new;
        let types = vec![
            Type::Bool,
            Type::Int(IntType::S8),
            Type::Int(IntType::U64),
            Type::F32,
            Type::F64,
            Type::Char,
            Type::String,
            Type::Bytes,
            Type::List(boxed(Type::Int(IntType::U16))),
            Type::Tuple(vec![Type::Bool, Type::String]),
            Type::Record(vec![field("a", Type::Option(boxed(Type::Char))), field("b", Type::Bool)]),
            Type::Enum(vec!["x".into(), "y".into()]),
            Type::Flags(vec!["x".into(), "y".into()]),
            Type::Variant(vec![case("none", None), case("some", Some(Type::Bytes))]),
            Type::Option(boxed(Type::List(boxed(Type::String)))),
            Type::Result(Some(boxed(Type::Bool)), None),
        ];
        for ty in types {
            let command = Command { name: "a.b".into(), doc: None, params: vec![field("p", ty)], result: None, error: None };
            for amount in [Amount::Least, Amount::Full] {
                let sample = params(&command, amount);
                check_params(&sample, &command).unwrap_or_else(|error| panic!("{:?} {amount:?}: {error:?}", command.params));
            }
        }
    }
}
