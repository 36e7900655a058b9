//! Where things are: the packs of the workspace, their WIT, `dist/`. Reads manifests, so that adding a pack is adding a
//! folder. A fixture whose types Outhaul refuses needs no code: it is a WIT file in `fixtures/wit-only`.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use outhaul_author::make::toolchain::Target;
use serde::Deserialize;

/// A checkout: the folder that holds `plugins/` and `wit/`.
#[derive(Debug, Clone)]
pub struct Tree {
    root: PathBuf,
}

/// One pack of the tree.
#[derive(Debug, Clone)]
pub struct Pack {
    /// What an agent calls it; the two versions of `echo` share theirs.
    pub name: String,
    /// Its version.
    pub version: String,
    /// Its path in `dist/`, without ending: `gpu`, `fixtures/echo`.
    pub file: String,
    /// Its sources, from `plugins/`: a folder or one file.
    pub sources: PathBuf,
    /// Where its own WIT is, from `plugins/`.
    pub wit: Option<PathBuf>,
    /// Whether it knows the host's WIT. One that brings a package of the host's name with it does not.
    pub knows_host: bool,
    /// What it is made of.
    pub form: Form,
}

/// What a pack is made of.
#[derive(Debug, Clone)]
pub enum Form {
    /// A crate of the workspace.
    Crate {
        /// Its name.
        name: String,
        /// What it is compiled for.
        target: Target,
    },
    /// WIT alone; its functions trap.
    Wit,
}

impl Pack {
    /// Whether it is held to a pack's manners; a fixture is not.
    #[must_use]
    pub fn is_standard(&self) -> bool {
        !self.file.starts_with("fixtures/")
    }

    /// Its crate, when it is compiled for `target`.
    #[must_use]
    pub fn crate_for(&self, target: Target) -> Option<&str> {
        match &self.form {
            Form::Crate { name, target: own } if *own == target => Some(name),
            _ => None,
        }
    }
}

#[derive(Deserialize)]
struct Manifest {
    package: Package,
}

#[derive(Deserialize)]
struct Package {
    name: String,
    /// A text, or `workspace = true`.
    version: toml::Value,
    #[serde(default)]
    metadata: Metadata,
}

#[derive(Deserialize, Default)]
struct Metadata {
    #[serde(default)]
    outhaul: Options,
}

/// `[package.metadata.outhaul]` of a pack's crate.
#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct Options {
    /// The pack's name; without it, the crate's.
    pack: Option<String>,
    /// Compiled for WASI 0.2, with Rust's standard library on it.
    #[serde(default)]
    wasi: bool,
    /// Its WIT folder stands alone.
    #[serde(default)]
    without_host: bool,
}

/// The packs' workspace, as far as it matters here.
#[derive(Deserialize)]
struct Root {
    workspace: Workspace,
}

#[derive(Deserialize)]
struct Workspace {
    package: Shared,
}

#[derive(Deserialize)]
struct Shared {
    version: String,
}

impl Tree {
    /// The checkout this builder was compiled in.
    pub fn of_this_crate() -> Result<Self> {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
        let root = root
            .canonicalize()
            .with_context(|| format!("find `{}`", root.display()))?;
        Ok(Self { root })
    }

    /// The root folder.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// `plugins/`
    #[must_use]
    pub fn plugins(&self) -> PathBuf {
        self.root.join("plugins")
    }

    /// `wit/v0.1/`
    #[must_use]
    pub fn wit(&self) -> PathBuf {
        self.root.join("wit/v0.1")
    }

    /// `plugins/dist/`
    #[must_use]
    pub fn dist(&self) -> PathBuf {
        self.plugins().join("dist")
    }

    /// Where a pack's component is.
    #[must_use]
    pub fn wasm(&self, pack: &Pack) -> PathBuf {
        self.dist().join(format!("{}.wasm", pack.file))
    }

    /// Where its stamp is.
    #[must_use]
    pub fn stamp(&self, pack: &Pack) -> PathBuf {
        self.dist().join(format!("{}.stamp", pack.file))
    }

    /// A path as people know it: from the root.
    #[must_use]
    pub fn show(&self, path: &Path) -> String {
        path.strip_prefix(&self.root)
            .unwrap_or(path)
            .display()
            .to_string()
    }

    /// All packs, sorted by file.
    pub fn packs(&self) -> Result<Vec<Pack>> {
        let plugins = self.plugins();
        let root: Root = toml::from_str(&fs::read_to_string(plugins.join("Cargo.toml"))?)?;
        // The version of what says none of its own.
        let version = root.workspace.package.version;
        let mut packs = Vec::new();
        for entry in entries(&plugins)?
            .into_iter()
            .chain(entries(&plugins.join("fixtures"))?)
        {
            let is_pack = entry.join("Cargo.toml").is_file() && !entry.ends_with("builder");
            if is_pack {
                packs.push(
                    self.crate_pack(&entry, &version)
                        .with_context(|| format!("read `{}`", self.show(&entry)))?,
                );
            }
        }
        packs.extend(
            entries(&plugins.join("fixtures/wit-only"))?
                .iter()
                .map(|file| self.wit_pack(file, &version)),
        );
        packs.sort_by(|a, b| a.file.cmp(&b.file));
        let doubled = packs.windows(2).find(|pair| pair[0].file == pair[1].file);
        ensure!(
            doubled.is_none(),
            "two packs want to be `{}`",
            packs[0].file
        );
        Ok(packs)
    }

    fn crate_pack(&self, folder: &Path, shared: &str) -> Result<Pack> {
        let manifest: Manifest = toml::from_str(&fs::read_to_string(folder.join("Cargo.toml"))?)?;
        let Package {
            name,
            version,
            metadata: Metadata { outhaul: options },
        } = manifest.package;
        let sources = self.below_plugins(folder);
        Ok(Pack {
            name: options.pack.unwrap_or_else(|| name.clone()),
            version: version.as_str().unwrap_or(shared).to_owned(),
            file: sources.display().to_string(),
            wit: folder.join("wit").is_dir().then(|| sources.join("wit")),
            sources,
            knows_host: !options.without_host,
            form: Form::Crate {
                name,
                target: if options.wasi {
                    Target::Wasi
                } else {
                    Target::Unknown
                },
            },
        })
    }

    fn wit_pack(&self, file: &Path, version: &str) -> Pack {
        let sources = self.below_plugins(file);
        let name = file
            .file_stem()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        Pack {
            file: format!("fixtures/{name}"),
            name,
            version: version.to_owned(),
            wit: Some(sources.clone()),
            sources,
            knows_host: true,
            form: Form::Wit,
        }
    }

    fn below_plugins(&self, path: &Path) -> PathBuf {
        path.strip_prefix(self.plugins())
            .unwrap_or(path)
            .to_path_buf()
    }

    /// A copy of all that packs are made from, in a folder that is emptied first.
    pub fn copy_to(&self, folder: &Path) -> Result<Tree> {
        if folder.exists() {
            fs::remove_dir_all(folder)?;
        }
        let decide = [crate::stamp::MAKE, crate::stamp::VERSIONS].map(|path| self.root.join(path));
        for file in [self.plugins(), self.wit()]
            .iter()
            .chain(&decide)
            .map(|folder| files(folder))
            .collect::<Result<Vec<_>>>()?
            .concat()
        {
            let to = folder.join(file.strip_prefix(&self.root)?);
            fs::create_dir_all(to.parent().context("a file has a folder")?)?;
            fs::copy(&file, &to).with_context(|| format!("copy `{}`", file.display()))?;
        }
        Ok(Tree {
            root: folder.canonicalize()?,
        })
    }
}

/// What is in a folder, sorted; nothing where there is no folder.
fn entries(folder: &Path) -> Result<Vec<PathBuf>> {
    if !folder.is_dir() {
        return Ok(Vec::new());
    }
    let mut found = fs::read_dir(folder)?
        .map(|entry| Ok(entry?.path()))
        .collect::<Result<Vec<_>>>()?;
    found.sort();
    Ok(found)
}

/// All files below a path (or the file itself), sorted, without what is built.
pub fn files(path: &Path) -> Result<Vec<PathBuf>> {
    if path.is_file() {
        return Ok(vec![path.to_path_buf()]);
    }
    let mut found = Vec::new();
    for entry in entries(path)? {
        if entry.is_dir() && !entry.ends_with("target") && !entry.ends_with("plugins/dist") {
            found.extend(files(&entry)?);
        } else if entry.is_file() {
            found.push(entry);
        }
    }
    Ok(found)
}
