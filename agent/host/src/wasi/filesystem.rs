//! `wasi:filesystem` 0.2 on the power [`files`]: the granted folders are what a guest finds preopened, and every operation is judged by
//! the power. It stands in the place of wasmtime-wasi's own, whose only rights are "read only" and "everything".
//!
//! WASI's errors have no room for a sentence. The first refusal of a call is remembered, and is the hint of a call that fails.

mod convert;

use std::collections::VecDeque;
use std::future::Future;
use std::sync::{Arc, OnceLock};

use rustix::io::Errno;
use wasmtime::StoreContextMut;
use wasmtime::component::{Linker, LinkerInstance, Resource, ResourceType};
use wasmtime_wasi::p2::bindings::filesystem::types::{Advice, DescriptorFlags, ErrorCode, NewTimestamp, OpenFlags, PathFlags};
use wasmtime_wasi::p2::{DynInputStream, DynOutputStream, IoError};

use self::convert::{described, follows, how, identity, kind, listed, times};
use super::file_stream::{Reader, Writer};
use crate::limits::FILE_CHUNK;
use crate::power::files::{self, Dir, File, FilesError, Listed, Listing, Node, Stat};
use crate::state::State;

/// The version that is linked; the linker lets every other 0.2 stand for it.
const VERSION: &str = "0.2.12";

/// A file or folder in a call's table.
enum Handle {
    File(Arc<File>),
    Dir(Arc<Dir>),
}

impl Handle {
    fn of(node: Node) -> Self {
        match node {
            Node::File(file) => Handle::File(Arc::new(file)),
            Node::Dir(dir) => Handle::Dir(Arc::new(dir)),
        }
    }

    fn dir(&self) -> Result<Arc<Dir>, ErrorCode> {
        match self {
            Handle::Dir(dir) => Ok(Arc::clone(dir)),
            Handle::File(_) => Err(ErrorCode::NotDirectory),
        }
    }

    fn file(&self) -> Result<Arc<File>, ErrorCode> {
        match self {
            Handle::File(file) => Ok(Arc::clone(file)),
            Handle::Dir(_) => Err(ErrorCode::IsDirectory),
        }
    }

    fn either(&self) -> Self {
        match self {
            Handle::File(file) => Handle::File(Arc::clone(file)),
            Handle::Dir(dir) => Handle::Dir(Arc::clone(dir)),
        }
    }

    fn stat(&self) -> Result<Stat, FilesError> {
        match self {
            Handle::File(file) => file.stat(),
            Handle::Dir(dir) => dir.stat(),
        }
    }
}

/// A folder being listed. The listing is away while the next names are read.
struct Names {
    ready: VecDeque<Listed>,
    listing: Option<Listing>,
}

/// The first refusal of a call, shared with its streams.
pub(crate) type Refusal = Arc<OnceLock<String>>;

/// What a guest is told, and what is remembered for people.
pub(super) fn code(error: &FilesError, refusal: &Refusal) -> ErrorCode {
    match error {
        FilesError::Denied(sentence) => {
            refusal.get_or_init(|| sentence.clone());
            ErrorCode::NotPermitted
        }
        FilesError::Quota(sentence) => {
            refusal.get_or_init(|| sentence.clone());
            ErrorCode::Quota
        }
        FilesError::System(Errno::MFILE | Errno::NFILE) => ErrorCode::InsufficientMemory,
        FilesError::System(errno) => ErrorCode::from(std::io::Error::from(*errno)),
    }
}

type Answer<'a, T> = Box<dyn Future<Output = wasmtime::Result<(Result<T, ErrorCode>,)>> + Send + 'a>;
type Interface<'linker> = LinkerInstance<'linker, State>;
type Fd = Resource<Handle>;

/// Does something with a handle where it blocks nobody.
fn on<'a, H: Send + 'static, T: Send + 'static>(
    mut store: StoreContextMut<'a, State>,
    fd: &Fd,
    pick: impl FnOnce(&Handle) -> Result<H, ErrorCode>,
    work: impl FnOnce(H) -> Result<T, FilesError> + Send + 'static,
) -> Answer<'a, T> {
    let picked = store.data().table.get(fd).map(pick);
    Box::new(async move {
        let handle = match picked? {
            Ok(handle) => handle,
            Err(code) => return Ok((Err(code),)),
        };
        let done = blocking(move || work(handle)).await?;
        Ok((done.map_err(|error| code(&error, &store.data_mut().hint)),))
    })
}

fn in_dir<'a, T: Send + 'static>(
    store: StoreContextMut<'a, State>,
    fd: &Fd,
    work: impl FnOnce(&Dir) -> Result<T, FilesError> + Send + 'static,
) -> Answer<'a, T> {
    on(store, fd, Handle::dir, move |dir| work(&dir))
}

fn in_file<'a, T: Send + 'static>(
    store: StoreContextMut<'a, State>,
    fd: &Fd,
    work: impl FnOnce(&File) -> Result<T, FilesError> + Send + 'static,
) -> Answer<'a, T> {
    on(store, fd, Handle::file, move |file| work(&file))
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> wasmtime::Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(|error| wasmtime::format_err!("a file operation failed: {error}"))
}

/// Puts the interfaces in the place of those that are linked.
pub(crate) fn link(linker: &mut Linker<State>) -> wasmtime::Result<()> {
    linker.allow_shadowing(true);
    let mut types = linker.instance(&format!("wasi:filesystem/types@{VERSION}"))?;
    resources(&mut types)?;
    handles(&mut types)?;
    files(&mut types)?;
    streams(&mut types)?;
    paths(&mut types)?;
    changes(&mut types)?;
    listings(&mut types)?;
    preopens(&mut linker.instance(&format!("wasi:filesystem/preopens@{VERSION}"))?)?;
    linker.allow_shadowing(false);
    Ok(())
}

fn resources(types: &mut Interface<'_>) -> wasmtime::Result<()> {
    types.resource("descriptor", ResourceType::host::<Handle>(), |mut store, handle| {
        store.data_mut().table.delete(Fd::new_own(handle))?;
        Ok(())
    })?;
    types.resource("directory-entry-stream", ResourceType::host::<Names>(), |mut store, names| {
        store.data_mut().table.delete(Resource::<Names>::new_own(names))?;
        Ok(())
    })?;
    types.func_wrap("filesystem-error-code", |store, (error,): (Resource<IoError>,)| {
        let state = store.data();
        let error = state.table.get(&error)?;
        Ok((error.downcast_ref::<FilesError>().map(|error| code(error, &state.hint)),))
    })
}

fn preopens(preopens: &mut Interface<'_>) -> wasmtime::Result<()> {
    preopens.func_wrap_async("get-directories", |mut store, (): ()| {
        let (pack, grant) = (store.data().pack(), store.data().files());
        Box::new(async move {
            let Some(grant) = grant else { return Ok((Vec::new(),)) };
            let (entries, errors) = blocking(move || files::Tree::open_all(&pack, &grant)).await?;
            for error in errors {
                tracing::warn!(pack = store.data().pack(), reason = %error, "a granted folder is left out");
                if let FilesError::Denied(sentence) = error {
                    store.data_mut().left_out.get_or_insert(sentence);
                }
            }
            let table = &mut store.data_mut().table;
            let opened = entries.into_iter().map(|entry| Ok((table.push(Handle::Dir(Arc::new(entry.dir)))?, entry.name)));
            Ok((opened.collect::<wasmtime::Result<Vec<(Fd, String)>>>()?,))
        })
    })
}

/// What is asked of a file or a folder alike.
fn handles(types: &mut Interface<'_>) -> wasmtime::Result<()> {
    let any = |handle: &Handle| Ok(handle.either());
    types.func_wrap_async("[method]descriptor.stat", move |store, (fd,): (Fd,)| {
        on(store, &fd, any, |handle| handle.stat().map(|stat| described(&stat)))
    })?;
    types.func_wrap_async("[method]descriptor.get-type", move |store, (fd,): (Fd,)| {
        on(store, &fd, any, |handle| handle.stat().map(|stat| kind(stat.kind)))
    })?;
    types.func_wrap_async("[method]descriptor.metadata-hash", move |store, (fd,): (Fd,)| {
        on(store, &fd, any, |handle| handle.stat().map(|stat| identity(&stat)))
    })?;
    types.func_wrap_async("[method]descriptor.is-same-object", |store, (a, b): (Fd, Fd)| {
        let either = |fd: &Fd| store.data().table.get(fd).map(Handle::either);
        let (a, b) = (either(&a), either(&b));
        Box::new(async move {
            let (a, b) = (a?, b?);
            let same = blocking(move || Ok::<_, FilesError>(a.stat()?.identity == b.stat()?.identity)).await?;
            Ok((same.unwrap_or(false),))
        })
    })?;
    types.func_wrap("[method]descriptor.get-flags", |store, (fd,): (Fd,)| {
        let flags = match store.data().table.get(&fd)? {
            Handle::Dir(dir) if dir.can_change() => DescriptorFlags::READ | DescriptorFlags::MUTATE_DIRECTORY,
            Handle::Dir(_) => DescriptorFlags::READ,
            Handle::File(file) => [(file.reads(), DescriptorFlags::READ), (file.writes(), DescriptorFlags::WRITE)]
                .into_iter()
                .filter_map(|(yes, flag)| yes.then_some(flag))
                .fold(DescriptorFlags::empty(), |all, flag| all | flag),
        };
        Ok((Ok::<_, ErrorCode>(flags),))
    })?;
    for name in ["sync", "sync-data"] {
        types.func_wrap_async(&format!("[method]descriptor.{name}"), move |store, (fd,): (Fd,)| {
            on(store, &fd, any, |handle| match handle {
                Handle::File(file) => file.sync(),
                Handle::Dir(dir) => dir.sync(),
            })
        })?;
    }
    types.func_wrap_async("[method]descriptor.set-times", move |store, (fd, access, change): (Fd, NewTimestamp, NewTimestamp)| {
        on(store, &fd, any, move |handle| match (handle, times(access, change)?) {
            (Handle::File(file), times) => file.set_times(times),
            (Handle::Dir(dir), times) => dir.set_own_times(times),
        })
    })
}

/// What is done with an open file.
fn files(types: &mut Interface<'_>) -> wasmtime::Result<()> {
    types.func_wrap_async("[method]descriptor.read", |store, (fd, length, offset): (Fd, u64, u64)| {
        let most = usize::try_from(length).unwrap_or(usize::MAX).min(FILE_CHUNK);
        in_file(store, &fd, move |file| {
            let bytes = file.read(offset, most)?;
            let end = bytes.is_empty() && most > 0;
            Ok((bytes, end))
        })
    })?;
    types.func_wrap_async("[method]descriptor.write", |store, (fd, bytes, offset): (Fd, Vec<u8>, u64)| {
        in_file(store, &fd, move |file| file.write(Some(offset), &bytes).map(|written| written as u64))
    })?;
    types.func_wrap_async("[method]descriptor.set-size", |store, (fd, size): (Fd, u64)| {
        in_file(store, &fd, move |file| file.set_size(size))
    })?;
    // Advice is only advice.
    types.func_wrap("[method]descriptor.advise", |store, (fd, _, _, _): (Fd, u64, u64, Advice)| {
        Ok((store.data().table.get(&fd)?.file().map(drop),))
    })
}

fn streams(types: &mut Interface<'_>) -> wasmtime::Result<()> {
    types.func_wrap("[method]descriptor.read-via-stream", |mut store, (fd, offset): (Fd, u64)| {
        let state = store.data_mut();
        let file = match state.table.get(&fd)?.file() {
            Ok(file) if file.reads() => file,
            Ok(_) => return Ok((Err(ErrorCode::BadDescriptor),)),
            Err(code) => return Ok((Err(code),)),
        };
        let reader: DynInputStream = Box::new(Reader::new(file, offset));
        Ok((Ok(state.table.push(reader)?),))
    })?;
    let write =
        |mut store: StoreContextMut<'_, State>, fd: Fd, at: Option<u64>| -> wasmtime::Result<(Result<Resource<DynOutputStream>, _>,)> {
            let state = store.data_mut();
            let file = match state.table.get(&fd)?.file() {
                Ok(file) if file.writes() => file,
                Ok(_) => return Ok((Err(ErrorCode::BadDescriptor),)),
                Err(code) => return Ok((Err(code),)),
            };
            let writer: DynOutputStream = Box::new(Writer::new(file, at, Arc::clone(&state.hint)));
            Ok((Ok(state.table.push(writer)?),))
        };
    types.func_wrap("[method]descriptor.write-via-stream", move |store, (fd, offset): (Fd, u64)| write(store, fd, Some(offset)))?;
    types.func_wrap("[method]descriptor.append-via-stream", move |store, (fd,): (Fd,)| write(store, fd, None))
}

/// What is asked and opened by path.
fn paths(types: &mut Interface<'_>) -> wasmtime::Result<()> {
    types.func_wrap_async("[method]descriptor.stat-at", |store, (fd, flags, path): (Fd, PathFlags, String)| {
        in_dir(store, &fd, move |dir| dir.stat_at(follows(flags), &path).map(|stat| described(&stat)))
    })?;
    types.func_wrap_async("[method]descriptor.metadata-hash-at", |store, (fd, flags, path): (Fd, PathFlags, String)| {
        in_dir(store, &fd, move |dir| dir.stat_at(follows(flags), &path).map(|stat| identity(&stat)))
    })?;
    types.func_wrap_async("[method]descriptor.readlink-at", |store, (fd, path): (Fd, String)| {
        in_dir(store, &fd, move |dir| dir.read_link(&path))
    })?;
    types.func_wrap_async(
        "[method]descriptor.open-at",
        |mut store, (fd, follow, path, open, flags): (Fd, PathFlags, String, OpenFlags, DescriptorFlags)| {
            let dir = store.data().table.get(&fd).map(Handle::dir);
            Box::new(async move {
                let (dir, how) = match (dir?, how(follow, open, flags)) {
                    (Ok(dir), Ok(how)) => (dir, how),
                    (Err(code), _) | (_, Err(code)) => return Ok((Err(code),)),
                };
                let opened = blocking(move || dir.open(&path, how)).await?;
                let state = store.data_mut();
                Ok((match opened {
                    Ok(node) => Ok(state.table.push(Handle::of(node))?),
                    Err(error) => Err(code(&error, &state.hint)),
                },))
            })
        },
    )
}

/// What changes a folder.
fn changes(types: &mut Interface<'_>) -> wasmtime::Result<()> {
    types.func_wrap_async("[method]descriptor.create-directory-at", |store, (fd, path): (Fd, String)| {
        in_dir(store, &fd, move |dir| dir.make_dir(&path))
    })?;
    types.func_wrap_async("[method]descriptor.remove-directory-at", |store, (fd, path): (Fd, String)| {
        in_dir(store, &fd, move |dir| dir.remove_dir(&path))
    })?;
    types.func_wrap_async("[method]descriptor.unlink-file-at", |store, (fd, path): (Fd, String)| {
        in_dir(store, &fd, move |dir| dir.remove_file(&path))
    })?;
    types.func_wrap_async(
        "[method]descriptor.set-times-at",
        |store, (fd, flags, path, access, change): (Fd, PathFlags, String, NewTimestamp, NewTimestamp)| {
            in_dir(store, &fd, move |dir| dir.set_times(follows(flags), &path, times(access, change)?))
        },
    )?;
    types.func_wrap_async("[method]descriptor.rename-at", |store, (fd, from, other, to): (Fd, String, Fd, String)| {
        let other = store.data().table.get(&other).map(Handle::dir);
        let pick = |handle: &Handle| Ok((handle.dir()?, other));
        on(store, &fd, pick, move |(dir, other)| {
            let other = other.map_err(|_| Errno::BADF)?.map_err(|_| Errno::NOTDIR)?;
            dir.rename(&from, &other, &to)
        })
    })?;
    types.func_wrap_async("[method]descriptor.symlink-at", |store, (fd, _, path): (Fd, String, String)| {
        in_dir(store, &fd, move |dir| Err::<(), _>(dir.link(&path)))
    })?;
    types.func_wrap_async("[method]descriptor.link-at", |store, (fd, _, _, _, path): (Fd, PathFlags, String, Fd, String)| {
        in_dir(store, &fd, move |dir| Err::<(), _>(dir.link(&path)))
    })
}

fn listings(types: &mut Interface<'_>) -> wasmtime::Result<()> {
    types.func_wrap_async("[method]descriptor.read-directory", |mut store, (fd,): (Fd,)| {
        let dir = store.data().table.get(&fd).map(Handle::dir);
        Box::new(async move {
            let dir = match dir? {
                Ok(dir) => dir,
                Err(code) => return Ok((Err(code),)),
            };
            let listing = blocking(move || dir.list()).await?;
            let state = store.data_mut();
            Ok((match listing {
                Ok(listing) => Ok(state.table.push(Names { ready: VecDeque::new(), listing: Some(listing) })?),
                Err(error) => Err(code(&error, &state.hint)),
            },))
        })
    })?;
    types.func_wrap_async("[method]directory-entry-stream.read-directory-entry", |mut store, (names,): (Resource<Names>,)| {
        let taken = store.data_mut().table.get_mut(&names).map(|names| match names.ready.pop_front() {
            Some(next) => Ok(next),
            None => Err(names.listing.take()),
        });
        Box::new(async move {
            let mut listing = match taken? {
                Ok(next) => return Ok((Ok(Some(listed(next))),)),
                Err(Some(listing)) => listing,
                Err(None) => return Ok((Err(ErrorCode::Busy),)),
            };
            let (read, listing) = blocking(move || (listing.more(), listing)).await?;
            let state = store.data_mut();
            let names = state.table.get_mut(&names)?;
            names.listing = Some(listing);
            let next = read.map(|more| {
                names.ready = more;
                names.ready.pop_front().map(listed)
            });
            Ok((next.map_err(|error| code(&error, &state.hint)),))
        })
    })
}
