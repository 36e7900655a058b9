//! Changes to `agent.toml` by command: what the owner wrote, comments and order included, stays as it is. The result is
//! read back by the rules of [`crate::config`] before it takes the old file's place, so no edit leaves a broken policy.

mod calls;
mod containers;
mod devices;
mod folders;
mod programs;
mod publishers;
mod web;

use std::path::{Path, PathBuf};

use outhaul_home::{PRIVATE, parse_toml, read_optional, write_atomic};
use outhaul_host::Power;
use outhaul_protocol::error::{Code, Failure};
use outhaul_protocol::keys::Digest;
use toml_edit::{Array, DocumentMut, Item, Table, TableLike, Value, value};

use crate::config::{AgentConfig, PackKey};

pub use containers::Room;
pub use web::Web;

/// A grant as the owner types it.
#[derive(Debug, Clone, Default)]
pub struct Items {
    /// Programs, cameras, displays, folders, hosts, secrets, images or commands.
    pub items: Vec<String>,
    /// Variables a caller may set.
    pub env: Vec<String>,
    /// Folders a caller may start in.
    pub cwd: Vec<String>,
    /// Seconds a program or container may run.
    pub max_secs: Option<u64>,
    /// What goes with hosts.
    pub web: Web,
    /// How many of each named program, or of the pack's containers, may run at once.
    pub concurrent: Option<u32>,
    /// MiB a run of a named program may send.
    pub output_mib: Option<u64>,
    /// What the pack calls a folder.
    pub at: Option<String>,
    /// MiB a folder may hold.
    pub max_mib: Option<u64>,
    /// KiB of values that may be kept.
    pub max_kib: Option<u64>,
    /// Whether a place is rounded.
    pub coarse: bool,
    /// What goes with images.
    pub room: Room,
}

impl Items {
    /// The flags that were typed, each with the powers it belongs to.
    fn flags(&self) -> impl Iterator<Item = (&'static str, &'static [Power])> {
        const PROGRAMS: &[Power] = &[Power::Process];
        const BOTH: &[Power] = &[Power::Process, Power::Containers];
        const CONTAINERS: &[Power] = &[Power::Containers];
        let (web, room) = (&self.web, &self.room);
        let all: [(&'static str, bool, &'static [Power]); 19] = [
            ("--env", !self.env.is_empty(), PROGRAMS),
            ("--cwd", !self.cwd.is_empty(), PROGRAMS),
            ("--max-secs", self.max_secs.is_some(), BOTH),
            ("--concurrent", self.concurrent.is_some(), BOTH),
            ("--output-mib", self.output_mib.is_some(), PROGRAMS),
            ("--at", self.at.is_some(), &[Power::Files]),
            ("--max-mib", self.max_mib.is_some(), &[Power::Files]),
            ("--max-kib", self.max_kib.is_some(), &[Power::Kv]),
            ("--coarse", self.coarse, &[Power::Location]),
            ("--method", !web.methods.is_empty(), &[Power::Http]),
            ("--private", !web.private.is_empty(), &[Power::Http]),
            ("--header", !web.headers.is_empty(), &[Power::Http]),
            ("--mount", !room.mounts.is_empty(), CONTAINERS),
            ("--network", !room.networks.is_empty(), CONTAINERS),
            ("--capability", !room.capabilities.is_empty(), CONTAINERS),
            ("--gpus", room.gpus.is_some(), CONTAINERS),
            ("--memory-mib", room.memory_mib.is_some(), CONTAINERS),
            ("--cpus", room.cpus.is_some(), CONTAINERS),
            ("--pull", room.pull, CONTAINERS),
        ];
        all.into_iter().filter(|(_, typed, _)| *typed).map(|(flag, _, powers)| (flag, powers))
    }
}

/// The file, open for changes.
#[derive(Debug)]
pub struct ConfigEdit {
    path: PathBuf,
    document: DocumentMut,
}

impl ConfigEdit {
    /// Opens a file; a missing one is an empty one, a broken one is refused.
    pub fn open(path: &Path) -> Result<Self, Failure> {
        let bytes = read_optional(path)?.unwrap_or_default();
        let text = String::from_utf8(bytes).map_err(|_| Failure::new(Code::BadConfig, format!("read `{}`: not UTF-8", path.display())))?;
        parse_toml::<AgentConfig>(&text, path)?;
        let document = text.parse().map_err(|error: toml_edit::TomlError| {
            Failure::new(Code::BadConfig, format!("read `{}`: {}", path.display(), error.message()))
        })?;
        Ok(ConfigEdit { path: path.to_owned(), document })
    }

    /// Checks the result and writes it. On return it is on the disk.
    pub fn save(&self) -> Result<(), Failure> {
        let text = self.text();
        parse_toml::<AgentConfig>(&text, &self.path)?;
        write_atomic(&self.path, text.as_bytes(), PRIVATE)
    }

    /// The file as it would be.
    #[must_use]
    pub fn text(&self) -> String {
        self.document.to_string()
    }

    /// Sets a top-level text.
    pub fn set(&mut self, key: &str, text: &str) {
        put(self.document.as_table_mut(), key, text.into());
    }

    /// Grants a power, or more of it. With a digest, the table is for that version from now on; the notes say what a
    /// person should know.
    pub fn allow(&mut self, key: &PackKey, digest: Option<Digest>, power: Power, items: &Items) -> Result<Vec<String>, Failure> {
        check(power, items, true)?;
        let mut notes = Vec::new();
        let table = self.pack(key)?;
        if let Some(digest) = digest {
            let text = digest.to_string();
            let before = table.get("digest").and_then(Item::as_str).map(str::to_owned);
            if before.is_some_and(|before| before != text) {
                notes.push(format!("what `{key}` was granted before belongs to this version now: {}", digest.short()));
            }
            put(table, "digest", text.into());
        }
        match power {
            Power::Process => programs::allow(table, key, items, &mut notes)?,
            Power::Camera | Power::Screen => devices::allow(table, power, &items.items)?,
            Power::Http => web::allow(table, items, &mut notes)?,
            Power::Secrets => add(table, "secrets", &items.items),
            Power::Call => calls::allow(table, &items.items, &mut notes),
            Power::Files => folders::allow(table, items, &mut notes)?,
            Power::Gpu | Power::System | Power::Notify => put(table, power.name(), true.into()),
            Power::Location => devices::allow_location(table, key, items.coarse, &mut notes),
            Power::Kv => allow_kv(table, items.max_kib),
            Power::Containers => containers::allow(table, items, &mut notes)?,
            Power::Output | Power::Log => notes.push(format!("`{}` is always granted; nothing to do", power.name())),
        }
        Ok(notes)
    }

    /// Takes a power away, or some of it. False when there was nothing to take.
    pub fn deny(&mut self, key: &PackKey, power: Power, items: &Items) -> Result<bool, Failure> {
        check(power, items, false)?;
        let taken = !matches!(power, Power::Gpu | Power::System | Power::Output | Power::Log);
        if taken && self.document.get("packs").and_then(|packs| packs.get(key.to_string())).is_none() {
            return Ok(false);
        }
        let before = self.text();
        let table = self.pack(key)?;
        let whole = items.items.is_empty() && items.flags().next().is_none();
        match power {
            Power::Process | Power::Http | Power::Containers if whole => take_whole(table, key, power),
            Power::Process => {
                if let Some(process) = table.get_mut("process").and_then(Item::as_table_like_mut) {
                    programs::deny(process, &items.items);
                }
            }
            Power::Camera | Power::Screen => devices::deny(table, key, power, &items.items)?,
            Power::Location | Power::Notify => devices::deny_whole(table, power),
            Power::Http => web::deny(table, items)?,
            Power::Secrets => take(table, "secrets", &items.items),
            Power::Call => take(table, "call", &items.items),
            Power::Files => folders::deny(table, &items.items)?,
            Power::Kv if table.contains_key("kv") => put(table, "kv", false.into()),
            Power::Kv => {}
            Power::Containers => containers::deny(table, items)?,
            // Many packs have these by default: to take them away is to say so.
            Power::Gpu | Power::System => put(table, power.name(), false.into()),
            Power::Output | Power::Log => return Err(usage(format!("`{}` cannot be denied: every call has it", power.name()))),
        }
        Ok(self.text() != before)
    }

    /// Whether the file has a table for a pack.
    #[must_use]
    pub fn knows(&self, key: &PackKey) -> bool {
        self.document.get("packs").and_then(|packs| packs.get(key.to_string())).is_some()
    }

    fn pack(&mut self, key: &PackKey) -> Result<&mut dyn TableLike, Failure> {
        let odd = || Failure::new(Code::BadConfig, format!("edit `{}`: `packs` is not a table", self.path.display()));
        let packs = self.document.entry("packs").or_insert_with(|| {
            let mut table = Table::new();
            table.set_implicit(true);
            Item::Table(table)
        });
        let packs = packs.as_table_like_mut().ok_or_else(odd)?;
        packs.entry(&key.to_string()).or_insert(Item::Table(Table::new())).as_table_like_mut().ok_or_else(odd)
    }
}

fn usage(message: String) -> Failure {
    Failure::new(Code::BadUsage, message)
}

/// What the words after a power mean, and whether they may stand there.
fn check(power: Power, items: &Items, allowing: bool) -> Result<(), Failure> {
    if let Some((flag, owners)) = items.flags().find(|(_, owners)| !owners.contains(&power)) {
        let owner = owners.iter().map(|owner| format!("`{owner}`")).collect::<Vec<_>>().join(" and ");
        return Err(usage(format!("`{flag}` belongs to {owner}, not to `{power}`")));
    }
    match power {
        Power::Process => programs::check(items, allowing),
        Power::Files => folders::check(items, allowing),
        Power::Camera | Power::Screen => Ok(()),
        Power::Http => web::check(items, allowing),
        Power::Secrets => web::check_secrets(&items.items, allowing),
        Power::Call => calls::check(&items.items, allowing),
        Power::Containers => containers::check(items, allowing),
        _ if items.items.is_empty() => Ok(()),
        _ => Err(usage(format!("`{power}` is granted as a whole; `{}` cannot be named", items.items.join(" ").escape_debug()))),
    }
}

/// Sets the quota; without a number, one that is there stays.
fn allow_kv(table: &mut dyn TableLike, max_kib: Option<u64>) {
    let granted = table.get("kv").is_some_and(|item| item.is_table_like() || item.as_bool() == Some(true));
    match max_kib {
        Some(kib) => {
            let mut quota = toml_edit::InlineTable::new();
            quota.insert("max_kib", i64::try_from(kib).unwrap_or(i64::MAX).into());
            put(table, "kv", quota.into());
        }
        None if granted => {}
        None => put(table, "kv", true.into()),
    }
}

/// Sets a key; a value that is there keeps the comments around it.
fn put(table: &mut dyn TableLike, key: &str, new: Value) {
    match table.get_mut(key).and_then(Item::as_value_mut) {
        Some(old) => replace(old, new),
        None => {
            make_room(table);
            table.insert(key, Item::Value(new));
        }
    }
}

/// What is last on a line has the brace's space behind it, and another key comes there now.
fn make_room(table: &mut dyn TableLike) {
    let Some(last) = table.iter_mut().last().and_then(|(_, item)| item.as_value_mut()) else { return };
    if last.decor().suffix().and_then(|suffix| suffix.as_str()).is_some_and(|suffix| suffix.chars().all(|space| space == ' ')) {
        last.decor_mut().set_suffix("");
    }
}

/// A value in the place of another, with the comments around it.
fn replace(old: &mut Value, mut new: Value) {
    *new.decor_mut() = old.decor().clone();
    *old = new;
}

/// Adds texts to a list, each once.
fn add(table: &mut dyn TableLike, key: &str, texts: &[String]) {
    if texts.is_empty() {
        return;
    }
    let Some(list) = list(table, key) else { return };
    for text in texts {
        if !list.iter().any(|item| item.as_str() == Some(text)) {
            push(list, text.into());
        }
    }
}

/// A table's list, made when it is not there; none when something else is.
fn list<'table>(table: &'table mut dyn TableLike, key: &str) -> Option<&'table mut Array> {
    if !table.contains_key(key) {
        make_room(table);
    }
    table.entry(key).or_insert_with(|| value(Array::new())).as_array_mut()
}

/// Adds to a list, laid out as the list is.
fn push(list: &mut Array, new: Value) {
    let layout = list.iter().last().and_then(|last| last.decor().prefix()).and_then(|prefix| prefix.as_str()).map(str::to_owned);
    match layout.filter(|layout| layout.contains('\n')) {
        Some(layout) => {
            // A comment in front of the last item is about that item.
            let indent = layout.rsplit('\n').next().unwrap_or_default().to_owned();
            list.push_formatted(new.decorated(format!("\n{indent}"), ""));
        }
        None => list.push(new),
    }
}

/// What a list's item says, read as the configuration reads it.
fn read<T: serde::de::DeserializeOwned>(item: &Value) -> Option<T> {
    #[derive(serde::Deserialize)]
    struct Holder<T> {
        item: T,
    }
    toml::from_str::<Holder<T>>(&format!("item = {}", item.clone().decorated("", ""))).ok().map(|holder| holder.item)
}

/// A value as the file would have it, its keys in the order of its type.
fn written(new: &impl serde::Serialize) -> Result<Value, Failure> {
    #[derive(serde::Serialize)]
    struct Holder<'a, T> {
        item: &'a T,
    }
    let odd = |error: &dyn std::fmt::Display| Failure::new(Code::Internal, format!("write a grant: {error}"));
    let text = toml::to_string(&Holder { item: new }).map_err(|error| odd(&error))?;
    let mut document: DocumentMut = text.parse().map_err(|error: toml_edit::TomlError| odd(&error))?;
    let item = document.remove("item").unwrap_or_default().into_value();
    let mut value = item.map_err(|_| odd(&"no value"))?;
    value.decor_mut().clear();
    if let Some(table) = value.as_inline_table_mut() {
        table.fmt();
    }
    Ok(value)
}

/// Takes a power away with all that was said about it, so that a later grant begins afresh. A digest's table keeps a word that
/// refuses: without one its name's table would count for it again.
fn take_whole(table: &mut dyn TableLike, key: &PackKey, power: Power) {
    if table.remove(power.name()).is_none() || matches!(key, PackKey::Name(_)) {
        return;
    }
    let list = match power {
        Power::Process => "allow",
        Power::Http => "hosts",
        _ => "images",
    };
    let mut none = toml_edit::InlineTable::new();
    none.insert(list, Array::new().into());
    put(table, power.name(), none.into());
}

/// Takes texts out of a list; all of them when none is named.
fn take(table: &mut dyn TableLike, key: &str, texts: &[String]) {
    if let Some(list) = table.get_mut(key).and_then(Item::as_array_mut) {
        list.retain(|item| !texts.is_empty() && !item.as_str().is_some_and(|item| texts.iter().any(|text| text == item)));
        close_up(list);
    }
}

/// What stood second in a list has the space after a comma before it.
fn close_up(list: &mut toml_edit::Array) {
    let first = list.get_mut(0).map(Value::decor_mut);
    if let Some(decor) = first.filter(|decor| decor.prefix().and_then(|prefix| prefix.as_str()) == Some(" ")) {
        decor.set_prefix("");
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    const OWNERS: &str = r#"# This machine stands in the lab.
relay = "ws://127.0.0.1:8765" # over the tunnel

[packs.camera] # the door
# only in working hours
camera = true   # agreed with Kim

[packs.system]
process = { allow = ["df"], max_secs = 60 } # keep short

[limits]
calls = 9
"#;

    #[test]
    fn a_power_that_was_taken_away_as_a_whole_begins_afresh() {
        let text = "[packs.web] # mine\nkv = true\nprocess = { allow = [\"df\"], env = [\"LANG\"] }\ncontainers = { images = [\"busybox\"], pull = true }\n[packs.web.http]\nhosts = [\"a.example\"]\nmethods = [\"POST\"]\nprivate = [\"127.0.0.1\"]\n";
        let (_dir, mut edit) = edit(text);
        for power in [Power::Process, Power::Http, Power::Containers] {
            assert!(edit.deny(&name("web"), power, &Items::default()).expect("denied"));
            assert!(!edit.deny(&name("web"), power, &Items::default()).expect("nothing left"));
            edit.save().expect("still good");
        }
        assert_eq!(edit.text(), "[packs.web] # mine\nkv = true\n");
        edit.allow(&name("web"), None, Power::Http, &words(&["b.example"])).expect("allowed");
        assert!(edit.text().contains("http = { hosts = [\"b.example\"] }"), "{}", edit.text());
        let of_digest = PackKey::Digest(Digest([7; 32]));
        edit.allow(&of_digest, None, Power::Process, &words(&["df"])).expect("allowed");
        edit.deny(&of_digest, Power::Process, &Items::default()).expect("denied");
        assert!(edit.text().contains("process = { allow = [] }"), "its name's table does not come back: {}", edit.text());
    }

    pub(crate) fn edit(text: &str) -> (tempfile::TempDir, ConfigEdit) {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("agent.toml");
        std::fs::write(&path, text).expect("written");
        let edit = ConfigEdit::open(&path).expect("good");
        (dir, edit)
    }

    pub(crate) fn name(text: &str) -> PackKey {
        PackKey::parse(text).expect("a name")
    }

    pub(crate) fn words(words: &[&str]) -> Items {
        Items { items: words.iter().map(|word| (*word).to_owned()).collect(), ..Items::default() }
    }

    #[test]
    fn edits_keep_comments_and_order() {
        let (_dir, mut edit) = edit(OWNERS);
        edit.set("relay", "wss://relay.example.org");
        edit.allow(&name("system"), None, Power::Process, &words(&["uname", "df"])).expect("allowed");
        edit.deny(&name("camera"), Power::Camera, &Items::default()).expect("denied");
        edit.allow(&name("thermal"), Some(Digest([7; 32])), Power::Camera, &words(&["video0"])).expect("allowed");
        edit.deny(&name("gpu"), Power::Gpu, &Items::default()).expect("denied");
        edit.save().expect("still good");
        insta::assert_snapshot!(edit.text());
    }

    #[test]
    fn a_key_behind_the_last_one_of_a_line_stands_as_if_typed() {
        let (_dir, mut edit) = edit("[packs.system]\nprocess = { allow = [\"df\"] } # for Kim\n");
        let more = Items { env: vec!["LANG".into()], max_secs: Some(5), ..words(&["uname"]) };
        edit.allow(&name("system"), None, Power::Process, &more).expect("allowed");
        let line = "process = { allow = [\"df\", \"uname\"], env = [\"LANG\"], max_secs = 5 } # for Kim\n";
        assert!(edit.text().ends_with(line), "{}", edit.text());
    }

    #[test]
    fn a_new_file_reads_well() {
        let dir = tempfile::tempdir().expect("a folder");
        let mut edit = ConfigEdit::open(&dir.path().join("agent.toml")).expect("no file is an empty one");
        edit.set("relay", "ws://127.0.0.1:8765");
        let all = Items { env: vec!["LANG".into()], cwd: vec!["/srv".into()], max_secs: Some(5), ..words(&["uname"]) };
        edit.allow(&name("system"), None, Power::Process, &all).expect("allowed");
        edit.save().expect("good");
        insta::assert_snapshot!(edit.text());
    }

    #[test]
    fn lists_over_lines_stay_so() {
        let (_dir, mut edit) = edit("[packs.system.process]\nallow = [\n  # disks\n  \"df\",\n]\n");
        edit.allow(&name("system"), None, Power::Process, &words(&["uname"])).expect("allowed");
        insta::assert_snapshot!(edit.text());
    }

    #[test]
    fn a_shell_is_said_to_be_everything() {
        let (_dir, mut edit) = edit("");
        let notes = edit.allow(&name("system"), None, Power::Process, &words(&["sh"])).expect("allowed");
        assert_eq!(notes, ["warning: `sh` runs whatever it is told, so this allows everything that this user may do"]);
        let notes = edit.allow(&name("system"), None, Power::Process, &words(&["no-such-program-7"])).expect("allowed");
        assert_eq!(notes, ["warning: there is no program `no-such-program-7` on this machine now"]);
    }

    #[test]
    fn programs_are_taken_one_by_one_or_all() {
        let (_dir, mut edit) = edit("[packs.system]\nprocess = { allow = [\"df\", \"uname\", \"ls\"] }\n");
        assert!(edit.deny(&name("system"), Power::Process, &words(&["df"])).expect("denied"));
        assert_eq!(edit.text(), "[packs.system]\nprocess = { allow = [\"uname\", \"ls\"] }\n");
        edit.allow(&name("system"), None, Power::Process, &words(&["df"])).expect("allowed");
        assert!(edit.deny(&name("system"), Power::Process, &words(&["uname"])).expect("denied"));
        assert_eq!(edit.text(), "[packs.system]\nprocess = { allow = [\"ls\", \"df\"] }\n");
        assert!(!edit.deny(&name("system"), Power::Process, &words(&["uname"])).expect("nothing to take"));
        assert!(edit.deny(&name("system"), Power::Process, &Items::default()).expect("denied"));
        assert_eq!(edit.text(), "[packs.system]\n");
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        let (_dir, mut edit) = edit("[packs.camera]\ncamera = true");
        let mut say = |power, items: &Items| edit.allow(&name("camera"), None, power, items).expect_err("refused").message;
        let bad = [
            say(Power::Process, &Items::default()),
            say(Power::Process, &words(&["./x"])),
            say(Power::Process, &Items { cwd: vec!["srv".into()], ..Items::default() }),
            say(Power::Gpu, &words(&["0"])),
            say(Power::Camera, &words(&["video0"])),
            say(Power::Camera, &Items { max_secs: Some(1), ..Items::default() }),
        ];
        insta::assert_snapshot!(bad.join("\n"));
    }

    #[test]
    fn a_quota_of_values_is_set_kept_and_taken() {
        let (_dir, mut edit) = edit("");
        let kib = |kib| Items { max_kib: Some(kib), ..Items::default() };
        let mut after = |allow: bool, items: &Items| {
            match allow {
                true => drop(edit.allow(&name("thermal"), None, Power::Kv, items).expect("allowed")),
                false => drop(edit.deny(&name("thermal"), Power::Kv, items).expect("denied")),
            }
            edit.text().lines().last().unwrap_or_default().to_owned()
        };
        assert_eq!(after(false, &Items::default()), "");
        assert_eq!(after(true, &Items::default()), "kv = true");
        assert_eq!(after(true, &kib(5)), "kv = { max_kib = 5 }");
        assert_eq!(after(true, &Items::default()), "kv = { max_kib = 5 }", "what was said before stays");
        assert_eq!(after(false, &Items::default()), "kv = false");
        edit.save().expect("still good");
    }

    #[test]
    fn a_broken_file_is_not_edited() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("agent.toml");
        std::fs::write(&path, "[limits]\nmemory = 1\n").expect("written");
        assert_eq!(ConfigEdit::open(&path).expect_err("broken").code, Code::BadConfig);
    }
}
