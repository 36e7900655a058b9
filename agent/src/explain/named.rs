//! Answers about what is granted by name: hosts of web requests, secrets, commands of other packs.

use std::sync::Arc;

use outhaul_host::Power;
use outhaul_host::power::http;

use super::{At, Finding, Subject, split};

impl Subject {
    /// Requests: hosts or addresses of the web, each with a method before it or GET.
    pub(super) fn requests(&self, items: &[String]) -> Finding {
        let grant = self.grants.http.clone().unwrap_or_else(|| Arc::new(http::Grant::default()));
        let is_method = |item: &str| item.bytes().all(|byte| byte.is_ascii_uppercase() || byte == b'-');
        let found = |allowed, line, why, remedy| self.found(Power::Http, items, allowed, line, why, remedy);
        let (mut method, mut last) = (None, None);
        for item in items {
            if is_method(item) {
                method = Some(item.as_str());
                continue;
            }
            match http::judge_typed(&self.name, &grant, method.take(), item) {
                Ok(number) => last = Some(number),
                Err(sentence) => {
                    let (why, remedy) = split(&sentence);
                    // A host that is granted is refused for its method.
                    let key = if http::judge_typed(&self.name, &grant, None, item).is_ok() { "methods" } else { "hosts" };
                    return found(false, self.line(Power::Http, &[At::Key(key)]).0, why, remedy);
                }
            }
        }
        let Some(number) = last.filter(|_| method.is_none()) else {
            return found(false, self.line(Power::Http, &[]).0, "a method alone is no request: name a host behind it".into(), None);
        };
        let origin = &grant.hosts[number];
        let why = format!("`{origin}` in `hosts` has it; the addresses its name leads to are judged at each request");
        let line = self.line(Power::Http, &[At::Key("hosts"), At::Item(number)]).0;
        found(true, line, why, Some(format!("agent deny {} http {origin}", self.name)))
    }

    pub(super) fn secrets(&self, names: &[String]) -> Finding {
        let granted: Vec<_> = self.grants.secrets.names.iter().map(|name| (name.as_str(), name.as_str())).collect();
        self.by_name(Power::Secrets, names, &granted, |granted, name| *granted == name)
    }

    pub(super) fn calls(&self, commands: &[String]) -> Finding {
        let granted: Vec<_> = self.grants.call.commands.iter().map(|pattern| (pattern, pattern.as_str())).collect();
        self.by_name(Power::Call, commands, &granted, |pattern, command| pattern.covers(command))
    }

    /// The line that grants the last one, or what is missing. What is granted comes with its text in the file.
    fn by_name<G>(&self, power: Power, items: &[String], granted: &[(G, &str)], covers: impl Fn(&G, &str) -> bool) -> Finding {
        let place = |item: &String| granted.iter().position(|(granted, _)| covers(granted, item));
        let missing: Vec<&str> = items.iter().filter(|item| place(item).is_none()).map(String::as_str).collect();
        if !missing.is_empty() {
            let (why, remedy) = (format!("not granted: {}", missing.join(", ")), missing.join(" "));
            let remedy = format!("agent allow {} {power} {remedy}", self.name);
            return self.found(power, items, false, self.line(power, &[]).0, why, Some(remedy));
        }
        let last = items.last().and_then(place);
        let (line, _) = self.line(power, last.map(At::Item).as_slice());
        let mut by: Vec<&str> = items.iter().filter_map(place).map(|at| granted[at].1).collect();
        by.dedup();
        let why = by.iter().map(|text| format!("`{text}`")).collect::<Vec<_>>().join(", ");
        // A star is the shell's before it is ours.
        let typed = |text: &&str| if text.contains('*') { format!("'{text}'") } else { (*text).to_owned() };
        let remedy = format!("agent deny {} {power} {}", self.name, by.iter().map(typed).collect::<Vec<_>>().join(" "));
        self.found(power, items, true, line, format!("granted by {why}"), Some(remedy))
    }
}
