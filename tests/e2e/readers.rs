//! A component's types are read twice: by the host from the engine that runs it, and by `relay pack inspect` from the bytes.
//! What one shows the other must run, and what one refuses the other refuses in the same words.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use outhaul_author::inspect::inspect;
use outhaul_host::{Compiler, Host, HostConfig};
use outhaul_protocol::types::{Case, Command, Field, Type};

fn dist() -> Result<Vec<PathBuf>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../plugins/dist");
    let mut found = Vec::new();
    for folder in [folder.clone(), folder.join("fixtures")] {
        for entry in std::fs::read_dir(folder)? {
            let path = entry?.path();
            if path.extension().is_some_and(|ending| ending == "wasm") {
                found.push(path);
            }
        }
    }
    found.sort();
    Ok(found)
}

/// Docs of fields inside types: the engine's types carry no names, so that the host finds fewer of them.
fn plain(ty: Type) -> Type {
    let boxed = |ty: Box<Type>| Box::new(plain(*ty));
    match ty {
        Type::List(item) => Type::List(boxed(item)),
        Type::Option(inner) => Type::Option(boxed(inner)),
        Type::Tuple(types) => Type::Tuple(types.into_iter().map(plain).collect()),
        Type::Result(ok, error) => Type::Result(ok.map(boxed), error.map(boxed)),
        Type::Record(fields) => Type::Record(fields.into_iter().map(|field| Field { ty: plain(field.ty), doc: None, ..field }).collect()),
        Type::Variant(cases) => Type::Variant(cases.into_iter().map(|case| Case { ty: case.ty.map(plain), ..case }).collect()),
        other => other,
    }
}

fn without_inner_docs(command: &Command) -> Command {
    let command = command.clone();
    Command {
        params: command.params.into_iter().map(|param| Field { ty: plain(param.ty), ..param }).collect(),
        result: command.result.map(plain),
        error: command.error.map(|error| error.map(plain)),
        ..command
    }
}

#[tokio::test]
async fn both_readers_show_and_refuse_the_same() -> Result<()> {
    let config = HostConfig {
        cache: None,
        cache_key: [0; 32],
        compiler: Compiler::InProcess,
        memory_bytes: 64 << 20,
        calls: 1,
        camera_test_pattern: false,
        kv: None,
        outside: outhaul_host::power::http::Outside::default(),
        seat: outhaul_host::power::seat::Config::default(),
        containers: outhaul_host::power::containers::Config::default(),
    };
    let host = Host::new(config)?;
    let (mut shown, mut refused) = (0, 0);
    for path in dist()? {
        let name = path.file_stem().context("a name")?.to_string_lossy().into_owned();
        let bytes = std::fs::read(&path)?;
        match (inspect(&bytes), host.load(bytes.into()).await) {
            (Ok(inspected), Ok(pack)) => {
                shown += 1;
                assert_eq!(inspected.offered.interfaces, pack.interfaces(), "{name}");
                let ours: Vec<Command> = inspected.offered.commands.iter().map(without_inner_docs).collect();
                let hosts: Vec<Command> = pack.commands().iter().map(without_inner_docs).collect();
                assert_eq!(ours, hosts, "{name}");
                let mut powers: Vec<&str> = pack.powers().iter().map(|power| power.name()).collect();
                powers.sort_unstable();
                assert_eq!(inspected.powers.iter().map(|power| power.name.as_str()).collect::<Vec<_>>(), powers, "{name}");
                assert!(inspected.unknown.is_empty(), "{name}");
            }
            (Err(ours), Err(hosts)) => {
                refused += 1;
                assert_eq!((ours.code, &ours.message), (hosts.code, &hosts.message), "{name}");
            }
            (Ok(inspected), Err(hosts)) => {
                refused += 1;
                let unknown = inspected.unknown.first().with_context(|| format!("{name}: the host alone refuses it: {hosts}"))?;
                assert!(hosts.message.contains(unknown), "{name}: {hosts}");
            }
            (Err(ours), Ok(_)) => panic!("{name}: the host runs what inspect refuses: {ours}"),
        }
    }
    assert!(shown >= 10 && refused >= 6, "{shown} shown, {refused} refused");
    Ok(())
}
