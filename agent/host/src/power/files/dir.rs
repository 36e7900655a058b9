//! A folder inside a granted one, and what can be done by path from it.

use std::collections::VecDeque;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use rustix::fs::{AtFlags, Mode, OFlags, RenameFlags, Timestamps};
use rustix::io::Errno;

use super::path::{self, look};
use super::tree::Place;
use super::{File, FilesError, Kind, Stat, Times, Tree};

/// Tries at a name that others make and remove meanwhile.
const TRIES: usize = 3;
/// Names read from a folder in one go.
const NAMES: usize = 256;
/// Mode bits that make a program run as another user or group.
const SET_ID: u32 = 0o6000;

/// A folder. It has the rights of the granted one it is in.
#[derive(Debug)]
pub struct Dir {
    tree: Arc<Tree>,
    handle: OwnedFd,
    _place: Place,
}

/// How something is opened.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Open {
    /// Follows a symbolic link in the last part.
    pub follow: bool,
    /// Makes a file that is not there.
    pub create: bool,
    /// Only a folder will do.
    pub directory: bool,
    /// With `create`: nothing may be there.
    pub exclusive: bool,
    /// Cuts a file to nothing.
    pub truncate: bool,
    /// For reading.
    pub read: bool,
    /// For writing.
    pub write: bool,
}

/// What was opened.
#[derive(Debug)]
pub enum Node {
    /// A file.
    File(File),
    /// A folder.
    Dir(Dir),
}

impl Dir {
    pub(super) fn root(tree: Arc<Tree>) -> Result<Self, FilesError> {
        let place = tree.place()?;
        let handle = look(&tree.root, ".", true)?;
        Ok(Dir { tree, handle, _place: place })
    }

    /// What may be done in it.
    #[must_use]
    pub fn can_change(&self) -> bool {
        self.tree.rights.add()
    }

    /// What it is.
    pub fn stat(&self) -> Result<Stat, FilesError> {
        Ok(Stat::of(&self.handle)?)
    }

    /// What a path is.
    pub fn stat_at(&self, follow: bool, path: &str) -> Result<Stat, FilesError> {
        self.tree.need(self.tree.rights.see(), "look at", path, "r")?;
        Ok(Stat::of(&self.look(path, follow)?)?)
    }

    fn look(&self, path: &str, follow: bool) -> Result<OwnedFd, FilesError> {
        look(&self.handle, path, follow).map_err(|errno| self.tree.judged(path, errno))
    }

    fn place(&self, path: &str) -> Result<path::Place, FilesError> {
        path::Place::find(&self.handle, path).map_err(|errno| self.tree.judged(path, errno))
    }

    /// Opens or makes a file, or opens a folder.
    pub fn open(&self, path: &str, how: Open) -> Result<Node, FilesError> {
        if how.directory && (how.create || how.exclusive || how.truncate) {
            return Err(Errno::INVAL.into());
        }
        for _ in 0..TRIES {
            match self.look(path, how.follow) {
                Ok(handle) => return self.opened(handle, path, how),
                Err(FilesError::System(Errno::NOENT)) if how.create => {}
                Err(error) => return Err(error),
            }
            match self.make(path, how) {
                // Made by somebody else in between, or a link that leads nowhere: the next look tells.
                Err(FilesError::System(Errno::EXIST)) if !how.exclusive => {}
                done => return done.map(Node::File),
            }
        }
        Err(Errno::EXIST.into())
    }

    fn opened(&self, handle: OwnedFd, path: &str, how: Open) -> Result<Node, FilesError> {
        let (stat, tree) = (Stat::of(&handle)?, &self.tree);
        if how.create && how.exclusive {
            return Err(Errno::EXIST.into());
        }
        match stat.kind {
            Kind::Folder if how.write || how.create || how.truncate => Err(Errno::ISDIR.into()),
            Kind::Folder => Ok(Node::Dir(Dir { tree: Arc::clone(tree), handle, _place: tree.place()? })),
            Kind::Link => Err(Errno::LOOP.into()),
            Kind::File if how.directory => Err(Errno::NOTDIR.into()),
            Kind::File => {
                let changes = how.write || how.truncate;
                tree.need(!changes || tree.rights.write, "change", path, "w")?;
                tree.need(!how.read || tree.rights.read, "read", path, "r")?;
                // With none of both a file that was to be made is opened: that it is there is all that may be learnt.
                tree.need(how.read || changes || tree.rights.see(), "open what is there already,", path, "w")?;
                if changes && stat.mode & SET_ID != 0 {
                    return Err(tree.never(path, "runs as another user, and such a file is never changed"));
                }
                self.reopened(handle, stat, how).map(Node::File)
            }
            _ => Err(tree.never(path, "is neither a file nor a folder, and nothing else is opened")),
        }
    }

    fn reopened(&self, handle: OwnedFd, stat: Stat, how: Open) -> Result<File, FilesError> {
        let place = self.tree.place()?;
        if !how.read && !how.write && !how.truncate {
            return Ok(File::new(Arc::clone(&self.tree), handle, false, false, place));
        }
        let mut held = if how.truncate { self.tree.hold()? } else { None };
        let mut flags = access(how.read, how.write || how.truncate);
        flags.set(OFlags::TRUNC, how.truncate);
        let handle = path::reopen(&handle, flags)?;
        if let Some(held) = &mut held {
            held.give(stat.size, 0);
        }
        Ok(File::new(Arc::clone(&self.tree), handle, how.read, how.write, place))
    }

    fn make(&self, path: &str, how: Open) -> Result<File, FilesError> {
        let tree = &self.tree;
        tree.need(tree.rights.add(), "make", path, "c")?;
        tree.need(!how.read || tree.rights.read, "read", path, "r")?;
        let (place, at) = (tree.place()?, self.place(path)?);
        if at.slash {
            return Err(Errno::ISDIR.into());
        }
        let mut held = tree.hold()?;
        if let Some(held) = &mut held {
            held.take(&tree.root, 0, 1)?;
        }
        let flags = access(how.read, how.write) | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW;
        match path::open(&at.folder, &at.name, flags, Mode::from_raw_mode(0o666)) {
            Ok(handle) => Ok(File::new(Arc::clone(tree), handle, how.read, how.write, place)),
            Err(errno) => {
                if let Some(held) = &mut held {
                    held.give(0, 1);
                }
                Err(tree.judged(path, errno))
            }
        }
    }

    /// Makes a folder.
    pub fn make_dir(&self, path: &str) -> Result<(), FilesError> {
        let tree = &self.tree;
        tree.need(tree.rights.add(), "make", path, "c")?;
        let at = self.place(path)?;
        let mut held = tree.hold()?;
        if let Some(held) = &mut held {
            held.take(&tree.root, 0, 1)?;
        }
        let made = rustix::fs::mkdirat(&at.folder, &at.name, Mode::from_raw_mode(0o777));
        if let (Err(_), Some(held)) = (made, &mut held) {
            held.give(0, 1);
        }
        Ok(made?)
    }

    /// Removes a file or a link.
    pub fn remove_file(&self, path: &str) -> Result<(), FilesError> {
        self.tree.need(self.tree.rights.write, "remove", path, "w")?;
        let at = self.place(path)?;
        if at.slash {
            return Err(Errno::NOTDIR.into());
        }
        let mut held = self.tree.hold()?;
        let size = Stat::of_name(&at.folder, &at.name).as_ref().map_or(0, weight);
        rustix::fs::unlinkat(&at.folder, &at.name, AtFlags::empty())?;
        if let Some(held) = &mut held {
            held.give(size, 1);
        }
        Ok(())
    }

    /// Removes an empty folder.
    pub fn remove_dir(&self, path: &str) -> Result<(), FilesError> {
        self.tree.need(self.tree.rights.write, "remove", path, "w")?;
        let at = self.place(path)?;
        let mut held = self.tree.hold()?;
        rustix::fs::unlinkat(&at.folder, &at.name, AtFlags::REMOVEDIR)?;
        if let Some(held) = &mut held {
            held.give(0, 1);
        }
        Ok(())
    }

    /// Gives something another name, in the place of what has it. Both must be in one granted folder: from one to another, what may not
    /// be read there could be read here.
    pub fn rename(&self, from: &str, other: &Dir, to: &str) -> Result<(), FilesError> {
        let tree = &self.tree;
        tree.need(tree.rights.write, "rename", from, "w")?;
        other.tree.need(other.tree.rights.write, "rename to", to, "w")?;
        if !Arc::ptr_eq(tree, &other.tree) {
            return Err(Errno::XDEV.into());
        }
        let (old, new) = (self.place(from)?, other.place(to)?);
        let mut held = tree.hold()?;
        let moved = Stat::of_name(&old.folder, &old.name)?;
        if (old.slash || new.slash) && moved.kind != Kind::Folder {
            return Err(Errno::NOTDIR.into());
        }
        // Two names of one file: nothing is replaced.
        let replaced = Stat::of_name(&new.folder, &new.name).ok().filter(|replaced| replaced.identity != moved.identity);
        rustix::fs::renameat_with(&old.folder, &old.name, &new.folder, &new.name, RenameFlags::empty())?;
        if let (Some(held), Some(replaced)) = (&mut held, replaced) {
            held.give(weight(&replaced), 1);
        }
        Ok(())
    }

    /// What a symbolic link says, where that is a relative path.
    pub fn read_link(&self, path: &str) -> Result<String, FilesError> {
        let tree = &self.tree;
        tree.need(tree.rights.read || tree.rights.list, "read", path, "r")?;
        let at = self.place(path)?;
        let target = rustix::fs::readlinkat(&at.folder, &at.name, Vec::new())?;
        let target = target.into_string().map_err(|_| Errno::ILSEQ)?;
        // It would tell where things are outside.
        if target.starts_with('/') { Err(tree.never(path, "is a link to an absolute path, which is not told")) } else { Ok(target) }
    }

    /// Links of both kinds: refused. Who follows them are other programs of the machine, to where they would not have gone.
    pub fn link(&self, path: &str) -> FilesError {
        self.tree.never(path, "cannot become a link: packs make none")
    }

    /// Sets the times of a file or folder.
    pub fn set_times(&self, follow: bool, path: &str, times: Times) -> Result<(), FilesError> {
        self.tree.need(self.tree.rights.write, "change", path, "w")?;
        let handle = self.look(path, follow)?;
        touch(&self.tree, &handle, path, &times.stamps())
    }

    /// The same for this folder.
    pub fn set_own_times(&self, times: Times) -> Result<(), FilesError> {
        self.tree.need(self.tree.rights.write, "change", ".", "w")?;
        touch(&self.tree, &self.handle, ".", &times.stamps())
    }

    /// Puts what was made here on the disk.
    pub fn sync(&self) -> Result<(), FilesError> {
        let handle = path::reopen(&self.handle, OFlags::RDONLY | OFlags::DIRECTORY)?;
        Ok(rustix::fs::fsync(handle)?)
    }

    /// Begins to list it.
    pub fn list(&self) -> Result<Listing, FilesError> {
        self.tree.need(self.tree.rights.list, "list what is", "", "l")?;
        let place = self.tree.place()?;
        let handle = path::reopen(&self.handle, OFlags::RDONLY | OFlags::DIRECTORY)?;
        Ok(Listing { names: rustix::fs::Dir::new(handle)?, _place: place })
    }

    /// The granted folder it is in, for the log.
    #[must_use]
    pub fn granted(&self) -> &std::path::Path {
        self.tree.path()
    }
}

fn access(read: bool, write: bool) -> OFlags {
    match (read, write) {
        (true, true) => OFlags::RDWR,
        (false, true) => OFlags::WRONLY,
        (_, false) => OFlags::RDONLY,
    }
}

fn touch(tree: &Tree, handle: &OwnedFd, path: &str, times: &Timestamps) -> Result<(), FilesError> {
    match Stat::of(handle)?.kind {
        Kind::File | Kind::Folder => {}
        _ => return Err(tree.never(path, "is neither a file nor a folder, and nothing else is changed")),
    }
    Ok(rustix::fs::utimensat(rustix::fs::CWD, path::entrance(handle), times, AtFlags::empty())?)
}

/// What goes when a name goes: a file's bytes, unless it has other names.
fn weight(stat: &Stat) -> u64 {
    if stat.kind == Kind::File && stat.links == 1 { stat.size } else { 0 }
}

/// A folder being listed.
#[derive(Debug)]
pub struct Listing {
    names: rustix::fs::Dir,
    _place: Place,
}

/// Something in a folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    /// Its name.
    pub name: String,
    /// What it is.
    pub kind: Kind,
}

impl Listing {
    /// The next names, none at the end. Names that are not UTF-8 cannot be said to a guest and are left out.
    pub fn more(&mut self) -> Result<VecDeque<Listed>, FilesError> {
        let mut listed = VecDeque::new();
        while listed.len() < NAMES
            && let Some(entry) = self.names.read()
        {
            let entry = entry?;
            let Ok(name) = entry.file_name().to_str() else { continue };
            if !matches!(name, "." | "..") {
                listed.push_back(Listed { name: name.to_owned(), kind: entry.file_type().into() });
            }
        }
        Ok(listed)
    }
}
