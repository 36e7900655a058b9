//! What people read about a pack's commands, from the WIT source: a compiled component has no docs. WIT has no docs on
//! parameters either, so a parameter's doc is the line `- name: …` in its function's. Names are as outside WIT: `-` is `_`.

use std::collections::{BTreeMap, BTreeSet};

use outhaul_protocol::error::{Code, Failure};
use outhaul_protocol::pack::{Docs, FunctionDocs, InterfaceDocs, TypeDocs};
use wit_parser::{Docs as WitDocs, Function, InterfaceId, Resolve, Type, TypeDefKind, TypeId};

use crate::wit::snake;

/// What is written about a pack's commands, and what is missing of it.
#[derive(Debug, Default)]
pub struct Written {
    /// for the section `outhaul:docs`
    pub docs: Docs,
    /// a sentence for each function or parameter without a doc
    pub missing: Vec<String>,
}

impl Written {
    /// Refuses a function or a parameter without a doc.
    pub fn complete(&self) -> Result<(), Failure> {
        match self.missing.first() {
            None => Ok(()),
            Some(missing) => Err(unfit(missing.clone())),
        }
    }
}

fn unfit(message: String) -> Failure {
    Failure::new(Code::PackRejected, message)
}

/// The docs of some interfaces.
pub fn collect(resolve: &Resolve, interfaces: &[String]) -> Result<Written, Failure> {
    let mut written = Written::default();
    for wanted in interfaces {
        let found = resolve.interfaces.iter().find(|(id, _)| resolve.id_of(*id).as_ref() == Some(wanted));
        let Some((id, interface)) = found else {
            return Err(unfit(format!("it exports `{wanted}`, of which there is no WIT")));
        };
        let name = snake(interface.name.as_deref().unwrap_or_default());
        let docs = interface_docs(resolve, id, &name, &mut written.missing)?;
        if written.docs.interfaces.insert(name, docs).is_some() {
            return Err(unfit(format!("it exports two interfaces that are both called `{wanted}` outside WIT")));
        }
    }
    Ok(written)
}

fn interface_docs(resolve: &Resolve, id: InterfaceId, named: &str, missing: &mut Vec<String>) -> Result<InterfaceDocs, Failure> {
    let interface = &resolve.interfaces[id];
    let mut docs = InterfaceDocs { doc: text(&interface.docs), ..InterfaceDocs::default() };
    let mut types = Types { resolve, seen: BTreeSet::new(), docs: BTreeMap::new() };
    for (name, function) in &interface.functions {
        docs.functions.insert(snake(name), function_docs(&format!("{named}.{}", snake(name)), function, missing)?);
        function.params.iter().map(|param| &param.ty).chain(&function.result).for_each(|ty| types.visit(ty));
    }
    docs.types = types.docs;
    Ok(docs)
}

fn function_docs(command: &str, function: &Function, missing: &mut Vec<String>) -> Result<FunctionDocs, Failure> {
    let (doc, mut said) = split(function.docs.contents.as_deref().unwrap_or_default());
    if doc.is_none() {
        missing.push(format!("`{command}` has no doc comment"));
    }
    let mut docs = FunctionDocs { doc, ..FunctionDocs::default() };
    for param in &function.params {
        let name = snake(&param.name);
        match said.remove(&name) {
            Some(doc) => drop(docs.params.insert(name, doc)),
            None => missing.push(format!("`{command}` does not say what `{name}` is: a line `- {name}: …` in its doc does")),
        }
    }
    match said.keys().next() {
        Some(stranger) => Err(unfit(format!("`{command}` documents `{stranger}`, which is none of its parameters"))),
        None => Ok(docs),
    }
}

/// A function's own doc, and its parameters'. A parameter's goes on until the next one or an empty line.
fn split(text: &str) -> (Option<String>, BTreeMap<String, String>) {
    let (mut own, mut params, mut current) = (Vec::new(), BTreeMap::<String, String>::new(), None);
    for line in text.lines().map(str::trim) {
        if let Some((name, doc)) = line.strip_prefix("- ").and_then(|item| item.split_once(": ")) {
            params.insert(snake(name), doc.trim().to_owned());
            current = Some(snake(name));
        } else if line.is_empty() {
            current = None;
            own.push(line);
        } else if let Some(doc) = current.as_ref().and_then(|name| params.get_mut(name)) {
            doc.push(' ');
            doc.push_str(line);
        } else {
            own.push(line);
        }
    }
    let own = own.join("\n").trim().to_owned();
    ((!own.is_empty()).then_some(own), params)
}

/// Walks from functions to all types they are made of.
struct Types<'a> {
    resolve: &'a Resolve,
    seen: BTreeSet<TypeId>,
    docs: BTreeMap<String, TypeDocs>,
}

impl Types<'_> {
    fn visit(&mut self, ty: &Type) {
        if let Type::Id(id) = ty
            && self.seen.insert(*id)
        {
            self.visit_definition(*id);
        }
    }

    fn visit_definition(&mut self, id: TypeId) {
        let resolve = self.resolve;
        let mut fields = BTreeMap::new();
        let mut field = |name: &str, docs: &WitDocs| {
            if let Some(text) = text(docs) {
                fields.insert(snake(name), text);
            }
        };
        match &resolve.types[id].kind {
            TypeDefKind::Record(record) => {
                record.fields.iter().for_each(|one| field(&one.name, &one.docs));
                record.fields.iter().for_each(|one| self.visit(&one.ty));
            }
            TypeDefKind::Variant(variant) => {
                variant.cases.iter().for_each(|one| field(&one.name, &one.docs));
                variant.cases.iter().filter_map(|one| one.ty.as_ref()).for_each(|ty| self.visit(ty));
            }
            TypeDefKind::Enum(cases) => cases.cases.iter().for_each(|one| field(&one.name, &one.docs)),
            TypeDefKind::Flags(flags) => flags.flags.iter().for_each(|one| field(&one.name, &one.docs)),
            TypeDefKind::Tuple(tuple) => tuple.types.iter().for_each(|ty| self.visit(ty)),
            TypeDefKind::Result(result) => result.ok.iter().chain(&result.err).for_each(|ty| self.visit(ty)),
            TypeDefKind::Option(ty) | TypeDefKind::List(ty) | TypeDefKind::Type(ty) => self.visit(ty),
            _ => {}
        }
        self.keep(id, fields);
    }

    /// Keeps what is said about a named type. A type that is `use`d says nothing itself; its origin was visited before.
    fn keep(&mut self, id: TypeId, fields: BTreeMap<String, String>) {
        let definition = &self.resolve.types[id];
        let doc = text(&definition.docs);
        if let Some(name) = &definition.name
            && (doc.is_some() || !fields.is_empty())
        {
            self.docs.entry(snake(name)).or_insert(TypeDocs { doc, fields });
        }
    }
}

fn text(docs: &WitDocs) -> Option<String> {
    docs.contents.as_deref().map(|text| text.trim().to_owned()).filter(|text| !text.is_empty())
}

#[cfg(test)]
mod tests {
    use super::{Written, collect, split};
    use outhaul_protocol::error::Failure;
    use wit_parser::Resolve;

    fn docs(function: &str) -> Result<Written, Failure> {
        let mut resolve = Resolve::default();
        resolve.push_source("a.wit", &format!("package a:b; interface i {{\n{function}\n}}")).expect("WIT");
        collect(&resolve, &["a:b/i".into()])
    }

    #[test]
    fn parameter_lines_leave_the_functions_doc() {
        let (doc, params) = split("Takes one.\n- max-width: the largest\n  that fits\n- quality: 1 to 100\n\nMore.");
        assert_eq!(doc.as_deref(), Some("Takes one.\n\nMore."));
        assert_eq!(params["max_width"], "the largest that fits");
        assert_eq!(params["quality"], "1 to 100");
    }

    #[test]
    fn a_function_or_a_parameter_without_a_doc_is_missed() {
        let good = docs("/// Does.\n/// - max-width: of it\ndo: func(max-width: u8);").expect("collects");
        good.complete().expect("complete");
        let bad = docs("do: func(max-width: u8);").expect("collects");
        assert_eq!(
            bad.missing,
            ["`i.do` has no doc comment", "`i.do` does not say what `max_width` is: a line `- max_width: …` in its doc does"]
        );
        bad.complete().expect_err("incomplete");
    }

    #[test]
    fn a_doc_of_no_parameter_is_refused() {
        let failure = docs("/// Does.\n/// - hight: of it\ndo: func();").expect_err("a stranger");
        assert_eq!(failure.message, "`i.do` documents `hight`, which is none of its parameters");
    }
}
