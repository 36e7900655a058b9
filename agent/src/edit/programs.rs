//! `process` in the file: programs as texts, narrowed ones as tables.

use std::path::Path;

use outhaul_host::power::process::{self, Entry};
use outhaul_protocol::error::Failure;
use toml_edit::{InlineTable, Item, TableLike, Value, value};

use super::{Items, add, list, push, put, read, replace, usage, written};
use crate::config::{self, PackKey};

pub(super) fn check(items: &Items, allowing: bool) -> Result<(), Failure> {
    if allowing && items.items.is_empty() && (items.flags().next().is_none() || per_entry(items)) {
        return Err(usage("`process` is granted program by program: name at least one".into()).hint(
            "such as: agent allow system process uname, or with its arguments: agent allow system process 'systemctl status nginx'",
        ));
    }
    let checks = items.items.iter().map(|item| Entry::parse(item).map(drop));
    let checks = checks.chain(items.env.iter().map(|item| config::variable(item).map(drop)));
    let mut checks = checks.chain(items.cwd.iter().map(|item| config::folder(item).map(drop)));
    checks.find_map(Result::err).map_or(Ok(()), |why| Err(usage(why)))
}

/// Whether a flag only makes sense for one program.
fn per_entry(items: &Items) -> bool {
    items.concurrent.is_some() || items.output_mib.is_some()
}

/// Adds programs. Where one is narrowed the flags are about the named programs; else about all of the pack.
pub(super) fn allow(table: &mut dyn TableLike, key: &PackKey, items: &Items, notes: &mut Vec<String>) -> Result<(), Failure> {
    let process = table.entry("process").or_insert_with(|| value(InlineTable::new()));
    let process = process.as_table_like_mut().ok_or_else(|| usage("`process` is not a table in the file".into()))?;
    let entries: Vec<Entry> = items.items.iter().map(|item| Entry::parse(item)).collect::<Result<_, _>>().map_err(usage)?;
    entries.iter().enumerate().try_for_each(|(place, entry)| runnable(key, &items.items[..place], entry))?;
    let narrow = per_entry(items) || entries.iter().any(|entry| !entry.is_bare());
    for entry in entries {
        warn(&entry, notes);
        if !narrow {
            add(process, "allow", &[entry.program]);
            continue;
        }
        let texts = |texts: &[String]| Some(texts.to_vec()).filter(|texts| !texts.is_empty());
        let entry = Entry {
            env: texts(&items.env),
            cwd: texts(&items.cwd).map(|folders| folders.into_iter().map(Into::into).collect()),
            max_secs: items.max_secs,
            concurrent: items.concurrent,
            output_mib: items.output_mib,
            ..entry
        };
        put_entry(process, key, &entry, notes)?;
    }
    if !narrow {
        add(process, "env", &items.env);
        add(process, "cwd", &items.cwd);
        if let Some(secs) = items.max_secs {
            put(process, "max_secs", i64::try_from(secs).unwrap_or(i64::MAX).into());
        }
    }
    for variable in items.env.iter().filter(|variable| process::steers_programs(variable)) {
        notes.push(format!(
            "warning: `{variable}` makes many programs run or load something else, so a caller who sets it may run anything"
        ));
    }
    Ok(())
}

/// Puts a narrowed program in the place of the one that reads the same, or behind the others.
fn put_entry(process: &mut dyn TableLike, key: &PackKey, entry: &Entry, notes: &mut Vec<String>) -> Result<(), Failure> {
    let new = written(entry)?;
    let list = list(process, "allow").ok_or_else(|| usage("`allow` is not a list in the file".into()))?;
    let (program, said) = (&entry.program, entry.to_string());
    if list.iter().any(|item| item.as_str() == Some(program)) {
        notes.push(format!(
            "warning: `{program}` stands in `allow` without a shape too, so it may still run with any arguments; first: agent deny {key} process {program}"
        ));
    }
    let same = |item: &Value| !item.is_str() && read::<Entry>(item).is_some_and(|old| old.to_string() == said);
    let place = list.iter().position(same);
    match place.and_then(|place| list.get_mut(place)) {
        Some(old) if read::<Entry>(old).as_ref() == Some(entry) => {}
        Some(old) => replace(old, new),
        None => push(list, new),
    }
    Ok(())
}

/// Takes programs out: all of a name, or the one with this shape; every one when none is named.
pub(super) fn deny(process: &mut dyn TableLike, items: &[String]) {
    let Some(list) = process.get_mut("allow").and_then(Item::as_array_mut) else { return };
    let named = |entry: &Entry| {
        let said = entry.to_string();
        items.iter().any(|item| *item == entry.program || Entry::parse(item).is_ok_and(|item| item.to_string() == said))
    };
    list.retain(|item| !items.is_empty() && !read::<Entry>(item).is_some_and(|entry| named(&entry)));
    super::close_up(list);
}

/// A path that leads to what nobody can run is an argument whose quotes were forgotten, more often than not.
fn runnable(key: &PackKey, before: &[String], entry: &Entry) -> Result<(), Failure> {
    let path = Path::new(&entry.program);
    if !path.is_absolute() || !path.exists() || is_program(path) {
        return Ok(());
    }
    let said = path.display().to_string().escape_debug().to_string();
    let failure = usage(format!("`{said}` is no program: it is not an executable file"));
    Err(match before.first() {
        Some(program) => failure.hint(format!("for `{program}` with this argument: agent allow {key} process '{program} {said}'")),
        None => failure,
    })
}

#[cfg(unix)]
fn is_program(path: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::metadata(path).is_ok_and(|found| found.is_file() && found.permissions().mode() & 0o111 != 0) && !is_text(path)
}

/// Whether a file is text without an interpreter named on top, which no system starts whatever its mode says.
#[cfg(unix)]
fn is_text(path: &Path) -> bool {
    use std::io::Read as _;
    let mut head = [0_u8; 64];
    let Ok(read) = std::fs::File::open(path).and_then(|mut file| file.read(&mut head)) else { return false };
    let head = &head[..read];
    !head.starts_with(b"#!") && head.iter().all(|byte| byte.is_ascii_graphic() || byte.is_ascii_whitespace())
}

#[cfg(not(unix))]
fn is_program(path: &Path) -> bool {
    path.is_file()
}

fn warn(entry: &Entry, notes: &mut Vec<String>) {
    let program = &entry.program;
    match &entry.argv {
        None if process::runs_anything(program) => {
            notes.push(format!("warning: `{program}` runs whatever it is told, so this allows everything that this user may do"));
        }
        Some(shape) if process::runs_anything(program) && !shape.is_fixed() => notes.push(format!(
            "warning: `{program}` runs other programs when it is told to; what this shape leaves to a caller may allow everything that this user may do"
        )),
        _ => {}
    }
    if !is_there(program) {
        notes.push(format!("warning: there is no program `{program}` on this machine now"));
    }
}

fn is_there(program: &str) -> bool {
    Path::new(program).is_absolute() && Path::new(program).exists()
        || process::SEARCH.iter().any(|folder| Path::new(folder).join(program).exists())
}

#[cfg(test)]
mod tests {
    use outhaul_host::Power;

    use super::super::tests::{edit, name, words};
    use super::*;

    fn allow(text: &str, items: &Items) -> (String, Vec<String>) {
        let (_dir, mut edit) = edit(text);
        let notes = edit.allow(&name("system"), None, Power::Process, items).expect("allowed");
        edit.save().expect("still good");
        (edit.text(), notes)
    }

    #[test]
    fn a_shape_becomes_a_table_in_the_list() {
        let items = words(&["uname -s", "ls [-l] <path:/srv/**>+", "head -n 5|10 '<x>' [-q|-v <1..9>]*"]);
        let (text, notes) = allow("[packs.system]\nprocess = { allow = [\"df\"] } # mine\n", &items);
        insta::assert_snapshot!(text);
        assert_eq!(notes, Vec::<String>::new());
    }

    #[test]
    fn the_flags_of_a_narrowed_program_are_its_own() {
        let all = Items {
            env: vec!["TZ".into(), "NODE_OPTIONS".into()],
            cwd: vec!["/srv".into()],
            max_secs: Some(5),
            concurrent: Some(2),
            output_mib: Some(16),
            ..words(&["uname"])
        };
        let (text, notes) = allow("", &all);
        insta::assert_snapshot!(text);
        insta::assert_snapshot!(notes.join("\n"), @"warning: `NODE_OPTIONS` makes many programs run or load something else, so a caller who sets it may run anything");
    }

    #[test]
    fn the_same_shape_again_takes_the_new_limits() {
        let (text, _) = allow("", &words(&["uname -s"]));
        let (text, _) = allow(&text, &Items { max_secs: Some(9), ..words(&["uname -s"]) });
        assert_eq!(text, "[packs.system]\nprocess = { allow = [{ program = \"uname\", argv = [\"-s\"], max_secs = 9 }] }\n");
    }

    #[test]
    fn what_a_shape_does_not_narrow_is_said() {
        let (_, notes) = allow("[packs.system]\nprocess = { allow = [\"uname\"] }\n", &words(&["uname -s"]));
        insta::assert_snapshot!(notes.join("\n"), @"warning: `uname` stands in `allow` without a shape too, so it may still run with any arguments; first: agent deny system process uname");
        let (_, notes) = allow("", &words(&["env <path:/srv/**>", "sh -c id", "find /srv -name <glob:*.log>"]));
        insta::assert_snapshot!(notes.join("\n"));
    }

    #[test]
    fn an_argument_without_its_quotes_is_no_program() {
        let (_dir, mut edit) = edit("");
        let failure = edit.allow(&name("system"), None, Power::Process, &words(&["cat", "/etc/hostname"])).expect_err("no program");
        assert_eq!(failure.message, "`/etc/hostname` is no program: it is not an executable file");
        assert_eq!(failure.hint.as_deref(), Some("for `cat` with this argument: agent allow system process 'cat /etc/hostname'"));
    }

    #[test]
    fn programs_are_denied_by_name_and_by_shape() {
        let text = "[packs.system]\nprocess = { allow = [\"df\", { program = \"uname\", argv = [\"-s\"] }, { program = \"uname\", argv = [\"-m\"] }] }\n";
        let deny = |items: &[&str]| {
            let (_dir, mut edit) = edit(text);
            edit.deny(&name("system"), Power::Process, &words(items)).expect("denied");
            edit.text()
        };
        assert!(!deny(&["uname"]).contains("uname") && deny(&["uname"]).contains("df"));
        assert_eq!(deny(&["uname   -s"]).matches("uname").count(), 1);
        assert!(!deny(&[]).contains("process"));
    }
}
