//! A host, packs by name, and a caller who collects everything a call says.

use std::path::PathBuf;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use outhaul_host::power::{camera, process};
use outhaul_host::{CallIo, CallRequest, Compiler, Grants, Host, HostConfig, Lane, Output, Pack};
use outhaul_protocol::error::{Code, Failure};
use outhaul_protocol::value::{Value, params_from_json};
use serde_json::Value as Json;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

/// Memory of a call.
pub(crate) const MEMORY: usize = 64 << 20;

/// A host without a cache.
pub(crate) fn host() -> &'static Host {
    static HOST: OnceLock<Host> = OnceLock::new();
    HOST.get_or_init(|| Host::new(config()).expect("a host"))
}

pub(crate) fn config() -> HostConfig {
    HostConfig {
        cache: None,
        cache_key: [7; 32],
        compiler: Compiler::InProcess,
        memory_bytes: MEMORY,
        calls: 32,
        camera_test_pattern: true,
        kv: None,
        outside: crate::outside::outside(),
        seat: outhaul_host::power::seat::Config::default(),
        containers: outhaul_host::power::containers::Config::default(),
    }
}

/// The component of a standard pack or fixture.
pub(crate) fn wasm(name: &str) -> Bytes {
    let dist = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../plugins/dist");
    let paths = [dist.join(format!("{name}.wasm")), dist.join(format!("fixtures/{name}.wasm"))];
    paths.iter().find_map(|path| std::fs::read(path).ok()).unwrap_or_else(|| panic!("no pack `{name}`")).into()
}

pub(crate) async fn pack(name: &str) -> Arc<Pack> {
    host().load(wasm(name)).await.unwrap_or_else(|failure| panic!("{name}: {failure:?}"))
}

/// What loading a pack is refused with.
pub(crate) async fn refusal(name: &str) -> (Code, String) {
    let failure = host().load(wasm(name)).await.expect_err(name);
    (failure.code, failure.message)
}

/// Everything that may be granted.
pub(crate) fn all() -> Grants {
    let allow = ["uname", "cat", "head", "sleep", "sh"].map(process::Entry::from).to_vec();
    Grants {
        gpu: true,
        system: true,
        process: Some(process::Grant { allow, ..process::Grant::default() }),
        camera: Some(camera::Grant { all: true, devices: Vec::new() }),
        ..Grants::default()
    }
}

/// A call that has not been made yet.
pub(crate) struct Caller {
    pub(crate) pack: Arc<Pack>,
    pub(crate) request: CallRequest,
    pub(crate) outputs: mpsc::Receiver<Output>,
    pub(crate) input: mpsc::Sender<Bytes>,
}

/// What came of a call.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) result: Result<Value, Failure>,
    pub(crate) outputs: Vec<Output>,
}

impl Caller {
    /// Queues of so many pieces.
    pub(crate) fn new(pack: &Arc<Pack>, command: &str, params: Json, queue: usize) -> Self {
        let (output, outputs) = mpsc::channel(queue);
        let (input, inputs) = mpsc::channel(queue);
        let params = match pack.command(command) {
            Some(known) => params_from_json(&params, known).expect("parameters"),
            None => Value::Map(Vec::new()),
        };
        let request = CallRequest {
            command: command.into(),
            params,
            grants: Arc::new(all()),
            io: CallIo { output, input: inputs },
            deadline: Some(Duration::from_secs(60)),
            cancel: CancellationToken::new(),
            label: "test".into(),
            output_limit: 1 << 30,
            shared_only: false,
            others: None,
        };
        Caller { pack: Arc::clone(pack), request, outputs, input }
    }

    pub(crate) fn with(mut self, change: impl FnOnce(&mut CallRequest)) -> Self {
        change(&mut self.request);
        self
    }

    /// Calls, says nothing, and takes all that is said.
    pub(crate) async fn run(self) -> Ended {
        let Caller { pack, request, mut outputs, input } = self;
        drop(input);
        let mut taken = Vec::new();
        let take = async {
            while let Some(output) = outputs.recv().await {
                taken.push(output);
            }
        };
        let (result, ()) = tokio::join!(pack.call(request), take);
        Ended { result, outputs: taken }
    }
}

impl Ended {
    pub(crate) fn lane(&self, wanted: Lane) -> Vec<u8> {
        let data = self.outputs.iter().filter_map(|output| match output {
            Output::Data { lane, bytes } if *lane == wanted => Some(bytes.as_ref()),
            _ => None,
        });
        data.collect::<Vec<_>>().concat()
    }

    pub(crate) fn text(&self, lane: Lane) -> String {
        String::from_utf8(self.lane(lane)).expect("text")
    }

    pub(crate) fn failure(&self) -> &Failure {
        self.result.as_ref().expect_err("a failure")
    }

    pub(crate) fn code(&self) -> Code {
        self.failure().code
    }

    pub(crate) fn value(&self) -> &Value {
        self.result.as_ref().expect("a value")
    }
}

pub(crate) async fn call(pack: &Arc<Pack>, command: &str, params: Json) -> Ended {
    Caller::new(pack, command, params, 4).run().await
}
