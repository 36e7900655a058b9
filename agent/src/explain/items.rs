//! Answers about what is granted item by item: programs, devices, folders, images, hosts of web requests, secrets, commands of other packs.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use outhaul_host::Power;
use outhaul_host::power::{containers, files, http, process};
use outhaul_protocol::text::escape_control;

use super::{At, Finding, Subject, split};

impl Subject {
    /// A program with its arguments.
    pub(super) fn program(&self, argv: &[String]) -> Finding {
        let grant = self.grants.process.as_ref().unwrap_or(process::Grant::NOTHING);
        let finding = |allowed, line, why, remedy| self.found(Power::Process, argv, allowed, line, why, remedy);
        match process::judge(&self.name, grant, argv) {
            Ok(number) => {
                let entry = &grant.allow[number];
                let (line, _) = self.line(Power::Process, &[At::Key("allow"), At::Item(number)]);
                let word = if entry.is_bare() { entry.program.clone() } else { format!("'{entry}'") };
                let why = format!("`{entry}` in `allow` has it");
                finding(true, line, why, Some(format!("agent deny {} process {word}", self.name)))
            }
            Err(error) => {
                let named =
                    |entry: &process::Entry| argv.first().is_some_and(|name| name.rsplit('/').next() == entry.program.rsplit('/').next());
                let near = grant.allow.iter().position(named);
                let at = near.map_or_else(|| vec![At::Key("allow")], |number| vec![At::Key("allow"), At::Item(number)]);
                let (why, remedy) = split(&error.to_string());
                // Of a program that is not listed the sentence knows the name alone.
                let narrow = exactly(argv).filter(|_| near.is_none() && remedy.is_some());
                let remedy = narrow.map(|exact| format!("agent allow {} process {}", self.name, typed(&exact))).or(remedy);
                finding(false, self.line(Power::Process, &at).0, why, remedy)
            }
        }
    }

    /// Devices that are granted by name, or all of them.
    pub(super) fn named(&self, power: Power, items: &[String], line: Option<usize>, (all, granted): (bool, &[String])) -> Finding {
        let missing: Vec<&str> = items.iter().filter(|item| !all && !granted.contains(item)).map(String::as_str).collect();
        let allowed = missing.is_empty();
        let (why, remedy) = match allowed {
            // There is no list to take one from.
            true if all => ("all of them are granted".to_owned(), self.denial(power)),
            true => {
                let items: Vec<&str> = items.iter().map(String::as_str).collect();
                ("granted by name".to_owned(), format!("agent deny {} {power} {}", self.name, all_typed(&items)))
            }
            false => (format!("not granted: {}", escaped(&missing)), format!("agent allow {} {power} {}", self.name, all_typed(&missing))),
        };
        self.found(power, items, allowed, line, why, Some(remedy))
    }

    /// Folders and files with the rights that are asked about, reading and listing without.
    pub(super) fn folders(&self, items: &[String]) -> Finding {
        let granted = self.grants.files.as_ref().map_or(&[][..], |grant| &grant.folders);
        let mut line = self.line(Power::Files, &[]).0;
        for item in items {
            let (mut path, wanted) = match files::split_item(item) {
                Ok((path, wanted)) => (path, wanted.unwrap_or(files::Rights { read: true, list: true, ..files::Rights::default() })),
                Err(why) => return self.found(Power::Files, items, false, line, why, None),
            };
            if !granted.iter().any(|folder| path.starts_with(&folder.path)) {
                path = renamed(granted, &path).unwrap_or(path);
            }
            // One that covers it all, else the innermost.
            let holds = |(_, folder): &(usize, &files::Folder)| path.starts_with(&folder.path);
            let place = |(_, folder): &(usize, &files::Folder)| (folder.rights.cover(wanted), folder.path.as_os_str().len());
            let Some((number, folder)) = granted.iter().enumerate().filter(holds).max_by_key(place) else {
                let why = format!("no granted folder holds `{}`", escape_control(&path.display().to_string()));
                let letters = files::split_item(item).ok().and_then(|(_, rights)| rights).map(|rights| format!(":{}", rights.letters()));
                let folder = format!("{}{}", to_grant(&path).display(), letters.unwrap_or_default());
                let remedy = format!("agent allow {} files {}", self.name, typed(&folder));
                return self.found(Power::Files, items, false, line, why, Some(remedy));
            };
            line = self.line(Power::Files, &[At::Item(number)]).0;
            if self.grants.files.as_ref().is_some_and(|grant| grant.withholds(folder)) {
                let why = format!("`{}` holds the agent's own folder, of which no policy gives anything away", folder.path.display());
                return self.found(Power::Files, items, false, line, why, None);
            }
            if !folder.rights.cover(wanted) {
                let path = folder.path.display();
                let why = format!("`{path}` is granted to {}, and not to {}", folder.rights, wanted.without(folder.rights));
                let item = format!("{path}:{}", folder.rights.with(wanted).letters());
                let remedy = format!("agent allow {} files {}", self.name, typed(&item));
                return self.found(Power::Files, items, false, line, why, Some(remedy));
            }
        }
        self.found(
            Power::Files,
            items,
            true,
            line,
            "a granted folder holds it; links that lead out of it are refused".into(),
            Some(self.denial(Power::Files)),
        )
    }

    /// Images, of what they are called to what they are called in full.
    pub(super) fn images(&self, items: &[String]) -> Finding {
        let granted = self.grants.containers.as_ref().map_or(&[][..], |grant| &grant.images);
        let mut line = self.line(Power::Containers, &[At::Key("images")]).0;
        let mut by = String::new();
        for item in items {
            let image = match containers::Reference::parse(item) {
                Ok(image) => image,
                Err(why) => return self.found(Power::Containers, items, false, line, why, None),
            };
            let Some((number, pattern)) = granted.iter().enumerate().find(|(_, pattern)| pattern.covers(&image)) else {
                let why = format!("nothing in `images` has `{image}`");
                let remedy = format!("agent allow {} containers {image}", self.name);
                return self.found(Power::Containers, items, false, line, why, Some(remedy));
            };
            line = self.line(Power::Containers, &[At::Key("images"), At::Item(number)]).0;
            by = pattern.to_string();
        }
        let remedy = format!("agent deny {} containers {}", self.name, typed(&by));
        self.found(Power::Containers, items, true, line, format!("`{by}` in `images` has it"), Some(remedy))
    }

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
        let host = typed(&origin.to_string());
        let why = format!("`{origin}` in `hosts` has it; the addresses its name leads to are judged at each request");
        let line = self.line(Power::Http, &[At::Key("hosts"), At::Item(number)]).0;
        found(true, line, why, Some(format!("agent deny {} http {host}", self.name)))
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
            let why = format!("not granted: {}", escaped(&missing));
            let remedy = format!("agent allow {} {power} {}", self.name, all_typed(&missing));
            return self.found(power, items, false, self.line(power, &[]).0, why, Some(remedy));
        }
        let last = items.last().and_then(place);
        let (line, _) = self.line(power, last.map(At::Item).as_slice());
        let mut by: Vec<&str> = items.iter().filter_map(place).map(|at| granted[at].1).collect();
        by.dedup();
        let why = by.iter().map(|text| format!("`{text}`")).collect::<Vec<_>>().join(", ");
        let typed: Vec<String> = by.iter().map(|text| typed(text)).collect();
        let remedy = format!("agent deny {} {power} {}", self.name, typed.join(" "));
        self.found(power, items, true, line, format!("granted by {why}"), Some(remedy))
    }
}

/// A word as it is typed: what the shell would take for its own is quoted, and what moves a terminal's cursor is not repeated.
fn typed(word: &str) -> String {
    let word: String = word.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect();
    match !word.is_empty() && !word.starts_with('-') && word.chars().all(plain) {
        true => word,
        false => format!("'{}'", word.replace('\'', r"'\''")),
    }
}

/// Means itself to every shell, and in the shape of a program's arguments.
fn plain(c: char) -> bool {
    c.is_ascii_alphanumeric() || "._+-/@:,=".contains(c)
}

/// Words in a sentence.
fn escaped(words: &[&str]) -> String {
    escape_control(&words.join(", ")).into_owned()
}

fn all_typed(words: &[&str]) -> String {
    words.iter().map(|word| typed(word)).collect::<Vec<_>>().join(" ")
}

/// A program with just these arguments, as `agent allow` takes it; none where it is too odd to be typed.
fn exactly(argv: &[String]) -> Option<String> {
    let word = |word: &String| match !word.is_empty() && word.chars().all(plain) {
        true => Some(word.clone()),
        false => Some(format!("'{word}'")).filter(|_| !word.chars().any(|c| c == '\'' || c.is_control())),
    };
    let text = argv.iter().map(word).collect::<Option<Vec<_>>>()?.join(" ");
    process::Entry::parse(&text).is_ok_and(|entry| !entry.is_bare()).then_some(text)
}

/// The folder to grant so that a path may be used: the path itself where it is one, or where nothing is yet.
fn to_grant(path: &Path) -> &Path {
    if path.is_file() { path.parent().unwrap_or(path) } else { path }
}

/// Where on the machine a path is that the pack calls by its own name of a folder.
fn renamed(granted: &[files::Folder], path: &Path) -> Option<PathBuf> {
    let within = |folder: &files::Folder| {
        path.strip_prefix(folder.at.as_ref()?).ok().map(|rest| (rest.components().count(), folder.path.join(rest)))
    };
    granted.iter().filter_map(within).min_by_key(|(depth, _)| *depth).map(|(_, path)| path.components().collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_is_one_to_the_shell_and_plain_words_stay_as_they_are() {
        let words = ["video0", "/srv/a b", "x; id", "it's", "-x", "a*\u{1b}"].map(typed);
        assert_eq!(words, ["video0", "'/srv/a b'", "'x; id'", r"'it'\''s'", "'-x'", "'a*\u{fffd}'"]);
    }

    #[test]
    fn a_program_with_its_arguments_is_typed_as_a_shape() {
        let exactly = |argv: &[&str]| exactly(&argv.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>());
        assert_eq!(exactly(&["uname", "-a"]).as_deref(), Some("uname -a"));
        assert_eq!(exactly(&["echo", "<x>"]).as_deref(), Some("echo '<x>'"));
        assert_eq!(exactly(&["echo", "it's"]), None);
    }

    #[test]
    fn a_packs_own_name_of_a_folder_leads_to_the_folder() {
        let folder = files::Folder { path: "/srv/x".into(), at: Some("/out".into()), rights: files::Rights::default(), max_mib: None };
        assert_eq!(renamed(std::slice::from_ref(&folder), Path::new("/out/a/b.txt")), Some(PathBuf::from("/srv/x/a/b.txt")));
        assert_eq!(renamed(&[folder], Path::new("/outer")), None);
    }
}
