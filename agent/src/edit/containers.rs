//! `containers` in the file: images, and what goes with all of a pack's containers.

use outhaul_host::power::containers::{Capability, Folder, Network, Pattern};
use outhaul_protocol::error::Failure;
use toml_edit::{InlineTable, Item, TableLike, Value, value};

use super::{Items, add, list, push, put, replace, take, usage};

/// What goes with the images of `containers`.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Room {
    /// Folders, with `:w` behind those that may be changed.
    pub mounts: Vec<String>,
    /// Networks.
    pub networks: Vec<String>,
    /// What root keeps in a container.
    pub capabilities: Vec<String>,
    /// GPUs, all containers together.
    pub gpus: Option<u32>,
    /// MiB of one container.
    pub memory_mib: Option<u32>,
    /// Processors of one container.
    pub cpus: Option<f64>,
    /// Whether images may be fetched.
    pub pull: bool,
}

impl Room {
    fn is_empty(&self) -> bool {
        *self == Room::default()
    }
}

/// Whether the words after `containers` may stand there.
pub(super) fn check(items: &Items, allowing: bool) -> Result<(), Failure> {
    let Room { mounts, networks, capabilities, .. } = &items.room;
    let beside = !items.room.is_empty() || items.max_secs.is_some() || items.concurrent.is_some();
    if allowing && items.items.is_empty() && !beside {
        return Err(usage("`containers` is granted image by image: name at least one".into())
            .hint("such as: agent allow PACK containers ghcr.io/acme/* --mount /srv/data --gpus 1"));
    }
    let images = items.items.iter().map(|image| Pattern::parse(image).map(drop));
    let mounts = mounts.iter().map(|mount| Folder::parse(mount).map(drop));
    let networks = networks.iter().map(|network| Network::parse(network).map(drop));
    let capabilities = capabilities.iter().map(|capability| Capability::parse(capability).map(drop));
    images.chain(mounts).chain(networks).chain(capabilities).find_map(Result::err).map_or(Ok(()), |why| Err(usage(why)))
}

/// Adds images, and sets what was named beside them.
pub(super) fn allow(table: &mut dyn TableLike, items: &Items, notes: &mut Vec<String>) -> Result<(), Failure> {
    let containers = inline(table)?;
    add(containers, "images", &patterns(items)?);
    let room = &items.room;
    for mount in &room.mounts {
        mounted(containers, &Folder::parse(mount).map_err(usage)?, notes)?;
    }
    add(containers, "networks", &room.networks);
    add(containers, "capabilities", &capabilities(room)?);
    let numbers = [
        ("gpus", room.gpus.map(i64::from)),
        ("memory_mib", room.memory_mib.map(i64::from)),
        ("max", items.concurrent.map(i64::from)),
        ("max_secs", items.max_secs.map(|secs| i64::try_from(secs).unwrap_or(i64::MAX))),
    ];
    for (key, number) in numbers.into_iter().filter_map(|(key, number)| Some((key, number?))) {
        put(containers, key, number.into());
    }
    if let Some(cpus) = room.cpus {
        put(containers, "cpus", cpus.into());
    }
    if room.pull {
        put(containers, "pull", true.into());
    }
    if containers.get("images").and_then(Item::as_array).is_none_or(toml_edit::Array::is_empty) {
        notes.push("no image is granted yet, so that the pack runs no container: name one".into());
    }
    Ok(())
}

/// Takes images away, or what was named beside them; every image when nothing is named.
pub(super) fn deny(table: &mut dyn TableLike, items: &Items) -> Result<(), Failure> {
    let (images, room) = (patterns(items)?, &items.room);
    let Some(containers) = table.get_mut("containers").and_then(Item::as_table_like_mut) else { return Ok(()) };
    if !room.mounts.is_empty() {
        unmounted(containers, &room.mounts)?;
    }
    if !room.networks.is_empty() {
        take(containers, "networks", &room.networks);
    }
    if !room.capabilities.is_empty() {
        take(containers, "capabilities", &capabilities(room)?);
    }
    if room.gpus.is_some() && containers.contains_key("gpus") {
        put(containers, "gpus", 0.into());
    }
    if room.pull && containers.contains_key("pull") {
        put(containers, "pull", false.into());
    }
    if images.is_empty() && !room.is_empty() {
        return Ok(());
    }
    let gone =
        |item: &Value| item.as_str().and_then(|text| Pattern::parse(text).ok()).is_none_or(|known| images.contains(&known.to_string()));
    if let Some(list) = containers.get_mut("images").and_then(Item::as_array_mut) {
        list.retain(|item| !images.is_empty() && !gone(item));
        super::close_up(list);
    }
    Ok(())
}

/// Images as they stand in the file: written out, so that nobody has to know what was left out.
fn patterns(items: &Items) -> Result<Vec<String>, Failure> {
    items.items.iter().map(|image| Pattern::parse(image).map(|image| image.to_string()).map_err(usage)).collect()
}

fn capabilities(room: &Room) -> Result<Vec<String>, Failure> {
    room.capabilities.iter().map(|name| Capability::parse(name).map(|known| known.to_string()).map_err(usage)).collect()
}

/// Adds a folder, or changes what may be done in one that is there.
fn mounted(containers: &mut dyn TableLike, folder: &Folder, notes: &mut Vec<String>) -> Result<(), Failure> {
    let list = list(containers, "mounts").ok_or_else(|| usage("`mounts` is not a list in the file".into()))?;
    let text = folder.to_string();
    let same = |item: &Value| item.as_str().and_then(|text| Folder::parse(text).ok()).is_some_and(|old| old.path == folder.path);
    let place = list.iter().position(same);
    match place.and_then(|place| list.get_mut(place)) {
        Some(item) => replace(item, text.into()),
        None => push(list, text.into()),
    }
    let said = folder.path.display();
    match std::fs::metadata(&folder.path) {
        Err(_) => notes.push(format!("warning: there is no folder `{said}` on this machine now")),
        Ok(_) if folder.writable => {
            notes.push(format!("warning: containers may fill the disk of `{said}`, and leave files of root there"));
        }
        Ok(_) => {}
    }
    Ok(())
}

fn unmounted(containers: &mut dyn TableLike, mounts: &[String]) -> Result<(), Failure> {
    let gone: Vec<Folder> = mounts.iter().map(|mount| Folder::parse(mount).map_err(usage)).collect::<Result<_, _>>()?;
    if let Some(list) = containers.get_mut("mounts").and_then(Item::as_array_mut) {
        let goes = |item: &Value| {
            let old = item.as_str().and_then(|text| Folder::parse(text).ok());
            old.is_some_and(|old| gone.iter().any(|gone| gone.path == old.path))
        };
        list.retain(|item| !goes(item));
        super::close_up(list);
    }
    Ok(())
}

fn inline(table: &mut dyn TableLike) -> Result<&mut dyn TableLike, Failure> {
    let made = table.entry("containers").or_insert_with(|| value(InlineTable::new()));
    made.as_table_like_mut().ok_or_else(|| usage("`containers` is not a table in the file".into()))
}

#[cfg(test)]
mod tests {
    use outhaul_host::Power;

    use super::super::tests::{edit, name, words};
    use super::*;

    fn with(room: Room, images: &[&str]) -> Items {
        Items { room, ..words(images) }
    }

    #[test]
    fn images_are_granted_with_what_goes_with_them_and_taken_one_by_one() {
        let (_dir, mut edit) = edit("");
        let mut said = Vec::new();
        let mut step = |allow: bool, items: &Items| {
            let notes = match allow {
                true => edit.allow(&name("work"), None, Power::Containers, items).expect("allowed"),
                false => {
                    edit.deny(&name("work"), Power::Containers, items).expect("denied");
                    Vec::new()
                }
            };
            edit.save().expect("still good");
            said.push(format!("{}{}", edit.text().trim(), notes.iter().map(|note| format!("\n  {note}")).collect::<String>()));
        };
        let room = Room { mounts: vec!["/usr".into(), "/no/such/folder:w".into()], gpus: Some(1), cpus: Some(2.5), ..Room::default() };
        step(true, &with(room, &["busybox", "ghcr.io/acme/*"]));
        step(true, &with(Room { networks: vec!["bridge".into()], pull: true, ..Room::default() }, &[]));
        step(true, &with(Room { mounts: vec!["/usr:w".into()], capabilities: vec!["CAP_CHOWN".into()], ..Room::default() }, &[]));
        step(true, &Items { concurrent: Some(2), max_secs: Some(60), ..Items::default() });
        step(false, &with(Room { mounts: vec!["/usr".into()], networks: vec!["bridge".into()], pull: true, ..Room::default() }, &[]));
        step(false, &with(Room::default(), &["docker.io/library/busybox:latest"]));
        step(false, &with(Room::default(), &[]));
        insta::assert_snapshot!(said.join("\n----\n"));
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        let (_dir, mut edit) = edit("");
        let mut say = |items: Items| edit.allow(&name("work"), None, Power::Containers, &items).expect_err("refused").message;
        let bad = [
            say(Items::default()),
            say(words(&["*"])),
            say(with(Room { mounts: vec!["/".into()], ..Room::default() }, &["busybox"])),
            say(with(Room { mounts: vec!["/run/docker.sock".into()], ..Room::default() }, &["busybox"])),
            say(with(Room { networks: vec!["host".into()], ..Room::default() }, &["busybox"])),
            say(with(Room { capabilities: vec!["SYS_ADMIN".into()], ..Room::default() }, &["busybox"])),
            say(Items { at: Some("/x".into()), ..words(&["busybox"]) }),
        ];
        insta::assert_snapshot!(bad.join("\n"));
    }
}
