//! What one pack may send to whom: `[packs.NAME] http = { … }` of `agent.toml`, and the judgement of a request by it.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use ::http::Method;
use serde::{Deserialize, Serialize};

use super::HttpError;
use super::address::Network;
use super::header::{Field, Template};
use super::origin::{Origin, Scheme, Target};
use crate::power::{shell_word, shown};

/// Mebibytes of one body, sent or received, where the owner says nothing: a picture or a long listing, not a disk image.
const MAX_MIB: u64 = 16;
/// Seconds from a request's beginning to the end of its answer, where the owner says nothing.
const TIMEOUT_SECS: u64 = 30;
/// Requests of one call under way at once, where the owner says nothing: what a browser opens to one host.
const CONCURRENT: usize = 8;
/// The most an owner may set: each has a connection and buffers of its own.
const MOST_CONCURRENT: usize = 64;

/// What one pack may send to whom. The default grants nothing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Written")]
pub struct Grant {
    /// Whom it may reach.
    pub hosts: Vec<Origin>,
    /// With which methods.
    pub methods: Vec<Verb>,
    /// Addresses that are not public and may be reached all the same.
    pub private: Vec<Network>,
    /// Headers added to requests to one of the hosts, after all checks.
    pub headers: BTreeMap<Origin, BTreeMap<Field, Template>>,
    /// Mebibytes of one body.
    pub max_mib: u64,
    /// Seconds from a request's beginning to the end of its answer.
    pub timeout_secs: u64,
    /// Requests of one call under way at once.
    pub concurrent: usize,
}

impl Default for Grant {
    fn default() -> Self {
        Grant {
            hosts: Vec::new(),
            methods: vec![Verb(Method::GET), Verb(Method::HEAD)],
            private: Vec::new(),
            headers: BTreeMap::new(),
            max_mib: MAX_MIB,
            timeout_secs: TIMEOUT_SECS,
            concurrent: CONCURRENT,
        }
    }
}

/// The same as it is written; what the parts say of each other is judged afterwards.
#[derive(Deserialize)]
#[serde(
    default,
    deny_unknown_fields,
    expecting = "{ hosts = [\"api.example.org\"], methods = […], private = […], headers = {…}, max_mib = …, timeout_secs = …, concurrent = … }"
)]
struct Written {
    hosts: Vec<Origin>,
    methods: Vec<Verb>,
    private: Vec<Network>,
    headers: BTreeMap<Origin, BTreeMap<Field, Template>>,
    max_mib: u64,
    timeout_secs: u64,
    concurrent: usize,
}

impl Default for Written {
    fn default() -> Self {
        let Grant { hosts, methods, private, headers, max_mib, timeout_secs, concurrent } = Grant::default();
        Written { hosts, methods, private, headers, max_mib, timeout_secs, concurrent }
    }
}

impl TryFrom<Written> for Grant {
    type Error = String;

    fn try_from(written: Written) -> Result<Self, String> {
        let Written { hosts, methods, private, headers, max_mib, timeout_secs, concurrent } = written;
        for host in headers.keys() {
            if !host.is_one_host() {
                return Err(format!("headers for `{host}`: they are bound to one host, not to all below a star"));
            }
            if !hosts.iter().any(|granted| granted == host) {
                return Err(format!("headers for `{host}`, which `hosts` does not grant"));
            }
        }
        let ranges =
            [("max_mib", max_mib, 4096), ("timeout_secs", timeout_secs, 86_400), ("concurrent", concurrent as u64, MOST_CONCURRENT as u64)];
        match ranges.into_iter().find(|(_, value, most)| !(1..=*most).contains(value)) {
            Some((name, value, most)) => Err(format!("{name}: {value} is not between 1 and {most}")),
            None => Ok(Grant { hosts, methods, private, headers, max_mib, timeout_secs, concurrent }),
        }
    }
}

/// A method that may be granted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Verb(Method);

impl Verb {
    /// Reads a method. TRACE would read the owner's headers back to the pack, CONNECT would open a tunnel.
    pub fn parse(text: &str) -> Result<Self, String> {
        if text.is_empty() || text.len() > 32 || !text.bytes().all(|byte| byte.is_ascii_uppercase() || byte == b'-') {
            return Err(format!("`{}` is not a method such as GET or POST", text.escape_debug()));
        }
        if matches!(text, "TRACE" | "CONNECT") {
            return Err(format!("method {text} cannot be granted"));
        }
        Method::from_bytes(text.as_bytes()).map(Verb).map_err(|_| format!("`{text}` is not a method"))
    }
}

impl fmt::Display for Verb {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0.as_str())
    }
}

impl TryFrom<String> for Verb {
    type Error = String;
    fn try_from(text: String) -> Result<Self, String> {
        Verb::parse(&text)
    }
}

impl From<Verb> for String {
    fn from(verb: Verb) -> String {
        verb.to_string()
    }
}

/// A request whose target and method policy grants. [`Permitted::judge`] is its only maker; its addresses have yet to be found.
#[derive(Debug, Clone)]
pub struct Permitted {
    pub(super) pack: String,
    pub(super) grant: Arc<Grant>,
    pub(super) origin: Origin,
    pub(super) target: Target,
}

impl Permitted {
    /// Judges method and target. `grant` is the pack's, if it has one.
    pub fn judge(pack: &str, grant: Option<&Arc<Grant>>, scheme: Scheme, authority: &str, method: &Method) -> Result<Self, HttpError> {
        let denied = |what: String, remedy: String| {
            HttpError::Denied(format!(
                "this machine's policy does not let pack `{pack}` {what}; on that machine: agent allow {pack} http {remedy}"
            ))
        };
        let target = Target::parse(scheme, authority)
            .map_err(|why| HttpError::Denied(format!("pack `{pack}` may not reach `{}`: {why}", shown(authority))))?;
        let host = shell_word(&target.to_string());
        // The host itself before a star that covers it too: headers are bound to it.
        let covering = grant.map(|grant| grant.hosts.iter().filter(|origin| origin.covers(&target)));
        let origin = covering.and_then(|origins| origins.max_by_key(|origin| origin.is_one_host()));
        let (Some(grant), Some(origin)) = (grant, origin) else {
            return Err(denied(format!("reach `{target}`"), host));
        };
        if matches!(*method, Method::TRACE | Method::CONNECT) {
            return Err(HttpError::Denied(format!("pack `{pack}` may not send {method}: no policy grants that")));
        }
        if !grant.methods.iter().any(|verb| verb.0 == *method) {
            let method = shown(method.as_str());
            return Err(denied(format!("send {method} to `{target}`"), format!("{host} --method {}", shell_word(&method))));
        }
        Ok(Permitted { pack: pack.to_owned(), grant: Arc::clone(grant), origin: origin.clone(), target })
    }
}

/// What policy says of a request as a person types it: a method (GET without one) and a host or an address of the web. Gives the place in
/// `hosts` of what grants it, or the sentence of the refusal. Which addresses the host's name leads to is judged when it is looked up.
pub fn judge_typed(pack: &str, grant: &Arc<Grant>, method: Option<&str>, place: &str) -> Result<usize, String> {
    let method = method.map_or(Ok(Method::GET), |method| Verb::parse(method).map(|verb| verb.0))?;
    let (scheme, rest) = match place.split_once("://") {
        Some(("http", rest)) => (Scheme::Http, rest),
        Some(("https", rest)) => (Scheme::Https, rest),
        Some((other, _)) => return Err(format!("`{}://` is no scheme of web requests", shown(other))),
        None => (Scheme::Https, place),
    };
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let permitted = Permitted::judge(pack, Some(grant), scheme, authority, &method).map_err(|error| error.to_string())?;
    grant.hosts.iter().position(|origin| *origin == permitted.origin).ok_or_else(|| "the grant is gone".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn grant(text: &str) -> Result<Arc<Grant>, String> {
        serde_json::from_str(text).map(Arc::new).map_err(|error| error.to_string())
    }

    fn refused(grant: Option<&Arc<Grant>>, authority: &str, method: &Method) -> String {
        match Permitted::judge("web", grant, Scheme::Https, authority, method) {
            Err(HttpError::Denied(sentence)) => sentence,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_refusal_names_the_very_command_that_would_lift_it() {
        let sentence = |what: &str, items: &str| {
            format!("this machine's policy does not let pack `web` {what}; on that machine: agent allow web http {items}")
        };
        let owners = grant(r#"{"hosts":["api.example.org"]}"#).expect("a grant");
        assert_eq!(refused(None, "api.example.org", &Method::GET), sentence("reach `api.example.org`", "api.example.org"));
        assert_eq!(refused(Some(&owners), "api.example.org:1", &Method::GET), sentence("reach `api.example.org:1`", "api.example.org:1"));
        let post = sentence("send POST to `api.example.org`", "api.example.org --method POST");
        assert_eq!(refused(Some(&owners), "api.example.org", &Method::POST), post);
        assert_eq!(
            refused(Some(&owners), "a@b.org", &Method::GET),
            "pack `web` may not reach `a@b.org`: it names a user, which no request may"
        );
    }

    #[test]
    fn a_host_that_is_named_goes_before_a_star() {
        let owners = grant(r#"{"hosts":["*.example.org","api.example.org"],"headers":{"api.example.org":{"a":"b"}}}"#).expect("a grant");
        let origin = |authority: &str| {
            Permitted::judge("web", Some(&owners), Scheme::Https, authority, &Method::GET).expect("granted").origin.to_string()
        };
        assert_eq!((origin("api.example.org").as_str(), origin("b.example.org").as_str()), ("api.example.org", "*.example.org"));
    }

    #[test]
    fn what_reads_headers_back_or_opens_tunnels_is_never_granted() {
        for method in ["TRACE", "CONNECT"] {
            assert!(grant(&format!(r#"{{"hosts":["a.org"],"methods":["{method}"]}}"#)).is_err());
            let owners = grant(r#"{"hosts":["a.org"]}"#).expect("a grant");
            assert!(refused(Some(&owners), "a.org", &method.parse().expect(method)).ends_with("no policy grants that"));
        }
    }

    #[test]
    fn the_parts_of_a_grant_fit_each_other() {
        let bound = grant(r#"{"hosts":["api.example.org"],"headers":{"api.example.org":{"Authorization":"Bearer {secret:t}"}}}"#);
        assert_eq!(bound.expect("fits").methods, Grant::default().methods);
        for (text, why) in [
            (r#"{"hosts":["*.example.org"],"headers":{"*.example.org":{"a":"b"}}}"#, "bound to one host"),
            (r#"{"hosts":["api.example.org"],"headers":{"http://api.example.org":{"a":"b"}}}"#, "`hosts` does not grant"),
            (r#"{"hosts":["a.org"],"concurrent":65}"#, "concurrent: 65 is not between 1 and 64"),
            (r#"{"hosts":["a.org"],"max_mib":0}"#, "max_mib: 0 is not between 1 and 4096"),
            (r#"{"hosts":["a.org"],"methods":["get"]}"#, "`get` is not a method"),
            (r#"{"host":["a.org"]}"#, "unknown field"),
        ] {
            let said = grant(text).expect_err(text);
            assert!(said.contains(why), "{said}");
        }
    }
}
