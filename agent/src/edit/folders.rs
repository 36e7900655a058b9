//! `files` in the file: a list of folders, each a table with its rights.

use std::path::Path;

use outhaul_host::power::files::{Folder, Rights, split_item};
use outhaul_protocol::error::Failure;
use toml_edit::{Item, TableLike};

use super::{Items, list, push, read, replace, usage, written};

/// What a folder is granted without a word: to look, not to touch.
const USUAL: Rights = Rights { read: true, list: true, write: false, create: false };

pub(super) fn check(items: &Items, allowing: bool) -> Result<(), Failure> {
    if allowing && items.items.is_empty() {
        return Err(usage("`files` is granted folder by folder: name at least one".into())
            .hint("such as: agent allow PACK files /srv/data, which reads and lists; or /srv/out:w, /srv/in:c"));
    }
    if items.at.is_some() && items.items.len() != 1 {
        return Err(usage("`--at` names one folder, so that one is wanted".into()));
    }
    items.items.iter().try_for_each(|item| rights_known(item).and_then(|()| split_item(item).map(drop))).map_err(usage)
}

/// Adds folders, or rights to those that are there.
pub(super) fn allow(table: &mut dyn TableLike, items: &Items, notes: &mut Vec<String>) -> Result<(), Failure> {
    let list = list(table, "files").ok_or_else(|| usage("`files` is not a list in the file".into()))?;
    for item in &items.items {
        let (path, rights) = split_item(item).map_err(usage)?;
        let rights = rights.unwrap_or(USUAL);
        let place = list.iter().position(|item| read::<Folder>(item).is_some_and(|old| old.path == path));
        let old = place.and_then(|place| read::<Folder>(list.get(place)?));
        let (at, max_mib) = (items.at.clone(), items.max_mib);
        let new = match &old {
            Some(old) => {
                Folder { rights: old.rights.with(rights), at: at.or_else(|| old.at.clone()), max_mib: max_mib.or(old.max_mib), path }
            }
            None => Folder { path, at, rights, max_mib },
        };
        let new = new.checked().map_err(usage)?;
        granted_as_folder(&new.path)?;
        warn(&new, notes);
        match place.and_then(|place| list.get_mut(place)) {
            Some(_) if old.as_ref() == Some(&new) => {}
            Some(item) => replace(item, written(&new)?),
            None => push(list, written(&new)?),
        }
    }
    Ok(())
}

/// Takes folders out, or only the rights behind them; every one when none is named.
pub(super) fn deny(table: &mut dyn TableLike, items: &[String]) -> Result<(), Failure> {
    let items: Vec<_> = items.iter().map(|item| split_item(item)).collect::<Result<_, _>>().map_err(usage)?;
    let Some(list) = table.get_mut("files").and_then(Item::as_array_mut) else { return Ok(()) };
    for value in list.iter_mut() {
        let Some(old) = read::<Folder>(value) else { continue };
        let less = items.iter().filter(|(path, _)| *path == old.path).filter_map(|(_, rights)| *rights);
        let rights = less.fold(old.rights, Rights::without);
        if rights != old.rights && rights != Rights::default() {
            let max_mib = old.max_mib.filter(|_| rights.write || rights.create);
            replace(value, written(&Folder { rights, max_mib, ..old })?);
        }
    }
    list.retain(|value| {
        let Some(old) = read::<Folder>(value) else { return true };
        let gone = |rights: &Option<Rights>| rights.is_none_or(|rights| old.rights.without(rights) == Rights::default());
        !items.is_empty() && !items.iter().any(|(path, rights)| *path == old.path && gone(rights))
    });
    Ok(())
}

/// A few letters behind a colon are meant as rights, unless there is something of that very name.
fn rights_known(item: &str) -> Result<(), String> {
    let meant = |letters: &str| (1..=4).contains(&letters.len()) && letters.bytes().all(|byte| byte.is_ascii_alphabetic());
    match item.rsplit_once(':') {
        Some((_, letters)) if meant(letters) && Rights::parse(letters).is_none() && !Path::new(item).exists() => {
            Err(format!("`{letters}` are no rights: r reads, l lists, w writes, c creates"))
        }
        _ => Ok(()),
    }
}

fn granted_as_folder(path: &Path) -> Result<(), Failure> {
    match std::fs::metadata(path) {
        Ok(found) if !found.is_dir() => {
            let folder = path.parent().unwrap_or(path).display().to_string();
            Err(usage(format!("`{}` is no folder, and only folders are granted", path.display().to_string().escape_debug()))
                .hint(format!("its folder is `{}`", folder.escape_debug())))
        }
        _ => Ok(()),
    }
}

fn warn(folder: &Folder, notes: &mut Vec<String>) {
    let Folder { path, rights, max_mib, .. } = folder;
    let said = path.display();
    if path == Path::new("/") {
        notes.push(format!("warning: `{said}` is the whole machine, as far as this user may go"));
    }
    match std::fs::metadata(path) {
        Ok(_) => {}
        Err(_) => notes.push(format!("warning: there is no folder `{said}` on this machine now")),
    }
    if (rights.write || rights.create) && max_mib.is_none() {
        notes.push(format!("warning: the pack may fill the disk of `{said}`; --max-mib sets a limit"));
    }
}

#[cfg(test)]
mod tests {
    use outhaul_host::Power;

    use super::super::tests::{edit, name, words};
    use super::*;

    fn allow(text: &str, items: &Items) -> (String, Vec<String>) {
        let (_dir, mut edit) = edit(text);
        let notes = edit.allow(&name("wasi"), None, Power::Files, items).expect("allowed");
        edit.save().expect("still good");
        (edit.text(), notes)
    }

    fn deny(text: &str, items: &[&str]) -> String {
        let (_dir, mut edit) = edit(text);
        edit.deny(&name("wasi"), Power::Files, &words(items)).expect("denied");
        edit.save().expect("still good");
        edit.text()
    }

    #[test]
    fn folders_are_granted_with_their_rights() {
        let (text, notes) = allow("", &Items { at: Some("/data".into()), ..words(&["/usr"]) });
        assert_eq!(notes, Vec::<String>::new());
        let (text, notes) = allow(&text, &Items { max_mib: Some(9), ..words(&["/no/such/folder:c"]) });
        insta::assert_snapshot!(notes.join("\n"), @"warning: there is no folder `/no/such/folder` on this machine now");
        insta::assert_snapshot!(text);
    }

    #[test]
    fn rights_are_added_and_taken_one_by_one() {
        let (text, notes) = allow("[packs.wasi]\nfiles = [\n  { path = \"/usr\", read = true }, # shared\n]\n", &words(&["/usr/:w"]));
        assert_eq!(text, "[packs.wasi]\nfiles = [\n  { path = \"/usr\", read = true, write = true }, # shared\n]\n");
        insta::assert_snapshot!(notes.join("\n"), @"warning: the pack may fill the disk of `/usr`; --max-mib sets a limit");
        let less = deny(&text, &["/usr:w"]);
        assert_eq!(less, "[packs.wasi]\nfiles = [\n  { path = \"/usr\", read = true }, # shared\n]\n");
        assert!(!deny(&less, &["/usr:r"]).contains("path"), "without a right it is gone");
        assert!(!deny(&text, &["/usr"]).contains("path") && deny(&text, &["/srv"]) == text);
        assert!(!deny(&text, &[]).contains("path"));
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        let (_dir, mut edit) = edit("");
        let mut say = |items: Items| edit.allow(&name("wasi"), None, Power::Files, &items).expect_err("refused").message;
        let bad = [
            say(Items::default()),
            say(words(&["srv"])),
            say(words(&["/srv/../etc"])),
            say(Items { at: Some("/x".into()), ..words(&["/srv", "/opt"]) }),
            say(Items { at: Some("x".into()), ..words(&["/srv"]) }),
            say(Items { max_mib: Some(1), ..words(&["/srv"]) }),
            say(Items { max_secs: Some(1), ..words(&["/srv"]) }),
            say(words(&["/etc/hostname"])),
            say(words(&["/no/such/folder:q"])),
        ];
        insta::assert_snapshot!(bad.join("\n"));
    }
}
