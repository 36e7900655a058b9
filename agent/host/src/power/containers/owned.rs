//! Whose a container is. Labels that we set say it, and a seal over them that only this agent can make: an image brings labels of its own,
//! so that without it whoever builds an image could have a container of the owner's taken for a pack's.
//!
//! A pack's word for a container is looked up among that pack's own and becomes a full id; it is never sent to the runtime, where it
//! might mean anybody's.

use std::collections::HashMap;

use bollard::models::{ContainerSummary, ContainerSummaryStateEnum as Summary};
use hmac::{Hmac, Mac as _};
use serde_json::json;
use sha2::{Digest as _, Sha256};

use super::dial::{Failed, Runtime};
use super::{ContainersError, State};
use crate::power::shown;

/// The owner's name of the grant.
pub(super) const PACK: &str = "outhaul.pack";
/// The agent's.
pub(super) const NODE: &str = "outhaul.node";
/// What the pack calls it.
pub(super) const NAME: &str = "outhaul.name";
/// GPUs it has, by UUID, with commas between.
pub(super) const GPUS: &str = "outhaul.gpus";
/// When it was made, in Unix seconds.
pub(super) const CREATED: &str = "outhaul.created";
/// When it has to end, in Unix seconds; empty where it need not.
pub(super) const UNTIL: &str = "outhaul.until";
/// The seal over them and the runtime's name for it.
const SEAL: &str = "outhaul.seal";
/// All that we read, so that each is set on each container, over whatever the image says.
const SEALED: [&str; 6] = [PACK, NODE, NAME, GPUS, CREATED, UNTIL];

/// Makes and checks seals.
pub(super) struct Sealer([u8; 32]);

impl Sealer {
    /// Sealed with a key that no other agent has.
    pub(super) fn new(key: &[u8; 32]) -> Self {
        Sealer(mac(key, b"outhaul containers v1"))
    }

    /// Adds the seal to labels of a container that the runtime will know by `name`.
    pub(super) fn seal(&self, name: &str, mut labels: HashMap<String, String>) -> HashMap<String, String> {
        let seal = self.over(name, &labels);
        labels.insert(SEAL.into(), seal);
        labels
    }

    /// Whether labels are ours.
    pub(super) fn holds(&self, name: &str, labels: &HashMap<String, String>) -> bool {
        let expected = self.over(name, labels);
        labels.get(SEAL).is_some_and(|seal| *seal == expected)
    }

    fn over(&self, name: &str, labels: &HashMap<String, String>) -> String {
        let mut text = format!("{}:{name}", name.len());
        for key in SEALED {
            let value = labels.get(key).map_or("", String::as_str);
            text.push_str(&format!(",{}:{value}", value.len()));
        }
        hex::encode(mac(&self.0, text.as_bytes()))
    }
}

fn mac(key: &[u8; 32], text: &[u8]) -> [u8; 32] {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("HMAC takes keys of any length");
    mac.update(text);
    mac.finalize().into_bytes().into()
}

/// The runtime's name for a pack's container: one name space is shared by all, so that another pack's or the owner's own is no conflict.
pub(super) fn runtime_name(owner: &str, node: &str, name: &str) -> String {
    let whose = hex::encode(Sha256::digest(format!("{}:{owner},{node}", owner.len())));
    format!("outhaul-{}-{name}", &whose[..10])
}

/// A container as the runtime lists it, when it is one of ours.
#[derive(Debug, Clone)]
pub(super) struct Listed {
    pub(super) id: String,
    pub(super) image: String,
    pub(super) state: State,
    /// when the runtime made it, in Unix seconds
    pub(super) made: i64,
    labels: HashMap<String, String>,
}

impl Listed {
    fn of(summary: ContainerSummary) -> Option<Self> {
        let id = summary.id.filter(|id| is_id(id))?;
        let state = match summary.state {
            Some(Summary::CREATED) => State::Created,
            Some(Summary::PAUSED) => State::Paused,
            Some(Summary::EXITED | Summary::DEAD | Summary::REMOVING) => State::Ended,
            // What nobody understands may be at work.
            Some(Summary::RUNNING | Summary::RESTARTING | Summary::STOPPING | Summary::EMPTY) | None => State::Running,
        };
        Some(Listed {
            id,
            image: summary.image.unwrap_or_default(),
            state,
            made: summary.created.unwrap_or(0),
            labels: summary.labels.unwrap_or_default(),
        })
    }

    /// One as a test has it.
    #[cfg(test)]
    pub(super) fn played(id: &str, state: State, made: i64, labels: &[(&str, &str)]) -> Self {
        let labels = labels.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        Listed { id: id.to_owned(), image: String::new(), state, made, labels }
    }

    pub(super) fn label(&self, key: &str) -> &str {
        self.labels.get(key).map_or("", String::as_str)
    }

    pub(super) fn labels(&self) -> &HashMap<String, String> {
        &self.labels
    }

    pub(super) fn number(&self, key: &str) -> Option<u64> {
        self.label(key).parse().ok()
    }

    /// The GPUs it was given.
    pub(super) fn gpus(&self) -> Vec<String> {
        self.label(GPUS).split(',').filter(|uuid| !uuid.is_empty()).map(str::to_owned).collect()
    }
}

/// Whether this is a full id, as all runtimes make them.
pub(super) fn is_id(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte))
}

/// All containers that have a label.
pub(super) async fn labelled(runtime: &Runtime, label: String) -> Result<Vec<(Vec<String>, Listed)>, Failed> {
    let filters = json!({"label": [label]}).to_string();
    let filters: String = filters.bytes().map(|byte| format!("%{byte:02x}")).collect();
    let listed: Vec<ContainerSummary> = runtime.get(&format!("/containers/json?all=true&filters={filters}")).await?;
    Ok(listed.into_iter().filter_map(|mut summary| Some((summary.names.take().unwrap_or_default(), Listed::of(summary)?))).collect())
}

/// The containers of one grant.
pub(super) async fn of(runtime: &Runtime, sealer: &Sealer, owner: &str, node: &str) -> Result<Vec<Listed>, Failed> {
    let all = labelled(runtime, format!("{PACK}={owner}")).await?;
    let ours = |(names, listed): &(Vec<String>, Listed)| {
        let known = runtime_name(owner, node, listed.label(NAME));
        let named = names.iter().any(|name| name.trim_start_matches('/') == known);
        named && listed.label(PACK) == owner && listed.label(NODE) == node && sealer.holds(&known, &listed.labels)
    };
    Ok(all.into_iter().filter(ours).map(|(_, listed)| listed).collect())
}

/// What a pack calls a container, among its own: its id, the beginning of one (12 digits at least), or its name.
pub(super) fn resolve<'a>(own: &'a [Listed], word: &str) -> Result<&'a Listed, ContainersError> {
    let by_name = || own.iter().find(|listed| listed.label(NAME) == word);
    let begins = word.len() >= 12;
    let mut by_id = own.iter().filter(|listed| begins && listed.id.starts_with(word));
    match (by_id.next(), by_id.next()) {
        (Some(listed), None) => Some(listed),
        _ => by_name(),
    }
    .ok_or_else(|| ContainersError::NotFound(format!("the pack has no container `{}`", shown(word))))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(of: &[(&str, &str)]) -> HashMap<String, String> {
        of.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    }

    fn listed(id: &str, name: &str) -> Listed {
        Listed::played(id, State::Running, 0, &[(NAME, name)])
    }

    #[test]
    fn a_seal_is_for_one_container_and_for_all_its_labels() {
        let sealer = Sealer::new(&[7; 32]);
        let sealed = sealer.seal("x", labels(&[(PACK, "name-a"), (NODE, "n"), (GPUS, "")]));
        assert!(sealer.holds("x", &sealed) && !sealer.holds("y", &sealed) && !Sealer::new(&[8; 32]).holds("x", &sealed));
        for (key, value) in [(PACK, "name-b"), (NODE, "m"), (GPUS, "GPU-1"), (UNTIL, "1"), (NAME, "z"), (CREATED, "0")] {
            let mut other = sealed.clone();
            other.insert(key.into(), value.into());
            assert!(!sealer.holds("x", &other), "{key}");
        }
        assert!(!sealer.holds("x", &labels(&[(PACK, "name-a"), (NODE, "n")])));
        // What moves from one label to the next is another text.
        let (a, b) = (labels(&[(PACK, "ab"), (NODE, "c")]), labels(&[(PACK, "a"), (NODE, "bc")]));
        assert_ne!(sealer.seal("x", a)[SEAL], sealer.seal("x", b)[SEAL]);
    }

    #[test]
    fn a_word_is_an_id_its_beginning_or_a_name_and_only_of_ones_own() {
        let (one, two) = (format!("{}{}", "a".repeat(20), "1".repeat(44)), format!("{}{}", "a".repeat(20), "2".repeat(44)));
        let own = [listed(&one, "web"), listed(&two, "db")];
        let found = |word: &str| resolve(&own, word).ok().map(|listed| listed.id.clone());
        assert_eq!(found(&one), Some(one.clone()));
        assert_eq!(found(&two[..25]), Some(two.clone()));
        assert_eq!(found("web"), Some(one));
        for word in ["", "a", &"a".repeat(20), "aaaaaaaaaaaa", "/web", "../web", "outhaul-x-web", &"b".repeat(64)] {
            assert_eq!(found(word), None, "{word}");
        }
    }
}
