//! Holds a value against its type. The agent asks this of everything that came over the wire before it becomes a
//! pack's argument; the sentence names the place, what was wanted and what was found.

use super::Value;
use crate::error::{Code, Failure};
use crate::limits;
use crate::text::escape_control;
use crate::types::{Case, Command, Field, IntType, Type};
use std::fmt;

/// A value that is not of its type, and where.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{place}`: {problem}")]
pub struct ParamError {
    /// Such as `params.argv[2]`.
    pub place: String,
    /// What was wanted and what was found.
    pub problem: String,
}

impl From<ParamError> for Failure {
    fn from(error: ParamError) -> Self {
        Failure::new(Code::BadParams, error.to_string())
    }
}

/// Where in a value we are; only a mistake pays for its text.
#[derive(Clone, Copy)]
pub(super) enum Place<'a> {
    Root(&'a str),
    Key(&'a Place<'a>, &'a str),
    Index(&'a Place<'a>, usize),
}

impl fmt::Display for Place<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Place::Root(name) => f.write_str(name),
            Place::Key(parent, key) => write!(f, "{parent}.{}", escape_control(key)),
            Place::Index(parent, index) => write!(f, "{parent}[{index}]"),
        }
    }
}

impl Place<'_> {
    pub(super) fn error(&self, problem: impl Into<String>) -> ParamError {
        ParamError { place: self.to_string(), problem: problem.into() }
    }

    pub(super) fn wanted(&self, ty: &Type, found: impl fmt::Display) -> ParamError {
        self.error(format!("{} was expected, found {found}", ty.wanted()))
    }
}

/// Checks a call's parameters: each known and of its type, none missing but options.
pub fn check_params(params: &Value, command: &Command) -> Result<(), ParamError> {
    let place = Place::Root("params");
    let Value::Map(entries) = params else {
        return Err(place.error(format!("an object was expected, found {}", params.kind())));
    };
    known(entries.iter().map(|(key, _)| key), &command.params, place)?;
    for field in &command.params {
        match params.get(&field.name) {
            Some(value) => check(value, &field.ty, Place::Key(&place, &field.name))?,
            None if matches!(field.ty, Type::Option(_)) => {}
            None => return Err(missing(field, place)),
        }
    }
    Ok(())
}

impl Value {
    /// Checks it against its type; the place of a mistake starts with `value`.
    pub fn check(&self, ty: &Type) -> Result<(), ParamError> {
        self.check_at(ty, "value")
    }

    /// The same; the place of a mistake starts with `root`, such as `result`.
    pub fn check_at(&self, ty: &Type, root: &str) -> Result<(), ParamError> {
        check(self, ty, Place::Root(root))
    }

    pub(super) fn check_in(&self, ty: &Type, place: Place<'_>) -> Result<(), ParamError> {
        check(self, ty, place)
    }
}

fn check(value: &Value, ty: &Type, place: Place<'_>) -> Result<(), ParamError> {
    match (ty, value) {
        (Type::Bool, Value::Bool(_)) | (Type::String, Value::Text(_)) | (Type::F64, Value::Float(_)) => Ok(()),
        (Type::Int(width), Value::Int(value)) => in_range(*width, *value, place),
        (Type::F32, Value::Float(value)) => fits_f32(*value, place).map(drop),
        (Type::Char, Value::Text(text)) => one_char(text, place),
        (Type::Bytes, Value::Bytes(bytes)) => short_enough(bytes.len(), place),
        (Type::List(item), Value::Array(items)) => {
            items.iter().enumerate().try_for_each(|(at, value)| check(value, item, Place::Index(&place, at)))
        }
        (Type::Tuple(types), Value::Array(items)) => {
            same_length(types.len(), items.len(), place)?;
            let mut pairs = types.iter().zip(items).enumerate();
            pairs.try_for_each(|(at, (ty, value))| check(value, ty, Place::Index(&place, at)))
        }
        (Type::Record(fields), Value::Map(entries)) => record(value, entries, fields, place),
        (Type::Enum(names), Value::Text(name)) => one_of(names, name, place),
        (Type::Variant(cases), Value::Text(name)) => case(cases, name, place).and_then(|found| match found.ty {
            None => Ok(()),
            Some(_) => Err(place.error(format!("case `{name}` has a value: `{{\"{name}\": …}}`"))),
        }),
        (Type::Variant(cases), Value::Map(entries)) => {
            let (name, value) = only(entries, place)?;
            payload(cases, name, place).and_then(|ty| check(value, ty, Place::Key(&place, name)))
        }
        (Type::Flags(names), Value::Array(items)) => flags(names, items, place),
        (Type::Option(_), Value::Null) => Ok(()),
        (Type::Option(inner), value) => check(value, inner, place),
        (Type::Result(ok, error), Value::Map(entries)) => {
            let (name, value) = only(entries, place)?;
            match (side(ok.as_deref(), error.as_deref(), name, place)?, value) {
                (Some(ty), value) => check(value, ty, Place::Key(&place, name)),
                (None, Value::Null) => Ok(()),
                (None, value) => Err(Place::Key(&place, name).error(format!("null was expected, found {}", value.kind()))),
            }
        }
        (Type::Stream, value) if value.as_stream().is_some() => Ok(()),
        _ => Err(place.wanted(ty, value.kind())),
    }
}

fn record(value: &Value, entries: &[(String, Value)], fields: &[Field], place: Place<'_>) -> Result<(), ParamError> {
    known(entries.iter().map(|(key, _)| key), fields, place)?;
    fields.iter().try_for_each(|field| {
        let value = value.get(&field.name).ok_or_else(|| missing(field, place))?;
        check(value, &field.ty, Place::Key(&place, &field.name))
    })
}

fn flags(names: &[String], items: &[Value], place: Place<'_>) -> Result<(), ParamError> {
    // A repeated flag says nothing new; more items than flags are only there to cost us.
    if items.len() > names.len() {
        return Err(place.error(format!("at most {} flags were expected, found {}", names.len(), items.len())));
    }
    items.iter().enumerate().try_for_each(|(at, item)| match item {
        Value::Text(name) => one_of(names, name, Place::Index(&place, at)),
        other => Err(Place::Index(&place, at).error(format!("{} was expected, found {}", choice(names), other.kind()))),
    })
}

/// Every key is a field's name.
pub(super) fn known<'k>(keys: impl Iterator<Item = &'k String>, fields: &[Field], place: Place<'_>) -> Result<(), ParamError> {
    let mut seen = vec![false; fields.len()];
    for key in keys {
        let Some(at) = fields.iter().position(|field| field.name == *key) else {
            return Err(unknown(key, fields, place));
        };
        if std::mem::replace(&mut seen[at], true) {
            return Err(Place::Key(&place, key).error("is there twice"));
        }
    }
    Ok(())
}

/// The sentence for a name nobody has, with the right ones and the one that was probably meant.
fn unknown(key: &str, fields: &[Field], place: Place<'_>) -> ParamError {
    let names: Vec<&str> = fields.iter().map(|field| field.name.as_str()).collect();
    let right = match names.as_slice() {
        [] => "there are none".to_owned(),
        _ => format!("the names are {}", list(&names)),
    };
    let meant = crate::text::nearest(key, &names).map_or_else(String::new, |name| format!(" (did you mean `{name}`?)"));
    Place::Key(&place, key).error(format!("is unknown{meant}; {right}"))
}

pub(super) fn missing(field: &Field, place: Place<'_>) -> ParamError {
    Place::Key(&place, &field.name).error(format!("is missing; {} was expected", field.ty.wanted()))
}

pub(super) fn in_range(width: IntType, value: i128, place: Place<'_>) -> Result<(), ParamError> {
    let (low, high) = width.range();
    match (low..=high).contains(&value) {
        true => Ok(()),
        false => Err(place.error(format!("{value} is outside {low} to {high} ({})", width.name()))),
    }
}

/// The nearest `f32`; a finite value that would become infinite is refused.
pub(super) fn fits_f32(value: f64, place: Place<'_>) -> Result<f64, ParamError> {
    let narrow = value as f32;
    match narrow.is_infinite() && value.is_finite() {
        true => Err(place.error(format!("{value:e} is outside the range of f32"))),
        false => Ok(f64::from(narrow)),
    }
}

pub(super) fn one_char(text: &str, place: Place<'_>) -> Result<(), ParamError> {
    match text.chars().count() {
        1 => Ok(()),
        count => Err(place.error(format!("one character was expected, found {count}"))),
    }
}

pub(super) fn short_enough(len: usize, place: Place<'_>) -> Result<(), ParamError> {
    match len <= limits::BYTES_VALUE {
        true => Ok(()),
        false => Err(place.error(format!("at most {} bytes were expected, found {len}", limits::BYTES_VALUE))),
    }
}

pub(super) fn same_length(wanted: usize, found: usize, place: Place<'_>) -> Result<(), ParamError> {
    match wanted == found {
        true => Ok(()),
        false => Err(place.error(format!("{wanted} items were expected, found {found}"))),
    }
}

pub(super) fn one_of(names: &[String], name: &str, place: Place<'_>) -> Result<(), ParamError> {
    match names.iter().any(|known| known == name) {
        true => Ok(()),
        false => Err(place.error(format!("{} was expected, found `{}`", choice(names), escape_control(name)))),
    }
}

pub(super) fn case<'t>(cases: &'t [Case], name: &str, place: Place<'_>) -> Result<&'t Case, ParamError> {
    cases.iter().find(|case| case.name == name).ok_or_else(|| {
        let names: Vec<&str> = cases.iter().map(|case| case.name.as_str()).collect();
        place.error(format!("{} was expected, found `{}`", choice(&names), escape_control(name)))
    })
}

/// The type a case's payload has; a case without one is text, not an object.
pub(super) fn payload<'t>(cases: &'t [Case], name: &str, place: Place<'_>) -> Result<&'t Type, ParamError> {
    case(cases, name, place)?.ty.as_ref().ok_or_else(|| place.error(format!("case `{name}` has no value: \"{name}\"")))
}

/// The one entry of a variant or result.
pub(super) fn only<'v, V>(entries: &'v [(String, V)], place: Place<'_>) -> Result<(&'v String, &'v V), ParamError> {
    match entries {
        [(name, value)] => Ok((name, value)),
        _ => Err(place.error(format!("an object with one key was expected, found {}", entries.len()))),
    }
}

/// The type of one side of a result inside a value.
pub(super) fn side<'t>(
    ok: Option<&'t Type>,
    error: Option<&'t Type>,
    name: &str,
    place: Place<'_>,
) -> Result<Option<&'t Type>, ParamError> {
    match name {
        "ok" => Ok(ok),
        "error" => Ok(error),
        other => Err(place.error(format!("`ok` or `error` was expected, found `{}`", escape_control(other)))),
    }
}

/// What a value must be one of.
pub(super) fn choice<S: AsRef<str>>(names: &[S]) -> String {
    if names.len() > 1 { format!("one of {}", list(names)) } else { list(names) }
}

/// Names for a sentence.
pub(super) fn list<S: AsRef<str>>(names: &[S]) -> String {
    names.iter().map(|name| format!("`{}`", name.as_ref())).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::tests::{field, optional, sample_types, system_run};

    fn map(entries: &[(&str, Value)]) -> Value {
        Value::Map(entries.iter().map(|(key, value)| ((*key).to_owned(), value.clone())).collect())
    }

    #[test]
    fn parameters_are_known_present_and_typed() {
        let say = |params: &Value| check_params(params, &system_run()).map_err(|error| error.to_string());
        let argv = ("argv", Value::Array(vec!["ls".into()]));
        assert_eq!(say(&map(std::slice::from_ref(&argv))), Ok(()));
        assert_eq!(say(&map(&[argv.clone(), ("cwd", Value::Null)])), Ok(()));
        assert_eq!(say(&map(&[])), Err("`params.argv`: is missing; list<string> was expected".into()));
        assert_eq!(
            say(&map(&[argv.clone(), ("cdw", "/".into())])),
            Err("`params.cdw`: is unknown (did you mean `cwd`?); the names are `argv`, `cwd`, `env`".into())
        );
        assert_eq!(
            say(&map(&[("argv", Value::Array(vec!["a".into(), Value::Int(1)]))])),
            Err("`params.argv[1]`: string was expected, found an integer".into())
        );
        assert_eq!(say(&Value::Null), Err("`params`: an object was expected, found null".into()));
        let twice = Value::Map(vec![("argv".into(), Value::Array(vec![])), ("argv".into(), Value::Null)]);
        assert_eq!(say(&twice), Err("`params.argv`: is there twice".into()));
    }

    #[test]
    fn a_record_has_all_its_fields() {
        let ty = Type::Record(vec![field("a", Type::Bool), optional("b", Type::Bool)]);
        assert!(map(&[("a", Value::Bool(true)), ("b", Value::Null)]).check(&ty).is_ok());
        assert_eq!(map(&[("a", Value::Bool(true))]).check(&ty).unwrap_err().place, "value.b");
    }

    #[test]
    fn ranges_are_exact() {
        for width in IntType::ALL {
            let (low, high) = width.range();
            for (value, fits) in [(low, true), (high, true), (low - 1, false), (high + 1, false)] {
                assert_eq!(Value::Int(value).check(&Type::Int(width)).is_ok(), fits, "{value} {}", width.name());
            }
        }
        assert!(Value::Float(1e300).check(&Type::F32).is_err());
        assert!(Value::Float(f64::INFINITY).check(&Type::F32).is_ok());
        assert!(Value::Bytes(vec![0; limits::BYTES_VALUE + 1]).check(&Type::Bytes).is_err());
    }

    #[test]
    fn each_type_takes_its_own_and_refuses_others() {
        for (ty, good, _) in sample_types() {
            assert_eq!(good.check(&ty), Ok(()), "{ty}");
            assert!(Value::Map(vec![("nope".into(), Value::Null), ("no".into(), Value::Null)]).check(&ty).is_err(), "{ty}");
            if !matches!(ty, Type::Option(_)) {
                assert!(Value::Null.check(&ty).is_err(), "{ty}");
            }
        }
    }

    #[test]
    fn hostile_names_are_escaped() {
        let error = check_params(&map(&[("\u{1b}[2J", Value::Null)]), &system_run()).unwrap_err();
        assert!(error.to_string().starts_with("`params.\\u{1b}[2J`: is unknown"), "{error}");
    }
}
