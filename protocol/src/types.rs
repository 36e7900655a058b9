//! The one model of WIT types: what commands take and give, whoever read it (the host from a component, the
//! builder from WIT source). Names are as outside WIT: `-` is `_`. How it is written in CBOR, as a signature and as
//! JSON Schema is told in a file each.

mod schema;
mod signature;
mod wire;

pub use schema::DIALECT;

/// A type that may cross. Resources, futures, maps and streams other than one `stream<u8>` in a result do not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Type {
    /// `bool`
    Bool,
    /// `s8` … `u64`
    Int(IntType),
    /// `f32`
    F32,
    /// `f64`
    F64,
    /// `char`
    Char,
    /// `string`
    String,
    /// `list<u8>`
    Bytes,
    /// `list<T>`
    List(Box<Type>),
    /// `tuple<…>`
    Tuple(Vec<Type>),
    /// `record`
    Record(Vec<Field>),
    /// `enum`
    Enum(Vec<String>),
    /// `variant`
    Variant(Vec<Case>),
    /// `flags`
    Flags(Vec<String>),
    /// `option<T>`, T not itself an option
    Option(Box<Type>),
    /// `result<T, E>` inside a value
    Result(Option<Box<Type>>, Option<Box<Type>>),
    /// `stream<u8>`, at most once in a result: the whole value or a field of its record
    Stream,
}

/// Width and sign of an integer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IntType {
    /// −128 to 127
    S8,
    /// 0 to 255
    U8,
    /// −32,768 to 32,767
    S16,
    /// 0 to 65,535
    U16,
    /// −2³¹ to 2³¹ − 1
    S32,
    /// 0 to 2³² − 1
    U32,
    /// −2⁶³ to 2⁶³ − 1
    S64,
    /// 0 to 2⁶⁴ − 1
    U64,
}

impl IntType {
    /// All of them, by their number in CBOR.
    pub const ALL: [IntType; 8] =
        [IntType::S8, IntType::U8, IntType::S16, IntType::U16, IntType::S32, IntType::U32, IntType::S64, IntType::U64];

    /// Its name in WIT.
    #[must_use]
    pub fn name(self) -> &'static str {
        ["s8", "u8", "s16", "u16", "s32", "u32", "s64", "u64"][self as usize]
    }

    /// Its least and greatest value.
    #[must_use]
    pub fn range(self) -> (i128, i128) {
        match self {
            IntType::S8 => (i8::MIN.into(), i8::MAX.into()),
            IntType::U8 => (0, u8::MAX.into()),
            IntType::S16 => (i16::MIN.into(), i16::MAX.into()),
            IntType::U16 => (0, u16::MAX.into()),
            IntType::S32 => (i32::MIN.into(), i32::MAX.into()),
            IntType::U32 => (0, u32::MAX.into()),
            IntType::S64 => (i64::MIN.into(), i64::MAX.into()),
            IntType::U64 => (0, u64::MAX.into()),
        }
    }
}

/// A record's field.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Field {
    /// snake_case name
    pub name: String,
    /// its type
    pub ty: Type,
    /// its doc, from the pack's docs section
    pub doc: Option<String>,
}

/// A variant's case.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Case {
    /// snake_case name
    pub name: String,
    /// its payload
    pub ty: Option<Type>,
}

/// One command: an exported WIT function.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Command {
    /// `<interface>.<function>`
    pub name: String,
    /// What people read.
    pub doc: Option<String>,
    /// Its parameters in order; `Field::doc` is a parameter's doc.
    pub params: Vec<Field>,
    /// The success type of the function: of its top-level `result`, or its plain result; none where it returns nothing.
    pub result: Option<Type>,
    /// How it can fail: `None` when the function has no top-level `result`, `Some(None)` for `result<T>` without error type.
    pub error: Option<Option<Type>>,
}

impl Command {
    /// The parameter of this name; `-` may stand for `_`, as people who read WIT will write it.
    #[must_use]
    pub fn param(&self, name: &str) -> Option<&Field> {
        let name = name.replace('-', "_");
        self.params.iter().find(|field| field.name == name)
    }

    /// Whether its result holds a `stream<u8>`, so that the result lane carries bytes.
    #[must_use]
    pub fn has_stream(&self) -> bool {
        match &self.result {
            Some(Type::Stream) => true,
            Some(Type::Record(fields)) => fields.iter().any(|field| field.ty == Type::Stream),
            _ => false,
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::value::Value;
    use proptest::prelude::*;
    use serde_json::{Value as Json, json};

    pub(crate) fn field(name: &str, ty: Type) -> Field {
        Field { name: name.into(), ty, doc: None }
    }

    pub(crate) fn optional(name: &str, ty: Type) -> Field {
        field(name, Type::Option(Box::new(ty)))
    }

    fn list(ty: Type) -> Type {
        Type::List(Box::new(ty))
    }

    /// `system.run` as its WIT has it.
    pub(crate) fn system_run() -> Command {
        let text = |name: &str| Case { name: name.into(), ty: Some(Type::String) };
        Command {
            name: "system.run".into(),
            doc: Some("Runs a program without a shell.".into()),
            params: vec![
                Field { doc: Some("the program and its arguments".into()), ..field("argv", list(Type::String)) },
                optional("cwd", Type::String),
                optional("env", list(Type::Tuple(vec![Type::String, Type::String]))),
            ],
            result: Some(Type::Record(vec![field("success", Type::Bool), optional("exit_code", Type::Int(IntType::S32))])),
            error: Some(Some(Type::Variant(vec![text("denied"), Case { name: "gone".into(), ty: None }]))),
        }
    }

    /// One of each row of the contract's table: type, value, JSON.
    pub(crate) fn sample_types() -> Vec<(Type, Value, Json)> {
        let names = || vec!["a".to_owned(), "b_c".to_owned()];
        let cases = || vec![Case { name: "off".into(), ty: None }, Case { name: "level".into(), ty: Some(Type::Int(IntType::U8)) }];
        let one = |key: &str, value: Value| Value::Map(vec![(key.into(), value)]);
        let result = || Type::Result(Some(Box::new(Type::Bool)), None);
        vec![
            (Type::Bool, Value::Bool(true), json!(true)),
            (Type::Int(IntType::U64), Value::Int(u64::MAX.into()), json!(u64::MAX)),
            (Type::Int(IntType::S64), Value::Int(i64::MIN.into()), json!(i64::MIN)),
            (Type::F32, Value::Float(f64::from(0.1f32)), json!(0.1)),
            (Type::F64, Value::Float(0.1), json!(0.1)),
            (Type::F64, Value::Float(f64::INFINITY), json!("Infinity")),
            (Type::F32, Value::Float(f64::NEG_INFINITY), json!("-Infinity")),
            (Type::Char, "ß".into(), json!("ß")),
            (Type::String, "x\n".into(), json!("x\n")),
            (Type::Bytes, Value::Bytes(vec![0, 255]), json!("AP8=")),
            (list(Type::Bool), Value::Array(vec![Value::Bool(false)]), json!([false])),
            (Type::Tuple(vec![Type::Bool, Type::String]), Value::Array(vec![Value::Bool(true), "x".into()]), json!([true, "x"])),
            (
                Type::Record(vec![field("a", Type::Bool), optional("b", Type::Char)]),
                Value::Map(vec![("a".into(), Value::Bool(true)), ("b".into(), Value::Null)]),
                json!({"a": true, "b": null}),
            ),
            (Type::Enum(names()), "b_c".into(), json!("b_c")),
            (Type::Variant(cases()), "off".into(), json!("off")),
            (Type::Variant(cases()), one("level", Value::Int(3)), json!({"level": 3})),
            (Type::Flags(names()), Value::Array(vec!["b_c".into()]), json!(["b_c"])),
            (Type::Option(Box::new(Type::Char)), Value::Null, json!(null)),
            (Type::Option(Box::new(Type::Char)), "x".into(), json!("x")),
            (result(), one("ok", Value::Bool(true)), json!({"ok": true})),
            (result(), one("error", Value::Null), json!({"error": null})),
        ]
    }

    /// Any type, as deep as packs nest them.
    pub(crate) fn any_type() -> impl Strategy<Value = Type> {
        let names = || proptest::collection::btree_set("[a-z][a-z_]{0,6}", 1..4).prop_map(|names| names.into_iter().collect::<Vec<_>>());
        let leaf = prop_oneof![
            Just(Type::Bool),
            (0usize..8).prop_map(|at| Type::Int(IntType::ALL[at])),
            Just(Type::F32),
            Just(Type::F64),
            Just(Type::Char),
            Just(Type::String),
            Just(Type::Bytes),
            Just(Type::Stream),
            names().prop_map(Type::Enum),
            names().prop_map(Type::Flags),
        ];
        leaf.prop_recursive(4, 24, 4, move |inner| {
            let fields = proptest::collection::btree_map("[a-z][a-z_]{0,6}", (inner.clone(), proptest::option::of("\\PC{0,9}")), 1..4);
            let cases = proptest::collection::btree_map("[a-z][a-z_]{0,6}", proptest::option::of(inner.clone()), 1..4);
            let boxed = proptest::option::of(inner.clone().prop_map(Box::new));
            prop_oneof![
                inner.clone().prop_map(list),
                proptest::collection::vec(inner.clone(), 1..4).prop_map(Type::Tuple),
                fields.prop_map(|map| Type::Record(map.into_iter().map(|(name, (ty, doc))| Field { name, ty, doc }).collect())),
                cases.prop_map(|map| Type::Variant(map.into_iter().map(|(name, ty)| Case { name, ty }).collect())),
                inner.prop_filter("an option of an option", |ty| !matches!(ty, Type::Option(_))).prop_map(|ty| Type::Option(Box::new(ty))),
                (boxed.clone(), boxed).prop_map(|(ok, error)| Type::Result(ok, error)),
            ]
        })
    }

    #[test]
    fn a_kebab_name_finds_its_parameter() {
        let mut command = system_run();
        command.params.push(optional("max_width", Type::Int(IntType::U32)));
        assert_eq!(command.param("max-width").map(|field| field.name.as_str()), Some("max_width"));
        assert_eq!(command.param("max"), None);
    }
}
