//! Messages that a real notification server shows: Debian's `dunst` on a display server without a display.

use std::collections::HashMap;

use anyhow::{Result, ensure};
use outhaul_tests::seat::{Bus, XServer};
use outhaul_tests::tools::{Missing, skip};
use zbus::{Connection, OwnedVariant};

use crate::location::{invoke, machine};

/// A session with a desktop that shows messages.
fn desktop() -> Result<Result<(XServer, Bus), Missing>> {
    let server = match XServer::start("640x480x24")? {
        Ok(server) => server,
        Err(missing) => return Ok(Err(missing)),
    };
    Ok(Bus::start(Some(&server))?.map(|bus| (server, bus)))
}

const SERVER: &str = "org.freedesktop.Notifications";
const PATH: &str = "/org/freedesktop/Notifications";
const DUNST: &str = "org.dunstproject.cmd0";

/// What was shown, in its order: dunst closes all, and tells its history.
async fn shown(bus: &Bus) -> Result<Vec<HashMap<String, OwnedVariant>>> {
    let connection: Connection = zbus::connection::Builder::address(bus.address.as_str()).build().await?;
    connection.call_method(Some(SERVER), PATH, Some(DUNST), "NotificationCloseAll", &()).await?;
    let answer = connection.call_method(Some(SERVER), PATH, Some(DUNST), "NotificationListHistory", &()).await?;
    let mut list: Vec<HashMap<String, OwnedVariant>> = answer.body().deserialize()?;
    list.sort_by_key(|shown| shown.get("id").and_then(|id| i32::try_from(id).ok()));
    Ok(list)
}

fn text(shown: &HashMap<String, OwnedVariant>, key: &str) -> String {
    shown.get(key).and_then(|value| <&str>::try_from(value).ok()).unwrap_or_default().to_owned()
}

#[test]
fn a_message_is_shown_as_it_is_and_says_whose_it_is() -> Result<()> {
    let (_server, bus) = match desktop()? {
        Ok(desktop) => desktop,
        Err(missing) => return skip("a_message_is_shown_as_it_is_and_says_whose_it_is", &missing),
    };
    let (stage, mut node) = machine(&format!("[notify]\nbus = \"{}\"", bus.address), &[])?;
    let tell = |title: &str, body: &str, urgency: &str| {
        invoke(&stage, &["seat.tell", &format!("title={title}"), &format!("body={body}"), &format!("urgency={urgency}")])
    };
    let denied = tell("x", "y", "low")?;
    assert_eq!(denied["error"]["code"], "denied", "{denied}");
    assert!(denied.to_string().contains("agent allow seat notify"), "{denied}");
    node.run(&["allow", "seat", "notify"])?.ok()?;
    for (title, body, urgency) in [
        ("Backup", "is <b>done</b> & \"dusted\"", "low"),
        ("a\u{1b}[2J\nb", "line 1\nline 2\u{202e}", "critical"),
        ("System: log in", "", "normal"),
    ] {
        let told = tell(title, body, urgency)?;
        ensure!(told["ok"] == true, "{told}");
    }
    let runtime = tokio::runtime::Runtime::new()?;
    let list = runtime.block_on(shown(&bus))?;
    let all: Vec<_> = list.iter().map(|one| ["appname", "summary", "body", "message"].map(|key| text(one, key))).collect();
    insta::assert_debug_snapshot!(all);
    ensure!(list.iter().all(|one| text(one, "icon_path").is_empty()), "{list:?}");

    let long = tell(&"x".repeat(121), "", "low")?;
    ensure!(long["error"]["message"].as_str().is_some_and(|why| why.starts_with("limit: ") && why.contains("120")), "{long}");
    ensure!(tell("fourth", "", "low")?["ok"] == true && tell("fifth", "", "low")?["ok"] == true);
    let sixth = tell("sixth", "", "low")?;
    ensure!(sixth["error"]["message"].as_str().is_some_and(|why| why.starts_with("limit: ") && why.contains("5 messages")), "{sixth}");
    let count = runtime.block_on(shown(&bus))?.len();
    assert_eq!(count, 5, "what is refused is not shown");
    node.agent()?.wait_for("a pack shows a message")?;
    ensure!(!node.agent()?.transcript().contains("Backup"), "what it says is never logged");
    Ok(())
}

#[test]
fn where_nobody_can_be_told_the_caller_hears_why() -> Result<()> {
    let bus = match Bus::start(None)? {
        Ok(bus) => bus,
        Err(missing) => return skip("where_nobody_can_be_told_the_caller_hears_why", &missing),
    };
    let (stage, node) = machine(&format!("[notify]\nbus = \"{}\"", bus.address), &["notify"])?;
    let told = invoke(&stage, &["seat.tell", "title=x", "body=", "urgency=low"])?;
    ensure!(
        told["error"]["message"].as_str().is_some_and(|why| why.starts_with("unavailable: ") && why.contains("nothing that shows")),
        "{told}"
    );
    drop((bus, node));
    Ok(())
}
