//! Builds packs: guest Rust → core module → component → component with its name and its docs. A blob in `dist/` is trusted
//! because anybody can make it again: its stamp names the sources and the compiler, and [`check`] compares bytes.
//!
//! - [`layout`]: which packs there are, and where
//! - [`component`]: from a module, or from WIT alone, to a pack
//! - [`stamp`]: what a built pack was made from
//!
//! How a pack is made at all (a compiler, a component, the docs from WIT) is `outhaul_author::make`, for everybody's packs.

pub mod component;
pub mod layout;
pub mod stamp;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use layout::{Form, Pack, Tree};
use outhaul_author::make::encode;
use outhaul_author::make::toolchain::{Build, Target, Toolchain};
use stamp::Stamp;

/// Whether [`check`] builds everything again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compare {
    /// It must; another compiler than the stamped one is a failure.
    Always,
    /// Where the compiler is the stamped one.
    WherePossible,
    /// It reads stamps only.
    Never,
}

/// A pack as it goes to `dist/`.
struct Built {
    wasm: Vec<u8>,
    stamp: Stamp,
}

/// Builds all packs and writes them with their stamps.
pub fn build() -> Result<()> {
    let tree = Tree::of_this_crate()?;
    let packs = tree.packs()?;
    let toolchains = toolchains(&packs)?;
    let built = make(
        &tree,
        &packs,
        &toolchains,
        &target_folder(&tree).join("packs"),
    )?;
    fs::create_dir_all(tree.dist().join("fixtures"))?;
    for (pack, built) in packs.iter().zip(built) {
        let (wasm, stamp) = (tree.wasm(pack), tree.stamp(pack));
        fs::write(&wasm, &built.wasm).with_context(|| format!("write `{}`", wasm.display()))?;
        fs::write(&stamp, built.stamp.to_toml()?)
            .with_context(|| format!("write `{}`", stamp.display()))?;
        println!("{:>7} bytes  {}", built.wasm.len(), tree.show(&wasm));
    }
    strays(&tree, &packs)
}

/// Says whether `dist/` is of these sources; see [`Compare`] for what else.
pub fn check(compare: Compare) -> Result<()> {
    let tree = Tree::of_this_crate()?;
    let packs = tree.packs()?;
    let stamps = packs
        .iter()
        .map(|pack| check_stamp(&tree, pack))
        .collect::<Result<Vec<_>>>()?;
    strays(&tree, &packs)?;
    println!("{} packs in plugins/dist are of these sources", packs.len());
    match compare {
        Compare::Never => Ok(()),
        Compare::Always => compare_bytes(&tree, &packs, &stamps, &toolchains(&packs)?),
        Compare::WherePossible => match toolchains(&packs) {
            Ok(toolchains) if foreign(&packs, &stamps, &toolchains).is_none() => {
                compare_bytes(&tree, &packs, &stamps, &toolchains)
            }
            Ok(_) => skip("the compiler here is not the stamped one"),
            Err(error) => skip(&format!("{error:#}")),
        },
    }
}

fn skip(why: &str) -> Result<()> {
    println!("bytes NOT compared: {why}");
    Ok(())
}

fn check_stamp(tree: &Tree, pack: &Pack) -> Result<Stamp> {
    const HINT: &str = "hint: cargo run --bin builder -- build";
    let path = tree.stamp(pack);
    let stamp =
        Stamp::read(&path).with_context(|| format!("{HINT}\nread `{}`", tree.show(&path)))?;
    let wasm = fs::read(tree.wasm(pack))
        .with_context(|| format!("{HINT}\nread `{}`", tree.show(&tree.wasm(pack))))?;
    let sources = stamp::sources(tree, pack)?;
    ensure!(
        stamp.sources == sources,
        "`{}` was built from other sources; {HINT}",
        tree.show(&tree.wasm(pack))
    );
    ensure!(
        stamp.component == stamp::sha256(&wasm),
        "`{}` is not the component its stamp names; {HINT}",
        tree.show(&tree.wasm(pack))
    );
    Ok(stamp)
}

/// Files in `dist/` that no pack of the tree accounts for: a blob nobody can make again.
fn strays(tree: &Tree, packs: &[Pack]) -> Result<()> {
    let known: Vec<PathBuf> = packs
        .iter()
        .flat_map(|pack| [tree.wasm(pack), tree.stamp(pack)])
        .collect();
    for folder in [tree.dist(), tree.dist().join("fixtures")] {
        for entry in fs::read_dir(&folder)? {
            let path = entry?.path();
            ensure!(
                path.is_dir() || known.contains(&path),
                "`{}` belongs to no pack; delete it",
                tree.show(&path)
            );
        }
    }
    Ok(())
}

/// The first pack whose stamp names another compiler than the one here.
fn foreign<'a>(
    packs: &'a [Pack],
    stamps: &'a [Stamp],
    toolchains: &BTreeMap<Target, Toolchain>,
) -> Option<(&'a Pack, &'a Stamp)> {
    packs
        .iter()
        .zip(stamps)
        .find(|(pack, stamp)| stamp.compiler != compiler(pack, toolchains))
}

fn compare_bytes(
    tree: &Tree,
    packs: &[Pack],
    stamps: &[Stamp],
    toolchains: &BTreeMap<Target, Toolchain>,
) -> Result<()> {
    if let Some((pack, stamp)) = foreign(packs, stamps, toolchains) {
        bail!(
            "`{}` was built by {}, which is not the compiler here",
            pack.file,
            stamp.compiler
        );
    }
    let elsewhere = target_folder(tree).join("compare");
    let copy = tree.copy_to(&elsewhere.join("sources"))?;
    let built = make(&copy, packs, toolchains, &elsewhere.join("target"))?;
    for (pack, built) in packs.iter().zip(built) {
        let path = tree.wasm(pack);
        ensure!(
            fs::read(&path)? == built.wasm,
            "`{}` is not what its sources make",
            tree.show(&path)
        );
    }
    fs::remove_dir_all(&elsewhere)?;
    println!(
        "{} packs, built again elsewhere: the same bytes",
        packs.len()
    );
    Ok(())
}

/// Makes all packs of a tree, in their order.
fn make(
    tree: &Tree,
    packs: &[Pack],
    toolchains: &BTreeMap<Target, Toolchain>,
    target_folder: &Path,
) -> Result<Vec<Built>> {
    for (target, toolchain) in toolchains {
        let crates: Vec<&str> = packs
            .iter()
            .filter_map(|pack| pack.crate_for(*target))
            .collect();
        toolchain.build(&Build {
            folder: &tree.plugins(),
            crates: &crates,
            target_folder,
            hidden: (tree.root(), "/outhaul"),
            locked: true,
        })?;
    }
    packs
        .iter()
        .map(|pack| {
            let component = match &pack.form {
                Form::Crate { name, target } => {
                    component::from_module(&fs::read(target.output(target_folder, name))?, *target)
                }
                Form::Wit => {
                    component::read_wit(tree, pack).and_then(|wit| Ok(encode::from_wit(&wit)?))
                }
            };
            let wasm = component
                .and_then(|bare| component::finish(&bare, tree, pack))
                .with_context(|| format!("make a component of `{}`", pack.file))?;
            let stamp = Stamp {
                pack: format!("{} {}", pack.name, pack.version),
                sources: stamp::sources(tree, pack)?,
                compiler: compiler(pack, toolchains),
                component: stamp::sha256(&wasm),
            };
            Ok(Built { wasm, stamp })
        })
        .collect()
}

fn toolchains(packs: &[Pack]) -> Result<BTreeMap<Target, Toolchain>> {
    [Target::Unknown, Target::Wasi]
        .into_iter()
        .filter(|target| packs.iter().any(|pack| pack.crate_for(*target).is_some()))
        .map(|target| match Toolchain::find(target) {
            Ok(toolchain) => Ok((target, toolchain)),
            Err(failure) => bail!(
                "{failure}\nhint: {}",
                failure.hint.as_deref().unwrap_or_default()
            ),
        })
        .collect()
}

/// What stands in the stamp: what else than the sources decides the bytes.
fn compiler(pack: &Pack, toolchains: &BTreeMap<Target, Toolchain>) -> String {
    match &pack.form {
        Form::Crate { target, .. } => toolchains[target].line.clone(),
        Form::Wit => "none: made from its WIT".into(),
    }
}

/// Packs are built beside whatever else Cargo builds here, in a folder of their own: another compiler makes them.
fn target_folder(tree: &Tree) -> PathBuf {
    let folder = std::env::var_os("CARGO_TARGET_DIR")
        .map_or_else(|| tree.plugins().join("target"), PathBuf::from);
    std::path::absolute(&folder).unwrap_or(folder)
}
