//! The host and its packs. Loading goes through every check that can be made without running anything: identity, code of our own
//! making, known imports, types that cross. What comes out can be called any number of times, each time in a store of its own.

use std::collections::HashMap;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use outhaul_protocol::describe::Interface;
use outhaul_protocol::error::{Code, Failure};
use outhaul_protocol::pack::{self, Contents, Docs, Manifest};
use outhaul_protocol::types::Command;
use sha2::{Digest, Sha256};
use tokio::sync::Semaphore;
use wasmtime::component::{Component, InstancePre, Linker};

use crate::cache::Cache;
use crate::compile::{Artefact, Compiler, brief};
use crate::engine::{Engines, Kind};
use crate::exports::{self, Export, Exports};
use crate::grants::Power;
use crate::imports::{self, Imports};
use crate::log::PackLog;
use crate::power::http::Outside;
use crate::power::seat::{self, Seat};
use crate::power::{camera, containers, kv};
use crate::state::State;
use crate::{host_v0_1, limits, wasi, wasi_http};

/// How a host is set up.
pub struct HostConfig {
    /// where compiled code is kept; nowhere when absent
    pub cache: Option<PathBuf>,
    /// signs it
    pub cache_key: [u8; 32],
    /// makes it
    pub compiler: Compiler,
    /// bytes of memory one call may have
    pub memory_bytes: usize,
    /// calls at once: the slots of each engine's pool
    pub calls: usize,
    /// whether there is a test pattern beside the cameras
    pub camera_test_pattern: bool,
    /// where packs' values are kept; nowhere when absent
    pub kv: Option<PathBuf>,
    /// what packs' requests and secrets go through
    pub outside: Outside,
    /// where the machine is, its messages and screens
    pub seat: seat::Config,
    /// where packs' containers run
    pub containers: containers::Config,
}

impl fmt::Debug for HostConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HostConfig")
            .field("cache", &self.cache)
            .field("compiler", &self.compiler)
            .field("memory_bytes", &self.memory_bytes)
            .field("calls", &self.calls)
            .finish_non_exhaustive()
    }
}

/// Loads packs.
pub struct Host {
    engines: Arc<Engines>,
    cache: Cache,
    compiler: Compiler,
    compilers: Semaphore,
    memory: usize,
    camera: camera::Config,
    kv: Arc<kv::Store>,
    containers: Arc<containers::Containers>,
    outside: Arc<Outside>,
    seat: Arc<Seat>,
}

impl fmt::Debug for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Host").field("engines", &self.engines).field("compiler", &self.compiler).finish_non_exhaustive()
    }
}

/// A pack that is ready to be called.
pub struct Pack {
    manifest: Manifest,
    digest: [u8; 32],
    powers: Vec<Power>,
    interfaces: Vec<Interface>,
    commands: Vec<Command>,
    functions: HashMap<String, Export>,
    pub(crate) kind: Kind,
    pub(crate) engines: Arc<Engines>,
    pub(crate) instance: InstancePre<State>,
    pub(crate) memory: usize,
    pub(crate) camera: camera::Config,
    pub(crate) kv: Arc<kv::Store>,
    pub(crate) containers: Arc<containers::Containers>,
    pub(crate) outside: Arc<Outside>,
    pub(crate) seat: Arc<Seat>,
    pub(crate) log: Arc<PackLog>,
}

impl fmt::Debug for Pack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Manifest { name, version, .. } = &self.manifest;
        f.debug_struct("Pack").field("name", name).field("version", version).field("kind", &self.kind).finish_non_exhaustive()
    }
}

impl Host {
    /// Sets up the engines. Nothing is compiled yet.
    pub fn new(config: HostConfig) -> Result<Host, Failure> {
        let engines = Arc::new(Engines::new(config.calls, config.memory_bytes)?);
        Ok(Host {
            cache: Cache::new(config.cache, &engines.name, config.cache_key),
            engines,
            compiler: config.compiler,
            compilers: Semaphore::new(limits::COMPILERS),
            memory: config.memory_bytes,
            camera: camera::Config { test_pattern: config.camera_test_pattern },
            kv: Arc::new(kv::Store::new(config.kv)),
            containers: containers::Containers::new(config.containers, &config.cache_key),
            outside: Arc::new(config.outside),
            seat: Arc::new(Seat::new(config.seat)),
        })
    }

    /// Sees to it from now on that containers end when their time is up, those of an older start too. Needs a runtime of Tokio.
    pub fn tend_containers(&self) {
        self.containers.tend();
    }

    /// Checks, compiles (or finds compiled) and links a pack.
    pub async fn load(&self, wasm: Bytes) -> Result<Arc<Pack>, Failure> {
        let Contents { manifest, docs, .. } = pack::read(&wasm)?;
        let digest: [u8; 32] = Sha256::digest(&wasm).into();
        if let Some(kept) = self.cache.get(&digest) {
            match self.component(&kept) {
                Ok(component) => return self.link(component, kept.kind, manifest, &docs, digest),
                Err(error) => {
                    tracing::warn!(pack = manifest.name, reason = %format!("{error:#}"), "compiled code does not load and is made anew")
                }
            }
        }
        let made = {
            let _place = self.compilers.acquire().await;
            self.compiler.compile(&manifest.name, wasm).await?
        };
        let component = self.component(&made).map_err(|error| rejected(&manifest, &error))?;
        let kind = made.kind;
        self.cache.put(&digest, &made);
        drop(made);
        self.link(component, kind, manifest, &docs, digest)
    }

    /// Code of our own making, ready to run.
    #[expect(unsafe_code, reason = "compiled code is executed as it is, and there is no other way to load it")]
    fn component(&self, artefact: &Artefact) -> wasmtime::Result<Component> {
        // SAFETY: an `Artefact` comes from our own compiler or from the cache, which gives out only what it signed with this agent's key
        // when our compiler had just made it. The engine itself checks that it is of this version and set-up.
        unsafe { Component::deserialize(self.engines.get(artefact.kind), &artefact.code) }
    }

    /// What a pack may import. Made for each pack anew: kept, WASI alone would cost a megabyte that few packs need.
    fn linker(&self, kind: Kind, with_wasi: bool, http: bool) -> wasmtime::Result<Linker<State>> {
        let mut linker = Linker::new(self.engines.get(kind));
        if with_wasi {
            wasi::link(&mut linker)?;
        }
        if http {
            wasi_http::link(&mut linker)?;
        }
        host_v0_1::link(&mut linker, kind)?;
        Ok(linker)
    }

    fn link(&self, component: Component, kind: Kind, manifest: Manifest, docs: &Docs, digest: [u8; 32]) -> Result<Arc<Pack>, Failure> {
        let engine = self.engines.get(kind);
        let Imports { powers, wasi, http } = imports::read(&component, engine, &manifest.name)?;
        let Exports { interfaces, functions } = exports::read(&component, engine, &manifest.name, docs)?;
        let linker = self.linker(kind, wasi, http);
        let instance = linker.and_then(|linker| linker.instantiate_pre(&component)).map_err(|error| rejected(&manifest, &error))?;
        Ok(Arc::new(Pack {
            log: Arc::new(PackLog::new(&manifest.name)),
            manifest,
            digest,
            powers,
            interfaces,
            commands: functions.iter().map(|export| export.command.clone()).collect(),
            functions: functions.into_iter().map(|export| (export.command.name.clone(), export)).collect(),
            kind,
            engines: Arc::clone(&self.engines),
            instance,
            memory: self.memory,
            camera: self.camera,
            kv: Arc::clone(&self.kv),
            containers: Arc::clone(&self.containers),
            outside: Arc::clone(&self.outside),
            seat: Arc::clone(&self.seat),
        }))
    }
}

fn rejected(manifest: &Manifest, error: &wasmtime::Error) -> Failure {
    Failure::new(
        Code::PackRejected,
        format!("pack `{}` {} cannot be linked: {}", manifest.name, manifest.version, brief(&format!("{error:#}"))),
    )
}

impl Pack {
    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.manifest.name
    }

    /// Its version.
    #[must_use]
    pub fn version(&self) -> &str {
        &self.manifest.version
    }

    /// What it says about itself.
    #[must_use]
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// SHA-256 of the component.
    #[must_use]
    pub fn digest(&self) -> [u8; 32] {
        self.digest
    }

    /// Its commands, with what is written about them.
    #[must_use]
    pub fn commands(&self) -> &[Command] {
        &self.commands
    }

    /// A command by its name.
    #[must_use]
    pub fn command(&self, name: &str) -> Option<&Command> {
        self.functions.get(name).map(|export| &export.command)
    }

    /// The interfaces its commands belong to, with what is written about them.
    #[must_use]
    pub fn interfaces(&self) -> &[Interface] {
        &self.interfaces
    }

    /// The powers it imports.
    #[must_use]
    pub fn powers(&self) -> &[Power] {
        &self.powers
    }

    pub(crate) fn export(&self, command: &str) -> Option<&Export> {
        self.functions.get(command)
    }
}
