//! `outhaul:host/output`: the running call's live input and output.

use bytes::Bytes;
use serde::de::IgnoredAny;
use wasmtime::component::StreamReader;

use super::{Interface, boxed};
use crate::bindings::v0_1::output::{Closed, Lane, Piped};
use crate::engine::Kind;
use crate::limits::{EVENT, EVENT_NAME};
use crate::sink;
use crate::stream;

pub(super) fn link(interface: &mut Interface<'_>, kind: Kind) -> wasmtime::Result<()> {
    interface.func_wrap_async("write", |store, (lane, bytes): (Lane, Vec<u8>)| {
        let sink = store.data().sink.clone();
        boxed(async move {
            let (_, closed) = sink.send(lane.into(), Bytes::from(bytes)).await;
            Ok((closed.map_or(Ok(()), |closed| Err(Closed::from(closed))),))
        })
    })?;
    interface.func_wrap_async("event", |store, (name, json): (String, String)| {
        let sink = store.data().sink.clone();
        boxed(async move {
            check(&name, &json)?;
            Ok((sink.event(name, json).await.map_err(Closed::from),))
        })
    })?;
    if kind == Kind::Async {
        interface.func_wrap_concurrent("pipe", |accessor, (lane, data): (Lane, StreamReader<u8>)| {
            Box::pin(async move {
                let sink = accessor.with(|mut access| access.get().sink.clone());
                let sent = stream::send(accessor, &sink, lane.into(), data).await?;
                Ok((Piped { bytes: sent.bytes, closed: sent.closed.map(Closed::from) },))
            })
        })?;
        interface.func_wrap("input", |mut store, (): ()| {
            let input = store.data_mut().input();
            Ok((StreamReader::new(store, input)?,))
        })?;
    }
    Ok(())
}

/// The interface has no error for a pack that does not keep to it: such a pack traps.
fn check(name: &str, json: &str) -> wasmtime::Result<()> {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    wasmtime::ensure!(
        !name.is_empty() && name.len() <= EVENT_NAME && name.chars().all(plain),
        "an event's name is 1 to {EVENT_NAME} letters, digits, dashes, dots and underscores"
    );
    wasmtime::ensure!(json.len() <= EVENT, "an event is at most {EVENT} bytes, this one is {}", json.len());
    serde_json::from_str::<IgnoredAny>(json).map_err(|error| wasmtime::format_err!("an event is not JSON: {error}"))?;
    Ok(())
}

impl From<Lane> for sink::Lane {
    fn from(lane: Lane) -> Self {
        match lane {
            Lane::Stdout => sink::Lane::Stdout,
            Lane::Stderr => sink::Lane::Stderr,
        }
    }
}

impl From<sink::Closed> for Closed {
    fn from(closed: sink::Closed) -> Self {
        match closed {
            sink::Closed::Cancelled => Closed::Cancelled,
            sink::Closed::Ceiling => Closed::Ceiling,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_has_a_plain_name_and_json_of_bounded_size() {
        assert!(check("disk.full-2", r#"{"a": [1, null]}"#).is_ok());
        for (name, json) in [("", "1"), ("a b", "1"), ("a", ""), ("a", "{"), ("a", "1 2")] {
            assert!(check(name, json).is_err(), "{name} {json}");
        }
        assert!(check("a", &format!("\"{}\"", "x".repeat(EVENT))).is_err());
        assert!(check(&"n".repeat(EVENT_NAME + 1), "1").is_err());
    }
}
