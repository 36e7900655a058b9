//! Edits of `http` and `secrets`: hosts with what goes with them, and names.

use outhaul_host::power::{http, secrets};
use outhaul_protocol::error::Failure;
use toml_edit::{InlineTable, Item, TableLike, value};

use super::{Items, add, put, take, usage};

/// What goes with the hosts of `http`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Web {
    /// Methods, beside those that are granted already.
    pub methods: Vec<String>,
    /// Addresses and networks that are not public.
    pub private: Vec<String>,
    /// `NAME=VALUE`, added to requests to the hosts named beside it.
    pub headers: Vec<String>,
}

impl Web {
    /// The secrets in its headers.
    #[must_use]
    pub fn secrets(&self) -> Vec<String> {
        let templates = self.headers.iter().filter_map(|header| split(header).ok());
        templates.flat_map(|(_, template)| template.secrets().map(ToString::to_string).collect::<Vec<_>>()).collect()
    }
}

/// Whether the words after `http` may stand there.
pub(super) fn check(items: &Items, allowing: bool) -> Result<(), Failure> {
    let Web { methods, private, headers } = &items.web;
    if allowing && items.items.is_empty() && methods.is_empty() && private.is_empty() {
        return Err(
            usage("`http` is granted host by host: name at least one".into()).hint("such as: agent allow PACK http api.example.org")
        );
    }
    if !headers.is_empty() && (items.items.is_empty() || !allowing) {
        return Err(usage("`--header` is for the hosts that are allowed beside it: name them".into()));
    }
    let origins = items.items.iter().map(|host| http::Origin::parse(host).and_then(|origin| bindable(&origin, headers)));
    let methods = methods.iter().map(|method| http::Verb::parse(method).map(drop));
    let private = private.iter().map(|network| http::Network::parse(network).map(drop));
    let headers = headers.iter().map(|header| split(header).map(drop));
    origins.chain(methods).chain(private).chain(headers).find_map(Result::err).map_or(Ok(()), |why| Err(usage(why)))
}

fn bindable(origin: &http::Origin, headers: &[String]) -> Result<(), String> {
    match origin.is_one_host() || headers.is_empty() {
        true => Ok(()),
        false => Err(format!("`--header` is bound to one host, and `{origin}` is many")),
    }
}

/// Name and value of `NAME=VALUE`.
fn split(header: &str) -> Result<(http::Field, http::Template), String> {
    let (name, value) = header.split_once('=').ok_or_else(|| format!("`{}` is not NAME=VALUE", header.escape_debug()))?;
    Ok((http::Field::parse(name)?, http::Template::parse(value)?))
}

/// Whether names of secrets may stand after `secrets`.
pub(super) fn check_secrets(names: &[String], allowing: bool) -> Result<(), Failure> {
    if allowing && names.is_empty() {
        return Err(usage("`secrets` is granted by name: name at least one".into()).hint("such as: agent allow PACK secrets api_token"));
    }
    names.iter().find_map(|name| secrets::Name::parse(name).err()).map_or(Ok(()), |why| Err(usage(why)))
}

/// The hosts in the form in which they stand in the file.
fn hosts(items: &Items) -> Result<Vec<http::Origin>, Failure> {
    items.items.iter().map(|host| http::Origin::parse(host).map_err(usage)).collect()
}

pub(super) fn allow(table: &mut dyn TableLike, items: &Items, notes: &mut Vec<String>) -> Result<(), Failure> {
    let hosts = hosts(items)?;
    let Web { methods, private, headers } = &items.web;
    let web = inline(table, "http")?;
    let there: Vec<http::Origin> = web
        .get("hosts")
        .and_then(Item::as_array)
        .map_or_else(Vec::new, |list| list.iter().filter_map(|item| http::Origin::parse(item.as_str()?).ok()).collect());
    let new: Vec<String> = hosts.iter().filter(|host| !there.contains(host)).map(ToString::to_string).collect();
    add(web, "hosts", &new);
    if !methods.is_empty() {
        state_methods(web);
        add(web, "methods", methods);
    }
    add(web, "private", private);
    for host in &hosts {
        for header in headers {
            let (name, template) = split(header).map_err(usage)?;
            let bound = inline(web, "headers")?;
            let key = spelled(bound, host);
            let bound = inline(bound, &key)?;
            put(bound, &name.to_string(), template.to_string().into());
        }
        if host.is_overheard() && !items.web.secrets().is_empty() {
            notes.push(format!("warning: `{host}` is spoken to in the clear, so that the network reads the secrets of this header"));
        }
        if host.is_localhost() && private.is_empty() {
            notes.push(
                "`localhost` leads to addresses of this machine, which have to be named too: --private 127.0.0.1 --private ::1".into(),
            );
        }
    }
    Ok(())
}

/// A host's key as the owner spelled it, else as we do.
fn spelled(headers: &dyn TableLike, host: &http::Origin) -> String {
    let same = |key: &str| http::Origin::parse(key).is_ok_and(|origin| origin == *host);
    headers.iter().map(|(key, _)| key.to_owned()).find(|key| same(key)).unwrap_or_else(|| host.to_string())
}

/// Takes hosts with their headers, methods or addresses away; all hosts when nothing is named.
pub(super) fn deny(table: &mut dyn TableLike, items: &Items) -> Result<(), Failure> {
    let hosts: Vec<String> = hosts(items)?.iter().map(ToString::to_string).collect();
    let Web { methods, private, .. } = &items.web;
    let Some(web) = table.get_mut("http").and_then(Item::as_table_like_mut) else { return Ok(()) };
    if !methods.is_empty() {
        state_methods(web);
        take(web, "methods", methods);
    }
    if !private.is_empty() {
        take(web, "private", private);
    }
    if hosts.is_empty() && !(methods.is_empty() && private.is_empty()) {
        return Ok(());
    }
    drop_hosts(web, &hosts);
    Ok(())
}

/// However the owner spelled them. A header stays only as long as its host.
fn drop_hosts(web: &mut dyn TableLike, hosts: &[String]) {
    let goes = |text: &str| hosts.is_empty() || http::Origin::parse(text).is_ok_and(|origin| hosts.contains(&origin.to_string()));
    if let Some(list) = web.get_mut("hosts").and_then(Item::as_array_mut) {
        list.retain(|item| !item.as_str().is_some_and(goes));
    }
    let Some(headers) = web.get_mut("headers").and_then(Item::as_table_like_mut) else { return };
    let gone: Vec<String> = headers.iter().map(|(host, _)| host.to_owned()).filter(|host| goes(host)).collect();
    for host in &gone {
        headers.remove(host);
    }
    if headers.is_empty() {
        web.remove("headers");
    }
}

/// Writes down the methods that go without saying, before one is added or taken.
fn state_methods(web: &mut dyn TableLike) {
    if web.get("methods").is_none() {
        let methods: Vec<String> = http::Grant::default().methods.iter().map(ToString::to_string).collect();
        add(web, "methods", &methods);
    }
}

/// A table in a table, made when it is not there.
fn inline<'table>(table: &'table mut dyn TableLike, key: &str) -> Result<&'table mut dyn TableLike, Failure> {
    let made = table.entry(key).or_insert_with(|| value(InlineTable::new()));
    made.as_table_like_mut().ok_or_else(|| usage(format!("`{key}` is not a table in the file")))
}

#[cfg(test)]
mod tests {
    use super::super::ConfigEdit;
    use super::*;
    use crate::config::PackKey;
    use outhaul_host::Power;

    fn texts(texts: &[&str]) -> Vec<String> {
        texts.iter().map(|text| (*text).to_owned()).collect()
    }

    fn items(hosts: &[&str], methods: &[&str], private: &[&str], headers: &[&str]) -> Items {
        let web = Web { methods: texts(methods), private: texts(private), headers: texts(headers) };
        Items { items: texts(hosts), web, ..Items::default() }
    }

    fn edit(text: &str) -> (tempfile::TempDir, ConfigEdit, PackKey) {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("agent.toml");
        std::fs::write(&path, text).expect("written");
        (dir, ConfigEdit::open(&path).expect("good"), PackKey::parse("shots").expect("a name"))
    }

    #[test]
    fn hosts_are_granted_with_what_goes_with_them_and_taken_with_it() {
        let (_dir, mut edit, pack) = edit("");
        let mut said = Vec::new();
        let mut step = |edit: &mut ConfigEdit, allow: bool, what: &Items| {
            match allow {
                true => drop(edit.allow(&pack, None, Power::Http, what).expect("allowed")),
                false => drop(edit.deny(&pack, Power::Http, what).expect("denied")),
            }
            edit.save().expect("still good");
            said.push(edit.text().trim().to_owned());
        };
        step(&mut edit, true, &items(&["https://API.example.org:443"], &[], &[], &["Authorization=Bearer {secret:token}"]));
        step(&mut edit, true, &items(&["http://10.0.0.5:8080"], &["POST"], &["10.0.0.0/24"], &[]));
        step(&mut edit, true, &items(&["api.example.org"], &[], &[], &[]));
        step(&mut edit, false, &items(&[], &["HEAD"], &["10.0.0.0/24"], &[]));
        step(&mut edit, false, &items(&["api.example.org"], &[], &[], &[]));
        step(&mut edit, false, &items(&[], &[], &[], &[]));
        insta::assert_snapshot!(said.join("\n----\n"));
    }

    #[test]
    fn secrets_are_granted_by_name() {
        let (_dir, mut edit, pack) = edit("");
        edit.allow(&pack, None, Power::Secrets, &items(&["token", "other"], &[], &[], &[])).expect("allowed");
        assert_eq!(edit.text(), "[packs.shots]\nsecrets = [\"token\", \"other\"]\n");
        assert!(edit.deny(&pack, Power::Secrets, &items(&["token"], &[], &[], &[])).expect("denied"));
        edit.save().expect("still good");
        assert_eq!(edit.text(), "[packs.shots]\nsecrets = [\"other\"]\n");
    }

    #[test]
    fn an_owners_own_layout_stays() {
        let owners = "[packs.shots.http]\n# the tracker\nhosts = [\n  \"https://api.example.org\",\n  \"b.org\",\n]\n\n[packs.shots.http.headers.\"api.example.org\"]\nauthorization = \"Bearer {secret:token}\" # renewed in May\n";
        let (_dir, mut edit, pack) = edit(owners);
        edit.allow(&pack, None, Power::Http, &items(&["c.org", "api.example.org"], &[], &[], &["x-api-key={secret:key}"]))
            .expect("allowed");
        edit.save().expect("still good");
        let allowed = edit.text();
        edit.deny(&pack, Power::Http, &items(&["api.example.org"], &[], &[], &[])).expect("denied");
        edit.save().expect("still good");
        insta::assert_snapshot!(format!("{allowed}----\n{}", edit.text()));
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        let (_dir, mut edit, pack) = edit("");
        let mut say = |power, items: &Items| edit.allow(&pack, None, power, items).expect_err("refused").message;
        let bad = [
            say(Power::Http, &items(&[], &[], &[], &[])),
            say(Power::Http, &items(&["https://example.org/x"], &[], &[], &[])),
            say(Power::Http, &items(&["a.org"], &["CONNECT"], &[], &[])),
            say(Power::Http, &items(&["a.org"], &[], &["ten"], &[])),
            say(Power::Http, &items(&["*.a.org"], &[], &[], &["a=b"])),
            say(Power::Http, &items(&["a.org"], &[], &[], &["authorization"])),
            say(Power::Http, &items(&[], &["POST"], &[], &["a=b"])),
            say(Power::Http, &Items { max_secs: Some(1), ..items(&["a.org"], &[], &[], &[]) }),
            say(Power::Process, &items(&["uname"], &["GET"], &[], &[])),
            say(Power::Secrets, &items(&[], &[], &[], &[])),
            say(Power::Secrets, &items(&["Token"], &[], &[], &[])),
        ];
        insta::assert_snapshot!(bad.join("\n"));
    }

    #[test]
    fn what_an_owner_may_not_expect_is_said() {
        let (_dir, mut edit, pack) = edit("");
        let notes = edit.allow(&pack, None, Power::Http, &items(&["http://localhost:11434"], &[], &[], &[])).expect("allowed");
        assert_eq!(
            notes,
            ["`localhost` leads to addresses of this machine, which have to be named too: --private 127.0.0.1 --private ::1"]
        );
        let bound = items(&["http://10.0.0.5"], &[], &[], &["authorization={secret:token}"]);
        let notes = edit.allow(&pack, None, Power::Http, &bound).expect("allowed");
        assert_eq!(notes, ["warning: `http://10.0.0.5` is spoken to in the clear, so that the network reads the secrets of this header"]);
    }
}
