//! The types of `wasi:filesystem`, from and to those of the power.

use rustix::io::Errno;
use wasmtime_wasi::p2::bindings::clocks::wall_clock::Datetime;
use wasmtime_wasi::p2::bindings::filesystem::types::{
    DescriptorFlags, DescriptorStat, DescriptorType, DirectoryEntry, ErrorCode, MetadataHashValue, NewTimestamp, OpenFlags, PathFlags,
};

use crate::power::files::{FilesError, Kind, Listed, Open, Stamp, Stat, Times};

pub(super) fn follows(flags: PathFlags) -> bool {
    flags.contains(PathFlags::SYMLINK_FOLLOW)
}

pub(super) fn how(follow: PathFlags, open: OpenFlags, flags: DescriptorFlags) -> Result<Open, ErrorCode> {
    let synced = [DescriptorFlags::FILE_INTEGRITY_SYNC, DescriptorFlags::DATA_INTEGRITY_SYNC, DescriptorFlags::REQUESTED_WRITE_SYNC];
    if synced.into_iter().any(|flag| flags.contains(flag)) {
        return Err(ErrorCode::Unsupported);
    }
    Ok(Open {
        follow: follows(follow),
        create: open.contains(OpenFlags::CREATE),
        directory: open.contains(OpenFlags::DIRECTORY),
        exclusive: open.contains(OpenFlags::EXCLUSIVE),
        truncate: open.contains(OpenFlags::TRUNCATE),
        read: flags.contains(DescriptorFlags::READ),
        write: flags.contains(DescriptorFlags::WRITE),
    })
}

pub(super) fn kind(kind: Kind) -> DescriptorType {
    match kind {
        Kind::File => DescriptorType::RegularFile,
        Kind::Folder => DescriptorType::Directory,
        Kind::Link => DescriptorType::SymbolicLink,
        Kind::Fifo => DescriptorType::Fifo,
        Kind::Socket => DescriptorType::Socket,
        Kind::Block => DescriptorType::BlockDevice,
        Kind::Character => DescriptorType::CharacterDevice,
        Kind::Unknown => DescriptorType::Unknown,
    }
}

pub(super) fn listed(listed: Listed) -> DirectoryEntry {
    DirectoryEntry { type_: kind(listed.kind), name: listed.name }
}

pub(super) fn described(stat: &Stat) -> DescriptorStat {
    let time = |(secs, nanoseconds): (i64, u32)| Some(Datetime { seconds: u64::try_from(secs).ok()?, nanoseconds });
    let [access, content, status] = stat.times.map(time);
    DescriptorStat {
        type_: kind(stat.kind),
        link_count: stat.links,
        size: stat.size,
        data_access_timestamp: access,
        data_modification_timestamp: content,
        status_change_timestamp: status,
    }
}

pub(super) fn identity(stat: &Stat) -> MetadataHashValue {
    let (device, inode) = stat.identity;
    MetadataHashValue { lower: inode, upper: device }
}

pub(super) fn times(access: NewTimestamp, change: NewTimestamp) -> Result<Times, FilesError> {
    let stamp = |new| {
        Ok(match new {
            NewTimestamp::NoChange => Stamp::Keep,
            NewTimestamp::Now => Stamp::Now,
            NewTimestamp::Timestamp(Datetime { seconds, nanoseconds }) if nanoseconds < 1_000_000_000 => {
                Stamp::At(i64::try_from(seconds).map_err(|_| Errno::OVERFLOW)?, nanoseconds)
            }
            NewTimestamp::Timestamp(_) => return Err(FilesError::System(Errno::INVAL)),
        })
    };
    Ok(Times { access: stamp(access)?, change: stamp(change)? })
}
