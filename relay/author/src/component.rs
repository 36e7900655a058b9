//! What a component's own types say: which interfaces it asks for, which commands it offers. The host reads the same from
//! the engine that runs it; a test holds the two readers against each other, refusals included.

use outhaul_protocol::describe::Interface;
use outhaul_protocol::error::{Code, Failure};
use outhaul_protocol::limits;
use outhaul_protocol::pack::{Docs, FunctionDocs, InterfaceDocs, LEFT_OVER};
use outhaul_protocol::text::escape_control;
use outhaul_protocol::types::{Case, Command, Field, IntType, Type};
use wit_component::DecodedWasm;
use wit_parser::{Function, InterfaceId, Record, Resolve, Type as Wit, TypeDefKind, TypeId, WorldId, WorldItem, WorldKey};

use crate::wit::{short, snake};

/// A component's types.
#[derive(Debug)]
pub struct Types {
    resolve: Resolve,
    world: WorldId,
}

/// What a component offers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Offered {
    /// interfaces with functions
    pub interfaces: Vec<Interface>,
    /// their functions
    pub commands: Vec<Command>,
}

impl Types {
    /// Reads a component. All of it is validated, none of it is compiled.
    pub fn read(component: &[u8]) -> Result<Self, Failure> {
        match wit_component::decode(component) {
            Ok(DecodedWasm::Component(resolve, world)) => Ok(Types { resolve, world }),
            Ok(DecodedWasm::WitPackage(..)) => Err(rejected("it is a WIT package, not a component".into())),
            Err(error) => Err(rejected(format!("it is not a valid component: {}", escape_control(&format!("{error:#}"))))),
        }
    }

    /// The interfaces it exports, with package and version.
    #[must_use]
    pub fn exports(&self) -> Vec<String> {
        let interfaces = self.resolve.worlds[self.world].exports.values().filter_map(|item| match item {
            WorldItem::Interface { id, .. } => self.resolve.id_of(*id),
            WorldItem::Function(_) | WorldItem::Type { .. } => None,
        });
        interfaces.collect()
    }

    /// What it imports: interfaces with package and version, and plain names of whatever else there is.
    #[must_use]
    pub fn imports(&self) -> Vec<String> {
        let imports = &self.resolve.worlds[self.world].imports;
        let asks = imports.iter().filter(|(_, item)| !matches!(item, WorldItem::Type { .. }));
        asks.map(|(key, _)| self.resolve.name_world_key(key)).collect()
    }

    /// Whether it has async functions, streams or futures, so that it needs the engine with support for them.
    #[must_use]
    pub fn is_async(&self) -> bool {
        let waits = |kind: &TypeDefKind| matches!(kind, TypeDefKind::Future(_) | TypeDefKind::Stream(_));
        let mut functions = self.resolve.interfaces.iter().flat_map(|(_, one)| one.functions.values());
        self.resolve.types.iter().any(|(_, ty)| waits(&ty.kind)) || functions.any(|function| function.kind.is_async())
    }

    /// Its commands with what is written about them. `pack` is its name for sentences.
    pub fn commands(&self, pack: &str, docs: &Docs) -> Result<Offered, Failure> {
        let mut offered = Offered { interfaces: Vec::new(), commands: Vec::new() };
        let refused = |text: String| rejected(format!("pack `{pack}` {text}"));
        let mut nodes = 0;
        for (key, item) in &self.resolve.worlds[self.world].exports {
            let WorldItem::Interface { id, .. } = item else {
                if let (WorldItem::Function(_), WorldKey::Name(name)) = (item, key) {
                    return Err(refused(format!("exports function `{name}` outside of an interface"))
                        .hint("commands are functions of interfaces: `interface.function`"));
                }
                continue;
            };
            if matches!(key, WorldKey::Name(name) if name == LEFT_OVER) {
                continue;
            }
            let interface = snake(short(&self.resolve.name_world_key(key)));
            let about = docs.interfaces.get(&interface);
            let before = offered.commands.len();
            let mut reader = Reader { resolve: &self.resolve, pack, interface: &interface, docs: about, nodes: &mut nodes };
            reader.interface(*id, &mut offered.commands)?;
            if offered.commands.len() == before {
                continue;
            }
            if offered.interfaces.iter().any(|other| other.name == interface) {
                return Err(refused(format!("exports two interfaces called `{interface}`")).hint("rename one of them"));
            }
            offered.interfaces.push(Interface { name: interface, doc: about.and_then(|about| about.doc.clone()) });
        }
        match offered.commands.len() {
            0 => Err(refused("exports no interface with functions, so that it has no command".into())),
            1..=limits::COMMANDS => Ok(offered),
            count => Err(refused(format!("has {count} commands, at most {} are allowed", limits::COMMANDS))),
        }
    }
}

fn rejected(message: String) -> Failure {
    Failure::new(Code::PackRejected, message)
}

/// Reads the functions of one interface.
struct Reader<'a> {
    resolve: &'a Resolve,
    pack: &'a str,
    interface: &'a str,
    docs: Option<&'a InterfaceDocs>,
    /// parts of all types so far
    nodes: &'a mut usize,
}

/// Why a type does not cross.
enum Unfit {
    Type(&'static str),
    Large,
}

impl<'a> Reader<'a> {
    fn interface(&mut self, id: InterfaceId, commands: &mut Vec<Command>) -> Result<(), Failure> {
        let interface = &self.resolve.interfaces[id];
        let resource = interface.types.iter().find(|(_, id)| matches!(self.definition(**id), TypeDefKind::Resource));
        if let Some((name, _)) = resource {
            return Err(self
                .unsupported(&format!("interface `{}` exports resource `{name}`", self.interface))
                .hint("handles of resources do not cross: let functions take and give values"));
        }
        for (name, function) in &interface.functions {
            commands.push(self.function(name, function)?);
        }
        Ok(())
    }

    fn function(&mut self, name: &str, function: &Function) -> Result<Command, Failure> {
        let command = format!("{}.{}", self.interface, snake(name));
        let about = self.docs.and_then(|docs| docs.functions.get(&snake(name)));
        self.command(command.clone(), function, about).map_err(|unfit| match unfit {
            Unfit::Type(what) => self.unsupported(&format!("function `{command}` uses {what}")),
            Unfit::Large => rejected(format!(
                "pack `{}`: function `{command}`: the pack's types have more than {} parts, or nest deeper than {}",
                self.pack,
                limits::TYPE_NODES,
                limits::TYPE_DEPTH
            )),
        })
    }

    fn unsupported(&self, what: &str) -> Failure {
        Failure::new(Code::UnsupportedType, format!("pack `{}`: {what}", self.pack))
    }

    fn command(&mut self, name: String, function: &Function, about: Option<&FunctionDocs>) -> Result<Command, Unfit> {
        let mut params = Vec::new();
        for param in &function.params {
            let name = snake(&param.name);
            let doc = about.and_then(|about| about.params.get(&name).cloned());
            params.push(Field { ty: self.value(&param.ty, 0)?, name, doc });
        }
        let (result, error) = match function.result.as_ref().map(|ty| (ty, self.kind(ty))) {
            Some((_, Some(TypeDefKind::Result(result)))) => {
                let error = result.err.as_ref().map(|ty| self.value(ty, 0)).transpose()?;
                (result.ok.as_ref(), Some(error))
            }
            plain => (plain.map(|(ty, _)| ty), None),
        };
        let result = result.map(|ty| self.result(ty)).transpose()?;
        Ok(Command { name, doc: about.and_then(|about| about.doc.clone()), params, result, error })
    }

    /// A success value: the one place for a stream is here, or in a field of this record.
    fn result(&mut self, ty: &Wit) -> Result<Type, Unfit> {
        if self.is_bytes(ty) {
            return Ok(Type::Stream);
        }
        let Some((id, TypeDefKind::Record(record))) = self.named(ty) else { return self.value(ty, 0) };
        let streams = record.fields.iter().filter(|field| matches!(self.kind(&field.ty), Some(TypeDefKind::Stream(_))));
        if streams.count() > 1 {
            return Err(Unfit::Type("more than one stream in its result"));
        }
        self.record(id, record, |reader, ty| if reader.is_bytes(ty) { Ok(Type::Stream) } else { reader.value(ty, 1) })
    }

    fn value(&mut self, ty: &Wit, depth: usize) -> Result<Type, Unfit> {
        *self.nodes += 1;
        if depth > limits::TYPE_DEPTH || *self.nodes > limits::TYPE_NODES {
            return Err(Unfit::Large);
        }
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
            Wit::F32 => Type::F32,
            Wit::F64 => Type::F64,
            Wit::Char => Type::Char,
            Wit::String => Type::String,
            Wit::ErrorContext => return Err(Unfit::Type("an error context")),
            Wit::Id(id) => {
                let id = self.origin(*id);
                self.composite(id, self.definition(id), depth + 1)?
            }
        })
    }

    fn composite(&mut self, id: TypeId, kind: &TypeDefKind, deeper: usize) -> Result<Type, Unfit> {
        Ok(match kind {
            TypeDefKind::List(item) if self.is_u8(item) => Type::Bytes,
            TypeDefKind::List(item) => Type::List(Box::new(self.value(item, deeper)?)),
            TypeDefKind::Tuple(tuple) => Type::Tuple(tuple.types.iter().map(|ty| self.value(ty, deeper)).collect::<Result<_, _>>()?),
            TypeDefKind::Record(record) => self.record(id, record, |reader, ty| reader.value(ty, deeper))?,
            TypeDefKind::Variant(variant) => {
                let case = |case: &wit_parser::Case| -> Result<Case, Unfit> {
                    *self.nodes += 1;
                    Ok(Case { name: snake(&case.name), ty: case.ty.as_ref().map(|ty| self.value(ty, deeper)).transpose()? })
                };
                Type::Variant(variant.cases.iter().map(case).collect::<Result<_, _>>()?)
            }
            TypeDefKind::Enum(cases) => Type::Enum(self.names(cases.cases.iter().map(|case| &case.name))?),
            TypeDefKind::Flags(flags) => Type::Flags(self.names(flags.flags.iter().map(|flag| &flag.name))?),
            TypeDefKind::Option(inner) => match self.kind(inner) {
                Some(TypeDefKind::Option(_)) => return Err(Unfit::Type("an option of an option")),
                _ => Type::Option(Box::new(self.value(inner, deeper)?)),
            },
            TypeDefKind::Result(result) => {
                let mut side = |ty: &Option<Wit>| ty.as_ref().map(|ty| self.value(ty, deeper).map(Box::new)).transpose();
                Type::Result(side(&result.ok)?, side(&result.err)?)
            }
            TypeDefKind::Stream(Some(item)) if self.is_u8(item) => {
                return Err(Unfit::Type("a `stream<u8>` elsewhere than as its result or a field of its result's record"));
            }
            TypeDefKind::Type(ty) => self.value(ty, deeper - 1)?,
            other => return Err(Unfit::Type(unfit(other))),
        })
    }

    fn record(
        &mut self,
        id: TypeId,
        record: &Record,
        mut value: impl FnMut(&mut Self, &Wit) -> Result<Type, Unfit>,
    ) -> Result<Type, Unfit> {
        let name = self.resolve.types[id].name.as_deref().map(snake);
        let about = name.and_then(|name| self.docs.and_then(|docs| docs.types.get(&name)));
        let mut fields = Vec::new();
        for field in &record.fields {
            let name = snake(&field.name);
            let doc = about.and_then(|about| about.fields.get(&name).cloned());
            fields.push(Field { ty: value(self, &field.ty)?, name, doc });
        }
        Ok(Type::Record(fields))
    }

    fn names<'n>(&mut self, names: impl ExactSizeIterator<Item = &'n String>) -> Result<Vec<String>, Unfit> {
        *self.nodes += names.len();
        if *self.nodes > limits::TYPE_NODES {
            return Err(Unfit::Large);
        }
        Ok(names.map(|name| snake(name)).collect())
    }

    /// The definition behind names that only stand for another.
    fn origin(&self, mut id: TypeId) -> TypeId {
        while let TypeDefKind::Type(Wit::Id(other)) = self.resolve.types[id].kind {
            id = other;
        }
        id
    }

    fn definition(&self, id: TypeId) -> &'a TypeDefKind {
        &self.resolve.types[self.origin(id)].kind
    }

    fn named(&self, ty: &Wit) -> Option<(TypeId, &'a TypeDefKind)> {
        match ty {
            Wit::Id(id) => Some((self.origin(*id), self.definition(*id))),
            _ => None,
        }
    }

    fn kind(&self, ty: &Wit) -> Option<&'a TypeDefKind> {
        self.named(ty).map(|(_, kind)| kind)
    }

    /// Whether it is `u8`, by whatever name.
    fn is_u8(&self, ty: &Wit) -> bool {
        *ty == Wit::U8 || matches!(self.kind(ty), Some(TypeDefKind::Type(Wit::U8)))
    }

    fn is_bytes(&self, ty: &Wit) -> bool {
        matches!(self.kind(ty), Some(TypeDefKind::Stream(Some(item))) if self.is_u8(item))
    }
}

fn unfit(kind: &TypeDefKind) -> &'static str {
    match kind {
        TypeDefKind::Resource | TypeDefKind::Handle(_) => "a resource handle",
        TypeDefKind::Future(_) => "a future",
        TypeDefKind::Stream(_) => "a stream of other things than bytes",
        TypeDefKind::Map(..) => "a map",
        TypeDefKind::FixedLengthList(..) => "a list of fixed length",
        _ => "a type this agent does not know",
    }
}
