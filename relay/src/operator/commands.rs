//! Which command is meant, and what it takes: from the list of a node's active packs and their descriptions. The list is
//! addressed by the digest that the node signed in its announce, a description by its digest in the list, so that both
//! may come from anywhere and are kept.

use outhaul_protocol::describe::{AnnouncedPack, PackDescription, PackList};
use outhaul_protocol::error::{Code, Failure};
use outhaul_protocol::frame::{Answer, Ask};
use outhaul_protocol::keys::Digest;
use outhaul_protocol::native;
use outhaul_protocol::types::Command;

use super::book::Known;
use super::room::Room;
use super::session::{Session, unexpected};

/// Commands an error lists.
const LISTED: usize = 12;

/// A command with the pack that answers it; none for the agent's own.
#[derive(Debug, Clone)]
pub struct Meant {
    /// its types
    pub command: Command,
    /// the pack's component
    pub pack: Option<Digest>,
}

/// The active packs of a node, as it announced them last: kept, or from the relay.
pub async fn packs_of(session: &Session, node: &Known) -> Result<Vec<AnnouncedPack>, Failure> {
    let Some(announce) = &node.announce else { return Ok(Vec::new()) };
    let what = format!("the list of packs of `{}`", node.node.name);
    let bytes = kept_or_fetched(session, &announce.content.packs, &what).await?;
    let list = PackList::from_bytes(&bytes).map_err(|error| Failure::new(Code::BadSignature, format!("{what} is malformed: {error}")))?;
    Ok(list.0)
}

/// The same, of a node that is to answer a command: one that never announced is not said to lack it.
pub async fn answering(session: &Session, node: &Known) -> Result<Vec<AnnouncedPack>, Failure> {
    if node.announce.is_none() {
        let failure = Failure::new(Code::NodeOffline, format!("`{}` has not said yet which commands it has", node.node.name));
        return Err(failure.hint("start `agent run` on that machine, or try again in a moment"));
    }
    packs_of(session, node).await
}

/// The sorted names of the interfaces that answer on a node. Most announces have them.
pub async fn capabilities_of(session: &Session, node: &Known) -> Result<Vec<String>, Failure> {
    match node.announce.as_ref().and_then(|announce| announce.content.capabilities.clone()) {
        Some(names) => Ok(names),
        None => Ok(PackList(packs_of(session, node).await?).capabilities()),
    }
}

/// The description of a pack: kept, or from the relay.
pub async fn description_of(session: &Session, pack: &AnnouncedPack) -> Result<PackDescription, Failure> {
    let bytes = kept_or_fetched(session, &pack.description, &format!("the description of pack `{}`", pack.name)).await?;
    let malformed =
        |what: &dyn std::fmt::Display| Failure::new(Code::BadSignature, format!("the description of pack `{}` {what}", pack.name));
    let description = PackDescription::from_bytes(&bytes).map_err(|error| malformed(&format!("is malformed: {error}")))?;
    match description.digest == pack.digest && description.name == pack.name {
        true => Ok(description),
        false => Err(malformed(&"is of another component")),
    }
}

async fn kept_or_fetched(session: &Session, digest: &[u8; 32], what: &str) -> Result<Vec<u8>, Failure> {
    if let Some(bytes) = read_kept(&session.dialer.room, digest) {
        return Ok(bytes);
    }
    let Answer::Bytes { bytes } = session.link.ask(Ask::Description { digest: Digest(*digest) }).await? else {
        return Err(unexpected("a description"));
    };
    if PackDescription::digest_of(&bytes.0) != *digest {
        return Err(Failure::new(Code::DigestMismatch, format!("the relay gave another thing for {what} than the node signed")));
    }
    keep(&session.dialer.room, digest, &bytes.0);
    Ok(bytes.0)
}

fn read_kept(room: &Room, digest: &[u8; 32]) -> Option<Vec<u8>> {
    let bytes = std::fs::read(room.path(format!("cache/{}", Digest(*digest)))).ok()?;
    (PackDescription::digest_of(&bytes) == *digest).then_some(bytes)
}

/// Best effort and without sync: a damaged file is noticed by its digest and fetched again.
fn keep(room: &Room, digest: &[u8; 32], bytes: &[u8]) {
    let Ok(folder) = room.create("cache") else { return };
    let (name, temporary) = (Digest(*digest).to_string(), format!(".{}.{}", Digest(*digest).short(), std::process::id()));
    if std::fs::write(folder.join(&temporary), bytes).is_ok() {
        let _ = std::fs::rename(folder.join(&temporary), folder.join(name));
    }
}

/// The command of a name on a node. `-` may stand for `_`, as people who read WIT write it.
pub async fn find_command(session: &Session, node: &Known, name: &str) -> Result<Meant, Failure> {
    let name = name.replace('-', "_");
    if let Some(command) = native::command_of(&name) {
        return Ok(Meant { command, pack: None });
    }
    let packs = answering(session, node).await?;
    let interface = name.split('.').next().unwrap_or_default();
    if let Some(pack) = packs.iter().find(|pack| pack.interfaces.iter().any(|known| known == interface)) {
        let description = description_of(session, pack).await?;
        if let Some(command) = description.command(&name) {
            return Ok(Meant { command: command.clone(), pack: Some(Digest(pack.digest)) });
        }
    }
    let mut all: Vec<String> = native::commands().into_iter().map(|command| command.name).collect();
    for pack in &packs {
        all.extend(description_of(session, pack).await?.commands.into_iter().map(|command| command.name));
    }
    Err(unknown_command(&node.node.name, &name, &all))
}

/// Names the command that was probably meant, else those of its interface, else where to look.
fn unknown_command(node: &str, name: &str, all: &[String]) -> Failure {
    let failure = Failure::new(Code::UnknownCommand, format!("`{node}` has no command `{}`", name.escape_debug()));
    let (interface, function) = name.split_once('.').unwrap_or((name, ""));
    let near = all.iter().min_by_key(|known| distance(known, name)).filter(|known| distance(known, name) <= name.len().max(6) / 3);
    let same: Vec<&str> = all.iter().map(String::as_str).filter(|known| known.split('.').next() == Some(interface)).take(LISTED).collect();
    let by_function: Vec<&str> = all
        .iter()
        .map(String::as_str)
        .filter(|known| known.split('.').nth(1) == Some(if function.is_empty() { name } else { function }))
        .collect();
    match (near, same.as_slice(), by_function.as_slice()) {
        (Some(near), ..) => failure.hint(format!("did you mean `{near}`?")),
        (None, [], []) => failure.hint(format!("`relay nodes describe {node}` lists its commands")),
        (None, [], found) => failure.hint(format!("did you mean `{}`?", found.join("` or `"))),
        (None, same, _) => failure.hint(format!("`{interface}` has {}", same.join(", "))),
    }
}

/// Edit distance; names are short, and the typed one is cut to what could be near.
fn distance(known: &str, typed: &str) -> usize {
    let typed: Vec<char> = typed.chars().take(128).collect();
    let mut row: Vec<usize> = (0..=typed.len()).collect();
    for (at, letter) in known.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = at + 1;
        for (column, other) in typed.iter().enumerate() {
            let replaced = diagonal + usize::from(letter != *other);
            diagonal = row[column + 1];
            row[column + 1] = replaced.min(diagonal + 1).min(row[column] + 1);
        }
    }
    row[typed.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hint(name: &str) -> String {
        let all = ["gpu.list", "gpu.metrics", "camera.snap", "node.ping"].map(str::to_owned);
        let failure = unknown_command("bench-1", name, &all);
        assert_eq!(failure.code, Code::UnknownCommand);
        failure.hint.unwrap_or_default()
    }

    #[test]
    fn a_mistyped_command_gets_the_right_one() {
        assert_eq!(hint("gpu.lst"), "did you mean `gpu.list`?");
        assert_eq!(hint("camera.snpa"), "did you mean `camera.snap`?");
        assert_eq!(hint("snap"), "did you mean `camera.snap`?");
        assert_eq!(hint("gpu.temperature_of_all"), "`gpu` has gpu.list, gpu.metrics");
        assert_eq!(hint("files.read"), "`relay nodes describe bench-1` lists its commands");
    }
}
