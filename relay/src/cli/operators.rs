//! `relay operator`, `init` and `use`: who this operator is, whom it trusts, and what it grants and takes back.

use outhaul_link::dial::{Identity, dial};
use outhaul_link::url::RelayUrl;
use outhaul_protocol::cbor::Blob;
use outhaul_protocol::chain::Authority;
use outhaul_protocol::error::{Code, Failure};
use outhaul_protocol::frame::Role;
use outhaul_protocol::keys::{PublicKey, SecretKey};
use outhaul_protocol::objects::{Enrol, Grant as Granted, Rights, valid_name};
use serde_json::{Value as Json, json};

use super::Context;
use super::args::{Grant, Use};
use super::nodes::publish;
use super::output::table;
use crate::operator::{
    Config, FINGERPRINT_DIGITS, Fleet, GrantText, GrantWish, Offered, Session, delegates, give, given, now, revoke, revoke_at, target,
    words,
};

/// `relay init`.
pub(super) fn init(context: &Context) -> Result<u8, Failure> {
    let made = crate::init::init_owner(&context.home)?;
    if !context.out.json {
        if !made.files.is_empty() {
            context.out.talk(made.to_string().trim_end());
        }
        context.out.talk(&format!("next, on the relay's machine: relay serve --fleet {}", made.fleet));
    }
    context.out.either(
        || made.fleet.to_string(),
        || json!({"ok": true, "fleet": made.fleet.to_string(), "operator": made.operator.to_string(), "made": made.files.iter().map(|(_, path)| path.display().to_string()).collect::<Vec<_>>()}),
    );
    Ok(0)
}

/// `relay use`: asks the relay for its key, compares it with what the person was told, and remembers it.
pub(super) async fn use_relay(context: &Context, how: &Use) -> Result<u8, Failure> {
    let url = RelayUrl::parse(&how.url)?;
    let key = key_of(context, &url).await?;
    let (shown, id) = (key.to_string(), key.id().to_string());
    if let Some(told) = &how.relay_key {
        let told = told.to_ascii_lowercase();
        if told.len() < FINGERPRINT_DIGITS {
            return Err(Failure::new(Code::BadUsage, format!("`--relay-key` needs at least {FINGERPRINT_DIGITS} digits"))
                .hint("`relay serve` prints the fingerprint where the relay runs"));
        }
        if shown != told && !id.starts_with(&told) {
            return Err(Failure::new(Code::BadKey, format!("`{url}` shows key {shown} (fingerprint {id}), `--relay-key` is another"))
                .hint("somebody else may answer there: compare with what `relay serve` prints where the relay runs"));
        }
    }
    let room = &context.room;
    if room.fleet_key()?.is_some() {
        if how.relay_key.is_none() {
            let failure = Failure::new(Code::BadUsage, format!("`{url}` shows the fingerprint {id}"));
            return Err(
                failure.hint(format!("if `relay serve` printed the same there: relay use {url} --relay-key {}", &id[..FINGERPRINT_DIGITS]))
            );
        }
        crate::init::list_relay(&context.home, &url, &key)?;
    } else {
        let fleet = room.fleet()?;
        if !fleet.relays.as_ref().is_some_and(|relays| relays.keys.contains(&key)) {
            return Err(Failure::new(Code::BadKey, format!("`{url}` shows the fingerprint {id}, which is none of the fleet's relays"))
                .hint("the fleet's owner adds it with the same command on their machine"));
        }
    }
    // Relative to where this was typed, the next command would not find it.
    let ca = context.global.ca.as_ref().map(|path| std::path::absolute(path).unwrap_or_else(|_| path.clone()));
    let config = room.config()?;
    room.set_config(&Config { relay: Some(url.to_string()), ca: ca.or(config.ca.clone()), ..config })?;
    context.out.either(
        || format!("using {url} ({})", key.id().short()),
        || json!({"ok": true, "relay": url.to_string(), "key": shown, "fingerprint": id}),
    );
    Ok(0)
}

/// The key a relay proves. A guest's key of the moment asks: nothing of this operator is shown.
async fn key_of(context: &Context, url: &RelayUrl) -> Result<PublicKey, Failure> {
    let target = target(&context.room, Some(&url.to_string()), context.global.ca.clone())?;
    let mut found = None;
    let guest = SecretKey::generate();
    let identity = Identity { role: Role::Guest, key: &guest, credential: Blob(Vec::new()), lookup: None };
    let enough = || Failure::new(Code::Cancelled, "the key is known");
    let outcome = dial(&target, identity, |key| {
        found = Some(*key);
        Err(enough())
    });
    let outcome = outcome.await.err();
    found.ok_or_else(|| outcome.unwrap_or_else(enough))
}

/// `relay operator show`.
pub(super) fn show(context: &Context) -> Result<u8, Failure> {
    let (key, new) = context.room.key_or_new()?;
    if new {
        context.out.talk(&format!("made this operator's key: {}", context.room.path("operator.key").display()));
    }
    let (fleet, authority) = match context.room.fleet_pin()? {
        None => (None, None),
        Some(_) => {
            let fleet = context.room.fleet()?;
            let chain = context.room.chain()?;
            let authority = fleet.authority(&chain);
            (Some(fleet), Some(authority))
        }
    };
    let public = key.public();
    context
        .out
        .either(|| show_text(&public, fleet.as_ref(), authority.as_ref()), || show_json(&public, fleet.as_ref(), authority.as_ref()));
    Ok(0)
}

type Standing = Result<Authority, Failure>;

fn show_text(key: &PublicKey, fleet: Option<&Fleet>, authority: Option<&Standing>) -> String {
    let mut lines = vec![format!("key          {key}"), format!("fingerprint  {}", key.id())];
    match fleet {
        None => lines.push("fleet        none yet: have this key granted, then `relay operator accept GRANT`".to_owned()),
        Some(fleet) => {
            lines.push(format!("fleet        {} ({})", fleet.key, fleet.key.id().short()));
            let urls = fleet.relays.as_ref().map(|relays| relays.urls.join(", ")).filter(|urls| !urls.is_empty());
            lines.push(format!("relays       {}", urls.unwrap_or_else(|| "none yet".to_owned())));
        }
    }
    match authority {
        None => {}
        Some(Err(failure)) => lines.push(format!("grant        does not stand: {failure}")),
        Some(Ok(authority)) => {
            let last = authority.grants().last();
            let list = |items: fn(&Granted) -> &[String]| last.map_or_else(String::new, |grant| items(grant).join(", "));
            lines.push(format!("commands     {}", list(|grant| &grant.commands)));
            lines.push(format!("nodes        {}", list(|grant| &grant.nodes)));
            lines.push(format!("rights       {}", rights_text(&authority.rights(), delegates(authority))));
            lines.push(format!("until        {}", authority.expires()));
        }
    }
    lines.join("\n")
}

fn rights_text(rights: &Rights, delegate: bool) -> String {
    let mut words = words(rights);
    if delegate {
        words.push("delegate".to_owned());
    }
    if words.is_empty() { "-".to_owned() } else { words.join(", ") }
}

fn show_json(key: &PublicKey, fleet: Option<&Fleet>, authority: Option<&Standing>) -> Json {
    let standing = authority.and_then(|standing| standing.as_ref().ok());
    json!({
        "key": key.to_string(),
        "fingerprint": key.id().to_string(),
        "fleet": fleet.map(|fleet| fleet.key.to_string()),
        "relays": fleet.and_then(|fleet| fleet.relays.as_ref()).map(|relays| relays.urls.clone()).unwrap_or_default(),
        "grant": standing.and_then(|authority| authority.grants().last().map(grant_json)),
        "until": standing.map(|authority| authority.expires().0),
        "error": authority.and_then(|standing| standing.as_ref().err()).map(|failure| failure.to_json(None)),
    })
}

fn grant_json(grant: &Granted) -> Json {
    json!({
        "id": hex::encode(grant.cti),
        "holder": grant.holder.to_string(),
        "commands": grant.commands,
        "nodes": grant.nodes,
        "rights": words(&grant.rights),
        "delegate": grant.delegate,
        "evidence_channel": grant.evidence_channel,
        "given_at": grant.iat.0,
        "until": grant.exp.0,
    })
}

/// `relay operator add`.
pub(super) fn add(context: &Context, name: &str, key: &str) -> Result<u8, Failure> {
    if !valid_name(name) {
        return Err(Failure::new(
            Code::BadUsage,
            format!("`{}` is not a name: lower-case letters, digits and dashes", name.escape_debug()),
        ));
    }
    let key: PublicKey = key.parse().map_err(|error| {
        Failure::new(Code::BadUsage, format!("read key: {error}")).hint("`relay operator show` on their machine prints it")
    })?;
    context.room.name_operator(name, &key)?;
    context.out.either(|| format!("{name} is {}", key.id().short()), || json!({"ok": true, "name": name, "key": key.to_string()}));
    Ok(0)
}

/// `relay operator grant`.
pub(super) fn grant(context: &Context, how: &Grant) -> Result<u8, Failure> {
    let fleet = context.room.fleet()?;
    let enrol = (!how.enrol.is_empty()).then(|| Enrol {
        names: how.enrol.clone(),
        labels: if how.enrol_labels.is_empty() { Vec::new() } else { how.enrol_labels.clone() },
    });
    let wish = GrantWish {
        holder: context.room.operator_key(&how.key)?,
        commands: how.commands.clone(),
        nodes: how.nodes.clone(),
        secs: how.lasts.as_secs().max(1),
        delegate: how.delegate,
        rights: Rights { enrol, packs: how.packs, policy: how.policy, revoke: how.revoke },
        evidence_channel: how.evidence_channel,
    };
    let (cti, text) = give(&context.room, &fleet, wish)?;
    let word = text.reveal()?;
    if !context.out.json {
        context.out.talk(&format!(
            "granted: {} until {}; they run: relay operator accept GRANT",
            &hex::encode(cti)[..12],
            now().plus(how.lasts.as_secs())
        ));
    }
    context.out.either(|| word.clone(), || json!({"ok": true, "id": hex::encode(cti), "grant": word}));
    Ok(0)
}

/// `relay operator accept`.
pub(super) fn accept(context: &Context, text: &str) -> Result<u8, Failure> {
    let read = match text {
        "-" => std::io::read_to_string(std::io::stdin()).map_err(|error| Failure::new(Code::BadUsage, format!("read stdin: {error}")))?,
        text => text.to_owned(),
    };
    let Offered { fleet, chain, relays, publishers } = GrantText::parse(&read)?;
    let authority = context.room.adopt(&fleet, &chain, relays.as_deref()).map_err(|failure| match failure.code {
        Code::BadSignature => failure.hint("it was changed on its way: have it sent again"),
        _ => failure,
    })?;
    for key in publishers.iter().filter(|key| named(context, key).is_ok_and(|known| !known)) {
        context.room.name_publisher(&key.id().short(), key)?;
    }
    let config = context.room.config()?;
    let url = context.room.fleet()?.relays.and_then(|relays| relays.urls.first().cloned());
    if let (None, Some(url)) = (&config.relay, url) {
        context.room.set_config(&Config { relay: Some(url), ..config })?;
    }
    context.out.either(
        || format!("accepted: fleet {}, until {}", fleet.id().short(), authority.expires()),
        || json!({"ok": true, "fleet": fleet.to_string(), "until": authority.expires().0}),
    );
    context.out.talk(match context.room.config()?.relay {
        Some(_) => "next: relay nodes",
        None => "next, with the relay's address and fingerprint from the fleet's owner: relay use URL --relay-key FINGERPRINT",
    });
    Ok(0)
}

/// Whether a publisher has a name here, so that accepting again renames nobody.
fn named(context: &Context, key: &PublicKey) -> Result<bool, Failure> {
    Ok(context.room.pinned_publishers()?.contains(key))
}

/// `relay operator grants`.
pub(super) fn grants(context: &Context) -> Result<u8, Failure> {
    let fleet = context.room.fleet()?;
    let own: Vec<Granted> =
        fleet.authority(&context.room.chain()?).map(|authority| authority.grants().cloned().collect()).unwrap_or_default();
    let all: Vec<(&str, Granted)> =
        own.into_iter().map(|grant| ("own", grant)).chain(given(&context.room)?.into_iter().map(|grant| ("given", grant))).collect();
    let names = context.room.operators()?;
    let name = |key: &PublicKey| names.iter().find(|(_, named)| **named == key.to_string()).map(|(name, _)| name.clone());
    let at = now();
    let state = |grant: &Granted| match () {
        () if fleet.revoked.has_grant(&grant.cti) || fleet.revoked.has_key(&grant.holder.id()) => "revoked",
        () if grant.exp <= at => "expired",
        () => "stands",
    };
    let row = |(kind, grant): &(&str, Granted)| {
        vec![
            hex::encode(&grant.cti[..6]),
            (*kind).to_owned(),
            name(&grant.holder).unwrap_or_else(|| grant.holder.id().short()),
            grant.commands.join(","),
            grant.nodes.join(" "),
            rights_text(&grant.rights, grant.delegate),
            grant.exp.to_string(),
            state(grant).to_owned(),
        ]
    };
    context.out.either(
        || table(&["ID", "KIND", "HOLDER", "COMMANDS", "NODES", "RIGHTS", "UNTIL", "STATE"], &all.iter().map(row).collect::<Vec<_>>()),
        || {
            let entry = |(kind, grant): &(&str, Granted)| {
                let mut json = grant_json(grant);
                (json["kind"], json["name"], json["state"]) = ((*kind).into(), name(&grant.holder).into(), state(grant).into());
                json
            };
            all.iter().map(entry).collect()
        },
    );
    Ok(0)
}

/// `relay operator revoke`.
pub(super) async fn take_back(context: &Context, text: &str) -> Result<u8, Failure> {
    let fleet = context.room.fleet()?;
    let (keys, ctis) = revoke_at(&context.room, text)?;
    if keys.contains(&context.room.key()?.id()) {
        return Err(Failure::new(Code::BadUsage, "that is your own key: nobody could act here any more"));
    }
    let list = revoke(&context.room, &fleet, &keys, &ctis)?;
    // Signed and kept: whatever happens to the link, the next node we talk to hears of it.
    let session: Session = context.session().await.map_err(late)?;
    publish(&session, list).await.map_err(late)?;
    context.out.either(|| format!("revoked: {}", text.escape_debug()), || json!({"ok": true, "keys": keys.iter().map(ToString::to_string).collect::<Vec<_>>(), "grants": ctis.iter().map(hex::encode).collect::<Vec<_>>()}));
    Ok(0)
}

pub(super) fn late(failure: Failure) -> Failure {
    let hint = failure.hint.clone().unwrap_or_default();
    Failure { message: format!("signed and kept here, but the relay was not told: {}", failure.message), ..failure }
        .hint(format!("nodes hear of it with your next call to them. {hint}").trim_end())
}

#[cfg(test)]
mod tests {
    use super::*;
    use outhaul_protocol::keys::KeyId;
    use outhaul_protocol::time::Time;

    #[test]
    fn an_operator_without_a_fleet_sees_what_to_do() {
        let key = SecretKey::from_bytes(&[3; 32]).public();
        insta::assert_snapshot!(show_text(&key, None, None), @r"
        key          ed4928c628d1c2c6eae90338905995612959273a5c63f93636c14614ac8737d1
        fingerprint  b62e867fa2f33afe62d5d6b1642e1621d543307846b2a57b897e710919b76709
        fleet        none yet: have this key granted, then `relay operator accept GRANT`
        ");
        assert_eq!(show_json(&key, None, None)["fleet"], Json::Null);
    }

    #[test]
    fn a_grant_as_json() {
        let grant = Granted {
            iss: KeyId([1; 32]),
            aud: KeyId([1; 32]),
            exp: Time(200),
            iat: Time(100),
            cti: [7; 16],
            holder: SecretKey::from_bytes(&[3; 32]).public(),
            commands: vec!["gpu.*".into()],
            nodes: vec!["*".into()],
            evidence_channel: false,
            rights: Rights { packs: true, ..Rights::default() },
            delegate: false,
            holder_kind: None,
        };
        let json = grant_json(&grant);
        assert_eq!((&json["id"], &json["rights"], &json["until"]), (&json!("07".repeat(16)), &json!(["packs"]), &json!(200)));
        assert_eq!(rights_text(&grant.rights, true), "packs, delegate");
        assert_eq!(rights_text(&Rights::default(), false), "-");
    }
}
