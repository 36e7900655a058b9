//! A type and a command on one line, as people read them:
//! `system.run(argv: list<string>, cwd?: string) -> {success: bool, exit_code?: s32} or error denied(string) | gone`.
//! The model has no type names, so records and variants show what is in them; `f?: T` is an option.

use super::{Case, Command, Field, Type};
use std::fmt::{self, Write as _};

/// Fields of a result that its signature shows; the schema has them all.
const RESULT_FIELDS: usize = 8;

/// How much of a record is written out.
#[derive(Clone, Copy, PartialEq)]
enum Detail {
    /// Everything: what a caller must type.
    Full,
    /// The first fields, those inside them as `{…}`.
    Outline,
    /// `{…}`
    Mark,
}

impl fmt::Display for Type {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_type(f, self, Detail::Full)
    }
}

impl Type {
    /// What a message says was expected: scalars and shapes by name, a record without its fields.
    pub(crate) fn wanted(&self) -> String {
        match self {
            Type::Record(_) => "an object".into(),
            Type::Tuple(types) => format!("a list of {}", types.len()),
            Type::Bytes => "bytes".into(),
            Type::Stream => "a stream's {bytes, sha256}".into(),
            Type::Result(..) => "{ok: …} or {error: …}".into(),
            Type::Option(inner) => inner.wanted(),
            other => brief(other, Detail::Mark),
        }
    }
}

impl Command {
    /// The command on one line: parameters in full, result and error in outline.
    #[must_use]
    pub fn signature(&self) -> String {
        let params = brief_fields(&self.params, Detail::Full);
        let mut out = format!("{}({params})", self.name);
        if self.result.is_some() || self.error.is_some() {
            let result = self.result.as_ref().map_or_else(|| "nothing".into(), |ty| brief(ty, Detail::Outline));
            let _ = write!(out, " -> {result}");
        }
        match &self.error {
            None => {}
            Some(None) => out.push_str(" or error"),
            Some(Some(ty)) => {
                let _ = write!(out, " or error {}", brief(ty, Detail::Outline));
            }
        }
        out
    }
}

struct Brief<'t>(&'t Type, Detail);

impl fmt::Display for Brief<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_type(f, self.0, self.1)
    }
}

fn brief(ty: &Type, detail: Detail) -> String {
    Brief(ty, detail).to_string()
}

fn write_type(f: &mut fmt::Formatter<'_>, ty: &Type, detail: Detail) -> fmt::Result {
    let inner = |ty| Brief(ty, detail);
    match ty {
        Type::Bool => f.write_str("bool"),
        Type::Int(width) => f.write_str(width.name()),
        Type::F32 => f.write_str("f32"),
        Type::F64 => f.write_str("f64"),
        Type::Char => f.write_str("char"),
        Type::String => f.write_str("string"),
        Type::Bytes => f.write_str("bytes"),
        Type::Stream => f.write_str("stream"),
        Type::List(item) => write!(f, "list<{}>", inner(item)),
        Type::Tuple(types) => write!(f, "tuple<{}>", join(types, ", ", |ty| brief(ty, detail))),
        Type::Record(_) if detail == Detail::Mark => f.write_str("{…}"),
        Type::Record(fields) => write!(f, "{{{}}}", brief_fields(fields, detail)),
        Type::Enum(names) => f.write_str(&names.join("|")),
        Type::Variant(cases) => f.write_str(&join(cases, " | ", |case| brief_case(case, detail))),
        Type::Flags(names) => write!(f, "flags<{}>", names.join(", ")),
        Type::Option(some) => write!(f, "option<{}>", inner(some)),
        Type::Result(ok, error) => match (ok, error) {
            (None, None) => f.write_str("result"),
            (Some(ok), None) => write!(f, "result<{}>", inner(ok)),
            (ok, Some(error)) => {
                let ok = ok.as_ref().map_or_else(|| "_".into(), |ok| brief(ok, detail));
                write!(f, "result<{ok}, {}>", inner(error))
            }
        },
    }
}

fn brief_fields(fields: &[Field], detail: Detail) -> String {
    let (shown, within) = match detail {
        Detail::Full => (fields.len(), Detail::Full),
        _ => (RESULT_FIELDS.min(fields.len()), Detail::Mark),
    };
    let mut text = join(&fields[..shown], ", ", |field| match &field.ty {
        Type::Option(ty) => format!("{}?: {}", field.name, brief(ty, within)),
        ty => format!("{}: {}", field.name, brief(ty, within)),
    });
    if shown < fields.len() {
        text.push_str(", …");
    }
    text
}

fn brief_case(case: &Case, detail: Detail) -> String {
    match &case.ty {
        None => case.name.clone(),
        Some(ty) => format!("{}({})", case.name, brief(ty, detail)),
    }
}

fn join<T>(items: &[T], between: &str, one: impl Fn(&T) -> String) -> String {
    items.iter().map(one).collect::<Vec<_>>().join(between)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::IntType;
    use crate::types::tests::{field, optional, system_run};

    #[test]
    fn a_command_reads_as_one_line() {
        assert_eq!(
            system_run().signature(),
            "system.run(argv: list<string>, cwd?: string, env?: list<tuple<string, string>>) \
             -> {success: bool, exit_code?: s32} or error denied(string) | gone"
        );
        let plain = Command { name: "a.b".into(), doc: None, params: vec![], result: None, error: None };
        assert_eq!(plain.signature(), "a.b()");
        assert_eq!(Command { error: Some(None), ..plain }.signature(), "a.b() -> nothing or error");
    }

    #[test]
    fn a_long_result_is_outlined_and_parameters_are_not() {
        let many: Vec<Field> = (0..9).map(|at| field(&format!("f{at}"), Type::Int(IntType::U8))).collect();
        let nested = Type::List(Box::new(Type::Record(vec![field("x", Type::Record(many.clone()))])));
        let command =
            Command { name: "a.b".into(), doc: None, params: vec![field("p", nested.clone())], result: Some(nested), error: None };
        let fields = "f0: u8, f1: u8, f2: u8, f3: u8, f4: u8, f5: u8, f6: u8, f7: u8";
        assert_eq!(command.signature(), format!("a.b(p: list<{{x: {{{fields}, f8: u8}}}}>) -> list<{{x: {{…}}}}>"));
        let flat = Command { params: vec![], result: Some(Type::Record(many)), ..command };
        assert_eq!(flat.signature(), format!("a.b() -> {{{fields}, …}}"));
    }

    #[test]
    fn each_type_has_a_name() {
        let names = || vec!["a".to_owned(), "b".to_owned()];
        let some = |ty| Some(Box::new(ty));
        for (ty, text) in [
            (Type::Enum(names()), "a|b"),
            (Type::Flags(names()), "flags<a, b>"),
            (Type::Result(None, None), "result"),
            (Type::Result(some(Type::Bool), None), "result<bool>"),
            (Type::Result(None, some(Type::Char)), "result<_, char>"),
            (Type::Record(vec![optional("a", Type::F32), field("s", Type::Stream)]), "{a?: f32, s: stream}"),
            (Type::List(Box::new(Type::Option(Box::new(Type::Bytes)))), "list<option<bytes>>"),
        ] {
            assert_eq!(ty.to_string(), text);
        }
    }
}
