//! Powers over devices that are granted all together or by name: `camera = true`, `screen = { displays = ["HDMI-1"] }`; and the one that
//! is granted whole or coarse.

use outhaul_host::Power;
use outhaul_protocol::error::Failure;
use toml_edit::{Array, InlineTable, Item, TableLike};

use super::{add, put, take, usage};
use crate::config::PackKey;

/// The list's key, and what stands in it.
fn list(power: Power) -> (&'static str, &'static str) {
    match power {
        Power::Screen => ("displays", "display"),
        _ => ("devices", "camera"),
    }
}

/// Grants all devices of a power, or those that are named.
pub(super) fn allow(table: &mut dyn TableLike, power: Power, names: &[String]) -> Result<(), Failure> {
    let ((key, one), power) = (list(power), power.name());
    if names.is_empty() {
        put(table, power, true.into());
        return Ok(());
    }
    match table.get_mut(power) {
        Some(item) if item.is_table_like() => {
            if let Some(granted) = item.as_table_like_mut() {
                add(granted, key, names);
            }
        }
        Some(item) if item.as_bool() == Some(true) => {
            return Err(usage(format!("`{power} = true` grants every {one} already"))
                .hint(format!("to grant only some: agent deny PACK {power}, then allow these")));
        }
        _ => {
            let mut granted = InlineTable::new();
            granted.insert(key, names.iter().collect::<Array>().into());
            put(table, power, granted.into());
        }
    }
    Ok(())
}

/// Takes a power over devices away, or some of them.
pub(super) fn deny(table: &mut dyn TableLike, pack: &PackKey, power: Power, names: &[String]) -> Result<(), Failure> {
    let ((key, one), power) = (list(power), power.name());
    match table.get_mut(power) {
        None => {}
        Some(_) if names.is_empty() => put(table, power, false.into()),
        Some(item) => match item.as_table_like_mut() {
            Some(granted) => take(granted, key, names),
            None => {
                return Err(usage(format!("pack `{pack}` has no list of {one}s to take `{}` from", names.join(" ").escape_debug()))
                    .hint(format!("to allow only some: agent deny {pack} {power}, then allow these")));
            }
        },
    }
    Ok(())
}

/// Grants the place, as it is known or coarse. Without a word, what was said before stays, which is said.
pub(super) fn allow_location(table: &mut dyn TableLike, pack: &PackKey, coarse: bool, notes: &mut Vec<String>) {
    let rounded = table.get("location").and_then(|item| item.get("coarse")).and_then(Item::as_bool) == Some(true);
    let granted = table.get("location").is_some_and(|item| item.is_table_like() || item.as_bool() == Some(true));
    if coarse {
        let mut rounded = InlineTable::new();
        rounded.insert("coarse", true.into());
        put(table, "location", rounded.into());
    } else if rounded {
        notes.push(format!("it stays coarse; for the exact place: agent deny {pack} location, then allow it"));
    } else if !granted {
        put(table, "location", true.into());
    }
}

/// Takes a power away that is granted as a whole and that no pack has by default.
pub(super) fn deny_whole(table: &mut dyn TableLike, power: Power) {
    if table.get(power.name()).is_some_and(|item: &Item| !item.is_none()) {
        put(table, power.name(), false.into());
    }
}

#[cfg(test)]
mod tests {
    use super::super::Items;
    use super::super::tests::{edit, name, words};
    use super::*;

    #[test]
    fn displays_are_granted_all_or_by_name_and_taken_again() {
        let (_dir, mut edit) = edit("");
        let mut after = |allow: bool, items: &[&str]| {
            match allow {
                true => drop(edit.allow(&name("watch"), None, Power::Screen, &words(items)).expect("allowed")),
                false => drop(edit.deny(&name("watch"), Power::Screen, &words(items)).expect("denied")),
            }
            edit.save().expect("still good");
            edit.text().lines().last().unwrap_or_default().to_owned()
        };
        assert_eq!(after(false, &[]), "");
        assert_eq!(after(true, &["HDMI-1"]), "screen = { displays = [\"HDMI-1\"] }");
        assert_eq!(after(true, &["DP-2", "HDMI-1"]), "screen = { displays = [\"HDMI-1\", \"DP-2\"] }");
        assert_eq!(after(false, &["HDMI-1"]), "screen = { displays = [\"DP-2\"] }");
        assert_eq!(after(true, &[]), "screen = true");
        assert_eq!(after(false, &[]), "screen = false");
        edit.allow(&name("watch"), None, Power::Screen, &words(&[])).expect("allowed");
        let failure = edit.allow(&name("watch"), None, Power::Screen, &words(&["DP-2"])).expect_err("all are granted");
        assert_eq!(failure.message, "`screen = true` grants every display already");
    }

    #[test]
    fn a_place_is_granted_coarse_only_where_it_is_said() {
        let (_dir, mut edit) = edit("");
        let coarse = Items { coarse: true, ..Items::default() };
        let mut after = |allow: bool, items: &Items| {
            match allow {
                true => drop(edit.allow(&name("watch"), None, Power::Location, items).expect("allowed")),
                false => drop(edit.deny(&name("watch"), Power::Location, items).expect("denied")),
            }
            edit.save().expect("still good");
            edit.text().lines().last().unwrap_or_default().to_owned()
        };
        assert_eq!(after(true, &coarse), "location = { coarse = true }");
        assert_eq!(after(true, &Items::default()), "location = { coarse = true }", "what was said before stays");
        assert_eq!(after(false, &Items::default()), "location = false");
        assert_eq!(after(true, &Items::default()), "location = true");
        assert_eq!(after(true, &coarse), "location = { coarse = true }");
        let failure = edit.allow(&name("watch"), None, Power::Notify, &coarse).expect_err("no such flag");
        assert_eq!(failure.message, "`--coarse` belongs to `location`, not to `notify`");
        assert!(!edit.deny(&name("watch"), Power::Notify, &Items::default()).expect("nothing to take"));
    }
}
