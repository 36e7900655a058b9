//! A pack that answers, and the table of all that do: one picture, replaced as a whole.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use outhaul_host::{Pack, Power};
use outhaul_protocol::describe::{AnnouncedPack, PackDescription, PackList};
use outhaul_protocol::error::{Code, Failure};
use outhaul_protocol::keys::Digest;
use outhaul_protocol::limits;
use outhaul_protocol::objects::valid_name;
use outhaul_protocol::publisher::Vouched;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::quarantine::Conduct;
use crate::trust::Origin;

/// A pack that answers.
#[derive(Debug)]
pub struct Active {
    pack: Arc<Pack>,
    vouched: Option<Vouched>,
    origin: Origin,
    description: Vec<u8>,
    described: [u8; 32],
    interfaces: Vec<String>,
    places: Arc<Semaphore>,
    conduct: Arc<Conduct>,
}

impl Active {
    /// Describes a loaded pack that came with the agent; one that cannot answer calls by its names is refused.
    pub fn embedded_pack(pack: Arc<Pack>) -> Result<Self, Failure> {
        Active::describe(pack, None)
    }

    /// The same for one that a publisher vouches for.
    pub fn of(pack: Arc<Pack>, vouched: Vouched) -> Result<Self, Failure> {
        Active::describe(pack, Some(vouched))
    }

    /// The same for one that nobody vouches for, on its author's machine: its digest alone has grants.
    pub fn on_trial(pack: Arc<Pack>) -> Result<Self, Failure> {
        Ok(Active { origin: Origin::Nobody, ..Active::describe(pack, None)? })
    }

    fn describe(pack: Arc<Pack>, vouched: Option<Vouched>) -> Result<Self, Failure> {
        if !valid_name(pack.name()) {
            let name = pack.name().escape_debug().to_string();
            return Err(Failure::new(
                Code::PackRejected,
                format!("`{name}` is not a name: lower-case letters, digits and dashes, at most 63, no dash first"),
            ));
        }
        let description = PackDescription {
            name: pack.name().to_owned(),
            version: pack.version().to_owned(),
            digest: pack.digest(),
            powers: pack.powers().iter().map(|power| power.name().to_owned()).collect(),
            interfaces: pack.interfaces().to_vec(),
            commands: pack.commands().to_vec(),
        };
        let interfaces: Vec<String> = description.interfaces.iter().map(|interface| interface.name.clone()).collect();
        if let Some(name) = interfaces.iter().find(|name| matches!(name.as_str(), "node" | "pack")) {
            let text = format!("pack `{}` exports `{name}`, which is the agent's own", pack.name());
            return Err(Failure::new(Code::CommandTaken, text).hint("give the interface another name"));
        }
        let description = description.to_bytes()?;
        let described = PackDescription::digest_of(&description);
        let origin = vouched.as_ref().map_or(Origin::Embedded, Origin::vouched);
        let places = Arc::new(Semaphore::new(limits::CALLS_PER_PACK));
        Ok(Active { pack, vouched, origin, description, described, interfaces, places, conduct: Arc::default() })
    }

    /// The same pack after its publisher went on to another key.
    #[must_use]
    pub fn vouched_anew(&self, vouched: Vouched) -> Self {
        Active {
            pack: self.pack.clone(),
            origin: Origin::vouched(&vouched),
            vouched: Some(vouched),
            description: self.description.clone(),
            described: self.described,
            interfaces: self.interfaces.clone(),
            places: self.places.clone(),
            conduct: self.conduct.clone(),
        }
    }

    /// The pack itself.
    #[must_use]
    pub fn pack(&self) -> &Arc<Pack> {
        &self.pack
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        self.pack.name()
    }

    /// SHA-256 of its component.
    #[must_use]
    pub fn digest(&self) -> Digest {
        Digest(self.pack.digest())
    }

    /// How it has behaved.
    #[must_use]
    pub fn conduct(&self) -> &Conduct {
        &self.conduct
    }

    /// Notes how a call of it ended; says so when that put it out of service.
    pub(crate) fn note(&self, failure: Option<&Failure>) {
        if self.conduct.note(failure) {
            tracing::error!(pack = self.name(), digest = %self.digest().short(), "a pack that traps call after call is out of service");
        }
    }

    /// Whether it came with the agent.
    #[must_use]
    pub fn embedded(&self) -> bool {
        self.vouched.is_none()
    }

    /// Who vouches for it, unless it came with the agent.
    #[must_use]
    pub fn vouched(&self) -> Option<&Vouched> {
        self.vouched.as_ref()
    }

    /// Whose it is.
    #[must_use]
    pub fn origin(&self) -> &Origin {
        &self.origin
    }

    /// Powers it asks for.
    #[must_use]
    pub fn powers(&self) -> &[Power] {
        self.pack.powers()
    }

    /// Whether it has this command.
    #[must_use]
    pub fn has_command(&self, name: &str) -> bool {
        self.pack.command(name).is_some()
    }

    /// A place among the calls of this pack; waits for one for as long as the call may wait for its start.
    pub async fn place(&self, wait: Duration) -> Result<OwnedSemaphorePermit, Failure> {
        let busy = || {
            let text = format!("{} calls of pack `{}` are under way", limits::CALLS_PER_PACK, self.name());
            Failure::new(Code::Busy, text).hint("try again in a moment")
        };
        match tokio::time::timeout(wait, self.places.clone().acquire_owned()).await {
            Ok(place) => place.map_err(|_| busy()),
            Err(_) => Err(busy()),
        }
    }

    /// Its description's bytes.
    #[must_use]
    pub fn description(&self) -> &[u8] {
        &self.description
    }

    /// The digest of the description.
    #[must_use]
    pub fn described(&self) -> &[u8; 32] {
        &self.described
    }

    /// What the list of packs says about it, with what it asks for and is not granted, and what of that waits for the owner.
    #[must_use]
    pub fn announced(&self, granted: impl Fn(Power) -> bool, waiting: &[Power]) -> AnnouncedPack {
        let denied = self.powers().iter().filter(|power| !granted(**power));
        AnnouncedPack {
            denied: denied.map(|power| power.name().to_owned()).collect(),
            waiting: waiting.iter().map(|power| power.name().to_owned()).collect(),
            name: self.name().to_owned(),
            version: self.pack.version().to_owned(),
            digest: self.pack.digest(),
            description: self.described,
            interfaces: self.interfaces.clone(),
        }
    }
}

/// What answers, as one picture.
#[derive(Debug, Default, Clone)]
pub(crate) struct Table {
    pub(crate) by_name: BTreeMap<String, Arc<Active>>,
    pub(crate) by_interface: HashMap<String, Arc<Active>>,
}

impl Table {
    pub(crate) fn of(packs: impl IntoIterator<Item = Arc<Active>>) -> Self {
        let mut table = Table::default();
        for active in packs {
            for interface in &active.interfaces {
                table.by_interface.insert(interface.clone(), active.clone());
            }
            table.by_name.insert(active.name().to_owned(), active);
        }
        table
    }

    /// The same with a pack in the place of its name.
    pub(crate) fn with(&self, active: Arc<Active>) -> Self {
        let others = self.by_name.values().filter(|other| other.name() != active.name()).cloned().collect::<Vec<_>>();
        Table::of(others.into_iter().chain([active]))
    }

    /// The same without a name.
    pub(crate) fn without(&self, name: &str) -> Self {
        Table::of(self.by_name.values().filter(|other| other.name() != name).cloned().collect::<Vec<_>>())
    }

    /// Whether a pack may stand beside (or in the place of) what is here.
    pub(crate) fn admits(&self, new: &Active) -> Result<(), Failure> {
        for interface in &new.interfaces {
            if let Some(other) = self.by_interface.get(interface).filter(|other| other.name() != new.name()) {
                let text = format!("pack `{}` exports interface `{interface}`, which pack `{}` answers already", new.name(), other.name());
                return Err(
                    Failure::new(Code::CommandTaken, text).hint(format!("remove `{}` first, or rename the interface", other.name()))
                );
            }
        }
        let others = self.by_name.values().map(AsRef::as_ref).filter(|other| other.name() != new.name());
        // As long as it gets when policy grants nothing.
        let list = PackList(others.chain([new]).map(|active| active.announced(|_| false, active.powers())).collect());
        if list.to_bytes().len() > limits::PACK_LIST {
            let text = format!("with pack `{}` this node would have more packs than a list of them can hold", new.name());
            return Err(Failure::new(Code::TooLarge, text).hint("remove one that is not needed"));
        }
        Ok(())
    }
}
