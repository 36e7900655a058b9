//! `relay pack new`: a folder that builds. The templates are the first thing an author reads, so they are small, and each
//! does the same: a command that takes a record, uses a power, and answers with a record or a typed error.

use std::path::Path;

use outhaul_protocol::error::{Code, Failure};
use outhaul_protocol::objects::valid_name;

use crate::project::{self, Lang, write};
use crate::wit::{self, HOST, snake};

const COMMON: [(&str, &str); 5] = [
    (project::FILE, include_str!("../templates/common/outhaul.toml")),
    ("wit/pack.wit", include_str!("../templates/common/pack.wit")),
    ("tests/cases.toml", include_str!("../templates/common/cases.toml")),
    ("README.md", include_str!("../templates/common/README.md")),
    (".gitignore", include_str!("../templates/common/gitignore")),
];

/// What a language adds.
struct Template {
    files: &'static [(&'static str, &'static str)],
    /// what the README calls the code
    code: &'static str,
    /// what else `.gitignore` has
    ignore: &'static str,
    /// what must be installed
    needs: &'static str,
}

fn template(lang: Lang) -> Template {
    match lang {
        Lang::Rust => Template {
            files: &[
                ("Cargo.toml", include_str!("../templates/rust/Cargo.toml")),
                ("src/lib.rs", include_str!("../templates/rust/lib.rs")),
            ],
            code: "src/lib.rs",
            ignore: "/target\n",
            needs: "The first build wants `rustup target add wasm32-unknown-unknown`, or on Debian\n\
                    `apt-get install --no-install-recommends rustc-web cargo-web rust-web-src wasi-libc`.",
        },
        Lang::C => Template {
            files: &[("src/pack.c", include_str!("../templates/c/pack.c"))],
            code: "src/pack.c",
            ignore: "",
            needs: "The build wants clang with a libc for WASI, on Debian `apt-get install --no-install-recommends clang lld wasi-libc\n\
                    libclang-rt-dev-wasm32`; or zig, also as `pip install ziglang`. It makes `build/c/pack.h` for your editor.",
        },
        Lang::Js => Template {
            files: &[
                ("package.json", include_str!("../templates/js/package.json")),
                ("src/pack.js", include_str!("../templates/js/pack.js")),
            ],
            code: "src/pack.js",
            ignore: "/node_modules\n",
            needs: "Once, before the first build: `npm install`.",
        },
        Lang::Python => Template {
            files: &[("src/app.py", include_str!("../templates/python/app.py"))],
            code: "src/app.py",
            ignore: "__pycache__\n",
            needs: "The build wants `pip install componentize-py`.",
        },
    }
}

/// Interfaces that agents answer themselves.
const NATIVE: [&str; 2] = ["node", "pack"];

/// Makes the folder of a new pack, called as its last part. Nothing is written unless all of it can be.
pub fn new(folder: &Path, lang: Lang) -> Result<(), Failure> {
    let name = folder.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    check(&name)?;
    if folder.exists() {
        return Err(Failure::new(Code::BadUsage, format!("`{}` is there already", folder.display())).hint("choose another name"));
    }
    let template = template(lang);
    let contract = fill(COMMON[1].1, &name, lang, &template);
    wit::parse_with_host(&contract).map_err(|why| {
        Failure::new(Code::BadUsage, format!("`{name}` cannot name an interface of WIT: {why}"))
            .hint("letters and digits with dashes between, a letter first, and no word of WIT itself")
    })?;
    for (path, text) in COMMON.iter().chain(template.files) {
        write(&folder.join(path), fill(text, &name, lang, &template).as_bytes())?;
    }
    lay_host(folder)
}

/// Puts the host's WIT below a pack's.
pub(crate) fn lay_host(folder: &Path) -> Result<(), Failure> {
    HOST.iter().try_for_each(|(name, text)| write(&folder.join(wit::HOST_FOLDER).join(name), text.as_bytes()))
}

fn check(name: &str) -> Result<(), Failure> {
    let refused = |why: &str| Err(Failure::new(Code::BadUsage, format!("`{}` cannot name a pack: {why}", name.escape_debug())));
    if !valid_name(name) {
        return refused("lower-case letters, digits and dashes, at most 63, no dash first");
    }
    if NATIVE.contains(&name) {
        return refused("agents answer commands of that name themselves");
    }
    if RESERVED.contains(&name) {
        return refused("it is a word of one of the languages");
    }
    Ok(())
}

/// Words that could not name a module, a class or a constant. A list for all languages: a pack may change its language.
#[rustfmt::skip]
const RESERVED: [&str; 62] = [
    "abstract", "and", "as", "assert", "async", "await", "become", "box", "break", "case", "catch", "class", "const", "continue", "crate", "def",
    "default", "del", "delete", "do", "elif", "else", "enum", "eval", "except", "export", "extern", "final", "finally", "fn", "for", "from",
    "function", "global", "goto", "if", "impl", "import", "in", "interface", "is", "lambda", "let", "loop", "match", "mod", "move", "new",
    "not", "or", "pass", "pub", "raise", "return", "self", "static", "super", "try", "void", "while", "with", "yield",
];

/// Fills a template.
fn fill(text: &str, name: &str, lang: Lang, template: &Template) -> String {
    let words: Vec<String> = name.split('-').map(capital).collect();
    let camel_upper = words.concat();
    let camel = name.split('-').next().unwrap_or_default().to_owned() + &words[1..].concat();
    let snake = snake(name);
    let filled = text
        .replace("{{name}}", name)
        .replace("{{snake}}", &snake)
        .replace("{{SNAKE}}", &snake.to_uppercase())
        .replace("{{camel}}", &camel)
        .replace("{{Camel}}", &camel_upper)
        .replace("{{lang}}", lang.name())
        .replace("{{code}}", template.code)
        .replace("{{needs}}", template.needs)
        .replace("{{ignore}}", template.ignore);
    format!("{}\n", filled.trim_end())
}

fn capital(word: &str) -> String {
    let mut letters = word.chars();
    letters.next().map(|first| first.to_ascii_uppercase().to_string() + letters.as_str()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::project::Project;

    fn made(name: &str, lang: Lang) -> (tempfile::TempDir, std::path::PathBuf) {
        let dir = tempfile::tempdir().expect("a folder");
        let folder = dir.path().join(name);
        new(&folder, lang).unwrap_or_else(|failure| panic!("{name}: {failure}"));
        (dir, folder)
    }

    #[test]
    fn every_language_has_a_whole_folder() {
        for lang in Lang::ALL {
            let (_dir, folder) = made("disk-watch", lang);
            let project = Project::read(&folder).expect("its own file is good");
            assert_eq!((project.name.as_str(), project.lang), ("disk-watch", lang));
            assert!(project.powers.contains_key("system"));
            for file in crate::sources::files(&folder, &|_| false).expect("listed") {
                let text = std::fs::read_to_string(&file).expect("text");
                assert!(!text.contains("{{"), "{} has a place that was not filled", file.display());
                assert!(text.ends_with('\n') && !text.ends_with("\n\n"), "{}", file.display());
            }
            wit::Wit::read(&folder).expect("its WIT is good");
        }
    }

    #[test]
    fn the_readme_says_what_to_type() {
        let (_dir, folder) = made("disk-watch", Lang::Python);
        insta::assert_snapshot!(std::fs::read_to_string(folder.join("README.md")).expect("text"));
    }

    #[test]
    fn names_that_could_not_be_typed_are_refused() {
        let dir = tempfile::tempdir().expect("a folder");
        let all: Vec<String> = ["Thermal", "-x", "node", "match", "record", "3d"]
            .iter()
            .map(|name| {
                let failure = new(&dir.path().join(name), Lang::Rust).expect_err(name);
                assert!(!dir.path().join(name).exists(), "{name}");
                assert_eq!(failure.code, Code::BadUsage);
                failure.message.lines().next().unwrap_or_default().to_owned()
            })
            .collect();
        insta::assert_snapshot!(all.join("\n"));
    }

    #[test]
    fn what_is_there_is_left_alone() {
        let (_dir, folder) = made("a", Lang::C);
        let failure = new(&folder, Lang::Rust).expect_err("there");
        assert!(failure.message.ends_with("is there already"), "{failure}");
        assert!(!folder.join("Cargo.toml").exists());
    }
}
