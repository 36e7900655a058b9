//! Names of images: a reference as runtimes read it, with nothing left out, and the patterns that policy grants.
//!
//! A reference is written out before it is compared and before it is handed on: `busybox` is `docker.io/library/busybox:latest`. So a
//! runtime can neither read it as the beginning of an image's id nor look in registries of its own choosing.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::power::shown;

/// Characters of a reference: what registries take.
const MOST: usize = 512;

/// An image, its registry and what decides which of its versions written out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reference {
    /// `docker.io/library/busybox`
    repository: String,
    version: Version,
}

/// Which one of a repository's images.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Version {
    Tag(String),
    /// `sha256:` and 64 digits. A tag beside it decides nothing, and is left out.
    Digest(String),
}

impl Reference {
    /// Reads a reference as `docker run` does.
    pub fn parse(text: &str) -> Result<Self, String> {
        let bad = |why: &str| format!("`{}` is not an image: {why}", shown(text));
        if text.is_empty() || text.len() > MOST {
            return Err(bad(&format!("a name has 1 to {MOST} characters")));
        }
        let (name, digest) = match text.split_once('@') {
            Some((name, digest)) if is_digest(digest) => (name, Some(digest)),
            Some(_) => return Err(bad("behind an @ stand `sha256:` and 64 digits")),
            None => (text, None),
        };
        let (name, tag) = tagged(name);
        if tag.is_some_and(|tag| !is_tag(tag)) {
            return Err(bad("a tag has letters, digits, `_`, `.` and `-`"));
        }
        let repository = repository(name).ok_or_else(|| bad("it is REGISTRY/NAME:TAG, such as ghcr.io/acme/worker:1.4"))?;
        let version = match digest {
            Some(digest) => Version::Digest(digest.to_owned()),
            None => Version::Tag(tag.unwrap_or("latest").to_owned()),
        };
        Ok(Reference { repository, version })
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.version {
            Version::Tag(tag) => write!(f, "{}:{tag}", self.repository),
            Version::Digest(digest) => write!(f, "{}@{digest}", self.repository),
        }
    }
}

/// Images that policy grants: one repository with a tag, tags or a digest, or all repositories below a path.
///
/// `busybox` and `busybox:latest` are that tag; `busybox:1.*` tags that begin so; `busybox:*` every tag and digest; `busybox@sha256:…` one
/// image whatever it is called; `ghcr.io/acme/*` everything below. What another repository holds is never meant, and no registry as a whole.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Pattern {
    repository: String,
    versions: Versions,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Versions {
    /// Everything below the repository's path.
    Below,
    Any,
    Tags(String),
    One(Version),
}

impl Pattern {
    /// Reads a pattern.
    pub fn parse(text: &str) -> Result<Self, String> {
        let bad = |why: &str| format!("`{}` grants no image: {why}", shown(text));
        if let Some(path) = text.strip_suffix("/*") {
            // With a letter behind it, so that it is read as the name of something.
            let repository = repository(&format!("{path}/x")).and_then(|name| name.strip_suffix("/x").map(str::to_owned));
            let alone = !path.contains('/') && (path.contains(['.', ':']) || path == "localhost");
            let below = repository.filter(|_| !alone);
            let below = below.ok_or_else(|| bad("a star stands behind a registry and a path, such as ghcr.io/acme/*"))?;
            return Ok(Pattern { repository: below, versions: Versions::Below });
        }
        if let (name, Some(tag)) = tagged(text)
            && let Some(begin) = tag.strip_suffix('*')
        {
            let known = begin.is_empty() || is_tag(begin);
            let repository =
                repository(name).filter(|_| known).ok_or_else(|| bad("it is REGISTRY/NAME:TAG, with a star at the tag's end"))?;
            let versions = if begin.is_empty() { Versions::Any } else { Versions::Tags(begin.to_owned()) };
            return Ok(Pattern { repository, versions });
        }
        let Reference { repository, version } = Reference::parse(text)?;
        Ok(Pattern { repository, versions: Versions::One(version) })
    }

    /// Whether it grants an image.
    #[must_use]
    pub fn covers(&self, image: &Reference) -> bool {
        if self.versions == Versions::Below {
            return image.repository.strip_prefix(&self.repository).is_some_and(|rest| rest.starts_with('/'));
        }
        self.repository == image.repository
            && match (&self.versions, &image.version) {
                (Versions::Below | Versions::Any, _) => true,
                (Versions::Tags(begin), Version::Tag(tag)) => tag.starts_with(begin.as_str()),
                (Versions::Tags(_), Version::Digest(_)) => false,
                (Versions::One(granted), version) => granted == version,
            }
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let repository = &self.repository;
        match &self.versions {
            Versions::Below => write!(f, "{repository}/*"),
            Versions::Any => write!(f, "{repository}:*"),
            Versions::Tags(begin) => write!(f, "{repository}:{begin}*"),
            Versions::One(version) => Reference { repository: repository.clone(), version: version.clone() }.fmt(f),
        }
    }
}

impl TryFrom<String> for Pattern {
    type Error = String;
    fn try_from(text: String) -> Result<Self, String> {
        Pattern::parse(&text)
    }
}

impl From<Pattern> for String {
    fn from(pattern: Pattern) -> String {
        pattern.to_string()
    }
}

/// A name and its tag: what stands behind a colon after the last slash.
fn tagged(name: &str) -> (&str, Option<&str>) {
    match name.rsplit_once(':') {
        Some((name, tag)) if !tag.contains('/') => (name, Some(tag)),
        _ => (name, None),
    }
}

/// A repository with its registry: what has a dot, a colon or is `localhost` before the first slash is one, else it is Docker's.
fn repository(name: &str) -> Option<String> {
    let (registry, path) = match name.split_once('/') {
        Some((first, path)) if first.contains(['.', ':']) || first == "localhost" => (first, path.to_owned()),
        Some(_) => ("docker.io", name.to_owned()),
        None => ("docker.io", format!("library/{name}")),
    };
    let registry = match registry {
        "index.docker.io" | "registry-1.docker.io" => "docker.io",
        other => other,
    };
    let path = if registry == "docker.io" && !path.contains('/') { format!("library/{path}") } else { path };
    (is_registry(registry) && path.split('/').all(is_component)).then(|| format!("{registry}/{path}"))
}

fn is_registry(text: &str) -> bool {
    let (host, port) = text.split_once(':').unwrap_or((text, "0"));
    let label = |label: &str| {
        let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        !label.is_empty() && label.bytes().all(plain) && !label.starts_with('-') && !label.ends_with('-')
    };
    host.split('.').all(label) && port.parse::<u16>().is_ok()
}

fn is_component(text: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let ends = [text.bytes().next(), text.bytes().last()].into_iter().all(|end| end.is_some_and(plain));
    ends && text.bytes().all(|byte| plain(byte) || b"._-".contains(&byte)) && !text.contains("..")
}

fn is_tag(text: &str) -> bool {
    let word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    text.len() <= 128 && text.bytes().next().is_some_and(word) && text.bytes().all(|byte| word(byte) || b".-".contains(&byte))
}

fn is_digest(text: &str) -> bool {
    text.strip_prefix("sha256:").is_some_and(|digits| digits.len() == 64 && digits.bytes().all(|byte| b"0123456789abcdef".contains(&byte)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> String {
        Reference::parse(text).map_or_else(|why| why, |image| image.to_string())
    }

    fn covers(pattern: &str, image: &str) -> bool {
        Pattern::parse(pattern).expect(pattern).covers(&Reference::parse(image).expect(image))
    }

    #[test]
    fn a_reference_is_written_out_before_it_is_compared() {
        assert_eq!(read("busybox"), "docker.io/library/busybox:latest");
        assert_eq!(read("docker.io/busybox:1"), "docker.io/library/busybox:1");
        assert_eq!(read("index.docker.io/library/busybox"), "docker.io/library/busybox:latest");
        assert_eq!(read("acme/worker"), "docker.io/acme/worker:latest");
        assert_eq!(read("ghcr.io/acme/worker:1.4"), "ghcr.io/acme/worker:1.4");
        assert_eq!(read("localhost:5000/x"), "localhost:5000/x:latest");
        let digest = format!("sha256:{}", "a1".repeat(32));
        assert_eq!(read(&format!("busybox:1@{digest}")), format!("docker.io/library/busybox@{digest}"), "the tag decides nothing");
        // What runtimes would take for an image's id is a repository's name.
        assert_eq!(read("c7e8400daa8b"), "docker.io/library/c7e8400daa8b:latest");
    }

    #[test]
    fn what_is_no_reference_is_refused() {
        for text in [
            "",
            "Busybox",
            "busybox:",
            "busybox:a b",
            "busybox@sha256:12",
            "a//b",
            "../etc",
            "a/../b",
            "http://x/y",
            "busybox:1@md5:00",
            "-x",
            "a:b:c",
            "x\u{0}y",
            "busybox:.x",
            "ghcr.io/",
            "/busybox",
            "a@b@c",
        ] {
            assert!(Reference::parse(text).is_err(), "{text:?}");
        }
        assert!(Reference::parse(&"a".repeat(600)).is_err());
    }

    #[test]
    fn a_pattern_covers_what_it_names_and_nothing_that_looks_like_it() {
        assert!(covers("busybox", "docker.io/library/busybox:latest") && !covers("busybox", "busybox:1"));
        assert!(covers("busybox:*", "busybox:1") && covers("busybox:1.*", "busybox:1.36") && !covers("busybox:1.*", "busybox:12"));
        assert!(covers("ghcr.io/acme/*", "ghcr.io/acme/deep/worker:7") && !covers("ghcr.io/acme/*", "ghcr.io/acme-evil/worker"));
        assert!(
            !covers("ghcr.io/acme/*", "ghcr.io/acme")
                && !covers("busybox:*", "evil/busybox:1")
                && !covers("busybox:*", "evil.org/library/busybox")
        );
        let (one, other) = (format!("sha256:{}", "a1".repeat(32)), format!("sha256:{}", "b2".repeat(32)));
        assert!(covers(&format!("busybox@{one}"), &format!("busybox@{one}")) && !covers(&format!("busybox@{one}"), "busybox:latest"));
        // A digest beside a granted tag is another image.
        assert!(!covers("busybox:1", &format!("busybox:1@{other}")) && !covers("busybox:1*", &format!("busybox:1@{other}")));
        assert!(covers("busybox:*", &format!("busybox@{other}")) && covers("localhost:5000/lab/*", "localhost:5000/lab/x"));
    }

    #[test]
    fn a_pattern_is_narrow() {
        for text in
            ["*", "*/*", "ghcr.io/*", "docker.io/*", "*.io/acme/x", "ghcr.io/ac*/x", "busybox:*1", "busybox:**", "", "ghcr.io/acme/*:1"]
        {
            assert!(Pattern::parse(text).is_err(), "{text:?}");
        }
        for (text, written) in
            [("busybox", "docker.io/library/busybox:latest"), ("acme/*", "docker.io/acme/*"), ("a/b:1.*", "docker.io/a/b:1.*")]
        {
            assert_eq!(Pattern::parse(text).expect(text).to_string(), written);
        }
    }
}
