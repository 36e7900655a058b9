//! What the owner writes: folders, and what a pack may do in each.

use std::fmt;
use std::path::{Component, Path, PathBuf};

use serde::{Deserialize, Deserializer, Serialize, de};

/// Folders of one pack: `[packs.NAME] files = [ … ]` of `agent.toml`. The default grants nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Grant {
    /// Each with its rights.
    pub folders: Vec<Folder>,
    /// Folders that no grant may reach, canonical: the agent's own.
    pub keep_out: Vec<PathBuf>,
}

impl Grant {
    /// Whether a folder holds what is the agent's own, or is in it: then a pack gets nothing of it.
    #[must_use]
    pub fn withholds(&self, folder: &Folder) -> bool {
        std::fs::canonicalize(&folder.path).is_ok_and(|real| withheld(&real, &self.keep_out))
    }
}

/// Whether a canonical path is out of bounds.
pub(super) fn withheld(real: &Path, keep_out: &[PathBuf]) -> bool {
    keep_out.iter().any(|own| real.starts_with(own) || own.starts_with(real))
}

/// One folder, with all below it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Folder {
    /// Where it is: absolute.
    pub path: PathBuf,
    /// What the pack calls it; its own path when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub at: Option<String>,
    /// What may be done in it.
    #[serde(flatten)]
    pub rights: Rights,
    /// MiB that it may hold while the pack adds to it, what was there before included.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_mib: Option<u64>,
}

impl Folder {
    /// What the pack calls it.
    #[must_use]
    pub fn name(&self) -> String {
        self.at.clone().unwrap_or_else(|| self.path.display().to_string())
    }
}

/// What may be done in a folder. Each stands for itself, but that `write` includes `create`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Rights {
    /// Open files that are there, for reading.
    #[serde(skip_serializing_if = "not")]
    pub read: bool,
    /// See which files and folders there are.
    #[serde(skip_serializing_if = "not")]
    pub list: bool,
    /// Change, add, rename and remove.
    #[serde(skip_serializing_if = "not")]
    pub write: bool,
    /// Add new files and folders; what is there already is neither opened nor replaced nor removed.
    #[serde(skip_serializing_if = "not")]
    pub create: bool,
}

fn not(yes: &bool) -> bool {
    !yes
}

impl Rights {
    /// The letters on the command line, in this order.
    const LETTERS: [char; 4] = ['r', 'l', 'w', 'c'];

    fn flags(&mut self) -> [&mut bool; 4] {
        [&mut self.read, &mut self.list, &mut self.write, &mut self.create]
    }

    /// The rights of letters such as `rl`.
    #[must_use]
    pub fn parse(letters: &str) -> Option<Self> {
        let mut rights = Rights::default();
        for letter in letters.chars() {
            let at = Rights::LETTERS.iter().position(|known| *known == letter)?;
            *rights.flags()[at] = true;
        }
        Some(rights).filter(|rights| *rights != Rights::default())
    }

    /// Their letters.
    #[must_use]
    pub fn letters(mut self) -> String {
        self.flags().into_iter().zip(Rights::LETTERS).filter(|(yes, _)| **yes).map(|(_, letter)| letter).collect()
    }

    /// These and those.
    #[must_use]
    pub fn with(mut self, mut others: Rights) -> Self {
        self.flags().into_iter().zip(others.flags()).for_each(|(mine, theirs)| *mine |= *theirs);
        self
    }

    /// These without those.
    #[must_use]
    pub fn without(mut self, mut others: Rights) -> Self {
        self.flags().into_iter().zip(others.flags()).for_each(|(mine, theirs)| *mine &= !*theirs);
        self
    }

    /// Whether all of `wanted` may be done.
    #[must_use]
    pub fn cover(self, wanted: Rights) -> bool {
        let mut missing = wanted.without(self);
        missing.create &= !self.write;
        missing == Rights::default()
    }

    /// Whether it may be asked what something is.
    pub(super) fn see(self) -> bool {
        self.read || self.list || self.write
    }

    /// Whether something may be added.
    pub(super) fn add(self) -> bool {
        self.write || self.create
    }
}

impl fmt::Display for Rights {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut rights = *self;
        let words = ["read", "list", "write", "create"];
        let granted: Vec<&str> = rights.flags().into_iter().zip(words).filter(|(yes, _)| **yes).map(|(_, word)| word).collect();
        f.write_str(&granted.join(", "))
    }
}

/// A folder as it is typed, with or without rights behind it: `/srv/data` or `/srv/data:rl`.
pub fn split_item(text: &str) -> Result<(PathBuf, Option<Rights>), String> {
    let (path, rights) = match text.rsplit_once(':').and_then(|(path, letters)| Some((path, Rights::parse(letters)?))) {
        Some((path, rights)) => (path, Some(rights)),
        None => (text, None),
    };
    check_path(Path::new(path))?;
    Ok((Path::new(path).components().collect(), rights))
}

fn check_path(path: &Path) -> Result<(), String> {
    let plain = |part: Component<'_>| matches!(part, Component::RootDir | Component::Normal(_));
    if path.is_absolute() && path.components().all(plain) && !path.as_os_str().as_encoded_bytes().contains(&0) {
        return Ok(());
    }
    Err(format!("`{}` is not an absolute path without `..`", path.display().to_string().escape_debug()))
}

impl<'de> Deserialize<'de> for Folder {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields, expecting = "{ path = \"/srv/data\", read = true, list = true }")]
        struct Fields {
            path: PathBuf,
            at: Option<String>,
            #[serde(default)]
            read: bool,
            #[serde(default)]
            list: bool,
            #[serde(default)]
            write: bool,
            #[serde(default)]
            create: bool,
            max_mib: Option<u64>,
        }
        let Fields { path, at, read, list, write, create, max_mib } = Fields::deserialize(from)?;
        let rights = Rights { read, list, write, create };
        Folder { path, at, rights, max_mib }.checked().map_err(de::Error::custom)
    }
}

impl Folder {
    /// The same, when it makes sense.
    pub fn checked(self) -> Result<Self, String> {
        check_path(&self.path)?;
        let path = self.path.display();
        if let Some(at) = &self.at {
            check_path(Path::new(at)).map_err(|why| format!("`at`: {why}"))?;
        }
        if self.rights == Rights::default() {
            return Err(format!("`{path}` is named without a right: `read`, `list`, `write` or `create`"));
        }
        if self.max_mib.is_some() && !self.rights.add() {
            return Err(format!("`{path}` has a `max_mib`, and nothing may be added to it"));
        }
        Ok(self)
    }
}
