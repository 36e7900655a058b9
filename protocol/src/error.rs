//! What can go wrong, as every surface shows it: a stable code, a sentence, a hint.
//! Codes and their exit statuses are the contract; a test holds them against the list in the reference.

use serde::{Deserialize, Serialize};

macro_rules! codes {
    ($( $(#[$doc:meta])* $name:ident = $text:literal => $exit:literal ),* $(,)?) => {
        /// A stable error code. Its text is what JSON, logs and frames carry.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
        pub enum Code { $( $(#[$doc])* #[serde(rename = $text)] $name ),* }

        impl Code {
            /// Every code, in the order of the reference.
            pub const ALL: &'static [Code] = &[$(Code::$name),*];

            /// The code as text.
            #[must_use]
            pub fn as_str(self) -> &'static str { match self { $(Code::$name => $text),* } }

            /// The exit status a command line ends with.
            #[must_use]
            pub fn exit(self) -> u8 { match self { $(Code::$name => $exit),* } }

            /// The code of a text, if there is one.
            #[must_use]
            pub fn parse(text: &str) -> Option<Code> { match text { $($text => Some(Code::$name),)* _ => None } }
        }
    };
}

codes! {
    /// The command line or request makes no sense.
    BadUsage = "bad_usage" => 2,
    /// A parameter is missing, unknown or of another type.
    BadParams = "bad_params" => 2,
    /// A configuration file is wrong.
    BadConfig = "bad_config" => 2,
    /// The node has no such command.
    UnknownCommand = "unknown_command" => 2,
    /// A value or frame is larger than its ceiling.
    TooLarge = "too_large" => 2,
    /// The machine's policy does not grant the power.
    Denied = "denied" => 3,
    /// The operator's grant does not allow the command on this node.
    NotGranted = "not_granted" => 3,
    /// This machine or operator is not part of the fleet.
    NotPaired = "not_paired" => 3,
    /// The key or grant was revoked.
    Revoked = "revoked" => 3,
    /// No node of that name.
    UnknownNode = "unknown_node" => 4,
    /// Several nodes of that name or prefix.
    AmbiguousNode = "ambiguous_node" => 4,
    /// The node is not connected.
    NodeOffline = "node_offline" => 4,
    /// The deadline passed.
    Deadline = "deadline" => 5,
    /// The relay does not answer.
    RelayUnreachable = "relay_unreachable" => 6,
    /// The relay refused.
    RelayRefused = "relay_refused" => 6,
    /// An OCI registry cannot be reached, refused, or has no pack there.
    Registry = "registry" => 6,
    /// No common protocol version.
    Version = "version" => 6,
    /// A signature does not verify.
    BadSignature = "bad_signature" => 7,
    /// A key is not the one that was pinned or named.
    BadKey = "bad_key" => 7,
    /// A signed object is past its time.
    Expired = "expired" => 7,
    /// A signed object is for another node or channel.
    WrongNode = "wrong_node" => 7,
    /// A signed object was seen before.
    Replayed = "replayed" => 7,
    /// The pack trapped.
    Trap = "trap" => 8,
    /// The pack wanted more memory than it may have.
    LimitMemory = "limit_memory" => 8,
    /// The pack ran longer than it may.
    LimitTime = "limit_time" => 8,
    /// The pack wrote more than it may.
    LimitOutput = "limit_output" => 8,
    /// Too many calls are under way.
    Busy = "busy" => 8,
    /// The link or channel to the node ended; the outcome may be unknown.
    LinkLost = "link_lost" => 8,
    /// A stream or call ended without its proper ending.
    Truncated = "truncated" => 8,
    /// The pack cannot be loaded.
    PackRejected = "pack_rejected" => 8,
    /// Another version of the pack is active than the call was typed against.
    PackChanged = "pack_changed" => 8,
    /// The pack trapped too often and is out of service.
    PackQuarantined = "pack_quarantined" => 8,
    /// Another active pack exports this interface.
    CommandTaken = "command_taken" => 8,
    /// A command uses a type that does not cross.
    UnsupportedType = "unsupported_type" => 8,
    /// Bytes do not have the digest they were asked for by.
    DigestMismatch = "digest_mismatch" => 8,
    /// A defect of ours.
    Internal = "internal" => 8,
    /// The caller cancelled.
    Cancelled = "cancelled" => 130,
    /// The command itself answered with an error.
    CommandFailed = "command_failed" => 1,
}

impl std::fmt::Display for Code {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

/// An error as callers see it.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[error("{message}")]
pub struct Failure {
    /// What kind.
    pub code: Code,
    /// What happened, as a lowercase fragment.
    pub message: String,
    /// What the reader can do about it.
    pub hint: Option<String>,
    /// The command's own typed error, for `command_failed`.
    pub detail: Option<crate::value::Value>,
}

impl Failure {
    /// A failure without hint or detail.
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        Failure { code, message: message.into(), hint: None, detail: None }
    }

    /// The same with a way out for the reader.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_stands_in_the_reference_beside_its_exit_status() {
        let readme = include_str!("../../README.md");
        for code in Code::ALL {
            let row = readme.lines().find(|line| line.contains(&format!("`{code}`")) && line.starts_with("| "));
            let row = row.unwrap_or_else(|| panic!("`{code}` is not in README's table"));
            assert!(row.starts_with(&format!("| {} |", code.exit())), "{code}: {row}");
            assert_eq!(Code::parse(code.as_str()), Some(*code));
        }
    }
}
