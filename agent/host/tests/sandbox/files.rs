//! `files`: what a WASI guest finds of the machine is what its owner granted, and no path, link or name leads further.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::PathBuf;
use std::sync::Arc;

use outhaul_host::power::files::{Folder, Grant, Rights};
use outhaul_host::{Grants, Power};
use outhaul_protocol::error::Code;
use outhaul_protocol::value::Value;
use serde_json::{Value as Json, json};

use crate::support::{Caller, Ended, pack};

/// A machine: a folder that is granted as `/data`, and one beside it.
struct Machine {
    _dir: tempfile::TempDir,
    root: PathBuf,
    folders: Vec<Folder>,
}

impl Machine {
    fn new(rights: &str) -> Self {
        let dir = tempfile::tempdir().expect("folder");
        let root = fs::canonicalize(dir.path()).expect("there");
        for name in ["in/deep", "out"] {
            fs::create_dir_all(root.join(name)).expect("mkdir");
        }
        fs::write(root.join("in/a"), "inside").expect("write");
        fs::write(root.join("out/secret"), "secret").expect("write");
        symlink("a", root.join("in/inner")).expect("link");
        symlink("../out/secret", root.join("in/link")).expect("link");
        symlink(root.join("out/secret"), root.join("in/absolute")).expect("link");
        symlink("../out", root.join("in/folder")).expect("link");
        symlink("/proc/self/root/etc", root.join("in/magic")).expect("link");
        let mut machine = Machine { _dir: dir, root, folders: Vec::new() };
        machine.grant("in", "/data", rights);
        machine
    }

    fn grant(&mut self, folder: &str, at: &str, rights: &str) {
        let rights = Rights::parse(rights).expect("rights");
        self.folders.push(Folder { path: self.root.join(folder), at: Some(at.into()), rights, max_mib: None });
    }

    fn caller(&self, pack: &Arc<outhaul_host::Pack>, command: &str, params: Json) -> Caller {
        let files = Some(Grant { folders: self.folders.clone(), keep_out: Vec::new() });
        let grants = Grants { files, ..Grants::default() };
        Caller::new(pack, &format!("folders.{command}"), params, 4).with(|request| request.grants = Arc::new(grants))
    }

    async fn call(&self, command: &str, params: Json) -> Ended {
        self.caller(&pack("files").await, command, params).run().await
    }

    async fn refused(&self, command: &str, params: Json) -> String {
        let ended = self.call(command, params.clone()).await;
        assert_eq!(ended.code(), Code::CommandFailed, "{command} {params}: {:?}", ended.result);
        ended.failure().hint.clone().unwrap_or_default()
    }

    async fn done(&self, command: &str, params: Json) -> Value {
        let ended = self.call(command, params.clone()).await;
        assert!(ended.result.is_ok(), "{command} {params}: {:?}", ended.result);
        ended.value().clone()
    }

    fn text(&self, name: &str) -> String {
        fs::read_to_string(self.root.join(name)).expect(name)
    }
}

#[tokio::test]
async fn a_granted_folder_is_read_and_listed_under_the_name_it_was_given() {
    let machine = Machine::new("rl");
    assert_eq!(pack("files").await.powers(), [Power::Files]);
    for path in ["/data/a", "/data/inner", "/data/deep/../a"] {
        assert_eq!(machine.done("read", json!({"path": path})).await, "inside".into(), "{path}");
    }
    let names = ["a", "absolute", "deep", "folder", "inner", "link", "magic"].map(Value::from).to_vec();
    assert_eq!(machine.done("names", json!({"path": "/data"})).await, Value::Array(names));
    assert_eq!(machine.done("size", json!({"path": "/data/a"})).await, Value::Int(6));
    assert_eq!(machine.done("target", json!({"path": "/data/inner"})).await, "a".into());
    // Under its own path there is nothing, for the guest was told another.
    machine.refused("read", json!({"path": machine.root.join("in/a")})).await;
}

#[tokio::test]
async fn without_a_grant_there_is_no_folder_at_all() {
    let pack = pack("files").await;
    let ended = Caller::new(&pack, "folders.read", json!({"path": "/etc/passwd"}), 4).run().await;
    assert_eq!(ended.code(), Code::CommandFailed);
    // An unsigned call has none either, granted or not.
    let machine = Machine::new("rlw");
    let unsigned = machine.caller(&pack, "read", json!({"path": "/data/a"})).with(|request| request.shared_only = true).run().await;
    assert_eq!(unsigned.code(), Code::CommandFailed);
}

#[tokio::test]
async fn a_failed_call_says_what_it_was_refused() {
    let machine = Machine::new("rl");
    let folder = machine.root.join("in").display().to_string();
    let hint = machine.refused("write", json!({"path": "/data/a", "text": "x", "how": "overwrite"})).await;
    assert_eq!(
        hint,
        format!(
            "this machine's policy does not let pack `files` change `a` in `{folder}`; on that machine: agent allow files files {folder}:rlw"
        )
    );
    // Who copes with the refusal has its say.
    assert_eq!(machine.done("shrug", json!({"path": "/data/new"})).await, "never mind".into());
}

#[tokio::test]
async fn no_path_leads_out() {
    let machine = Machine::new("rlw");
    let outside = machine.root.join("out/secret").display().to_string();
    let paths = [
        "/data/link",
        "/data/absolute",
        "/data/folder/secret",
        "/data/../out/secret",
        "/data/deep/../../out/secret",
        "/data/magic/passwd",
        "/etc/passwd",
        "/proc/self/environ",
        "/dev/null",
        &outside,
    ];
    for path in paths {
        machine.refused("read", json!({"path": path})).await;
        machine.refused("size", json!({"path": path})).await;
        for how in ["create_new", "create", "overwrite", "truncate", "append"] {
            machine.refused("write", json!({"path": path, "text": "x", "how": how})).await;
        }
    }
    for path in ["/data/folder", "/data/magic", "/data/..", "/"] {
        machine.refused("names", json!({"path": path})).await;
    }
    assert_eq!(machine.text("out/secret"), "secret");
}

#[tokio::test]
async fn no_link_is_made_and_nothing_is_moved_out() {
    let mut machine = Machine::new("rlw");
    machine.grant("out", "/other", "r");
    let hint = machine.refused("hard_link", json!({"old": "/data/a", "new": "/data/b"})).await;
    assert!(hint.contains("packs make none"), "{hint}");
    for target in ["a", "/etc/passwd", "../out/secret"] {
        machine.refused("symlink", json!({"target": target, "new": "/data/b"})).await;
    }
    for (old, new) in
        [("/data/a", "/data/../b"), ("/data/a", "/data/folder/b"), ("/data/a", "/other/b"), ("/other/secret", "/data/b"), ("/data/a", "/b")]
    {
        machine.refused("rename", json!({"old": old, "new": new})).await;
        machine.refused("hard_link", json!({"old": old, "new": new})).await;
    }
    assert!(!machine.root.join("in/b").exists() && !machine.root.join("out/b").exists() && !machine.root.join("b").exists());
    machine.done("rename", json!({"old": "/data/a", "new": "/data/deep/b"})).await;
    assert_eq!(machine.text("in/deep/b"), "inside");
}

#[tokio::test]
async fn pipes_and_devices_are_not_opened() {
    let machine = Machine::new("rlw");
    let node =
        |name: &str, kind, device| rustix::fs::mknodat(rustix::fs::CWD, machine.root.join(name), kind, rustix::fs::Mode::RWXU, device);
    node("in/pipe", rustix::fs::FileType::Fifo, 0).expect("fifo");
    let devices = node("in/null", rustix::fs::FileType::CharacterDevice, rustix::fs::makedev(1, 3)).is_ok();
    for path in ["/data/pipe", "/data/null"].into_iter().take(1 + usize::from(devices)) {
        assert!(machine.refused("read", json!({"path": path})).await.contains("neither a file nor a folder"));
        for how in ["create", "overwrite", "truncate", "append"] {
            machine.refused("write", json!({"path": path, "text": "x", "how": how})).await;
        }
    }
}

#[tokio::test]
async fn a_slash_at_the_end_opens_nothing_more() {
    let machine = Machine::new("rlw");
    machine.refused("read", json!({"path": "/data/a/"})).await;
    machine.refused("read", json!({"path": "/data/link/"})).await;
    machine.refused("names", json!({"path": "/data/folder/"})).await;
    machine.refused("write", json!({"path": "/data/new/", "text": "x", "how": "create"})).await;
    machine.refused("rename", json!({"old": "/data/a/", "new": "/data/b"})).await;
    machine.refused("rename", json!({"old": "/data/a", "new": "/data/b/"})).await;
    machine.done("make_folder", json!({"path": "/data/more/"})).await;
    assert_eq!(machine.text("in/a"), "inside");
}

#[tokio::test]
async fn reading_and_listing_are_apart_and_neither_writes() {
    let reader = Machine::new("r");
    assert_eq!(reader.done("read", json!({"path": "/data/a"})).await, "inside".into());
    reader.refused("names", json!({"path": "/data"})).await;
    let lister = Machine::new("l");
    lister.done("names", json!({"path": "/data"})).await;
    lister.refused("read", json!({"path": "/data/a"})).await;
    for machine in [reader, lister] {
        for how in ["create_new", "create", "overwrite", "truncate", "append"] {
            machine.refused("write", json!({"path": "/data/a", "text": "x", "how": how})).await;
        }
        machine.refused("write", json!({"path": "/data/new", "text": "x", "how": "create_new"})).await;
        machine.refused("make_folder", json!({"path": "/data/new"})).await;
        machine.refused("remove", json!({"path": "/data/a"})).await;
        machine.refused("remove", json!({"path": "/data/deep"})).await;
        machine.refused("rename", json!({"old": "/data/a", "new": "/data/b"})).await;
        assert_eq!(machine.text("in/a"), "inside");
    }
}

#[tokio::test]
async fn writing_changes_what_is_there_and_does_not_read_it() {
    let machine = Machine::new("w");
    assert_eq!(machine.done("write", json!({"path": "/data/a", "text": "OUT", "how": "overwrite"})).await, Value::Int(6));
    assert_eq!(machine.text("in/a"), "OUTide");
    assert_eq!(machine.done("write", json!({"path": "/data/a", "text": "!", "how": "append"})).await, Value::Int(7));
    assert_eq!(machine.done("write", json!({"path": "/data/a", "text": "new", "how": "truncate"})).await, Value::Int(3));
    assert_eq!(machine.text("in/a"), "new");
    machine.done("write", json!({"path": "/data/deep/b", "text": "b", "how": "create_new"})).await;
    machine.done("rename", json!({"old": "/data/deep/b", "new": "/data/a"})).await;
    machine.done("remove", json!({"path": "/data/deep"})).await;
    machine.done("remove", json!({"path": "/data/link"})).await;
    machine.refused("read", json!({"path": "/data/a"})).await;
    machine.refused("names", json!({"path": "/data"})).await;
    assert_eq!((machine.text("in/a").as_str(), machine.text("out/secret").as_str()), ("b", "secret"));
}

#[tokio::test]
async fn creating_adds_and_never_touches_what_is_there() {
    let machine = Machine::new("c");
    let text = "x".repeat(300_000);
    assert_eq!(machine.done("write", json!({"path": "/data/new", "text": text, "how": "create_new"})).await, Value::Int(300_000));
    machine.done("make_folder", json!({"path": "/data/more"})).await;
    machine.done("write", json!({"path": "/data/more/new", "text": "x", "how": "create"})).await;
    for path in ["/data/a", "/data/new", "/data/inner"] {
        for how in ["create_new", "create", "overwrite", "truncate", "append"] {
            machine.refused("write", json!({"path": path, "text": "y", "how": how})).await;
        }
        machine.refused("read", json!({"path": path})).await;
        machine.refused("remove", json!({"path": path})).await;
        machine.refused("size", json!({"path": path})).await;
        machine.refused("rename", json!({"old": "/data/more/new", "new": path})).await;
    }
    machine.refused("rename", json!({"old": "/data/a", "new": "/data/b"})).await;
    machine.refused("remove", json!({"path": "/data/more"})).await;
    assert_eq!((machine.text("in/a"), machine.text("in/new")), ("inside".into(), text));
}

#[tokio::test]
async fn who_writes_without_end_meets_the_quota() {
    let mut machine = Machine::new("w");
    machine.folders[0].max_mib = Some(2);
    let Value::Array(ended) = machine.done("fill", json!({"path": "/data/big"})).await else { panic!("a tuple") };
    let Value::Int(bytes) = ended[0] else { panic!("a number") };
    assert!((2_000_000..2 << 20).contains(&bytes), "{ended:?}");
    // A piece that was refused in its middle leaves its beginning.
    let size = fs::metadata(machine.root.join("in/big")).expect("there").len();
    assert!((u64::try_from(bytes).expect("positive")..2 << 20).contains(&size), "{size}");
    let hint = machine.refused("write", json!({"path": "/data/more", "text": "x".repeat(100_000), "how": "create"})).await;
    assert!(hint.contains("may hold 2 MiB"), "{hint}");
    machine.done("remove", json!({"path": "/data/big"})).await;
    machine.done("write", json!({"path": "/data/more", "text": "x".repeat(100_000), "how": "create"})).await;
}

#[tokio::test]
async fn a_call_holds_so_many_files_open_and_no_more() {
    let machine = Machine::new("r");
    let Value::Int(open) = machine.done("hoard", json!({"path": "/data/a", "times": 200})).await else { panic!("a number") };
    assert!((32..64).contains(&open), "{open}");
}

#[tokio::test]
async fn a_long_file_comes_whole_through_a_stream() {
    let machine = Machine::new("r");
    let text: String = (0..40_000).map(|n| format!("{n} ")).collect();
    fs::write(machine.root.join("in/long"), &text).expect("write");
    assert_eq!(machine.done("read", json!({"path": "/data/long"})).await, text.as_str().into());
}
