//! `relay publisher`: this home's key that signs packs, and whose packs the fleet's machines take. A machine learns of a
//! publisher when it is paired, or by a signed call of an operator with the right `policy`.

use std::path::Path;

use outhaul_protocol::error::{Code, Failure};
use outhaul_protocol::keys::PublicKey;
use outhaul_protocol::native;
use outhaul_protocol::objects::{Rotation, valid_name};
use outhaul_protocol::value::Value;
use serde_json::{Value as Json, json};

use super::Context;
use super::args::Publisher;
use super::nodes::publish;
use super::operators::late;
use super::output::failure_text;
use super::pack::{CHANGE, again, all_known, change, result_json};
use super::sign::own_key;
use crate::operator::{OWN, Seen, Session, read_rotations, revoke_publisher};

/// `relay publisher …`.
pub(super) async fn publisher(context: &Context, command: Publisher) -> Result<u8, Failure> {
    match command {
        Publisher::Show => show(context),
        Publisher::Rotate => rotate(context),
        Publisher::Trust { key, name, rotations, nodes } => trust(context, &key, name.as_deref(), rotations.as_deref(), &nodes).await,
        Publisher::Distrust { key, nodes } => distrust(context, &key, &nodes).await,
        Publisher::Revoke { key } => revoke(context, &key).await,
    }
}

fn show(context: &Context) -> Result<u8, Failure> {
    let key = own_key(context)?.public();
    let known = context.room.known_publishers()?;
    let replaced: Vec<PublicKey> = known.of(&key.id()).map(|own| own.keys().iter().rev().skip(1).copied().collect()).unwrap_or_default();
    let others: Vec<(String, PublicKey)> = context.room.named_publishers()?.into_iter().collect();
    context.out.either(
        || shown(&key, &replaced, &others),
        || {
            let other =
                |(name, key): &(String, PublicKey)| json!({"name": name, "key": key.to_string(), "fingerprint": key.id().to_string()});
            json!({
                "key": key.to_string(),
                "fingerprint": key.id().to_string(),
                "replaced": replaced.iter().map(ToString::to_string).collect::<Vec<_>>(),
                "trusted": others.iter().map(other).collect::<Json>(),
            })
        },
    );
    Ok(0)
}

fn shown(key: &PublicKey, replaced: &[PublicKey], others: &[(String, PublicKey)]) -> String {
    let mut lines = vec![format!("key          {key}"), format!("fingerprint  {}", key.id())];
    lines.extend(replaced.iter().map(|old| format!("replaced     {old}")));
    lines.extend(others.iter().map(|(name, key)| format!("trusted      {name}  {key}")));
    lines.join("\n")
}

fn rotate(context: &Context) -> Result<u8, Failure> {
    let done = context.room.rotate_publisher()?;
    context.out.talk(&format!("the old key signs nothing new any more; delete it when you like: {}", done.kept.display()));
    context.out.talk("nodes follow with the next pack you deploy; `relay publisher revoke` ends what the old key signed");
    context.out.either(
        || format!("key          {}\nfingerprint  {}\nreplaced     {}", done.new, done.new.id(), done.old),
        || json!({"ok": true, "key": done.new.to_string(), "fingerprint": done.new.id().to_string(), "replaced": done.old.to_string()}),
    );
    Ok(0)
}

async fn trust(context: &Context, key: &str, name: Option<&str>, rotations: Option<&Path>, nodes: &[String]) -> Result<u8, Failure> {
    let key = context.room.publisher_key(key)?;
    if let Some(name) = name.filter(|name| !valid_name(name) || *name == OWN) {
        let text = format!("`{}` cannot name a publisher: lower-case letters, digits and dashes, and not `own`", name.escape_debug());
        return Err(Failure::new(Code::BadUsage, text));
    }
    let own = context.room.publisher()?.is_some_and(|own| own.public() == key);
    let rotations = match rotations {
        Some(path) => read(path)?,
        None if own => context.room.rotations()?,
        None => Vec::new(),
    };
    if !own {
        let known = context.room.named_publishers()?.into_iter().find(|(_, known)| *known == key).map(|(name, _)| name);
        let name = name.map(str::to_owned).or(known).unwrap_or_else(|| key.id().short());
        context.room.name_publisher(&name, &key)?;
    }
    let mut params = vec![("key".into(), key.to_string().into())];
    params.extend(name.map(|name| ("name".into(), name.into())));
    if !rotations.is_empty() {
        let bytes = rotations.iter().map(|rotation| Value::Bytes(rotation.encode())).collect();
        params.push(("rotations".into(), Value::Array(bytes)));
    }
    let said = format!("publisher {} is trusted", key.id().short());
    if nodes.is_empty() {
        context.out.talk("machines paired from here trust it from now on; name nodes to tell those that are paired already");
    }
    tell(context, native::TRUST, Value::Map(params), nodes, &said).await
}

fn read(path: &Path) -> Result<Vec<Rotation>, Failure> {
    let bad = |what: String| Failure::new(Code::BadUsage, format!("read `{}`: {what}", path.display()));
    let text = std::fs::read(path).map_err(|error| bad(error.to_string()))?;
    read_rotations(&text).map_err(bad)
}

async fn distrust(context: &Context, key: &str, nodes: &[String]) -> Result<u8, Failure> {
    let key = context.room.publisher_key(key)?;
    let known = context.room.forget_publisher(&key)?;
    if !known && nodes.is_empty() {
        return Err(Failure::new(Code::BadUsage, format!("publisher {} is not named here", key.id().short()))
            .hint("name the nodes that are to trust it no more"));
    }
    let params = Value::Map(vec![("key".into(), key.to_string().into())]);
    tell(context, native::DISTRUST, params, nodes, &format!("publisher {} is not trusted any more", key.id().short())).await
}

async fn revoke(context: &Context, key: &str) -> Result<u8, Failure> {
    let fleet = context.room.fleet()?;
    let key = context.room.publisher_key(key)?;
    let list = revoke_publisher(&context.room, &fleet, &key)?;
    context.room.forget_publisher(&key)?;
    // Signed and kept: whatever happens to the link, the next node we talk to hears of it.
    let session: Session = context.session().await.map_err(late)?;
    publish(&session, list).await.map_err(late)?;
    context.out.either(
        || format!("revoked: publisher {}; what it signed stops wherever this is heard", key.id().short()),
        || json!({"ok": true, "key": key.to_string(), "fingerprint": key.id().to_string()}),
    );
    Ok(0)
}

/// One signed call to each node; all of them are known before the first is made.
async fn tell(context: &Context, command: &str, params: Value, nodes: &[String], said: &str) -> Result<u8, Failure> {
    let mut results: Vec<(Seen, Result<Value, Failure>)> = Vec::with_capacity(nodes.len());
    if !nodes.is_empty() {
        let mut session = context.session().await?;
        for seen in all_known(&mut session, nodes).await? {
            let result = change(context, again(&session)?, &seen, command, params.clone(), CHANGE).await;
            results.push((seen, result));
        }
    }
    let failed = results.iter().find_map(|(_, result)| result.as_ref().err()).map_or(0, |failure| failure.code.exit());
    if context.out.json {
        context.out.json(&json!({
            "ok": failed == 0,
            "nodes": results.iter().map(|(seen, result)| result_json(seen, command, result)).collect::<Json>(),
        }));
        return Ok(failed);
    }
    if nodes.is_empty() {
        context.out.data(said);
    }
    for (seen, result) in &results {
        let node = &seen.known.node.name;
        match result {
            Ok(_) => context.out.data(&format!("{node}: {said}")),
            Err(failure) => context.out.talk(&format!("{node}: {}", failure_text(failure, None))),
        }
    }
    Ok(failed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use outhaul_protocol::publisher::PublisherKey;

    #[test]
    fn a_publisher_is_shown_with_what_others_need() {
        let key = |n: u8| PublisherKey::from_bytes(&[n; 32]).public();
        insta::assert_snapshot!(shown(&key(1), &[key(2)], &[("acme".into(), key(3))]), @r"
        key          8a88e3dd7409f195fd52db2d3cba5d72ca6709bf1d94121bf3748801b40f6f5c
        fingerprint  34750f98bd59fcfc946da45aaabe933be154a4b5094e1c4abf42866505f3c97e
        replaced     8139770ea87d175f56a35466c34c7ecccb8d8a91b4ee37a25df60f5b8fc9b394
        trusted      acme  ed4928c628d1c2c6eae90338905995612959273a5c63f93636c14614ac8737d1
        ");
    }
}
