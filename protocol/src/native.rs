//! The commands every agent answers itself, without a pack: presence and the shipping of packs. They are described in
//! the same model as a pack's, so that callers type, check and document them alike. What a chain must allow for them
//! is [`crate::chain`]'s: `node.ping` and `node.status` any chain that names the node, `pack.*` the right `packs`, the other
//! `node.*` the right `policy`.

use crate::types::{Command, Field, IntType, Type};

/// Asks for the agent's time.
pub const PING: &str = "node.ping";
/// Asks for the machine's figures.
pub const STATUS: &str = "node.status";
/// Fetches, checks and activates a pack the relay holds.
pub const INSTALL: &str = "pack.install";
/// Activates an installed version.
pub const ACTIVATE: &str = "pack.activate";
/// Activates the version before.
pub const ROLLBACK: &str = "pack.rollback";
/// Takes a pack out.
pub const REMOVE: &str = "pack.remove";
/// Lists the packs.
pub const LIST: &str = "pack.list";
/// Tells what deployments ask of the node, and what came of that.
pub const DEPLOYED: &str = "pack.status";
/// Lists whose packs are taken.
pub const PUBLISHERS: &str = "pack.publishers";
/// Takes a publisher's packs from now on. `node.…`: it asks for the right `policy`.
pub const TRUST: &str = "node.trust";
/// Takes them no more.
pub const DISTRUST: &str = "node.distrust";

/// All of them, by name.
#[must_use]
pub fn commands() -> Vec<Command> {
    vec![
        command(PING, "Answers at once: the node's clock and how long its agent has run.", vec![], ping()),
        command(STATUS, "The machine's load and the agent's state.", vec![], status()),
        command(
            ACTIVATE,
            "Activates an installed version of a pack; calls under way end on the version they began with.",
            vec![name(), text("digest", "SHA-256 of the component, in hexadecimal digits")],
            installed(),
        ),
        command(
            INSTALL,
            "Fetches a component from the relay by its digest, checks its publisher's signature, compiles and activates it.",
            vec![
                text("digest", "SHA-256 of the component, in hexadecimal digits"),
                field("size", "its length in bytes", Type::Int(IntType::U64)),
                optional("signature", "its publisher's, the content of FILE.cose; needed unless it came with the agent", Type::Bytes),
                optional("rotations", "how the publisher's key followed older ones, oldest first", Type::List(Box::new(Type::Bytes))),
                optional("downgrade", "true to install a version older than what there was", Type::Bool),
            ],
            installed(),
        ),
        command(
            TRUST,
            "Takes packs that this publisher signs from now on. It grants them no power.",
            vec![
                text("key", "the publisher's public key, in hexadecimal digits"),
                optional("name", "what it is called here", Type::String),
                optional("rotations", "how the key followed older ones, oldest first", Type::List(Box::new(Type::Bytes))),
            ],
            Type::List(Box::new(publisher())),
        ),
        command(
            DISTRUST,
            "Takes packs of this publisher no more; those that answer stop, and their calls under way end.",
            vec![text("key", "its public key, in hexadecimal digits")],
            Type::List(Box::new(publisher())),
        ),
        command(PUBLISHERS, "The publishers whose packs this node takes, or refuses.", vec![], Type::List(Box::new(publisher()))),
        command(LIST, "All packs of this node, active or not.", vec![], Type::List(Box::new(listed()))),
        command(REMOVE, "Takes a pack out with all its versions; an embedded one becomes active again.", vec![name()], removed()),
        command(ROLLBACK, "Activates the version that was active before.", vec![name()], installed()),
        command(
            DEPLOYED,
            "What deployments ask of this node, what came of each, and what runs.",
            vec![
                optional("name", "of one pack; else all that a deployment was heard of", Type::String),
                optional("serial", "waits until the deployment of this serial, or a later one, is dealt with", Type::Int(IntType::U64)),
                optional("wait_ms", "for so long at most, 60000 being the most", Type::Int(IntType::U32)),
            ],
            Type::List(Box::new(deployed())),
        ),
    ]
}

/// The command of a name, if the agent answers it itself.
#[must_use]
pub fn command_of(name: &str) -> Option<Command> {
    commands().into_iter().find(|command| command.name == name)
}

/// Whether a command changes the node; such a call is signed and never `evidence = "channel"`.
#[must_use]
pub fn changes(command: &str) -> bool {
    [INSTALL, ACTIVATE, ROLLBACK, REMOVE, TRUST, DISTRUST].contains(&command)
}

fn command(name: &str, doc: &str, params: Vec<Field>, result: Type) -> Command {
    // No typed errors: the agent's refusals are the stable codes every call can end with.
    Command { name: name.into(), doc: Some(doc.into()), params, result: Some(result), error: None }
}

fn field(name: &str, doc: &str, ty: Type) -> Field {
    Field { name: name.into(), ty, doc: Some(doc.into()) }
}

fn text(name: &str, doc: &str) -> Field {
    field(name, doc, Type::String)
}

fn optional(name: &str, doc: &str, ty: Type) -> Field {
    field(name, doc, Type::Option(Box::new(ty)))
}

fn name() -> Field {
    text("name", "the pack's name")
}

fn number(name: &str, doc: &str) -> Field {
    field(name, doc, Type::Int(IntType::U64))
}

fn texts() -> Type {
    Type::List(Box::new(Type::String))
}

fn ping() -> Type {
    Type::Record(vec![number("time", "Unix seconds"), number("uptime_ms", "since the agent's start")])
}

fn status() -> Type {
    Type::Record(vec![
        field("cpu_percent", "of all cores together", Type::F32),
        field("memory_percent", "of physical memory", Type::F32),
        number("uptime_secs", "of the machine"),
        text("version", "of the agent"),
        number("boot_count", "how often the agent has started since it was paired"),
        field("calls", "under way", Type::Int(IntType::U32)),
        field("packs", "active", Type::Int(IntType::U32)),
    ])
}

fn installed() -> Type {
    Type::Record(vec![
        name(),
        text("version", "of the pack that is active now"),
        text("digest", "its SHA-256"),
        field("commands", "what it answers", texts()),
        field("replaced", "digest of the version that was active before", Type::Option(Box::new(Type::String))),
        field("denied_powers", "powers it asks for that the machine's policy does not grant", texts()),
        field("waiting_powers", "those of them that no version the owner decided on asked for", texts()),
        optional("publisher", "the key that signed it; none where it came with the agent", Type::String),
    ])
}

fn removed() -> Type {
    Type::Record(vec![name(), field("removed", "digests of the versions taken out", texts())])
}

fn listed() -> Type {
    Type::Record(vec![
        name(),
        text("version", "of this version"),
        text("digest", "SHA-256 of the component"),
        field("active", "whether it answers", Type::Bool),
        field("embedded", "whether it came with the agent", Type::Bool),
        field("quarantined", "why it is out of service, if it is", Type::Option(Box::new(Type::String))),
        field("installed_at", "Unix seconds; none where it came with the agent", Type::Option(Box::new(Type::Int(IntType::U64)))),
        optional("publisher", "the key that signed it", Type::String),
        optional("refused", "why it does not answer though it should", Type::String),
    ])
}

fn deployed() -> Type {
    let u64s = || Type::Int(IntType::U64);
    let refused = Type::Record(vec![
        number("serial", "that it names"),
        text("code", "an error code"),
        text("message", "why it was not taken"),
        optional("hint", "what can be done about it", Type::String),
        number("at", "Unix seconds"),
    ]);
    let running = Type::Record(vec![
        text("version", "of the version that answers"),
        text("digest", "SHA-256 of its component"),
        optional("publisher", "the key that signed it; none where it came with the agent", Type::String),
        optional("signature", "its publisher's", Type::Bytes),
        optional("quarantined", "why it is out of service, if it is", Type::String),
    ]);
    Type::Record(vec![
        name(),
        number("serial", "of the newest deployment that was taken; 0 before the first"),
        optional("digest", "of that document", Type::String),
        optional("signer", "id of the key that signed it", Type::String),
        optional("signed_at", "Unix seconds", u64s()),
        text("state", "`applied`, `pending`, `failed`, `not_meant` where it is for other nodes, or `none`"),
        optional("since", "when the state was reached, Unix seconds", u64s()),
        optional("version", "that is asked for; none where the pack is to be taken out", Type::String),
        optional("component", "its digest", Type::String),
        optional("code", "why it failed: an error code", Type::String),
        optional("message", "the same as a sentence", Type::String),
        optional("hint", "what can be done about it", Type::String),
        optional("conflict", "digest of another document of the same serial, which was refused", Type::String),
        optional("refused", "what was not taken last, since the agent started", refused),
        optional("running", "what answers, whoever shipped it", running),
    ])
}

fn publisher() -> Type {
    Type::Record(vec![
        text("key", "that signs now"),
        text("fingerprint", "its SHA-256, for people to compare"),
        optional("name", "what it is called here", Type::String),
        text("state", "`trusted`, `refused` by the machine's owner, or `revoked`"),
        text("by", "`fleet` or `owner`: whose word it rests on"),
        field("replaced", "keys it followed, newest first", texts()),
    ])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_has_its_docs_and_one_name() {
        let all = commands();
        let mut names: Vec<&str> = all.iter().map(|command| command.name.as_str()).collect();
        assert!(all.iter().all(|command| command.doc.is_some() && command.params.iter().all(|param| param.doc.is_some())));
        names.dedup();
        assert_eq!(names.len(), all.len());
        assert_eq!(names.iter().filter(|name| changes(name)).count(), 6);
    }

    #[test]
    fn signatures_read_well() {
        let signature = |name: &str| command_of(name).map(|command| command.signature());
        assert_eq!(signature(PING).as_deref(), Some("node.ping() -> {time: u64, uptime_ms: u64}"));
        assert_eq!(
            signature(INSTALL).as_deref(),
            Some(
                "pack.install(digest: string, size: u64, signature?: bytes, rotations?: list<bytes>, downgrade?: bool) -> \
                 {name: string, version: string, digest: string, commands: list<string>, replaced?: string, \
                 denied_powers: list<string>, waiting_powers: list<string>, publisher?: string}"
            )
        );
        assert_eq!(signature("pack.own"), None);
    }
}
