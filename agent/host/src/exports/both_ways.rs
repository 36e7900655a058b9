//! Every pack of `plugins/dist` read both ways: from the component, as the host does, and from its WIT source with `wit-parser`, as
//! people and other tools do. Both must come to the same commands, or refuse the same function.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use wasmtime::Config;
use wit_parser::{Function, FunctionKind, PackageId, Record, Resolve, SourceMap, Type as Wit, TypeDefKind, WorldItem};

use super::*;

/// Commands by name, each with whether its function is `async`; or the place that does not cross.
type Commands = Result<BTreeMap<String, (Command, bool)>, String>;

fn plugins() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../plugins")
}

/// The files of all components, by what they are called in `dist`.
fn components() -> BTreeMap<String, PathBuf> {
    let dist = plugins().join("dist");
    let entries = [dist.clone(), dist.join("fixtures")].map(|folder| std::fs::read_dir(&folder).expect("a folder").flatten());
    let files = entries.into_iter().flatten().map(|entry| entry.path());
    let wasm = files.filter(|path| path.extension().is_some_and(|extension| extension == "wasm"));
    wasm.map(|path| (path.file_stem().and_then(|stem| stem.to_str()).expect("UTF-8").to_owned(), path)).collect()
}

fn from_component(engine: &Engine, pack: &str, path: &Path) -> Result<BTreeMap<String, (Command, bool)>, Failure> {
    let component = Component::from_file(engine, path).expect(pack);
    let exports = read(&component, engine, pack, &Docs::default())?;
    let mut commands: BTreeMap<_, _> = exports.functions.into_iter().map(|export| (export.command.name.clone(), export.command)).collect();
    let mut read = BTreeMap::new();
    for (interface, item) in component.component_type().exports(engine) {
        let ComponentItem::ComponentInstance(instance) = item.ty else { continue };
        for (function, item) in instance.exports(engine) {
            if let ComponentItem::ComponentFunc(ty) = item.ty {
                let name = format!("{}.{}", outside(short(interface)), outside(function));
                let command = commands.remove(&name).expect("is one of the commands");
                read.insert(name, (command, ty.async_()));
            }
        }
    }
    assert!(commands.is_empty(), "{pack}: {commands:?}");
    Ok(read)
}

/// The WIT of a pack: its own beside its code, or the standard commands.
struct Source {
    resolve: Resolve,
    package: PackageId,
    world: Option<String>,
}

fn source(pack: &str) -> Source {
    let (plugins, standard) = (plugins(), plugins().join("../wit/v0.1"));
    let mut resolve = Resolve::default();
    let own = [format!("{pack}/wit"), format!("fixtures/{pack}/wit"), format!("fixtures/wit-only/{pack}.wit")];
    let own = own.into_iter().map(|path| plugins.join(path)).find(|path| path.exists());
    // This one brings a host of its own imagination.
    let host = if pack == "unknown-import" { plugins.join("fixtures/unknown-import/wit/deps") } else { standard.join("host") };
    push(&mut resolve, &host);
    match own {
        Some(path) => Source { package: push(&mut resolve, &path), resolve, world: None },
        None => Source { package: push(&mut resolve, &standard.join("commands")), resolve, world: Some(format!("{pack}-pack")) },
    }
}

/// Reads one package: a file, or all files of a folder. (The parser would do so itself, with a feature that changes how
/// wasmtime is built.)
fn push(resolve: &mut Resolve, path: &Path) -> PackageId {
    let mut files = SourceMap::default();
    let folder = std::fs::read_dir(path).into_iter().flatten().flatten().map(|entry| entry.path());
    for file in folder.chain([path.to_owned()]).filter(|path| path.is_file()) {
        files.push_str(&file.display().to_string(), std::fs::read_to_string(&file).expect("WIT"));
    }
    let group = files.parse().unwrap_or_else(|(_, error)| panic!("{}: {error}", path.display()));
    resolve.push_group(group).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

impl Source {
    fn commands(&self) -> Commands {
        let worlds = &self.resolve.packages[self.package].worlds;
        let world = match &self.world {
            Some(name) => worlds[name],
            None if worlds.len() == 1 => worlds[0],
            None => panic!("which of {:?}", worlds.keys().collect::<Vec<_>>()),
        };
        let mut commands = BTreeMap::new();
        for export in self.resolve.worlds[world].exports.values() {
            let WorldItem::Interface { id, .. } = export else { panic!("exports something outside of an interface") };
            let interface = &self.resolve.interfaces[*id];
            let short = outside(interface.name.as_deref().expect("a name"));
            if interface.types.values().any(|ty| matches!(self.resolve.types[*ty].kind, TypeDefKind::Resource)) {
                return Err(short);
            }
            for (name, function) in &interface.functions {
                let name = format!("{short}.{}", outside(name));
                let command = self.command(name.clone(), function).ok_or_else(|| name.clone())?;
                commands.insert(name, (command, matches!(function.kind, FunctionKind::AsyncFreestanding)));
            }
        }
        Ok(commands)
    }

    /// Nothing for one that does not cross.
    fn command(&self, name: String, function: &Function) -> Option<Command> {
        let param = |param: &wit_parser::Param| Some(Field { name: outside(&param.name), ty: self.value(&param.ty)?, doc: None });
        let params = function.params.iter().map(param).collect::<Option<_>>()?;
        let (result, error) = match function.result {
            None => (None, None),
            Some(ty) => match self.kind(&ty) {
                Some(TypeDefKind::Result(result)) => (result.ok, Some(result.err.map(|ty| self.value(&ty).ok_or(())))),
                _ => (Some(ty), None),
            },
        };
        let error = error.map(Option::transpose).transpose().ok()?;
        let result = result.map(|ty| self.result(&ty).ok_or(())).transpose().ok()?;
        Some(Command { name, doc: None, params, result, error })
    }

    /// What stands behind a name, however often it was used on.
    fn kind(&self, ty: &Wit) -> Option<&TypeDefKind> {
        let Wit::Id(id) = ty else { return None };
        match &self.resolve.types[*id].kind {
            TypeDefKind::Type(Wit::Id(id)) => self.kind(&Wit::Id(*id)),
            kind => Some(kind),
        }
    }

    /// A plain type, behind whatever names.
    fn plain(&self, ty: &Wit) -> Wit {
        match self.kind(ty) {
            Some(TypeDefKind::Type(plain)) => *plain,
            _ => *ty,
        }
    }

    fn is_bytes(&self, ty: &Wit) -> bool {
        matches!(self.kind(ty), Some(TypeDefKind::Stream(Some(item))) if self.plain(item) == Wit::U8)
    }

    /// A success value: itself a stream of bytes, or a record with one.
    fn result(&self, ty: &Wit) -> Option<Type> {
        if self.is_bytes(ty) {
            return Some(Type::Stream);
        }
        match self.kind(ty) {
            Some(TypeDefKind::Record(record)) => {
                let streams = record.fields.iter().filter(|field| self.is_bytes(&field.ty)).count();
                let value = |ty: &Wit| if self.is_bytes(ty) { Some(Type::Stream) } else { self.value(ty) };
                (streams <= 1).then(|| record_of(record, value))?
            }
            _ => self.value(ty),
        }
    }

    fn value(&self, ty: &Wit) -> Option<Type> {
        let boxed = |ty: &Wit| self.value(ty).map(Box::new);
        let Some(kind) = self.kind(ty).filter(|kind| !matches!(kind, TypeDefKind::Type(_))) else {
            return simple(self.plain(ty));
        };
        Some(match kind {
            TypeDefKind::List(item) if self.plain(item) == Wit::U8 => Type::Bytes,
            TypeDefKind::List(item) => Type::List(boxed(item)?),
            TypeDefKind::Tuple(tuple) => Type::Tuple(tuple.types.iter().map(|ty| self.value(ty)).collect::<Option<_>>()?),
            TypeDefKind::Record(record) => record_of(record, |ty| self.value(ty))?,
            TypeDefKind::Enum(cases) => Type::Enum(cases.cases.iter().map(|case| outside(&case.name)).collect()),
            TypeDefKind::Flags(flags) => Type::Flags(flags.flags.iter().map(|flag| outside(&flag.name)).collect()),
            TypeDefKind::Variant(variant) => {
                let ty = |ty: &Option<Wit>| ty.as_ref().map(|ty| self.value(ty).ok_or(())).transpose().ok();
                let case = |case: &wit_parser::Case| Some(Case { name: outside(&case.name), ty: ty(&case.ty)? });
                Type::Variant(variant.cases.iter().map(case).collect::<Option<_>>()?)
            }
            TypeDefKind::Option(inner) if matches!(self.kind(inner), Some(TypeDefKind::Option(_))) => return None,
            TypeDefKind::Option(inner) => Type::Option(boxed(inner)?),
            TypeDefKind::Result(result) => {
                let side = |ty: &Option<Wit>| ty.as_ref().map(|ty| boxed(ty).ok_or(())).transpose().ok();
                Type::Result(side(&result.ok)?, side(&result.err)?)
            }
            _ => return None,
        })
    }
}

fn record_of(record: &Record, value: impl Fn(&Wit) -> Option<Type>) -> Option<Type> {
    let field = |field: &wit_parser::Field| Some(Field { name: outside(&field.name), ty: value(&field.ty)?, doc: None });
    record.fields.iter().map(field).collect::<Option<_>>().map(Type::Record)
}

fn simple(ty: Wit) -> Option<Type> {
    Some(match ty {
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
        Wit::ErrorContext | Wit::Id(_) => return None,
    })
}

#[test]
fn a_component_and_its_wit_source_say_the_same() {
    // Nothing is run: code that is made fast will do.
    let engine = Engine::new(Config::new().cranelift_opt_level(wasmtime::OptLevel::None)).expect("an engine");
    let (mut same, mut refused) = (0, 0);
    for (pack, path) in components() {
        match (from_component(&engine, &pack, &path), source(&pack).commands()) {
            (Ok(component), Ok(wit)) => {
                assert_eq!(component, wit, "{pack}");
                same += 1;
            }
            (Err(failure), Err(place)) => {
                assert_eq!(failure.code, Code::UnsupportedType, "{pack}");
                assert!(failure.message.contains(&format!("`{place}`")), "{pack}: `{place}` against {}", failure.message);
                refused += 1;
            }
            (component, wit) => panic!("{pack}: the component says {component:?}, its source {wit:?}"),
        }
    }
    assert!(same >= 14 && refused >= 6, "{same} and {refused}");
}
