//! Changes to `agent.toml` by command: what the owner wrote, comments and order included, stays as it is. The result is
//! read back by the rules of [`crate::config`] before it takes the old file's place, so no edit leaves a broken policy.

use std::path::{Path, PathBuf};

use outhaul_home::{PRIVATE, parse_toml, read_optional, write_atomic};
use outhaul_host::Power;
use outhaul_host::power::process;
use outhaul_protocol::error::{Code, Failure};
use outhaul_protocol::keys::Digest;
use toml_edit::{Array, DocumentMut, Item, Table, TableLike, Value, value};

use crate::config::{self, AgentConfig, PackKey};

/// A grant as the owner types it.
#[derive(Debug, Clone, Default)]
pub struct Items {
    /// Programs, or cameras.
    pub items: Vec<String>,
    /// Variables a caller may set.
    pub env: Vec<String>,
    /// Folders a caller may start in.
    pub cwd: Vec<String>,
    /// Seconds a program may run.
    pub max_secs: Option<u64>,
}

impl Items {
    fn only_items(&self) -> bool {
        self.env.is_empty() && self.cwd.is_empty() && self.max_secs.is_none()
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
            Power::Process => allow_programs(table, items, &mut notes)?,
            Power::Camera => allow_cameras(table, &items.items)?,
            Power::Gpu | Power::System => put(table, power.name(), true.into()),
            Power::Output | Power::Log => notes.push(format!("`{}` is always granted; nothing to do", power.name())),
        }
        Ok(notes)
    }

    /// Takes a power away, or some of it. False when there was nothing to take.
    pub fn deny(&mut self, key: &PackKey, power: Power, items: &Items) -> Result<bool, Failure> {
        check(power, items, false)?;
        let taken = matches!(power, Power::Process | Power::Camera);
        if taken && self.document.get("packs").and_then(|packs| packs.get(key.to_string())).is_none() {
            return Ok(false);
        }
        let before = self.text();
        let table = self.pack(key)?;
        match power {
            Power::Process => {
                if let Some(process) = table.get_mut("process").and_then(Item::as_table_like_mut) {
                    take(process, "allow", &items.items);
                }
            }
            Power::Camera => deny_cameras(table, key, &items.items)?,
            // Many packs have these by default: to take them away is to say so.
            Power::Gpu | Power::System => put(table, power.name(), false.into()),
            Power::Output | Power::Log => return Err(usage(format!("`{}` cannot be denied: every call has it", power.name()))),
        }
        Ok(self.text() != before)
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
    match power {
        Power::Process if allowing && items.items.is_empty() && items.only_items() => {
            Err(usage("`process` is granted program by program: name at least one".into())
                .hint("such as: agent allow system process uname"))
        }
        Power::Process => {
            let checks = items.items.iter().map(|item| config::program(item).map(drop));
            let checks = checks.chain(items.env.iter().map(|item| config::variable(item).map(drop)));
            let mut checks = checks.chain(items.cwd.iter().map(|item| config::folder(item).map(drop)));
            checks.find_map(Result::err).map_or(Ok(()), |why| Err(usage(why)))
        }
        _ if !items.only_items() => Err(usage(format!("`--env`, `--cwd` and `--max-secs` belong to `process`, not to `{}`", power.name()))),
        Power::Camera => Ok(()),
        _ if items.items.is_empty() => Ok(()),
        _ => Err(usage(format!("`{}` is granted as a whole; `{}` cannot be named", power.name(), items.items.join(" ").escape_debug()))),
    }
}

fn allow_programs(table: &mut dyn TableLike, items: &Items, notes: &mut Vec<String>) -> Result<(), Failure> {
    let process = table.entry("process").or_insert_with(|| value(toml_edit::InlineTable::new()));
    let process = process.as_table_like_mut().ok_or_else(|| usage("`process` is not a table in the file".into()))?;
    for (key, texts) in [("allow", &items.items), ("env", &items.env), ("cwd", &items.cwd)] {
        add(process, key, texts);
    }
    if let Some(secs) = items.max_secs {
        put(process, "max_secs", i64::try_from(secs).unwrap_or(i64::MAX).into());
    }
    // The space before the closing brace must not stay before a comma. Over several lines the layout is the owner's.
    if let Some(inline) = table.get_mut("process").and_then(Item::as_inline_table_mut).filter(|inline| !inline.to_string().contains('\n')) {
        inline.fmt();
    }
    for item in &items.items {
        if process::runs_anything(item) {
            notes.push(format!("warning: `{item}` runs whatever it is told, so this allows everything that this user may do"));
        }
        if !is_there(item) {
            notes.push(format!("warning: there is no program `{item}` on this machine now"));
        }
    }
    Ok(())
}

fn is_there(entry: &str) -> bool {
    Path::new(entry).is_absolute() && Path::new(entry).exists()
        || process::SEARCH.iter().any(|folder| Path::new(folder).join(entry).exists())
}

fn allow_cameras(table: &mut dyn TableLike, devices: &[String]) -> Result<(), Failure> {
    if devices.is_empty() {
        put(table, "camera", true.into());
        return Ok(());
    }
    match table.get_mut("camera") {
        Some(item) if item.is_table_like() => {
            if let Some(camera) = item.as_table_like_mut() {
                add(camera, "devices", devices);
            }
        }
        Some(item) if item.as_bool() == Some(true) => {
            return Err(usage("`camera = true` grants every camera already".into())
                .hint("to grant only some: agent deny PACK camera, then allow these"));
        }
        _ => {
            let mut camera = toml_edit::InlineTable::new();
            camera.insert("devices", devices.iter().collect::<Array>().into());
            put(table, "camera", camera.into());
        }
    }
    Ok(())
}

fn deny_cameras(table: &mut dyn TableLike, key: &PackKey, devices: &[String]) -> Result<(), Failure> {
    match table.get_mut("camera") {
        None => {}
        Some(_) if devices.is_empty() => put(table, "camera", false.into()),
        Some(item) => match item.as_table_like_mut() {
            Some(camera) => take(camera, "devices", devices),
            None => {
                return Err(usage(format!("pack `{key}` has no list of cameras to take `{}` from", devices.join(" ").escape_debug()))
                    .hint(format!("to allow only some: agent deny {key} camera, then allow these")));
            }
        },
    }
    Ok(())
}

/// Sets a key; a value that is there keeps the comments around it.
fn put(table: &mut dyn TableLike, key: &str, mut new: Value) {
    if let Some(old) = table.get_mut(key).and_then(Item::as_value_mut) {
        *new.decor_mut() = old.decor().clone();
        *old = new;
        return;
    }
    table.insert(key, Item::Value(new));
}

/// Adds texts to a list, each once, laid out as the list is.
fn add(table: &mut dyn TableLike, key: &str, texts: &[String]) {
    if texts.is_empty() {
        return;
    }
    let list = table.entry(key).or_insert_with(|| value(Array::new()));
    let Some(list) = list.as_array_mut() else { return };
    for text in texts {
        if list.iter().any(|item| item.as_str() == Some(text)) {
            continue;
        }
        let layout = list.iter().last().and_then(|last| last.decor().prefix()).and_then(|prefix| prefix.as_str()).map(str::to_owned);
        match layout.filter(|layout| layout.contains('\n')) {
            Some(layout) => {
                // A comment in front of the last item is about that item.
                let indent = layout.rsplit('\n').next().unwrap_or_default().to_owned();
                list.push_formatted(Value::from(text).decorated(format!("\n{indent}"), ""));
            }
            None => list.push(text),
        }
    }
}

/// Takes texts out of a list; all of them when none is named.
fn take(table: &mut dyn TableLike, key: &str, texts: &[String]) {
    if let Some(list) = table.get_mut(key).and_then(Item::as_array_mut) {
        list.retain(|item| !texts.is_empty() && !item.as_str().is_some_and(|item| texts.iter().any(|text| text == item)));
        // What stood second has the space after a comma before it.
        let first = list.get_mut(0).map(Value::decor_mut);
        if let Some(decor) = first.filter(|decor| decor.prefix().and_then(|prefix| prefix.as_str()) == Some(" ")) {
            decor.set_prefix("");
        }
    }
}

#[cfg(test)]
mod tests {
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

    fn edit(text: &str) -> (tempfile::TempDir, ConfigEdit) {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("agent.toml");
        std::fs::write(&path, text).expect("written");
        let edit = ConfigEdit::open(&path).expect("good");
        (dir, edit)
    }

    fn name(text: &str) -> PackKey {
        PackKey::parse(text).expect("a name")
    }

    fn words(words: &[&str]) -> Items {
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
        assert_eq!(edit.text(), "[packs.system]\nprocess = { allow = [] }\n");
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
    fn a_broken_file_is_not_edited() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("agent.toml");
        std::fs::write(&path, "[limits]\nmemory = 1\n").expect("written");
        assert_eq!(ConfigEdit::open(&path).expect_err("broken").code, Code::BadConfig);
    }
}
