//! What a guest may try with paths and rights, and what the machine's owner must be able to rely on.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};

use rustix::fs::{FileType, Mode};

use super::*;

/// A machine: a granted folder `in`, one beside it, and ways between them that somebody else laid.
struct Machine {
    _dir: tempfile::TempDir,
    root: PathBuf,
}

impl Machine {
    fn new() -> Self {
        let dir = tempfile::tempdir().expect("folder");
        let root = fs::canonicalize(dir.path()).expect("there");
        for name in ["in/deep", "out"] {
            fs::create_dir_all(root.join(name)).expect("mkdir");
        }
        for name in ["in/a", "in/deep/b", "out/secret"] {
            fs::write(root.join(name), name).expect("write");
        }
        symlink("a", root.join("in/inner")).expect("link");
        symlink("../out/secret", root.join("in/link")).expect("link");
        symlink(root.join("out/secret"), root.join("in/absolute")).expect("link");
        symlink("../out", root.join("in/folder")).expect("link");
        symlink("nowhere", root.join("in/dangling")).expect("link");
        symlink("/proc/self/root", root.join("in/magic")).expect("link");
        rustix::fs::mknodat(rustix::fs::CWD, root.join("in/pipe"), FileType::Fifo, Mode::RWXU, 0).expect("fifo");
        Machine { _dir: dir, root }
    }

    fn at(&self, name: &str) -> PathBuf {
        self.root.join(name)
    }

    fn folder(&self, rights: &str) -> Folder {
        Folder { path: self.at("in"), at: None, rights: Rights::parse(rights).expect("rights"), max_mib: None }
    }

    fn open(&self, rights: &str) -> Dir {
        open(self.folder(rights))
    }

    fn text(&self, name: &str) -> String {
        fs::read_to_string(self.at(name)).expect(name)
    }
}

fn open(folder: Folder) -> Dir {
    let (mut entries, errors) = Tree::open_all("p", &Grant { folders: vec![folder], keep_out: Vec::new() });
    assert_eq!(errors, []);
    entries.remove(0).dir
}

const READ: Open = Open { follow: true, read: true, create: false, directory: false, exclusive: false, truncate: false, write: false };
const WRITE: Open = Open { write: true, read: false, ..READ };
const MAKE: Open = Open { create: true, exclusive: true, ..WRITE };

fn file(opened: Result<Node, FilesError>) -> File {
    match opened {
        Ok(Node::File(file)) => file,
        other => panic!("wanted a file, got {other:?}"),
    }
}

fn content(dir: &Dir, path: &str) -> Result<String, FilesError> {
    match dir.open(path, READ)? {
        Node::File(file) => Ok(String::from_utf8(file.read(0, 100)?).expect("text")),
        Node::Dir(_) => Ok("a folder".into()),
    }
}

fn denied(result: Result<impl std::fmt::Debug, FilesError>) -> String {
    match result {
        Err(FilesError::Denied(sentence)) => sentence,
        other => panic!("wanted a refusal, got {other:?}"),
    }
}

#[test]
fn reading_follows_links_inside_the_folder() {
    let machine = Machine::new();
    let dir = machine.open("r");
    for (path, wanted) in
        [("a", "in/a"), ("deep/b", "in/deep/b"), ("inner", "in/a"), ("deep/../a", "in/a"), ("./a", "in/a"), ("deep", "a folder")]
    {
        assert_eq!(content(&dir, path).as_deref(), Ok(wanted), "{path}");
    }
    let Ok(Node::Dir(deep)) = dir.open("deep", READ) else { panic!("a folder") };
    assert_eq!(content(&deep, "b").as_deref(), Ok("in/deep/b"));
    denied(content(&deep, "../a"));
    assert_eq!(content(&dir, "nothing"), Err(Errno::NOENT.into()));
    assert_eq!(dir.read_link("inner").as_deref(), Ok("a"));
    denied(dir.read_link("absolute"));
}

#[test]
fn no_path_leads_out_of_the_folder() {
    let machine = Machine::new();
    let dir = machine.open("rlw");
    let outside = machine.at("out/secret").display().to_string();
    for path in [
        "link",
        "absolute",
        "folder/secret",
        "folder",
        "../out/secret",
        "..",
        "deep/../../out/secret",
        "/etc/passwd",
        &outside,
        "/",
        "magic/etc/passwd",
        "magic",
    ] {
        for how in [READ, WRITE, Open { create: true, ..WRITE }, Open { truncate: true, ..WRITE }] {
            assert!(dir.open(path, how).is_err(), "{path} {how:?}");
        }
        assert!(dir.stat_at(true, path).is_err(), "{path}");
        assert!(dir.remove_file(path).is_err() || path == "link" || path == "absolute" || path == "magic" || path == "folder", "{path}");
    }
    assert_eq!(machine.text("out/secret"), "out/secret");
    for path in ["../new", "/tmp/new", "deep/../../new"] {
        denied(dir.open(path, MAKE));
        denied(dir.make_dir(path));
        denied(dir.rename("a", &dir, path));
        denied(dir.rename(path, &dir, "new"));
        denied(dir.set_times(true, path, Times { access: Stamp::Now, change: Stamp::Now }));
    }
    assert!(content(&dir, "\0").is_err() && content(&dir, "").is_err());
}

#[test]
fn what_is_no_file_is_never_opened() {
    let machine = Machine::new();
    let dir = machine.open("rlw");
    for how in [READ, WRITE, Open { truncate: true, ..WRITE }, Open { create: true, ..WRITE }] {
        assert!(denied(dir.open("pipe", how)).contains("neither a file nor a folder"), "a pipe would wait for ever");
    }
    assert_eq!(dir.stat_at(true, "pipe").expect("it may be looked at").kind, Kind::Fifo);
    let _socket = std::os::unix::net::UnixListener::bind(machine.at("in/socket")).expect("socket");
    denied(dir.open("socket", READ));
    if rustix::fs::mknodat(rustix::fs::CWD, machine.at("in/null"), FileType::CharacterDevice, Mode::RWXU, rustix::fs::makedev(1, 3)).is_ok()
    {
        denied(dir.open("null", READ));
        denied(dir.open("null", WRITE));
        denied(dir.set_times(true, "null", Times { access: Stamp::Now, change: Stamp::Now }));
    }
}

#[test]
fn each_right_stands_for_itself() {
    let machine = Machine::new();
    let list = |dir: &Dir| dir.list().and_then(|mut listing| listing.more());
    let reader = machine.open("r");
    denied(list(&reader));
    denied(reader.open("a", WRITE));
    denied(reader.open("a", Open { truncate: true, ..READ }));
    let lister = machine.open("l");
    let names: Vec<String> = list(&lister).expect("granted").into_iter().map(|listed| listed.name).collect();
    assert!(names.contains(&"a".into()) && names.contains(&"deep".into()) && !names.contains(&".".into()), "{names:?}");
    denied(lister.open("a", READ));
    assert_eq!(lister.stat_at(true, "a").expect("who sees a name may see what it is").size, 4);
    let writer = machine.open("w");
    denied(writer.open("a", READ));
    denied(writer.open("a", Open { read: true, ..WRITE }));
    denied(list(&writer));
    for dir in [reader, lister] {
        for refused in [
            dir.open("new", MAKE).map(drop),
            dir.open("new", Open { exclusive: false, ..MAKE }).map(drop),
            dir.make_dir("new"),
            dir.remove_file("a"),
            dir.remove_dir("deep"),
            dir.rename("a", &dir, "b"),
            dir.set_times(true, "a", Times { access: Stamp::Now, change: Stamp::Now }),
            dir.set_own_times(Times { access: Stamp::Now, change: Stamp::Now }),
        ] {
            denied(refused);
        }
    }
    assert_eq!((machine.text("in/a"), machine.at("in/new").exists()), ("in/a".into(), false));
}

#[test]
fn writing_changes_adds_renames_and_removes() {
    let machine = Machine::new();
    let dir = machine.open("w");
    let made = file(dir.open("new", MAKE));
    assert_eq!(made.write(Some(0), b"hello"), Ok(5));
    assert_eq!(made.write(None, b" there"), Ok(6));
    made.set_size(7).expect("cut");
    assert!(made.sync().is_ok() && made.read(0, 1) == Err(Errno::BADF.into()), "it was not opened for reading");
    assert_eq!(machine.text("in/new"), "hello t");
    dir.rename("new", &dir, "a").expect("over what was there");
    assert_eq!(machine.text("in/a"), "hello t");
    file(dir.open("a", Open { truncate: true, ..WRITE }));
    assert_eq!(machine.text("in/a"), "");
    dir.make_dir("more/").expect("a slash is a folder's");
    dir.remove_dir("more").expect("empty");
    dir.remove_file("a").expect("removed");
    dir.remove_file("link").expect("a link is removed, not what it leads to");
    assert!(!machine.at("in/a").exists() && machine.at("out/secret").exists());
    dir.set_times(true, "deep/b", Times { access: Stamp::Keep, change: Stamp::At(7, 8) }).expect("touched");
    let [_, change, _] = dir.stat_at(true, "deep/b").expect("there").times;
    assert_eq!(change, (7, 8));
}

#[test]
fn creating_never_touches_what_is_there() {
    let machine = Machine::new();
    let dir = machine.open("c");
    let made = file(dir.open("new", Open { exclusive: false, ..MAKE }));
    assert_eq!(made.write(Some(0), b"mine"), Ok(4));
    for how in [
        WRITE,
        READ,
        Open { truncate: true, ..WRITE },
        Open { create: true, ..WRITE },
        Open { create: true, truncate: true, ..WRITE },
        Open { read: false, ..READ },
    ] {
        for path in ["a", "new", "inner"] {
            denied(dir.open(path, how));
        }
    }
    assert_eq!(dir.open("a", MAKE).map(drop), Err(Errno::EXIST.into()));
    assert_eq!(dir.open("dangling", MAKE).map(drop), Err(Errno::EXIST.into()));
    assert!(dir.open("dangling", Open { exclusive: false, ..MAKE }).is_err() && !machine.at("in/nowhere").exists());
    assert_eq!(dir.make_dir("deep"), Err(Errno::EXIST.into()));
    dir.make_dir("deep/more").expect("a new one");
    file(dir.open("deep/more/new", MAKE));
    denied(dir.rename("new", &dir, "a"));
    denied(dir.rename("new", &dir, "other"));
    denied(dir.remove_file("a"));
    denied(dir.remove_file("new"));
    denied(dir.remove_dir("deep/more"));
    denied(dir.stat_at(true, "a"));
    denied(dir.list());
    denied(made.set_times(Times { access: Stamp::Now, change: Stamp::Now }));
    denied(dir.open("secret", Open { read: true, ..MAKE }));
    assert_eq!((machine.text("in/a"), machine.text("in/new")), ("in/a".into(), "mine".into()));
}

#[test]
fn nobody_makes_links() {
    let machine = Machine::new();
    let dir = machine.open("rlwc");
    assert!(denied(Err::<(), _>(dir.link("new"))).contains("cannot become a link"));
}

#[test]
fn nothing_moves_from_one_grant_to_another() {
    let machine = Machine::new();
    let writer = machine.open("w");
    let other = open(Folder { path: machine.at("out"), rights: Rights::parse("rw").expect("rights"), at: None, max_mib: None });
    // Else what may not be read here could be read there.
    assert_eq!(writer.rename("a", &other, "a"), Err(Errno::XDEV.into()));
    assert_eq!(writer.rename("a", &machine.open("rw"), "b"), Err(Errno::XDEV.into()), "also of the same folder");
    denied(writer.rename("a", &machine.open("r"), "b"));
    denied(machine.open("r").rename("a", &writer, "b"));
}

#[test]
fn a_slash_at_the_end_makes_no_file_of_a_folder_and_no_folder_of_a_file() {
    let machine = Machine::new();
    let dir = machine.open("rw");
    assert_eq!(content(&dir, "a/"), Err(Errno::NOTDIR.into()));
    assert!(dir.open("inner/", READ).is_err() && dir.open("new/", MAKE).is_err());
    assert_eq!(dir.remove_file("a/"), Err(Errno::NOTDIR.into()));
    assert_eq!(dir.rename("a/", &dir, "b"), Err(Errno::NOTDIR.into()));
    assert_eq!(dir.rename("a", &dir, "b/"), Err(Errno::NOTDIR.into()));
    assert!(dir.remove_file("folder/").is_err() && dir.remove_dir("folder/").is_err(), "a link to a folder is none");
    dir.rename("deep/", &dir, "deeper/").expect("a folder may have one");
    for path in [".", "deeper/.", "deeper/..", "/"] {
        assert!(dir.rename(path, &dir, "x").is_err() && dir.remove_dir(path).is_err() && dir.make_dir(path).is_err(), "{path}");
    }
    assert!(machine.at("in/a").exists());
}

#[test]
fn a_link_as_the_last_part_is_not_followed_unasked() {
    let machine = Machine::new();
    let dir = machine.open("rw");
    assert_eq!(dir.open("inner", Open { follow: false, ..READ }).map(drop), Err(Errno::LOOP.into()));
    assert_eq!(dir.open("inner", Open { follow: false, truncate: true, ..WRITE }).map(drop), Err(Errno::LOOP.into()));
    assert_eq!(dir.stat_at(false, "link").expect("itself").kind, Kind::Link);
}

#[test]
fn a_program_that_runs_as_another_user_is_not_changed() {
    let machine = Machine::new();
    fs::set_permissions(machine.at("in/a"), fs::Permissions::from_mode(0o4755)).expect("mode");
    let dir = machine.open("rw");
    assert!(denied(dir.open("a", WRITE)).contains("runs as another user"));
    assert!(content(&dir, "a").is_ok());
}

#[test]
fn the_agents_own_folder_and_proc_are_given_to_nobody() {
    let machine = Machine::new();
    let refused = |path: &Path, keep_out: &Path| {
        let folder = Folder { path: path.to_owned(), ..machine.folder("r") };
        let (entries, mut errors) = Tree::open_all("p", &Grant { folders: vec![folder], keep_out: vec![keep_out.to_owned()] });
        assert!(entries.is_empty(), "{}", path.display());
        denied(Err::<(), _>(errors.remove(0)))
    };
    let own = machine.at("in/deep");
    symlink(&own, machine.at("alias")).expect("link");
    for path in [machine.at("in"), machine.at("in/deep"), machine.at("alias"), machine.root.clone(), "/".into()] {
        assert!(refused(&path, &own).contains("the agent's own"), "{}", path.display());
    }
    assert!(refused(Path::new("/proc/self"), &own).contains("/proc"));
    assert!(refused(&machine.at("nothing"), &own).contains("cannot be opened"));
    assert!(refused(&machine.at("out/secret"), &own).contains("cannot be opened"), "a file is no folder");
}

#[test]
fn another_mount_is_another_folder() {
    // `/` has `/proc` in it on every machine this runs on.
    let dir = open(Folder { path: "/".into(), at: None, rights: Rights::parse("rl").expect("rights"), max_mib: None });
    for path in ["proc/self/environ", "proc", "proc/1/root/etc/passwd"] {
        assert!(dir.open(path, READ).is_err(), "{path}");
    }
    assert!(dir.stat_at(true, ".").is_ok());
}

#[test]
fn a_refusal_says_what_to_type() {
    let machine = Machine::new();
    let folder = machine.at("in").display().to_string();
    let said = denied(machine.open("r").open("a", WRITE));
    assert_eq!(
        said,
        format!("this machine's policy does not let pack `p` change `a` in `{folder}`; on that machine: agent allow p files {folder}:rw")
    );
    assert!(
        denied(machine.open("r").list())
            .ends_with(&format!("list what is in `{folder}`; on that machine: agent allow p files {folder}:rl"))
    );
}

#[test]
fn a_guest_that_writes_without_end_meets_its_quota() {
    let machine = Machine::new();
    let dir = open(Folder { max_mib: Some(1), ..machine.folder("w") });
    let big = file(dir.open("big", MAKE));
    let chunk = vec![7; 100_000];
    let mut total = 0;
    let refused = loop {
        match big.write(None, &chunk) {
            Ok(written) => total += written,
            Err(error) => break error,
        }
    };
    assert!(matches!(&refused, FilesError::Quota(text) if text.contains("may hold 1 MiB")), "{refused:?}");
    assert!((800_000..1 << 20).contains(&total), "{total}");
    assert!(matches!(big.set_size(10 << 20), Err(FilesError::Quota(_))));
    assert!(matches!(big.write(Some(1 << 40), b"x"), Err(FilesError::Quota(_))), "a hole counts like bytes");
    // The same folder, granted to another pack.
    let other = open(Folder { max_mib: Some(1), ..machine.folder("w") });
    assert!(matches!(other.open("other", MAKE), Err(FilesError::Quota(_))));
    big.set_size(0).expect("cut");
    assert_eq!(file(other.open("other", MAKE)).write(Some(0), &chunk), Ok(chunk.len()), "what is cut is room again");
    dir.rename("other", &dir, "big").expect("over it");
    dir.remove_file("big").expect("removed");
    let again = file(dir.open("again", MAKE));
    assert_eq!(again.write(Some(0), &vec![7; 900_000]), Ok(900_000), "what is removed is room again");
}

#[test]
fn files_without_a_byte_have_an_end_too() {
    let machine = Machine::new();
    let dir = open(Folder { max_mib: Some(1), ..machine.folder("c") });
    let refused =
        (0..1000).find_map(|number| dir.make_dir(&format!("d{number}")).and_then(|()| dir.open(&format!("f{number}"), MAKE)).err());
    assert!(matches!(refused, Some(FilesError::Quota(_))), "{refused:?}");
}

#[test]
fn what_was_there_before_counts() {
    let machine = Machine::new();
    fs::write(machine.at("in/deep/old"), vec![0; 1 << 20]).expect("write");
    let dir = open(Folder { max_mib: Some(1), ..machine.folder("c") });
    assert!(matches!(dir.open("new", MAKE), Err(FilesError::Quota(_))));
}

#[test]
fn a_call_opens_so_many_files_and_no_more() {
    let machine = Machine::new();
    let dir = machine.open("r");
    let mut open = Vec::new();
    let refused = loop {
        match dir.open("a", READ) {
            Ok(file) => open.push(file),
            Err(error) => break error,
        }
        assert!(open.len() < 1000);
    };
    assert_eq!(refused, Errno::MFILE.into());
    open.pop();
    assert!(dir.open("a", READ).is_ok());
    assert!(machine.open("r").open("a", READ).is_ok(), "another call has its own");
}

#[test]
fn rights_are_letters_and_words() {
    let rights = Rights::parse("lr").expect("rights");
    assert_eq!((rights.letters().as_str(), rights.to_string().as_str()), ("rl", "read, list"));
    assert!(Rights::parse("").is_none() && Rights::parse("x").is_none());
    let item = |text: &str| split_item(text).expect(text);
    assert_eq!(item("/srv/data:rl"), ("/srv/data".into(), Some(rights)));
    assert_eq!(item("/srv/a:b/"), ("/srv/a:b".into(), None), "what is no rights is part of the name");
    for wrong in ["srv", "/srv/../etc", "", ":r", "~/x:r"] {
        assert!(split_item(wrong).is_err(), "{wrong}");
    }
    let write = Rights::parse("w").expect("rights");
    assert!(write.cover(Rights::parse("c").expect("rights")) && !write.cover(rights));
}
