//! A relay's address as people write it: `ws://host:port`, `wss://host[:port][/prefix]`.

use outhaul_protocol::error::{Code, Failure};
use outhaul_protocol::frame::LINK_PATH;

/// Where a relay listens unless told otherwise.
pub const DEFAULT_PORT: u16 = 8765;

/// A parsed relay URL.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RelayUrl {
    tls: bool,
    host: String,
    port: u16,
    prefix: String,
}

impl RelayUrl {
    /// Reads `text`; without a port it is 8765 for `ws` and 443 for `wss`.
    pub fn parse(text: &str) -> Result<Self, Failure> {
        let wrong = |what: &str| {
            Failure::new(Code::BadUsage, format!("relay URL `{}`: {what}", text.escape_debug()))
                .hint("write it as ws://HOST:8765 or wss://HOST")
        };
        let (tls, rest) = match text.split_once("://") {
            Some(("ws", rest)) => (false, rest),
            Some(("wss", rest)) => (true, rest),
            Some((scheme, _)) => return Err(wrong(&format!("scheme `{}` is not ws or wss", scheme.escape_debug()))),
            None => return Err(wrong("has no scheme")),
        };
        let (authority, prefix) = rest.find('/').map_or((rest, ""), |at| rest.split_at(at));
        if authority.contains('@') {
            return Err(wrong("user names and passwords do not belong in it"));
        }
        if text.contains(['?', '#']) || !text.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(wrong("only a host, a port and a path may stand there"));
        }
        let (host, port) = match authority.strip_prefix('[') {
            Some(v6) => {
                let (host, rest) = v6.split_once(']').ok_or_else(|| wrong("`[` without `]`"))?;
                (host, rest.strip_prefix(':').or(rest.is_empty().then_some("")))
            }
            None => authority.split_once(':').map_or((authority, Some("")), |(host, port)| (host, Some(port))),
        };
        let port = match port.ok_or_else(|| wrong("text after `]`"))? {
            "" if tls => 443,
            "" => DEFAULT_PORT,
            digits => digits.parse().map_err(|_| wrong("the port is not a number up to 65535"))?,
        };
        if host.is_empty() {
            return Err(wrong("has no host"));
        }
        Ok(RelayUrl { tls, host: host.into(), port, prefix: prefix.trim_end_matches('/').into() })
    }

    /// Whether it is `wss`.
    #[must_use]
    pub fn is_tls(&self) -> bool {
        self.tls
    }

    /// Host name or address, without brackets.
    #[must_use]
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The port.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    fn bracketed(&self) -> String {
        if self.host.contains(':') { format!("[{}]", self.host) } else { self.host.clone() }
    }

    /// The endpoint to upgrade at.
    #[must_use]
    pub fn endpoint(&self) -> String {
        format!("{self}{LINK_PATH}")
    }
}

impl std::fmt::Display for RelayUrl {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let scheme = if self.tls { "wss" } else { "ws" };
        write!(f, "{scheme}://{}:{}{}", self.bracketed(), self.port, self.prefix)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_as_people_write_them() {
        for (text, shown) in [
            ("ws://127.0.0.1:8765", "ws://127.0.0.1:8765"),
            ("ws://box", "ws://box:8765"),
            ("wss://relay.example.org", "wss://relay.example.org:443"),
            ("wss://[::1]:9/edge/", "wss://[::1]:9/edge"),
        ] {
            assert_eq!(RelayUrl::parse(text).expect(text).to_string(), shown);
        }
    }

    #[test]
    fn what_cannot_be_an_address_is_refused_with_the_form() {
        for text in ["", "box:8765", "http://box", "ws://", "ws://a:b", "ws://a:99999", "ws://u:p@a", "ws://a/?x", "ws://[::1", "ws://a\nb"]
        {
            let failure = RelayUrl::parse(text).expect_err(text);
            assert_eq!(failure.code, Code::BadUsage);
            assert!(failure.hint.is_some());
        }
    }
}
