//! Where a pack lies: `oci://HOST[:PORT]/REPOSITORY[:TAG][@DIGEST]`.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use oci_client::Reference;
use outhaul_protocol::error::{Code, Failure};

/// What such a name begins with.
pub const SCHEME: &str = "oci://";

/// A pack's name in a registry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place(pub(crate) Reference);

impl Place {
    /// Whether a registry of this name is on this machine: only there may it speak without TLS.
    #[must_use]
    pub fn is_local(&self) -> bool {
        let registry = self.0.registry();
        let host = registry.rsplit_once(':').map_or(registry, |(host, _)| host).trim_matches(['[', ']']);
        host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
    }

    /// The same repository, and exactly this content.
    pub(crate) fn at(&self, digest: &str) -> Reference {
        self.0.clone_with_digest(digest.to_owned())
    }

    /// The same repository under another tag.
    pub(crate) fn tagged(&self, tag: String) -> Reference {
        Reference::with_tag(self.0.registry().to_owned(), self.0.repository().to_owned(), tag)
    }
}

impl FromStr for Place {
    type Err = Failure;

    fn from_str(text: &str) -> Result<Self, Failure> {
        let bad = |why: &str| {
            Failure::new(Code::BadUsage, format!("`{}` {why}", text.escape_debug()))
                .hint("write oci://HOST/REPOSITORY:TAG, such as oci://registry.example/packs/thermal:1.2.0")
        };
        let name = text.strip_prefix(SCHEME).ok_or_else(|| bad("is no place in an OCI registry"))?;
        // The library would take what is no host for a repository of a public registry.
        let host = name.split('/').next().unwrap_or_default();
        if !name.contains('/') || !(host.contains(['.', ':']) || host == "localhost") {
            return Err(bad("names no registry"));
        }
        name.parse().map(Place).map_err(|error| bad(&format!("is no place in an OCI registry: {error}")))
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{SCHEME}{}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_has_a_registry_and_a_repository() {
        for (text, shown) in [
            ("oci://127.0.0.1:5000/packs/thermal:1.2.0", "oci://127.0.0.1:5000/packs/thermal:1.2.0"),
            ("oci://registry.example/thermal", "oci://registry.example/thermal:latest"),
        ] {
            assert_eq!(text.parse::<Place>().expect(text).to_string(), shown);
        }
        let digest = format!("oci://registry.example/thermal@sha256:{}", "ab".repeat(32));
        assert_eq!(digest.parse::<Place>().expect("by digest").to_string(), digest);
        for bad in [
            "thermal.wasm",
            "oci://",
            "oci://thermal",
            "oci://packs/thermal:1",
            "oci://registry.example/Thermal",
            "oci://h.example/a b",
            "oci://h.example/a@sha256:12",
        ] {
            assert_eq!(bad.parse::<Place>().expect_err(bad).code, Code::BadUsage, "{bad}");
        }
    }

    #[test]
    fn only_this_machine_is_spoken_to_without_tls() {
        for (host, local) in [
            ("localhost:5000", true),
            ("127.0.0.1:5000", true),
            ("127.1.2.3", true),
            ("10.0.0.1:5000", false),
            ("localhost.example:5000", false),
            ("127.0.0.1.example", false),
        ] {
            assert_eq!(format!("oci://{host}/a:1").parse::<Place>().expect(host).is_local(), local, "{host}");
        }
    }
}
