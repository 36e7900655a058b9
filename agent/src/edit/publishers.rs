//! Publishers in `agent.toml`: whom the owner trusts or refuses, and whose a pack's grants are.

use outhaul_protocol::error::{Code, Failure};
use outhaul_protocol::keys::PublicKey;
use toml_edit::{Array, Item, Table, TableLike, Value};

use super::{ConfigEdit, put};
use crate::config::PackKey;

impl ConfigEdit {
    /// Adds a publisher to `[publishers.trust]` or `[publishers.refuse]`; a key that is listed there stays as it is.
    pub fn list_publisher(&mut self, list: &str, name: &str, key: &PublicKey) -> Result<(), Failure> {
        let text = key.to_string();
        let table = self.publishers(list)?;
        if !table.iter().any(|(_, item)| item.as_str() == Some(&text)) {
            put(table, name, text.into());
        }
        Ok(())
    }

    /// Takes keys out of one of the two; false when none was there.
    pub fn unlist_publisher(&mut self, list: &str, keys: &[PublicKey]) -> Result<bool, Failure> {
        let listed = self.document.get("publishers").and_then(|publishers| publishers.get(list)).is_some();
        if !listed {
            return Ok(false);
        }
        let texts: Vec<String> = keys.iter().map(ToString::to_string).collect();
        let table = self.publishers(list)?;
        let is_one = |item: &Item| item.as_str().is_some_and(|text| texts.iter().any(|key| key.eq_ignore_ascii_case(text)));
        let names: Vec<String> = table.iter().filter(|(_, item)| is_one(item)).map(|(name, _)| name.to_owned()).collect();
        names.iter().for_each(|name| drop(table.remove(name)));
        Ok(!names.is_empty())
    }

    /// Makes a name's table a publisher's, or one version's where the owner chose a version before. A table of another
    /// publisher is not moved: what was granted to one must not pass to another by a word about a third thing.
    pub fn pin_publisher(&mut self, key: &PackKey, publisher: &PublicKey, same: &[PublicKey]) -> Result<(), Failure> {
        let table = self.pack(key)?;
        let before = table.get("publisher").and_then(Item::as_str).map(str::to_ascii_lowercase);
        match before {
            Some(before) if same.iter().any(|key| key.to_string() == before) => Ok(()),
            Some(before) => {
                let short = before.parse::<PublicKey>().map_or(before, |key| key.id().short());
                let text = format!("[packs.{key}] is for the pack of publisher {short}, the active one is of {}", publisher.id().short());
                Err(Failure::new(Code::BadUsage, text).hint(format!(
                    "take that table out of the file first, or grant the active version alone: agent allow sha256:DIGEST …; agent policy show names `{key}`'s"
                )))
            }
            None => {
                put(table, "publisher", publisher.to_string().into());
                Ok(())
            }
        }
    }

    /// Notes what the version asks for that the owner has just decided on.
    pub fn note_asked(&mut self, key: &PackKey, powers: &[String]) -> Result<(), Failure> {
        let asked = Value::from(powers.iter().collect::<Array>());
        let table = self.pack(key)?;
        let same = table.get("asked").and_then(Item::as_array).is_some_and(|before| {
            before.len() == powers.len() && before.iter().zip(powers).all(|(before, now)| before.as_str() == Some(now))
        });
        if !same {
            put(table, "asked", asked);
        }
        Ok(())
    }

    /// Whether a pack's table has a key, such as `digest` where the owner pins one version.
    #[must_use]
    pub fn says(&self, pack: &PackKey, key: &str) -> bool {
        self.document.get("packs").and_then(|packs| packs.get(pack.to_string())).is_some_and(|table| table.get(key).is_some())
    }

    fn publishers(&mut self, list: &str) -> Result<&mut dyn TableLike, Failure> {
        let odd = || Failure::new(Code::BadConfig, format!("edit `{}`: `publishers` is not a table", self.path.display()));
        let publishers = self.document.entry("publishers").or_insert_with(|| {
            let mut table = Table::new();
            table.set_implicit(true);
            Item::Table(table)
        });
        let publishers = publishers.as_table_like_mut().ok_or_else(odd)?;
        publishers.entry(list).or_insert(Item::Table(Table::new())).as_table_like_mut().ok_or_else(odd)
    }
}
