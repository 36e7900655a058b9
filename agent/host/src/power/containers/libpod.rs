//! What Podman does only in its own words: handing over GPUs and leaving out what is mounted below a folder, of which its
//! Docker-compatible interface takes no notice, and setting a container up without starting it.

use std::collections::HashMap;

use http::Method;
use serde::Deserialize;
use serde_json::json;

use super::create::Permitted;
use super::dial::{Failed, Runtime, timed};
use crate::limits::RUNTIME_TIME;

/// The oldest version of that interface that has all we say.
const PATH: &str = "/v4.0.0/libpod/containers";
/// The kind of devices that GPUs are, in the files that NVIDIA's toolkit writes for Podman.
const KIND: &str = "nvidia.com/gpu";

/// Makes a container that has GPUs or mounts; its id.
pub(super) async fn create(
    runtime: &Runtime,
    permitted: &Permitted,
    name: &str,
    labels: HashMap<String, String>,
    gpus: &[String],
) -> Result<String, Failed> {
    let mut body = permitted.generator(labels, gpus);
    body["name"] = json!(name);
    body["devices"] = gpus.iter().map(|uuid| json!({"path": format!("{KIND}={uuid}")})).collect();
    let made = post(runtime, format!("{PATH}/create"), body.to_string().into_bytes()).await;
    #[derive(Deserialize)]
    struct Made {
        #[serde(rename = "Id")]
        id: String,
    }
    match made {
        Ok(made) => {
            let made: Made = serde_json::from_slice(&made).map_err(|_| Failed::Other("its answer cannot be read".into()))?;
            Ok(made.id)
        }
        Err(Failed::Refused(status, why)) if why.contains(KIND) || why.contains("CDI") => Err(Failed::Refused(
            status,
            format!("{why}; GPUs are known to Podman once `nvidia-ctk cdi generate --device-name-strategy=uuid` has written them down"),
        )),
        Err(failed) => Err(failed),
    }
}

/// Sets a container up: its namespaces and mounts are there, its program is not running.
pub(super) async fn init(runtime: &Runtime, id: &str) -> Result<(), Failed> {
    post(runtime, format!("{PATH}/{id}/init"), Vec::new()).await.map(drop)
}

async fn post(runtime: &Runtime, path: String, body: Vec<u8>) -> Result<bytes::Bytes, Failed> {
    let link = runtime.link().map_err(|error| Failed::Other(error.to_string()))?;
    timed(RUNTIME_TIME, link.ask(Method::POST, &path, body)).await
}
