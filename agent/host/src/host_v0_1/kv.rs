//! `outhaul:host/kv`: values that outlive a call.

use std::future::Future;
use std::sync::Arc;

use wasmtime::StoreContextMut;

use super::{Interface, blocking};
use crate::bindings::v0_1::kv::KvError;
use crate::grants::Power;
use crate::power::kv as power;
use crate::state::State;

pub(super) fn link(interface: &mut Interface<'_>) -> wasmtime::Result<()> {
    interface.func_wrap_async("get", |store, (key,): (String,)| ask(store, move |kept, grant| kept.get(grant, &key)))?;
    interface
        .func_wrap_async("set", |store, (key, value): (String, Vec<u8>)| ask(store, move |kept, grant| kept.set(grant, &key, &value)))?;
    interface.func_wrap_async("swap", |store, (key, expected, value): (String, Option<Vec<u8>>, Vec<u8>)| {
        ask(store, move |kept, grant| kept.swap(grant, &key, expected.as_deref(), &value))
    })?;
    interface.func_wrap_async("delete", |store, (key,): (String,)| ask(store, move |kept, grant| kept.delete(grant, &key)))?;
    interface.func_wrap_async("list-keys", |store, (prefix,): (String,)| ask(store, move |kept, grant| kept.list(grant, &prefix)))
}

type Answer<'a, T> = Box<dyn Future<Output = wasmtime::Result<(Result<T, KvError>,)>> + Send + 'a>;

/// Does something with the pack's values, when they are granted, where it blocks nobody.
fn ask<'a, T: Send + 'static>(
    mut store: StoreContextMut<'a, State>,
    work: impl FnOnce(&power::Store, &power::Grant) -> Result<T, power::KvError> + Send + 'static,
) -> Answer<'a, T> {
    let granted = store.data_mut().granted(Power::Kv);
    let kept = Arc::clone(&store.data().kv);
    Box::new(async move {
        let done = match granted {
            Ok(grants) => blocking(move || grants.kv.as_ref().map(|grant| work(&kept, grant))).await?,
            Err(sentence) => Some(Err(power::KvError::Denied(sentence))),
        };
        let done = done.unwrap_or_else(|| Err(power::KvError::Failed("the grant is gone".into())));
        Ok((done.map_err(|error| match error {
            power::KvError::Denied(sentence) => KvError::Denied(store.data_mut().deny(sentence)),
            power::KvError::Quota(sentence) => KvError::Quota(sentence),
            power::KvError::Failed(sentence) => KvError::Failed(sentence),
        }),))
    })
}
