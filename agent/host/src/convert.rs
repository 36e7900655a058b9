//! Values in and out: the one [`Value`] and the component model's own. What goes in was checked against its type first; what comes out
//! is trusted in its type, which the engine made sure of, and in nothing else.

use outhaul_protocol::error::{Code, Failure};
use outhaul_protocol::limits::{BYTES_VALUE, VALUE_ITEMS};
use outhaul_protocol::types::{Case, Command, Field, IntType, Type};
use outhaul_protocol::value::{Value, check_params};
use wasmtime::component::{StreamAny, Val};

use crate::exports::outside;

/// A WIT name from one outside WIT.
fn inside(name: &str) -> String {
    name.replace('_', "-")
}

/// A call's parameters in the order of its function.
pub(crate) fn params(params: Value, command: &Command) -> Result<Vec<Val>, Failure> {
    check_params(&params, command)?;
    let Value::Map(mut entries) = params else { return Err(unchecked()) };
    let mut values = Vec::with_capacity(command.params.len());
    for field in &command.params {
        let value = match entries.iter().position(|(name, _)| *name == field.name) {
            Some(at) => entries.swap_remove(at).1,
            None => Value::Null,
        };
        values.push(to_val(value, &field.ty).ok_or_else(unchecked)?);
    }
    Ok(values)
}

/// The check and this file disagree about a type.
fn unchecked() -> Failure {
    Failure::new(Code::Internal, "a checked parameter is not of its type")
}

fn to_val(value: Value, ty: &Type) -> Option<Val> {
    Some(match (ty, value) {
        (Type::Bool, Value::Bool(value)) => Val::Bool(value),
        (Type::Int(width), Value::Int(value)) => int(*width, value)?,
        (Type::F32, Value::Float(value)) => Val::Float32(value as f32),
        (Type::F64, Value::Float(value)) => Val::Float64(value),
        (Type::Char, Value::Text(text)) => Val::Char(text.chars().next()?),
        (Type::String, Value::Text(text)) => Val::String(text),
        (Type::Bytes, Value::Bytes(bytes)) => Val::List(bytes.into_iter().map(Val::U8).collect()),
        (Type::List(item), Value::Array(items)) => Val::List(items.into_iter().map(|value| to_val(value, item)).collect::<Option<_>>()?),
        (Type::Tuple(types), Value::Array(items)) => {
            Val::Tuple(types.iter().zip(items).map(|(ty, value)| to_val(value, ty)).collect::<Option<_>>()?)
        }
        (Type::Record(fields), Value::Map(entries)) => Val::Record(record(fields, entries)?),
        (Type::Enum(_), Value::Text(name)) => Val::Enum(inside(&name)),
        (Type::Variant(_), Value::Text(name)) => Val::Variant(inside(&name), None),
        (Type::Variant(cases), Value::Map(entries)) => {
            let (name, value) = entries.into_iter().next()?;
            let ty = cases.iter().find(|case| case.name == name)?.ty.as_ref()?;
            Val::Variant(inside(&name), Some(Box::new(to_val(value, ty)?)))
        }
        (Type::Flags(_), Value::Array(items)) => Val::Flags(items.into_iter().map(flag).collect::<Option<_>>()?),
        (Type::Option(_), Value::Null) => Val::Option(None),
        (Type::Option(inner), value) => Val::Option(Some(Box::new(to_val(value, inner)?))),
        (Type::Result(ok, error), Value::Map(entries)) => {
            let (name, value) = entries.into_iter().next()?;
            match name.as_str() {
                "ok" => Val::Result(Ok(side(value, ok.as_deref())?)),
                _ => Val::Result(Err(side(value, error.as_deref())?)),
            }
        }
        _ => return None,
    })
}

fn int(width: IntType, value: i128) -> Option<Val> {
    Some(match width {
        IntType::S8 => Val::S8(value.try_into().ok()?),
        IntType::U8 => Val::U8(value.try_into().ok()?),
        IntType::S16 => Val::S16(value.try_into().ok()?),
        IntType::U16 => Val::U16(value.try_into().ok()?),
        IntType::S32 => Val::S32(value.try_into().ok()?),
        IntType::U32 => Val::U32(value.try_into().ok()?),
        IntType::S64 => Val::S64(value.try_into().ok()?),
        IntType::U64 => Val::U64(value.try_into().ok()?),
    })
}

/// Fields in the order of their type, which the engine asks for.
fn record(fields: &[Field], mut entries: Vec<(String, Value)>) -> Option<Vec<(String, Val)>> {
    let fields = fields.iter().map(|field| {
        let at = entries.iter().position(|(name, _)| *name == field.name)?;
        Some((inside(&field.name), to_val(entries.swap_remove(at).1, &field.ty)?))
    });
    fields.collect()
}

fn flag(item: Value) -> Option<String> {
    match item {
        Value::Text(name) => Some(inside(&name)),
        _ => None,
    }
}

fn side(value: Value, ty: Option<&Type>) -> Option<Option<Box<Val>>> {
    ty.map(|ty| to_val(value, ty).map(Box::new)).map_or(Some(None), |value| value.map(Some))
}

/// What a function answered.
pub(crate) struct Answer {
    /// its success value or its typed error; null where the type has none
    pub(crate) outcome: Result<Value, Value>,
    /// the stream in the success value, whose place in it is empty
    pub(crate) stream: Option<StreamAny>,
}

/// A function's results as its command's answer.
pub(crate) fn answer(results: Vec<Val>, command: &Command) -> Result<Answer, Failure> {
    let mut from = FromVal { left: VALUE_ITEMS, stream: None };
    let outcome = match (results.into_iter().next(), &command.error) {
        (None, _) => Ok(Value::Null),
        (Some(Val::Result(Ok(value))), Some(_)) => Ok(from.side(value, command.result.as_ref())?),
        (Some(Val::Result(Err(value))), Some(error)) => Err(from.side(value, error.as_ref())?),
        (Some(value), _) => match &command.result {
            Some(ty) => Ok(from.value(value, ty)?),
            None => Err(mistyped())?,
        },
    };
    Ok(Answer { outcome, stream: from.stream })
}

/// Puts what stands for a stream into its place.
pub(crate) fn fill_stream(value: &mut Value, command: &Command, stream: Value) {
    match (&command.result, value) {
        (Some(Type::Record(fields)), Value::Map(entries)) => {
            let at = fields.iter().position(|field| field.ty == Type::Stream);
            if let Some((_, place)) = at.and_then(|at| entries.get_mut(at)) {
                *place = stream;
            }
        }
        (_, value) => *value = stream,
    }
}

struct FromVal {
    left: usize,
    stream: Option<StreamAny>,
}

fn mistyped() -> Failure {
    Failure::new(Code::Internal, "a result is not of its type")
}

impl FromVal {
    fn value(&mut self, value: Val, ty: &Type) -> Result<Value, Failure> {
        self.left = self.left.checked_sub(1).ok_or_else(too_many)?;
        Ok(match (value, ty) {
            (Val::Bool(value), _) => Value::Bool(value),
            (Val::S8(value), _) => Value::Int(value.into()),
            (Val::U8(value), _) => Value::Int(value.into()),
            (Val::S16(value), _) => Value::Int(value.into()),
            (Val::U16(value), _) => Value::Int(value.into()),
            (Val::S32(value), _) => Value::Int(value.into()),
            (Val::U32(value), _) => Value::Int(value.into()),
            (Val::S64(value), _) => Value::Int(value.into()),
            (Val::U64(value), _) => Value::Int(value.into()),
            (Val::Float32(value), _) => Value::Float(value.into()),
            (Val::Float64(value), _) => Value::Float(value),
            (Val::Char(value), _) => Value::Text(value.into()),
            (Val::String(value), _) => Value::Text(value),
            (Val::List(items), Type::Bytes) => Value::Bytes(bytes(&items)?),
            (Val::List(items), Type::List(item)) => Value::Array(self.all(items, |_| Some(item))?),
            (Val::Tuple(items), Type::Tuple(types)) => Value::Array(self.all(items, |at| types.get(at))?),
            (Val::Record(entries), Type::Record(fields)) => Value::Map(self.record(entries, fields)?),
            (Val::Enum(name), _) => Value::Text(outside(&name)),
            (Val::Variant(name, value), Type::Variant(cases)) => self.variant(&name, value, cases)?,
            (Val::Flags(names), _) => Value::Array(names.iter().map(|name| Value::Text(outside(name))).collect()),
            (Val::Option(value), Type::Option(inner)) => self.side(value, Some(inner))?,
            (Val::Result(value), Type::Result(ok, error)) => {
                let (name, value) = match value {
                    Ok(value) => ("ok", self.side(value, ok.as_deref())?),
                    Err(value) => ("error", self.side(value, error.as_deref())?),
                };
                Value::Map(vec![(name.into(), value)])
            }
            (Val::Stream(stream), Type::Stream) => {
                self.stream = Some(stream);
                Value::Null
            }
            _ => return Err(mistyped()),
        })
    }

    fn side(&mut self, value: Option<Box<Val>>, ty: Option<&Type>) -> Result<Value, Failure> {
        match (value, ty) {
            (Some(value), Some(ty)) => self.value(*value, ty),
            (None, _) => Ok(Value::Null),
            (Some(_), None) => Err(mistyped()),
        }
    }

    fn all<'t>(&mut self, items: Vec<Val>, ty: impl Fn(usize) -> Option<&'t Type>) -> Result<Vec<Value>, Failure> {
        // Before anything is built: the list itself may be what is too long.
        if items.len() > self.left {
            return Err(too_many());
        }
        items.into_iter().enumerate().map(|(at, value)| self.value(value, ty(at).ok_or_else(mistyped)?)).collect()
    }

    fn record(&mut self, entries: Vec<(String, Val)>, fields: &[Field]) -> Result<Vec<(String, Value)>, Failure> {
        let pairs = entries.into_iter().zip(fields);
        pairs.map(|((_, value), field)| Ok((field.name.clone(), self.value(value, &field.ty)?))).collect()
    }

    fn variant(&mut self, name: &str, value: Option<Box<Val>>, cases: &[Case]) -> Result<Value, Failure> {
        let name = outside(name);
        match value {
            None => Ok(Value::Text(name)),
            Some(value) => {
                let ty = cases.iter().find(|case| case.name == name).and_then(|case| case.ty.as_ref()).ok_or_else(mistyped)?;
                let value = self.value(*value, ty)?;
                Ok(Value::Map(vec![(name, value)]))
            }
        }
    }
}

fn bytes(items: &[Val]) -> Result<Vec<u8>, Failure> {
    if items.len() > BYTES_VALUE {
        let text = format!("the result has {} bytes in one list, at most {BYTES_VALUE} are allowed", items.len());
        return Err(Failure::new(Code::TooLarge, text).hint("the pack should return them as a stream"));
    }
    let byte = |item: &Val| match item {
        Val::U8(byte) => Ok(*byte),
        _ => Err(mistyped()),
    };
    items.iter().map(byte).collect()
}

fn too_many() -> Failure {
    Failure::new(Code::TooLarge, format!("the result has more than {VALUE_ITEMS} items"))
        .hint("the pack should return less at once, or a stream")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn command(result: Type) -> Command {
        Command { name: "a.b".into(), doc: None, params: Vec::new(), result: Some(result), error: None }
    }

    fn refused(val: Val, result: Type) -> Code {
        answer(vec![val], &command(result)).map(|_| ()).expect_err("refused").code
    }

    #[test]
    fn results_over_their_ceilings_are_refused() {
        let bytes = |count| Val::List(vec![Val::U8(1); count]);
        assert!(answer(vec![bytes(BYTES_VALUE)], &command(Type::Bytes)).is_ok());
        assert_eq!(refused(bytes(BYTES_VALUE + 1), Type::Bytes), Code::TooLarge);
        let bools = || Type::List(Box::new(Type::Bool));
        let list = |count| Val::List(vec![Val::Bool(true); count]);
        assert!(answer(vec![list(VALUE_ITEMS - 1)], &command(bools())).is_ok());
        assert_eq!(refused(list(VALUE_ITEMS), bools()), Code::TooLarge);
        let nested = Val::List(vec![list(VALUE_ITEMS / 2), list(VALUE_ITEMS / 2)]);
        assert_eq!(refused(nested, Type::List(Box::new(bools()))), Code::TooLarge);
    }

    #[test]
    fn a_result_of_another_type_is_our_defect_and_says_so() {
        assert_eq!(refused(Val::List(Vec::new()), Type::Bool), Code::Internal);
        assert_eq!(refused(Val::Option(Some(Box::new(Val::Tuple(Vec::new())))), Type::Option(Box::new(Type::Bool))), Code::Internal);
    }

    #[test]
    fn a_streams_place_is_filled() {
        let stream = || Value::stream(3, [1; 32]);
        let field = |name: &str, ty| Field { name: name.into(), ty, doc: None };
        let record = command(Type::Record(vec![field("a", Type::Bool), field("b", Type::Stream)]));
        let mut value = Value::Map(vec![("a".into(), Value::Bool(true)), ("b".into(), Value::Null)]);
        fill_stream(&mut value, &record, stream());
        assert_eq!(value.get("b"), Some(&stream()));
        let mut value = Value::Null;
        fill_stream(&mut value, &command(Type::Stream), stream());
        assert_eq!(value, stream());
    }
}
