//! What lies in `plugins/dist`: each component decodes, exports what it should, imports no more than it may, and says its
//! name. Without a compiler; `builder check --compare` is the test with one.

use builder::layout::{Pack, Tree};
use outhaul_author::component::Types;

/// File, exported interface, imported interfaces (of the host, without package and version), and whether it needs the
/// engine with async support.
const EXPECTED: &[(&str, &str, &[&str], bool)] = &[
    ("camera", "outhaul:commands/camera@0.1.0", &["camera"], true),
    (
        "fixtures/chain",
        "fixture:chain/chain@0.1.0",
        &["call", "output"],
        true,
    ),
    ("fixtures/clash", "fixture:clash/gpu@0.1.0", &[], false),
    (
        "fixtures/conformance",
        "fixture:conformance/conformance@0.1.0",
        &[
            "call",
            "camera",
            "containers",
            "gpu",
            "kv",
            "location",
            "log",
            "notify",
            "output",
            "process",
            "screen",
            "secrets",
            "system",
        ],
        true,
    ),
    (
        "fixtures/devices",
        "fixture:devices/devices@0.1.0",
        &[],
        false,
    ),
    ("fixtures/echo", "fixture:echo/echo@0.1.0", &[], false),
    ("fixtures/echo-next", "fixture:echo/echo@0.2.0", &[], false),
    ("fixtures/files", "fixture:files/folders@0.1.0", &[], false),
    (
        "fixtures/flow",
        "fixture:flow/flow@0.1.0",
        &["output"],
        true,
    ),
    (
        "fixtures/future-result",
        "fixture:future-result/later@0.1.0",
        &[],
        true,
    ),
    (
        "fixtures/greedy",
        "fixture:greedy/greedy@0.1.0",
        &["process"],
        true,
    ),
    (
        "fixtures/hostile",
        "fixture:hostile/hostile@0.1.0",
        &["log", "output"],
        false,
    ),
    ("fixtures/kv", "fixture:kv/keep@0.1.0", &["kv"], false),
    (
        "fixtures/containers",
        "fixture:containers/work@0.1.0",
        &["containers", "output"],
        true,
    ),
    (
        "fixtures/nested-option",
        "fixture:nested-option/nested@0.1.0",
        &[],
        false,
    ),
    (
        "fixtures/resource-export",
        "fixture:resource-export/counter@0.1.0",
        &[],
        false,
    ),
    (
        "fixtures/seat",
        "fixture:seat/seat@0.1.0",
        &["location", "notify", "screen"],
        true,
    ),
    (
        "fixtures/secretive",
        "fixture:secretive/secretive@0.1.0",
        &["secrets"],
        false,
    ),
    (
        "fixtures/stream-parameter",
        "fixture:stream-parameter/taker@0.1.0",
        &[],
        true,
    ),
    (
        "fixtures/two-streams",
        "fixture:two-streams/twins@0.1.0",
        &[],
        true,
    ),
    (
        "fixtures/typed-stream",
        "fixture:typed-stream/words@0.1.0",
        &[],
        true,
    ),
    (
        "fixtures/unknown-import",
        "fixture:unknown-import/traveller@0.1.0",
        &["teleport"],
        false,
    ),
    ("fixtures/values", "fixture:values/values@0.1.0", &[], false),
    ("fixtures/wasi", "fixture:wasi/wasi-hello@0.1.0", &[], false),
    ("fixtures/web", "fixture:web/web@0.1.0", &[], false),
    ("gpu", "outhaul:commands/gpu@0.1.0", &["gpu"], false),
    (
        "system",
        "outhaul:commands/system@0.1.0",
        &["output", "process", "system"],
        true,
    ),
    (
        "thermal",
        "outhaul:thermal/thermal@0.1.0",
        &["log", "system"],
        false,
    ),
];

/// A 60 KB pack compiles in 55 ms and deploys in a fraction of a second; what grows beyond this deserves a question.
/// The largest now are the fixture that calls everything there is, with its docs, and the one that has all of a standard library's file
/// system in it.
const LARGEST: usize = 160 << 10;

fn packs() -> (Tree, Vec<Pack>) {
    let tree = Tree::of_this_crate().expect("find the tree");
    let packs = tree.packs().expect("list the packs");
    (tree, packs)
}

fn wasm(tree: &Tree, pack: &Pack) -> Vec<u8> {
    std::fs::read(tree.wasm(pack)).unwrap_or_else(|error| panic!("read `{}`: {error}", pack.file))
}

fn sorted(mut names: Vec<String>) -> Vec<String> {
    names.sort();
    names
}

#[test]
fn every_pack_is_built_from_these_sources() {
    builder::check(builder::Compare::Never).expect("check");
}

#[test]
fn a_changed_source_changes_the_digest_of_its_pack_alone() {
    let (tree, packs) = packs();
    let copy = tree
        .copy_to(&std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join("changed"))
        .expect("copy");
    let digest = |tree: &Tree, file: &str| {
        let pack = packs.iter().find(|pack| pack.file == file).expect("listed");
        builder::stamp::sources(tree, pack).expect("digest")
    };
    assert_eq!(
        digest(&tree, "gpu"),
        digest(&copy, "gpu"),
        "a copy is the same"
    );
    std::fs::write(copy.plugins().join("gpu/src/lib.rs"), "//! Another.").expect("write");
    assert_ne!(digest(&tree, "gpu"), digest(&copy, "gpu"));
    assert_eq!(digest(&tree, "thermal"), digest(&copy, "thermal"));
}

#[test]
fn components_export_and_import_what_they_should() {
    let (tree, packs) = packs();
    let files: Vec<&str> = packs.iter().map(|pack| pack.file.as_str()).collect();
    let mut expected: Vec<&str> = EXPECTED.iter().map(|row| row.0).collect();
    expected.sort_unstable();
    assert_eq!(files, expected);
    for pack in &packs {
        let (_, export, imports, asynchronous) = EXPECTED
            .iter()
            .find(|row| row.0 == pack.file)
            .expect("listed");
        let types = Types::read(&wasm(&tree, pack)).expect("read");
        assert_eq!(types.exports(), [*export], "{}", pack.file);
        let mut imported = sorted(types.imports());
        if ["fixtures/wasi", "fixtures/web", "fixtures/files"].contains(&pack.file.as_str()) {
            imported.retain(|name| !name.starts_with("wasi:"));
        }
        let wanted: Vec<String> = imports
            .iter()
            .map(|name| format!("outhaul:host/{name}@0.1.0"))
            .collect();
        assert_eq!(imported, wanted, "{}", pack.file);
        assert_eq!(types.is_async(), *asynchronous, "{}", pack.file);
    }
}

#[test]
fn packs_say_their_name_and_their_docs() {
    let (tree, packs) = packs();
    let read = |pack: &Pack| outhaul_protocol::pack::read(&wasm(&tree, pack)).expect("a pack");
    for pack in &packs {
        let manifest = read(pack).manifest;
        assert_eq!(
            (&manifest.name, &manifest.version),
            (&pack.name, &pack.version),
            "{}",
            pack.file
        );
    }
    let gpu = packs.iter().find(|pack| pack.file == "gpu").expect("gpu");
    let docs = &read(gpu).docs.interfaces["gpu"];
    let metrics = &docs.functions["metrics"];
    assert_eq!(metrics.params["uuid"], "only the GPU with this UUID");
    assert_eq!(
        metrics.doc.as_deref(),
        Some("Load, memory, temperature, power, clocks and processes of every GPU.")
    );
    assert_eq!(docs.types["sample"].fields["power_limit"], "Milliwatts.");
    assert_eq!(
        docs.types["gpu_process"].fields["memory_used"],
        "Bytes of the device's memory it holds."
    );
}

#[test]
fn a_blob_tells_nothing_about_the_machine_that_made_it() {
    let (tree, packs) = packs();
    let home = std::env::home_dir().expect("a home").display().to_string();
    let root = tree.root().display().to_string();
    for pack in &packs {
        let wasm = wasm(&tree, pack);
        assert!(
            wasm.len() <= LARGEST,
            "`{}` has {} bytes",
            pack.file,
            wasm.len()
        );
        for path in [home.as_str(), root.as_str(), "/usr/", ".cargo/"]
            .into_iter()
            .filter(|path| path.len() > 3)
        {
            let found = wasm
                .windows(path.len())
                .any(|window| window == path.as_bytes());
            assert!(!found, "`{}` contains `{path}`", pack.file);
        }
    }
}
