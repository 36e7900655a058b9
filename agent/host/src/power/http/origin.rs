//! Where a request goes: scheme, host and port, read in exactly one way. What browsers and libc would still make sense of (numbers for
//! addresses, octal digits, user names, percent signs) is refused, so that what is checked is what is connected to.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr};

use serde::{Deserialize, Serialize};

use super::address::is_metadata_name;

/// How a request travels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Scheme {
    /// Over TLS.
    Https,
    /// In the clear.
    Http,
}

impl Scheme {
    fn prefix(self) -> &'static str {
        match self {
            Scheme::Https => "https://",
            Scheme::Http => "http://",
        }
    }

    fn port(self) -> u16 {
        match self {
            Scheme::Https => 443,
            Scheme::Http => 80,
        }
    }
}

/// One machine by name or address.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Host {
    /// Lower-case.
    Name(String),
    /// As it stands in the request.
    Address(IpAddr),
}

/// Longest name of DNS.
const NAME: usize = 253;
/// Longest part of one.
const LABEL: usize = 63;

impl Host {
    /// Reads a host; the text says what it is instead.
    fn parse(text: &str) -> Result<Self, String> {
        if let Some(inner) = text.strip_prefix('[') {
            let address = inner.strip_suffix(']').and_then(|inner| inner.parse::<Ipv6Addr>().ok());
            return address.map(|address| Host::Address(address.into())).ok_or_else(|| "it is no IPv6 address".into());
        }
        let last = text.rsplit('.').next().unwrap_or_default();
        if last.bytes().all(|byte| byte.is_ascii_digit()) || last.starts_with("0x") || last.starts_with("0X") {
            // What ends in a number is an address to libc: only the one form that every reader reads alike is taken.
            let address = text.parse::<std::net::Ipv4Addr>();
            return address
                .map(|address| Host::Address(address.into()))
                .map_err(|_| "it ends in a number and is no address of four plain ones".into());
        }
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
        let label = |label: &str| {
            (1..=LABEL).contains(&label.len())
                && label.bytes().all(|byte| plain(byte) || byte == b'-')
                && !label.starts_with('-')
                && !label.ends_with('-')
        };
        if text.len() > NAME || !text.split('.').all(label) {
            return Err("it is no host name".into());
        }
        Ok(Host::Name(text.to_ascii_lowercase()))
    }
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Host::Name(name) => f.write_str(name),
            Host::Address(IpAddr::V6(address)) => write!(f, "[{address}]"),
            Host::Address(address) => address.fmt(f),
        }
    }
}

/// Where one request goes.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Target {
    pub(super) scheme: Scheme,
    pub(super) host: Host,
    pub(super) port: u16,
}

impl Target {
    /// Of a request's own words. `authority` is host and port.
    pub(super) fn parse(scheme: Scheme, authority: &str) -> Result<Self, String> {
        if authority.contains('@') {
            return Err("it names a user, which no request may".into());
        }
        let (host, port) = split(authority)?;
        Ok(Target { scheme, host: Host::parse(host)?, port: port.unwrap_or(scheme.port()) })
    }

    /// What stands in the `host` header.
    pub(super) fn authority(&self) -> String {
        if self.port == self.scheme.port() { self.host.to_string() } else { format!("{}:{}", self.host, self.port) }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // TLS is what goes without saying, here as in the owner's file.
        let prefix = if self.scheme == Scheme::Https { "" } else { self.scheme.prefix() };
        write!(f, "{prefix}{}", self.authority())
    }
}

/// Host and port.
fn split(authority: &str) -> Result<(&str, Option<u16>), String> {
    let after = authority.rfind(']').map_or(0, |end| end + 1);
    let Some(colon) = authority[after..].find(':') else { return Ok((authority, None)) };
    let (host, port) = (&authority[..after + colon], &authority[after + colon + 1..]);
    let plain = port.bytes().all(|byte| byte.is_ascii_digit());
    match port.parse() {
        Ok(port @ 1..) if plain => Ok((host, Some(port))),
        _ => Err("no port between 1 and 65535 stands behind it".into()),
    }
}

/// What an owner grants: `api.example.org`, `*.example.net:8443`, `http://10.0.0.5:8080`. Without a scheme it means TLS; without a
/// port, the scheme's own.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Origin {
    /// The host, or what stands behind the star.
    target: Target,
    below: bool,
}

impl Origin {
    /// Reads an entry.
    pub fn parse(text: &str) -> Result<Self, String> {
        let wrong = |why: &str| format!("`{}` cannot be granted: {why}", text.escape_debug());
        let (scheme, rest) = match text.split_once("://") {
            None => (Scheme::Https, text),
            Some(("https", rest)) => (Scheme::Https, rest),
            Some(("http", rest)) => (Scheme::Http, rest),
            Some(_) => return Err(wrong("only https:// and http:// may stand before it")),
        };
        if rest.contains(['/', '?', '#']) {
            return Err(wrong("it has a path, and a whole host is granted"));
        }
        let below = rest.strip_prefix("*.");
        let target = Target::parse(scheme, below.unwrap_or(rest)).map_err(|why| wrong(&why))?;
        match &target.host {
            Host::Name(name) if below.is_some() && !name.contains('.') => Err(wrong("a star needs a domain of two parts behind it")),
            Host::Address(_) if below.is_some() => Err(wrong("a star stands before a name, not before an address")),
            _ => Ok(Origin { target, below: below.is_some() }),
        }
    }

    /// Whether it covers a request. A star covers everything below its domain, but for the names of metadata services.
    pub(super) fn covers(&self, target: &Target) -> bool {
        if (self.target.scheme, self.target.port) != (target.scheme, target.port) {
            return false;
        }
        match (&self.target.host, &target.host) {
            (Host::Name(domain), Host::Name(name)) if self.below => {
                let below = name.strip_suffix(domain.as_str()).is_some_and(|head| head.len() > 1 && head.ends_with('.'));
                below && !is_metadata_name(name)
            }
            (one, other) => one == other,
        }
    }

    /// The address it names, when it names one.
    pub(super) fn address(&self) -> Option<IpAddr> {
        match self.target.host {
            Host::Address(address) => Some(address),
            Host::Name(_) => None,
        }
    }

    /// Whether it is one host, to which a header can be bound.
    #[must_use]
    pub fn is_one_host(&self) -> bool {
        !self.below
    }

    /// Whether it is another machine that is spoken to in the clear.
    #[must_use]
    pub fn is_overheard(&self) -> bool {
        let here = self.is_localhost() || self.address().is_some_and(|address| address.is_loopback());
        self.target.scheme == Scheme::Http && !here
    }

    /// Whether it is this machine by its usual name, which leads to an address that has to be named too.
    #[must_use]
    pub fn is_localhost(&self) -> bool {
        matches!(&self.target.host, Host::Name(name) if name == "localhost")
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = self.target.to_string();
        match text.strip_prefix(Scheme::Http.prefix()) {
            _ if !self.below => f.write_str(&text),
            Some(rest) => write!(f, "{}*.{rest}", Scheme::Http.prefix()),
            None => write!(f, "*.{text}"),
        }
    }
}

impl TryFrom<String> for Origin {
    type Error = String;
    fn try_from(text: String) -> Result<Self, String> {
        Origin::parse(&text)
    }
}

impl From<Origin> for String {
    fn from(origin: Origin) -> String {
        origin.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn covers(entry: &str, scheme: Scheme, authority: &str) -> bool {
        let target = Target::parse(scheme, authority).expect(authority);
        Origin::parse(entry).expect(entry).covers(&target)
    }

    #[test]
    fn an_entry_covers_its_scheme_its_host_and_its_port() {
        use Scheme::{Http, Https};
        for (entry, scheme, authority) in [
            ("api.example.org", Https, "api.example.org"),
            ("https://API.example.org:443", Https, "Api.Example.Org:443"),
            ("*.example.net:8443", Https, "a.b.example.net:8443"),
            ("http://10.0.0.5:8080", Http, "10.0.0.5:8080"),
            ("http://[::1]:8080", Http, "[0:0::1]:8080"),
            ("metadata.google.internal", Https, "metadata.google.internal"),
        ] {
            assert!(covers(entry, scheme, authority), "{entry} {authority}");
        }
        for (entry, scheme, authority) in [
            ("api.example.org", Http, "api.example.org"),
            ("api.example.org", Https, "api.example.org:8443"),
            ("api.example.org", Https, "api.example.org.evil.net"),
            ("api.example.org", Https, "evil-api.example.org"),
            ("*.example.net", Https, "example.net"),
            ("*.example.net", Https, "evilexample.net"),
            ("http://10.0.0.5", Https, "10.0.0.5"),
            ("http://[::1]", Http, "[::ffff:127.0.0.1]"),
            ("*.google.internal", Https, "metadata.google.internal"),
        ] {
            assert!(!covers(entry, scheme, authority), "{entry} {authority}");
        }
    }

    #[test]
    fn only_one_form_of_a_host_is_read() {
        for authority in [
            "",
            ":80",
            "2130706433",
            "0x7f000001",
            "0177.0.0.1",
            "127.1",
            "127.0.0.0x1",
            "127.0.0.1.",
            "example.org.",
            "1.2.3.4.5",
            "256.1.1.1",
            "user@example.org",
            "user:pass@example.org",
            "example.org@evil.net",
            "exa%6dple.org",
            "example..org",
            "-a.org",
            "a-.org",
            "exämple.org",
            "[::1",
            "::1",
            "[fe80::1%25eth0]",
            "[127.0.0.1]",
            "example.org:",
            "example.org:0",
            "example.org:+80",
            "example.org:99999",
            "example.org:80:80",
            "a b.org",
            "a\nb.org",
            "a/b",
            "a\\b",
            "a#b",
            "a?b",
            "*.example.org",
        ] {
            assert!(Target::parse(Scheme::Https, authority).is_err(), "{authority:?}");
        }
    }

    #[test]
    fn entries_are_shown_as_an_owner_writes_them() {
        for text in ["api.example.org", "*.example.net:8443", "http://10.0.0.5:8080", "http://*.lab.example", "[2001:db8::1]:8443"] {
            assert_eq!(Origin::parse(text).expect(text).to_string(), text);
        }
        assert_eq!(Origin::parse("https://API.example.org:443").expect("an entry").to_string(), "api.example.org");
        let overheard = |text: &str| Origin::parse(text).expect(text).is_overheard();
        assert!(overheard("http://10.0.0.5") && overheard("http://*.lab.example"));
        assert!(!overheard("10.0.0.5") && !overheard("http://127.0.0.1:8080") && !overheard("http://localhost"));
        for text in
            ["*", "*.org", "*.10.0.0.5", "a.*.org", "ftp://example.org", "https://example.org/", "example.org/x", "http://", "a@b.org"]
        {
            assert!(Origin::parse(text).is_err(), "{text}");
        }
    }
}
