//! The commands of a component: its exported functions, their types in the one model, and what is written about them. Whatever cannot
//! cross is refused here, with the name of the function and of the type.

use std::collections::HashMap;

use outhaul_protocol::describe::Interface;
use outhaul_protocol::error::{Code, Failure};
use outhaul_protocol::pack::{Docs, FunctionDocs, InterfaceDocs, LEFT_OVER, TypeDocs};
use outhaul_protocol::types::{Case, Command, Field, IntType, Type};
use wasmtime::Engine;
use wasmtime::component::types::{self, ComponentFunc, ComponentInstance, ComponentItem};
use wasmtime::component::{Component, ComponentExportIndex};

use crate::compile::brief;
use crate::limits;

/// A command and where it is.
#[derive(Debug)]
pub(crate) struct Export {
    pub(crate) command: Command,
    pub(crate) index: ComponentExportIndex,
    /// whether the function gives a result
    pub(crate) gives: bool,
}

/// What a component offers.
#[derive(Debug)]
pub(crate) struct Exports {
    pub(crate) interfaces: Vec<Interface>,
    pub(crate) functions: Vec<Export>,
}

/// A WIT name as it is everywhere outside WIT.
pub(crate) fn outside(name: &str) -> String {
    name.replace('-', "_")
}

/// Reads a component's exports. `pack` is its name for sentences.
pub(crate) fn read(component: &Component, engine: &Engine, pack: &str, docs: &Docs) -> Result<Exports, Failure> {
    let rejected = |text: String| Failure::new(Code::PackRejected, format!("pack `{pack}` {text}"));
    let mut exports = Exports { interfaces: Vec::new(), functions: Vec::new() };
    let mut nodes = 0;
    let ty = component.component_type();
    for (name, export) in ty.exports(engine) {
        let ComponentItem::ComponentInstance(instance) = &export.ty else {
            if let ComponentItem::ComponentFunc(_) = &export.ty {
                return Err(rejected(format!("exports function `{}` outside of an interface", brief(name)))
                    .hint("commands are functions of interfaces: `interface.function`"));
            }
            continue;
        };
        if name == LEFT_OVER {
            continue;
        }
        let interface = outside(short(name));
        let about = docs.interfaces.get(&interface);
        let records = record_docs(instance, engine, about);
        let mut reader = Reader { pack, interface: &interface, records: &records, docs: about, nodes: &mut nodes };
        let before = exports.functions.len();
        let at = component.get_export_index(None, name);
        for (function, item) in instance.exports(engine) {
            let Some(command) = reader.item(function, &item.ty)? else { continue };
            let index = component.get_export_index(at.as_ref(), function);
            let index = index.ok_or_else(|| rejected(format!("exports `{}`, which cannot be found", command.name)))?;
            let gives = matches!(&item.ty, ComponentItem::ComponentFunc(function) if function.results().len() > 0);
            exports.functions.push(Export { command, index, gives });
        }
        if exports.functions.len() == before {
            continue;
        }
        if exports.interfaces.iter().any(|other| other.name == interface) {
            return Err(rejected(format!("exports two interfaces called `{interface}`")).hint("rename one of them"));
        }
        exports.interfaces.push(Interface { name: interface, doc: about.and_then(|about| about.doc.clone()) });
    }
    match exports.functions.len() {
        0 => Err(rejected("exports no interface with functions, so that it has no command".into())),
        1..=limits::COMMANDS => Ok(exports),
        count => Err(rejected(format!("has {count} commands, at most {} are allowed", limits::COMMANDS))),
    }
}

/// `gpu` of `outhaul:commands/gpu@0.1.0`.
fn short(name: &str) -> &str {
    let name = name.rsplit_once('/').map_or(name, |(_, name)| name);
    name.split_once('@').map_or(name, |(name, _)| name)
}

/// What is written about records, by the names of their fields: types carry no names of their own, and comparing them whole is work
/// without a bound. Two records of the same field names with different docs have none.
type RecordDocs<'docs> = HashMap<Vec<String>, Option<&'docs TypeDocs>>;

fn record_docs<'docs>(instance: &ComponentInstance, engine: &Engine, docs: Option<&'docs InterfaceDocs>) -> RecordDocs<'docs> {
    let mut found = RecordDocs::new();
    for (name, item) in instance.exports(engine) {
        if let ComponentItem::Type(types::Type::Record(record)) = item.ty
            && let Some(about) = docs.and_then(|docs| docs.types.get(&outside(name)))
        {
            let fields = record.fields().map(|field| outside(field.name)).collect();
            found.entry(fields).and_modify(|one| *one = one.filter(|one| one.fields == about.fields)).or_insert(Some(about));
        }
    }
    found
}

/// Reads the functions of one interface.
struct Reader<'a> {
    pack: &'a str,
    interface: &'a str,
    records: &'a RecordDocs<'a>,
    docs: Option<&'a InterfaceDocs>,
    nodes: &'a mut usize,
}

/// Why a type does not cross.
enum Unfit {
    Type(String),
    Large,
}

impl Reader<'_> {
    /// A function's command; nothing for a type.
    fn item(&mut self, name: &str, item: &ComponentItem) -> Result<Option<Command>, Failure> {
        match item {
            ComponentItem::ComponentFunc(function) => self.function(name, function).map(Some),
            ComponentItem::Type(_) => Ok(None),
            ComponentItem::Resource(_) => Err(self
                .unsupported(&format!("interface `{}` exports resource `{}`", self.interface, brief(name)))
                .hint("handles of resources do not cross: let functions take and give values")),
            _ => Err(self.unsupported(&format!("interface `{}` exports `{}`, which is no function", self.interface, brief(name)))),
        }
    }

    fn function(&mut self, name: &str, function: &ComponentFunc) -> Result<Command, Failure> {
        let command = format!("{}.{}", self.interface, outside(name));
        let about = self.docs.and_then(|docs| docs.functions.get(&outside(name)));
        self.command(command.clone(), function, about).map_err(|unfit| match unfit {
            Unfit::Type(what) => self.unsupported(&format!("function `{command}` uses {what}")),
            Unfit::Large => Failure::new(
                Code::PackRejected,
                format!(
                    "pack `{}`: function `{command}`: the pack's types have more than {} parts, or nest deeper than {}",
                    self.pack,
                    limits::TYPE_NODES,
                    limits::TYPE_DEPTH
                ),
            ),
        })
    }

    fn unsupported(&self, what: &str) -> Failure {
        Failure::new(Code::UnsupportedType, format!("pack `{}`: {what}", self.pack))
    }

    fn command(&mut self, name: String, function: &ComponentFunc, about: Option<&FunctionDocs>) -> Result<Command, Unfit> {
        let mut params = Vec::new();
        for (param, ty) in function.params() {
            let name = outside(param);
            let doc = about.and_then(|about| about.params.get(&name).cloned());
            params.push(Field { ty: self.value(&ty, 0)?, name, doc });
        }
        let (result, error) = match function.results().next() {
            Some(types::Type::Result(result)) => {
                let error = result.err().map(|ty| self.value(&ty, 0)).transpose()?;
                (result.ok(), Some(error))
            }
            plain => (plain, None),
        };
        let result = result.map(|ty| self.result(&ty)).transpose()?;
        Ok(Command { name, doc: about.and_then(|about| about.doc.clone()), params, result, error })
    }

    /// A success value: the one place for a stream is here, or in a field of this record.
    fn result(&mut self, ty: &types::Type) -> Result<Type, Unfit> {
        match ty {
            types::Type::Stream(stream) if is_bytes(stream) => Ok(Type::Stream),
            types::Type::Record(record) => {
                let streams = record.fields().filter(|field| matches!(field.ty, types::Type::Stream(_))).count();
                if streams > 1 {
                    return Err(Unfit::Type("more than one stream in its result".into()));
                }
                self.record(record, |reader, ty| match ty {
                    types::Type::Stream(stream) if is_bytes(stream) => Ok(Type::Stream),
                    ty => reader.value(ty, 1),
                })
            }
            ty => self.value(ty, 0),
        }
    }

    fn value(&mut self, ty: &types::Type, depth: usize) -> Result<Type, Unfit> {
        use types::Type as Wit;
        *self.nodes += 1;
        if depth > limits::TYPE_DEPTH || *self.nodes > limits::TYPE_NODES {
            return Err(Unfit::Large);
        }
        let deeper = depth + 1;
        Ok(match ty {
            Wit::Bool => Type::Bool,
            Wit::S8 => Type::Int(IntType::S8),
            Wit::U8 => Type::Int(IntType::U8),
            Wit::S16 => Type::Int(IntType::S16),
            Wit::U16 => Type::Int(IntType::U16),
            Wit::S32 => Type::Int(IntType::S32),
            Wit::U32 => Type::Int(IntType::U32),
            Wit::S64 => Type::Int(IntType::S64),
            Wit::U64 => Type::Int(IntType::U64),
            Wit::Float32 => Type::F32,
            Wit::Float64 => Type::F64,
            Wit::Char => Type::Char,
            Wit::String => Type::String,
            Wit::List(list) => match list.ty() {
                Wit::U8 => Type::Bytes,
                item => Type::List(Box::new(self.value(&item, deeper)?)),
            },
            Wit::Tuple(tuple) => Type::Tuple(tuple.types().map(|ty| self.value(&ty, deeper)).collect::<Result<_, _>>()?),
            Wit::Record(record) => self.record(record, |reader, ty| reader.value(ty, deeper))?,
            Wit::Variant(variant) => Type::Variant(variant.cases().map(|case| self.case(&case, deeper)).collect::<Result<_, _>>()?),
            Wit::Enum(names) => Type::Enum(self.names(names.names())?),
            Wit::Flags(names) => Type::Flags(self.names(names.names())?),
            Wit::Option(option) => match option.ty() {
                Wit::Option(_) => return Err(Unfit::Type("an option of an option".into())),
                inner => Type::Option(Box::new(self.value(&inner, deeper)?)),
            },
            Wit::Result(result) => {
                let mut side = |ty: Option<Wit>| ty.map(|ty| self.value(&ty, deeper).map(Box::new)).transpose();
                Type::Result(side(result.ok())?, side(result.err())?)
            }
            Wit::Stream(stream) if is_bytes(stream) => {
                return Err(Unfit::Type("a `stream<u8>` elsewhere than as its result or a field of its result's record".into()));
            }
            other => return Err(Unfit::Type(named_unfit(other).into())),
        })
    }

    fn record(
        &mut self,
        record: &types::Record,
        mut value: impl FnMut(&mut Self, &types::Type) -> Result<Type, Unfit>,
    ) -> Result<Type, Unfit> {
        let mut fields = Vec::new();
        for field in record.fields() {
            fields.push(Field { ty: value(self, &field.ty)?, name: outside(field.name), doc: None });
        }
        if !self.records.is_empty() {
            let names: Vec<String> = fields.iter().map(|field| field.name.clone()).collect();
            if let Some(Some(about)) = self.records.get(&names) {
                fields.iter_mut().for_each(|field| field.doc = about.fields.get(&field.name).cloned());
            }
        }
        Ok(Type::Record(fields))
    }

    fn case(&mut self, case: &types::Case<'_>, depth: usize) -> Result<Case, Unfit> {
        *self.nodes += 1;
        Ok(Case { name: outside(case.name), ty: case.ty.as_ref().map(|ty| self.value(ty, depth)).transpose()? })
    }

    fn names<'n>(&mut self, names: impl ExactSizeIterator<Item = &'n str>) -> Result<Vec<String>, Unfit> {
        *self.nodes += names.len();
        if *self.nodes > limits::TYPE_NODES {
            return Err(Unfit::Large);
        }
        Ok(names.map(outside).collect())
    }
}

fn is_bytes(stream: &types::StreamType) -> bool {
    stream.ty() == Some(types::Type::U8)
}

fn named_unfit(ty: &types::Type) -> &'static str {
    match ty {
        types::Type::Own(_) | types::Type::Borrow(_) => "a resource handle",
        types::Type::Future(_) => "a future",
        types::Type::Stream(_) => "a stream of other things than bytes",
        types::Type::Map(_) => "a map",
        types::Type::ErrorContext => "an error context",
        types::Type::FixedLengthList(_) => "a list of fixed length",
        _ => "a type this agent does not know",
    }
}

#[cfg(test)]
mod both_ways;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_interfaces_short_name_is_what_stands_between_slash_and_version() {
        for (name, wanted) in [("outhaul:commands/gpu@0.1.0", "gpu"), ("a:b/c-d", "c-d"), ("plain", "plain")] {
            assert_eq!(short(name), wanted);
        }
        assert_eq!(outside("memory-total"), "memory_total");
    }
}
