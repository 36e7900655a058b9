//! `outhaul.toml`: what an author says about a pack. Mistakes are refused with path, line and key.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

use outhaul_protocol::error::{Code, Failure};
use outhaul_protocol::pack::{About, Asked, Manifest, Wanted};
use serde::Deserialize;

use crate::sources;

/// The file's name in a pack's folder.
pub const FILE: &str = "outhaul.toml";
/// Where everything that is made lies, below a pack's folder.
pub const MADE: &str = "build";

/// The languages packs are written in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Lang {
    /// Rust, by rustup's compiler or Debian's
    Rust,
    /// C, by clang and a libc for WASI, or by zig
    C,
    /// JavaScript, by componentize-js
    Js,
    /// Python, by componentize-py
    Python,
}

impl Lang {
    /// All of them.
    pub const ALL: [Lang; 4] = [Lang::Rust, Lang::C, Lang::Js, Lang::Python];

    /// Its name, as `--lang` and `outhaul.toml` have it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Lang::Rust => "rust",
            Lang::C => "c",
            Lang::Js => "js",
            Lang::Python => "python",
        }
    }
}

impl fmt::Display for Lang {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What `outhaul.toml` says.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Project {
    /// the pack's name
    pub name: String,
    /// its version
    pub version: String,
    /// one line about it
    pub description: Option<String>,
    /// who made it
    pub authors: Option<String>,
    /// an SPDX expression
    #[serde(alias = "license")]
    pub licence: Option<String>,
    /// a URL
    pub homepage: Option<String>,
    /// a URL
    pub source: Option<String>,
    /// what it is written in
    pub lang: Lang,
    /// Rust only: compiled for WASI 0.2, so that `println!` is the call's output
    #[serde(default)]
    pub wasi: bool,
    /// platforms it is for; none means any
    #[serde(default)]
    pub platforms: Vec<String>,
    /// why it wants its powers
    #[serde(default)]
    pub powers: BTreeMap<String, String>,
    /// ceilings it would like
    #[serde(default)]
    pub limits: Limits,
}

/// `[limits]`
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// memory of one call, MiB
    pub memory_mib: Option<u32>,
    /// seconds one call may take
    pub max_secs: Option<u32>,
}

impl Project {
    /// Reads the one of a pack's folder.
    pub fn read(folder: &Path) -> Result<Self, Failure> {
        let path = folder.join(FILE);
        if !path.is_file() {
            return Err(Failure::new(Code::BadUsage, format!("`{}` is no pack's folder: it has no `{FILE}`", folder.display()))
                .hint("make one with: relay pack new NAME --lang rust"));
        }
        let project: Project = outhaul_home::read_toml(&path)?;
        // What an agent would refuse is refused before anything is built.
        let of_file = |failure: Failure| Failure::new(Code::BadConfig, format!("read `{}`: {}", path.display(), failure.message));
        project.manifest(None, None, None).check().map_err(of_file)?;
        Ok(project)
    }

    /// The manifest: what the file says, the track of the host's WIT, the sources' digest and what built it.
    #[must_use]
    pub fn manifest(&self, api: Option<String>, sources: Option<String>, builder: Option<String>) -> Manifest {
        Manifest {
            name: self.name.clone(),
            version: self.version.clone(),
            api,
            powers: self.powers.iter().map(|(name, reason)| Asked { name: name.clone(), reason: reason.clone() }).collect(),
            platforms: self.platforms.clone(),
            limits: Wanted { memory_mib: self.limits.memory_mib, max_secs: self.limits.max_secs },
            sources,
            builder,
        }
    }

    /// What goes into the standard metadata sections.
    #[must_use]
    pub fn about(&self) -> About {
        About {
            description: self.description.clone(),
            authors: self.authors.clone(),
            licences: self.licence.clone(),
            source: self.source.clone(),
            homepage: self.homepage.clone(),
            revision: None,
        }
    }
}

/// The digest of a pack's sources: all files of its folder but those that are made, fetched or hidden.
pub fn sources_digest(folder: &Path) -> Result<String, Failure> {
    let failed = |error| Failure::new(Code::BadConfig, format!("read `{}`: {error}", folder.display()));
    let files: Vec<PathBuf> = sources::files(folder, &is_made).map_err(failed)?;
    sources::digest(folder, &files).map_err(failed)
}

fn is_made(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let folder = [MADE, "target", "node_modules", "__pycache__"].contains(&&*name);
    folder || name.starts_with('.') || name.ends_with(".wasm") || name.ends_with(".wasm.cose")
}

/// Writes a file below a folder, and the folders on the way.
pub(crate) fn write(path: &Path, content: &[u8]) -> Result<(), Failure> {
    let folder = path.parent().map_or(Ok(()), fs::create_dir_all);
    folder
        .and_then(|()| fs::write(path, content))
        .map_err(|error| Failure::new(Code::BadConfig, format!("write `{}`: {error}", path.display())))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Project, Failure> {
        let dir = tempfile::tempdir().expect("a folder");
        fs::write(dir.path().join(FILE), text).expect("written");
        Project::read(dir.path()).map_err(|failure| {
            let message = failure.message.replace(&dir.path().display().to_string(), "DIR");
            Failure { message, ..failure }
        })
    }

    #[test]
    fn everything_an_author_says_reaches_the_manifest() {
        let project = read(
            "name = \"thermal\"\nversion = \"1.2.0\"\ndescription = \"Heat\"\nauthors = \"A\"\nlicense = \"MIT\"\nlang = \"c\"\n\
             platforms = [\"linux-x86_64\"]\n[powers]\nsystem = \"reads sensors\"\n[limits]\nmemory_mib = 128\nmax_secs = 5\n",
        )
        .expect("reads");
        let manifest = project.manifest(Some("0.1".into()), None, Some("relay 0.1.0".into()));
        assert_eq!(
            String::from_utf8(manifest.to_json()).expect("text"),
            r#"{"name":"thermal","version":"1.2.0","api":"0.1","powers":[{"name":"system","reason":"reads sensors"}],"platforms":["linux-x86_64"],"limits":{"memory_mib":128,"max_secs":5},"builder":"relay 0.1.0"}"#
        );
        let about = project.about();
        assert_eq!(about.texts().collect::<Vec<_>>(), [("description", "Heat"), ("authors", "A"), ("licenses", "MIT")]);
    }

    #[test]
    fn mistakes_have_file_and_key() {
        let least = "name = \"a\"\nversion = \"1\"\nlang = \"rust\"\n";
        let all: Vec<String> = [
            "name = \"a\"\nversion = \"1\"\n".to_owned(),
            least.replace("rust", "cobol"),
            format!("{least}licens = \"MIT\"\n"),
            least.replace("\"a\"", "\"Thermal!\""),
            format!("{least}[powers]\nsystem = \"\"\n"),
            format!("{least}[limits]\nmemory = 1\n"),
        ]
        .iter()
        .map(|text| read(text).expect_err(text).message)
        .collect();
        insta::assert_snapshot!(all.join("\n---\n"));
    }

    #[test]
    fn a_folder_without_the_file_is_told_how_to_get_one() {
        let failure = Project::read(Path::new("/nonexistent")).expect_err("nothing there");
        assert_eq!(failure.code, Code::BadUsage);
        assert!(failure.hint.expect("a hint").contains("relay pack new"));
    }

    #[test]
    fn what_is_made_does_not_count_as_source() {
        let dir = tempfile::tempdir().expect("a folder");
        write(&dir.path().join("src/lib.rs"), b"x").expect("written");
        let before = sources_digest(dir.path()).expect("digest");
        for made in ["build/a.wasm", "a.wasm", "node_modules/x/y.js", ".git/HEAD", "target/debug/x"] {
            write(&dir.path().join(made), b"x").expect("written");
        }
        assert_eq!(sources_digest(dir.path()).expect("digest"), before);
        write(&dir.path().join("wit/a.wit"), b"x").expect("written");
        assert_ne!(sources_digest(dir.path()).expect("digest"), before);
    }
}
