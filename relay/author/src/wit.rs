//! A pack's WIT: its own in `wit/`, the host's in `wit/deps/host`; and names as they are outside WIT.

use std::path::Path;

use outhaul_protocol::error::{Code, Failure};
use wit_parser::{PackageId, Resolve, WorldId};

/// The host's WIT, by file name: one interface, one power.
pub(crate) const HOST: &[(&str, &str)] = &include!(concat!(env!("OUT_DIR"), "/host_wit.rs"));
/// Where it lies in a pack's folder.
pub(crate) const HOST_FOLDER: &str = "wit/deps/host";

/// A pack's WIT with the world it is of.
#[derive(Debug)]
pub struct Wit {
    /// everything it names
    pub resolve: Resolve,
    /// the one world of its own package
    pub world: WorldId,
}

impl Wit {
    /// Reads the WIT of a pack's folder.
    pub fn read(folder: &Path) -> Result<Self, Failure> {
        let path = folder.join("wit");
        let wrong = |why: String| Failure::new(Code::BadConfig, format!("read `{}`: {why}", path.display()));
        let mut resolve = Resolve::default();
        let package = match resolve.push_dir(&path) {
            Ok((package, _)) => package,
            // With the place and the line.
            Err(error) => return Err(wrong(resolve.render_error(&error))),
        };
        let world = world_of(&resolve, package).map_err(wrong)?;
        Ok(Wit { resolve, world })
    }

    /// The world's name.
    #[must_use]
    pub fn world_name(&self) -> &str {
        &self.resolve.worlds[self.world].name
    }

    /// The version of the host's package that is named, without its last part: `0.1`.
    #[must_use]
    pub fn api(&self) -> Option<String> {
        let host = self.resolve.package_names.keys().find(|name| name.namespace == "outhaul" && name.name == "host")?;
        host.version.as_ref().map(|version| format!("{}.{}", version.major, version.minor))
    }
}

fn world_of(resolve: &Resolve, package: PackageId) -> Result<WorldId, String> {
    let worlds = &resolve.packages[package].worlds;
    match worlds.values().next() {
        Some(world) if worlds.len() == 1 => Ok(*world),
        Some(_) => Err("it has several worlds; a pack is of one".into()),
        None => Err("it has no world; a pack is a world that exports its interfaces".into()),
    }
}

/// Whether a text is a pack's WIT beside the host's.
pub(crate) fn parse_with_host(text: &str) -> Result<(), String> {
    let mut resolve = Resolve::default();
    let mut map = wit_parser::SourceMap::new();
    HOST.iter().for_each(|(name, text)| map.push_str(name, *text));
    let host = map.parse().map_err(|(_, error)| error.to_string())?;
    resolve.push_group(host).map_err(|error| error.to_string())?;
    resolve.push_source("pack.wit", text).map(drop).map_err(|error| format!("{error:#}"))
}

/// Powers of the host this was built with, by name.
pub fn powers() -> impl Iterator<Item = &'static str> {
    HOST.iter().map(|(name, _)| name.trim_end_matches(".wit"))
}

/// A WIT name as it is everywhere outside WIT.
pub(crate) fn snake(name: &str) -> String {
    name.replace('-', "_")
}

/// `gpu` of `outhaul:commands/gpu@0.1.0`.
pub(crate) fn short(name: &str) -> &str {
    let name = name.rsplit_once('/').map_or(name, |(_, name)| name);
    name.split_once('@').map_or(name, |(name, _)| name)
}
