//! `outhaul:host/secrets`: the owner's secrets, by granted name.

use std::sync::Arc;

use super::{Interface, blocking, boxed};
use crate::bindings::v0_1::secrets::SecretsError;
use crate::grants::Power;
use crate::power::secrets as power;

pub(super) fn link(interface: &mut Interface<'_>) -> wasmtime::Result<()> {
    interface.func_wrap_async("get", |mut store, (name,): (String,)| {
        let state = store.data_mut();
        let asked = state.granted(Power::Secrets).map(|grants| (grants, state.pack(), Arc::clone(&state.outside.vault)));
        boxed(async move {
            let found = match asked {
                Ok((grants, pack, vault)) => blocking(move || power::get(&pack, &grants.secrets, &*vault, &name)).await?,
                Err(sentence) => Err(power::SecretsError::Denied(sentence)),
            };
            let found = found.map(|secret| secret.expose().to_vec()).map_err(|error| match error {
                power::SecretsError::Denied(sentence) => SecretsError::Denied(store.data_mut().deny(sentence)),
                power::SecretsError::NotSet(sentence) => SecretsError::NotSet(sentence),
                power::SecretsError::Failed(sentence) => SecretsError::Failed(sentence),
            });
            Ok((found,))
        })
    })
}
