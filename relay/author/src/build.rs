//! `relay pack build`: from a folder to a component. Each language brings its own tools, which must be installed: a missing
//! one is one sentence with the command that installs it. Everything that is made lies in `build/`.

mod c;
mod javascript;
mod python;
mod rust;
mod tool;

use std::path::{Path, PathBuf};

use outhaul_protocol::error::{Code, Failure};
use outhaul_protocol::limits;
use outhaul_protocol::pack::Manifest;

use crate::component::Types;
use crate::inspect::{WASI, power};
use crate::make::docs::{self, Written};
use crate::make::encode;
use crate::new::lay_host;
use crate::project::{Lang, MADE, Project, sources_digest, write};
use crate::wit::{HOST_FOLDER, Wit, powers, short};

/// Powers that every pack has: nobody needs to read why.
pub const ALWAYS: [&str; 2] = ["log", "output"];
/// Interfaces that agents answer themselves, so that no pack's command is ever reached there.
const NATIVE: [&str; 2] = ["node", "pack"];

/// A pack that was built.
#[derive(Debug)]
pub struct Built {
    /// the component
    pub wasm: Vec<u8>,
    /// what it says about itself
    pub manifest: Manifest,
    /// names of its commands
    pub commands: Vec<String>,
    /// where it is kept: `build/NAME.wasm`
    pub kept: PathBuf,
    /// what its author should know
    pub notes: Vec<String>,
}

/// What a language's tools work on.
struct Site<'a> {
    folder: &'a Path,
    project: &'a Project,
    wit: &'a Wit,
}

impl Site<'_> {
    /// A folder of its own for one language's work.
    fn made(&self, name: &str) -> PathBuf {
        self.folder.join(MADE).join(name)
    }
}

/// What a language's tools made.
struct Made {
    component: Vec<u8>,
    /// the tools, with versions
    by: String,
}

/// Builds the pack of a folder. The tools' talk goes to stderr.
pub fn build(folder: &Path) -> Result<Built, Failure> {
    let folder = folder.canonicalize().map_err(|error| Failure::new(Code::BadUsage, format!("read `{}`: {error}", folder.display())))?;
    let project = Project::read(&folder)?;
    if !folder.join(HOST_FOLDER).is_dir() {
        lay_host(&folder)?;
    }
    let wit = Wit::read(&folder)?;
    let site = Site { folder: &folder, project: &project, wit: &wit };
    let Made { component, by } = match project.lang {
        Lang::Rust => rust::make(&site),
        Lang::C => c::make(&site),
        Lang::Js => javascript::make(&site),
        Lang::Python => python::make(&site),
    }?;
    finish(&site, &component, &by)
}

/// Puts name, reasons and docs into what the tools made, and looks at it as an agent will.
fn finish(site: &Site<'_>, component: &[u8], by: &str) -> Result<Built, Failure> {
    let Site { folder, project, wit } = site;
    let types = Types::read(component)?;
    let written = docs::collect(&wit.resolve, &types.exports())?;
    let offered = types.commands(&project.name, &written.docs)?;
    let builder = format!("relay {}; {by}", env!("CARGO_PKG_VERSION"));
    let builder = builder.chars().filter(|c| c.is_ascii_graphic() || *c == ' ').take(limits::REASON).collect();
    let manifest = project.manifest(wit.api(), Some(sources_digest(folder)?), Some(builder));
    let wasm = encode::finish(component, &manifest, &written.docs, &project.about())?;
    let kept = folder.join(MADE).join(format!("{}.wasm", project.name));
    write(&kept, &wasm)?;
    let mut notes = notes(&types.imports(), &manifest, &written);
    notes.extend(
        offered
            .interfaces
            .iter()
            .filter(|interface| NATIVE.contains(&&*interface.name))
            .map(|interface| format!("agents answer commands of `{}` themselves: this pack's will never be reached", interface.name)),
    );
    Ok(Built { commands: offered.commands.into_iter().map(|command| command.name).collect(), wasm, manifest, kept, notes })
}

/// What builds and should not stay so.
fn notes(imports: &[String], manifest: &Manifest, written: &Written) -> Vec<String> {
    let asked: Vec<&str> = imports.iter().filter(|name| name.starts_with("outhaul:host/")).map(|name| short(name)).collect();
    let silent = asked.iter().filter(|power| !ALWAYS.contains(power) && manifest.reason(power).is_none());
    let mut notes: Vec<String> = silent
        .map(|power| format!("it imports `{power}` without a reason: [powers] in outhaul.toml is where the machine's owner reads why"))
        .collect();
    // Folders and web requests come through WASI. An interpreter imports folders whether its pack needs them or not.
    let all: Vec<String> = imports.iter().filter_map(|import| power(import)).collect();
    let idle = manifest.powers.iter().filter(|power| !all.contains(&power.name));
    let known = |name: &str| powers().chain(WASI).any(|known| known == name);
    notes.extend(idle.map(|power| match known(&power.name) {
        true => format!("it gives a reason for `{}`, which its code does not import", power.name),
        false => format!("it gives a reason for `{}`, and there is no such power", power.name),
    }));
    notes.extend(written.missing.iter().cloned());
    notes
}

/// A build that failed by its author's code, not by ours.
fn failed(message: impl Into<String>) -> Failure {
    Failure::new(Code::CommandFailed, message)
}

/// What is not installed, with the way to get it.
fn missing(message: impl Into<String>, hint: impl Into<String>) -> Failure {
    Failure::new(Code::BadConfig, message).hint(hint)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::new::new;

    /// A pack of its WIT alone: what a compiler would have made, without one.
    fn finished(change: impl Fn(String) -> String) -> Result<Built, Failure> {
        let dir = tempfile::tempdir().expect("a folder");
        let folder = dir.path().join("hello");
        new(&folder, Lang::Rust).expect("made");
        let path = folder.join("wit/pack.wit");
        std::fs::write(&path, change(std::fs::read_to_string(&path).expect("there"))).expect("written");
        let (project, wit) = (Project::read(&folder)?, Wit::read(&folder)?);
        let mut own = wit_parser::Resolve::default();
        own.push_dir(folder.join("wit")).expect("WIT");
        let component = encode::from_wit(&own).expect("a component");
        finish(&Site { folder: &folder, project: &project, wit: &wit }, &component, "nobody 1")
    }

    #[test]
    fn a_pack_says_who_it_is_and_what_it_wants() {
        let built = finished(|wit| wit).expect("built");
        let contents = outhaul_protocol::pack::read(&built.wasm).expect("as an agent reads it");
        assert_eq!(contents.manifest, built.manifest);
        assert_eq!((built.manifest.api.as_deref(), built.manifest.reason("system").is_some()), (Some("0.1"), true));
        assert_eq!(built.manifest.builder.as_deref(), Some(concat!("relay ", env!("CARGO_PKG_VERSION"), "; nobody 1")));
        assert_eq!(built.commands, ["hello.greet"]);
        assert_eq!(contents.docs.interfaces["hello"].functions["greet"].params["person"], "whom");
        assert_eq!(contents.about.description.as_deref(), Some("Greets people on behalf of a machine"));
        assert!(built.notes.is_empty(), "{:?}", built.notes);
    }

    #[test]
    fn what_its_author_forgot_is_said() {
        let built = finished(|wit| wit.replace("  /// Greets somebody.\n  /// - person: whom\n", "").replace("host/system@", "host/gpu@"));
        insta::assert_snapshot!(built.expect("built").notes.join("\n"), @r"
        it imports `gpu` without a reason: [powers] in outhaul.toml is where the machine's owner reads why
        it gives a reason for `system`, which its code does not import
        `hello.greet` has no doc comment
        `hello.greet` does not say what `person` is: a line `- person: …` in its doc does
        ");
    }

    #[test]
    fn reasons_for_what_comes_through_wasi_are_as_good_as_others() {
        let imports = ["wasi:filesystem/preopens@0.2.6", "outhaul:host/system@0.1.0"].map(str::to_owned);
        let asked = |name: &str| outhaul_protocol::pack::Asked { name: name.into(), reason: "because".into() };
        let powers = ["files", "system", "http", "kvx"].map(asked).to_vec();
        let said = notes(&imports, &Manifest { powers, ..Manifest::default() }, &Written::default());
        assert_eq!(
            said,
            ["it gives a reason for `http`, which its code does not import", "it gives a reason for `kvx`, and there is no such power"]
        );
    }

    #[test]
    fn what_no_agent_takes_is_refused_here() {
        let failure = finished(|wit| wit.replace("uptime: u64,", "uptime: option<option<u64>>,")).expect_err("refused");
        assert_eq!(failure.code, Code::UnsupportedType);
        assert_eq!(failure.message, "pack `hello`: function `hello.greet` uses an option of an option");
    }
}
