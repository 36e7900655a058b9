//! `relay pack new`, `build` and `inspect`: an author's hour, without a relay. What they do is `outhaul_author`'s; here is
//! how it is told.

use std::fs;
use std::path::{Path, PathBuf};

use outhaul_author::inspect::{Imported, Inspected};
use outhaul_author::project::Lang;
use outhaul_protocol::error::{Code, Failure};
use outhaul_protocol::pack::Wanted;
use outhaul_protocol::text::escape_control;
use serde_json::json;

use super::Context;
use super::args::{PackBuild, PackNew};
use super::describe::command_lines;
use super::pack::read;
use super::sign::Standing;

/// A language as it is typed.
pub(super) fn lang(text: &str) -> Result<Lang, String> {
    Lang::ALL.into_iter().find(|lang| lang.name() == text).ok_or_else(|| {
        let all = Lang::ALL.map(Lang::name).join(", ");
        format!("packs are written in {all}")
    })
}

/// `relay pack new`.
pub(super) fn new(context: &Context, how: &PackNew) -> Result<u8, Failure> {
    let folder =
        std::path::absolute(&how.name).map_err(|error| Failure::new(Code::BadUsage, format!("find `{}`: {error}", how.name.display())))?;
    outhaul_author::new::new(&folder, how.lang)?;
    let shown = how.name.display().to_string();
    context.out.either(
        || format!("{shown} is a pack in {}; its contract is {shown}/wit/pack.wit, its README says what to type", how.lang),
        || json!({"ok": true, "folder": folder, "lang": how.lang.name()}),
    );
    if !context.out.json {
        context.out.talk(&format!("next: relay pack build {shown}"));
    }
    Ok(0)
}

/// `relay pack build`.
pub(super) fn build(context: &Context, how: &PackBuild) -> Result<u8, Failure> {
    let built = outhaul_author::build::build(&how.dir)?;
    let out = how.out.clone().unwrap_or_else(|| PathBuf::from(format!("{}.wasm", built.manifest.name)));
    fs::write(&out, &built.wasm).map_err(|error| Failure::new(Code::BadUsage, format!("write `{}`: {error}", out.display())))?;
    let digest = outhaul_protocol::keys::sha256(&built.wasm);
    if !context.out.json {
        built.notes.iter().for_each(|note| context.out.talk(&format!("note: {note}")));
    }
    context.out.either(
        || {
            let (name, version) = (&built.manifest.name, &built.manifest.version);
            let commands = built.commands.join(", ");
            format!("{}: {name} {version}, {} bytes ({}): {commands}", out.display(), thousands(built.wasm.len()), digest.short())
        },
        || {
            json!({
                "ok": true,
                "file": out,
                "name": built.manifest.name,
                "version": built.manifest.version,
                "digest": digest.to_string(),
                "size": built.wasm.len(),
                "commands": built.commands,
                "notes": built.notes,
            })
        },
    );
    Ok(0)
}

/// `relay pack inspect`.
pub(super) fn inspect(context: &Context, file: &Path) -> Result<u8, Failure> {
    let bytes = read(file)?;
    let inspected = outhaul_author::inspect::inspect(&bytes)?;
    let standing = Standing::of(context, file, &bytes, &inspected.contents)?;
    context.out.either(
        || inspected_text(&inspected, &standing),
        || {
            let mut json = inspected.json();
            (json["signed"], json["signature"]) = ((standing != Standing::Unsigned).into(), standing.json());
            json
        },
    );
    Ok(0)
}

fn inspected_text(inspected: &Inspected, standing: &Standing) -> String {
    let (manifest, about) = (&inspected.contents.manifest, &inspected.contents.about);
    let mut lines = vec![format!("{} {}", manifest.name, escape_control(&manifest.version))];
    lines.extend(about.description.as_deref().map(|text| format!("  {}", escape_control(text))));
    lines.push(String::new());
    let platforms = if manifest.platforms.is_empty() { "any".to_owned() } else { manifest.platforms.join(", ") };
    let head: [(&str, Option<String>); 11] = [
        ("digest", Some(inspected.digest.to_string())),
        ("size", Some(format!("{} bytes", thousands(inspected.size)))),
        ("signed", Some(standing.text())),
        ("authors", about.authors.clone()),
        ("licence", about.licences.clone()),
        ("homepage", about.homepage.clone()),
        ("source", about.source.clone()),
        ("api", manifest.api.clone()),
        ("platforms", Some(platforms)),
        ("limits", wanted(&manifest.limits)),
        ("built by", manifest.builder.clone()),
    ];
    lines.extend(head.into_iter().filter_map(|(key, value)| Some(format!("{key:<10} {}", escape_control(&value?)))));
    lines.extend(power_lines(inspected));
    lines.push("\ncommands".to_owned());
    inspected.offered.commands.iter().for_each(|command| command_lines(command, &mut lines));
    lines.join("\n")
}

fn wanted(limits: &Wanted) -> Option<String> {
    let memory = limits.memory_mib.map(|mib| format!("{mib} MiB of memory"));
    let time = limits.max_secs.map(|secs| format!("{secs} s"));
    let all: Vec<String> = memory.into_iter().chain(time).collect();
    (!all.is_empty()).then(|| format!("wants {} a call", all.join(", ")))
}

/// What it imports, and why: what an owner decides by.
fn power_lines(inspected: &Inspected) -> Vec<String> {
    let reason = |power: &Imported| match &power.reason {
        Some(reason) => escape_control(reason).into_owned(),
        None if power.always => "every pack has it".to_owned(),
        None => "gives no reason".to_owned(),
    };
    let mut rows: Vec<(String, String)> = inspected.powers.iter().map(|power| (power.name.clone(), reason(power))).collect();
    if !inspected.wasi.is_empty() {
        rows.push(("wasi".into(), format!("{} interfaces: clocks, randomness, printing; no file, no address", inspected.wasi.len())));
    }
    rows.extend(inspected.idle.iter().map(|name| (name.clone(), "gives a reason and does not import it".to_owned())));
    rows.extend(inspected.unknown.iter().map(|name| (name.clone(), "agents of this version do not offer it and refuse the pack".into())));
    let width = rows.iter().map(|(name, _)| name.chars().count()).max().unwrap_or(0);
    let mut lines = vec!["\npowers it imports".to_owned()];
    if rows.is_empty() {
        lines.push("  none".into());
    }
    lines.extend(rows.iter().map(|(name, why)| format!("  {:width$}  {why}", escape_control(name))));
    lines
}

/// `18,337,368`
fn thousands(number: usize) -> String {
    let digits = number.to_string();
    let mut out = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dist(name: &str) -> Inspected {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../plugins/dist").join(format!("{name}.wasm"));
        outhaul_author::inspect::inspect(&fs::read(path).expect("in the tree")).expect("a pack")
    }

    #[test]
    fn a_pack_is_shown_whole() {
        let mut inspected = dist("thermal");
        inspected.contents.manifest.limits = Wanted { memory_mib: Some(128), max_secs: None };
        inspected.contents.about.licences = Some("MIT\u{1b}[2J".into());
        inspected.contents.about.description = Some("Heat".into());
        inspected.idle = vec!["camera".into()];
        inspected.unknown = vec!["other:host/teleport@1.0.0".into()];
        let text = inspected_text(&inspected, &Standing::Unsigned);
        let masked = text.replace(&inspected.digest.to_string(), "DIGEST").replace(&thousands(inspected.size), "SIZE");
        insta::assert_snapshot!(masked);
    }

    #[test]
    fn a_pack_as_json_has_types_as_schemas() {
        let json = dist("gpu").json();
        assert_eq!(json["powers"], json!([{"name": "gpu", "reason": null, "always": false}]));
        let metrics = json["commands"].as_array().expect("a list").iter().find(|one| one["name"] == "gpu.metrics").expect("there");
        assert_eq!(metrics["params"]["properties"]["uuid"]["description"], "only the GPU with this UUID");
        assert_eq!(metrics["result"]["type"], "array");
    }

    #[test]
    fn large_numbers_are_grouped() {
        assert_eq!([0, 999, 1000, 18_337_368].map(thousands), ["0", "999", "1,000", "18,337,368"]);
    }
}
