//! Packs and OCI registries.

use std::net::TcpListener;

use anyhow::Result;
use outhaul_tests::stage::{Stage, pack};

use super::page::{Page, word};
use crate::registry::{Liar, Lie};

#[test]
fn from_a_registry_and_to_one() -> Result<()> {
    let stage = Stage::start()?;
    let _node = stage.node("bench-1")?;
    let mut page = Page::of("registry", &stage);
    let component = std::fs::read(pack("thermal"))?;
    let at = |lie| Liar::start(lie, component.clone()).map(|liar| format!("oci://{}/packs/thermal:0.1.0", liar.host));

    page.head("fetched");
    let place = at(Lie::Nothing)?;
    page.both(&stage, &format!("pack pull {place}"))?;
    page.both(&stage, &format!("pack deploy {place} bench-1"))?;

    page.head("what is there stays, unless asked for");
    std::fs::write(stage.home.path().join("thermal.wasm"), "mine")?;
    page.both(&stage, &format!("pack pull {place}"))?;
    page.relay(&stage, &format!("pack pull --force {place}"))?;

    page.head("what is no pack, other bytes than asked for, nobody there");
    for lie in [Lie::Image, Lie::Component] {
        page.both(&stage, &format!("pack pull {} --out got.wasm", at(lie)?))?;
    }
    let nowhere = { TcpListener::bind("127.0.0.1:0")?.local_addr()? };
    page.both(&stage, &format!("pack push {} oci://{nowhere}/packs/thermal:0.1.0", word(&pack("thermal"))))?;
    for place in ["thermal:1", "oci://thermal:1", "oci://registry.example/Thermal"] {
        page.relay(&stage, &format!("pack pull {place}"))?;
    }
    page.done();
    Ok(())
}
